"""Who brings what, and what nobody accepted."""

from __future__ import annotations

from longrun.lock.accept import settle
from longrun.model import Distribution, FromSdist, Lock, Package


def lock(
    tag: str = "cp313", build: tuple[Distribution, ...] = (), **asked_by: str | list[str]
) -> Lock:
    """Distributions by name, with who asks for each."""
    rows = tuple(dist(name.replace("_", "-"), askers) for name, askers in asked_by.items())
    return Lock(
        release="r", interpreter=tag, python="", platform="", distribution=rows, build=build
    )


def dist(name: str, askers: str | list[str] = "") -> Distribution:
    names = askers.split() if isinstance(askers, str) else askers
    return Distribution(
        name=name,
        version="1",
        file="",
        size=0,
        sha256="",
        tag="",
        required_by=dict.fromkeys(names, ""),
    )


def packages(*names: str, **brings: str) -> dict[str, Package]:
    found = {name: (name, "") for name in names} | {k: (k, v) for k, v in brings.items()}
    return {
        name: Package(
            name=name, layer="", why="", owner="", imports=(), brings=tuple(names.split())
        )
        for name, names in sorted(found.values())
    }


def yes(_name: str) -> bool:
    return True


def no(_name: str) -> bool:
    return False


def brings(settlement) -> dict[str, tuple[str, ...]]:
    return {name: p.brings for name, p in settlement.packages.items() if p.brings}


def test_an_arrival_belongs_to_the_nearest_package_and_the_first_of_several():
    found = settle(
        packages("a", "b", "c"),
        {"cp313": lock(a="", b="", c="", x="b c", y="x", z="y c")},
        accept=yes,
    )
    assert brings(found) == {"b": ("x", "y"), "c": ("z",)}
    assert [(item.dist.name, item.home) for item in found.accepted] == [
        ("x", "b"),
        ("y", "b"),
        ("z", "c"),
    ]


def test_a_preferred_home():
    asked = {"cp313": lock(a="", new="", x="a new", y="a")}
    assert brings(settle(packages("a", "new"), asked, accept=yes, prefer="new")) == {
        "a": ("y",),
        "new": ("x",),
    }


def test_what_nobody_accepted_is_refused_and_nothing_written_for_it():
    found = settle(packages("a"), {"cp313": lock(a="", x="a", y="x")}, accept=lambda n: n == "y")
    assert [item.dist.name for item in found.refused] == ["x"]
    assert brings(found) == {"a": ("y",)}


def test_what_was_accepted_stays_where_it_is_as_long_as_it_is_brought_there():
    asked = {"cp313": lock(a="", b="", x="a b")}
    found = settle(packages("a", b="x"), asked, accept=no)
    assert brings(found) == {"b": ("x",)}
    assert found.dropped == ()


def test_what_is_brought_by_another_now_moves_without_being_asked_for():
    found = settle(packages("b", a="x"), {"cp313": lock(a="", b="", x="b")}, accept=no)
    assert brings(found) == {"b": ("x",)}
    assert [(d.package, d.name, d.why) for d in found.dropped] == [("a", "x", "b brings it now")]


def test_what_nothing_brings_goes_out():
    found = settle(packages(a="x y"), {"cp313": lock(a="", y="a")}, accept=no)
    assert brings(found) == {"a": ("y",)}
    assert found.dropped[0].why == "nothing brings it any more"


def test_what_has_a_spec_is_not_brought():
    found = settle(packages("x", a="x"), {"cp313": lock(a="", x="a")}, accept=no)
    assert brings(found) == {}
    assert found.dropped[0].why == "it has a spec of its own"


def test_one_interpreter_is_enough_and_both_count():
    locks = {"cp313": lock(a="", x="a"), "cp311": lock("cp311", a="", x="a", y="a")}
    found = settle(packages(a="x y"), locks, accept=no)
    assert brings(found) == {"a": ("x", "y")}
    found = settle(packages("a"), locks, accept=no)
    assert [(item.dist.name, item.tags) for item in found.refused] == [
        ("x", ("cp313", "cp311")),
        ("y", ("cp311",)),
    ]


def test_a_package_of_one_interpreter_does_not_accept_for_the_other():
    made = packages("b", a="x")
    only = Package(
        name="a", layer="", why="", owner="", imports=(), brings=("x",), interpreters=("cp313",)
    )
    made["a"] = only
    locks = {"cp313": lock(a="", b="", x="a b"), "cp311": lock("cp311", b="", x="b")}
    found = settle(made, locks, accept=no)
    assert brings(found) == {"a": ("x",), "b": ("x",)}
    assert found.refused == ()


def test_names_stand_as_they_stood_where_somebody_ordered_them():
    asked = {"cp313": lock(a="", x="a", y="a", z="a")}
    assert brings(settle(packages(a="z x"), asked, accept=yes)) == {"a": ("z", "x", "y")}
    assert brings(settle(packages(a="x z"), asked, accept=yes)) == {"a": ("x", "y", "z")}


def test_what_builds_bring_is_named_by_the_spec_or_accepted():
    made = packages("a")
    made["a"] = Package(
        name="a",
        layer="",
        why="",
        owner="",
        imports=(),
        build=FromSdist(requires=("Setup_Tools>=61",)),
    )
    build = (dist("setup-tools", "a"), dist("wheel", "setup-tools"))
    found = settle(made, {"cp313": lock(build=build, a="")}, accept=no)
    assert [item.dist.name for item in found.refused] == ["wheel"]
    found = settle(made, {"cp313": lock(build=build, a="")}, accept=yes)
    assert brings(found) == {"a": ("wheel",)}


def test_what_came_with_a_package_that_is_gone_was_accepted():
    before = lock(a="", gone="", x="gone a", y="x", sneaked="a")
    after = lock(a="", x="a", y="x", sneaked="a")
    found = settle(packages("a"), {"cp313": after}, accept=no, before=[before])
    assert brings(found) == {"a": ("x", "y")}
    assert [item.dist.name for item in found.refused] == ["sneaked"]
