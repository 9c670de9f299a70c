"""Locks as text and as a diff."""

from __future__ import annotations

from dataclasses import replace

from longrun.lock.lockfile import Moves, differences, lock_text, retold
from longrun.model import Distribution, Lock, Package
from longrun.specs import parse_spec


def dist(name: str, version: str = "1.0", **more) -> Distribution:
    file = f"{name}-{version}-py3-none-any.whl"
    given = {"file": file, "size": 10, "sha256": "a" * 64, "tag": "py3-none-any"} | more
    return Distribution(name=name, version=version, **given)


def lock(*rows: Distribution, tag: str = "cp313", build: tuple[Distribution, ...] = ()) -> Lock:
    return Lock(
        release="2026.1",
        interpreter=tag,
        python="3.13.5",
        platform="manylinux_2_28_x86_64",
        distribution=rows,
        build=build,
    )


def package(name: str, constraint: str = "") -> Package:
    return Package(name=name, layer="base", why="", owner="", imports=(), constraint=constraint)


def why(old: Lock | None, new: Lock, **more) -> dict[str, str]:
    packages = {p.name: p for p in more.pop("packages", ())}
    found = differences({"cp313": old}, {"cp313": new}, Moves(packages=packages, **more))
    return {f"{change.kind} {change.name}": change.why for change in found}


def test_the_text_is_read_back_as_the_same_lock():
    odd = 'a "quoted" \\ back\x7f\x01 Ünicode \u2028 line'
    made = lock(
        dist("a", summary=odd, licence="MIT", extras=("x", "y")),
        dist("b", required_by={"a": ">=1,<2", "0d": ""}),
        build=(dist("c", required_by={"b": ""}),),
    )
    text = lock_text(made)
    assert parse_spec(text, Lock, "x") == made
    assert text == lock_text(parse_spec(text, Lock, "x"))


def test_order_does_not_matter_and_each_fact_has_its_line():
    rows = (dist("b", required_by={"z": ">=1", "a": ""}), dist("a"))
    text = lock_text(lock(*rows))
    assert text == lock_text(lock(*reversed(rows)))
    assert text.startswith("# Written by ./build.py lock")
    assert text.index('name = "a"') < text.index('name = "b"')
    assert '[distribution.required_by]\na = ""\nz = ">=1"\n' in text
    assert "extras" not in text
    assert "licence" not in text


def test_one_change_is_one_change_in_the_text():
    one = lock(dist("a"), dist("b", required_by={"a": ""}))
    other = lock(dist("a"), dist("b", required_by={"a": "", "c": ">=2"}), dist("c"))
    old, new = lock_text(one).splitlines(), lock_text(other).splitlines()
    assert [line for line in old if line not in new] == []


def test_added_removed_and_why():
    old = lock(dist("app"), dist("gone", required_by={"app": ""}), dist("spec"))
    new = lock(dist("app", "2.0"), dist("came", required_by={"app": ">=1"}), dist("mine"))
    assert why(old, new, packages=[package("mine"), package("app")]) == {
        "added came": "asked for by app (>=1)",
        "added mine": "specs/packages/mine.toml",
        "moved app": "so that all go together",
        "removed gone": "app no longer asks for it",
        "removed spec": "its spec is gone",
    }


def test_what_goes_with_its_asker():
    old = lock(dist("app"), dist("deep", required_by={"app": ""}))
    assert why(old, lock())["removed deep"] == "nothing asks for it: app is gone"


def test_why_something_moved():
    old = lock(dist("a", "1.0"))
    new = lock(dist("a", "2.0"))
    asked = lock(dist("a", "2.0", required_by={"b": ">=2"}))
    spec = package("a", ">=2")
    assert why(old, new, packages=[spec])["moved a"] == "specs/packages/a.toml asks for >=2"
    assert why(old, asked)["moved a"] == "b asks for >=2"
    assert why(old, new, upgrade=frozenset({"a"}))["moved a"] == "--upgrade a"
    assert why(old, new, upgrade_all=True)["moved a"] == "--upgrade-all"


def test_what_moved_because_its_own_needs_could_not_stay():
    old = lock(dist("a", "2.0"), dist("lib", "1.0", required_by={"a": "<2"}))
    new = lock(dist("a", "1.0"), dist("lib", "2.0", required_by={"a": ""}))
    assert why(old, new)["moved a"] == "2.0 asks for lib<2, which is 2.0"


def test_another_file_of_the_same_version():
    old = lock(dist("a"))
    new = lock(dist("a", file="a-1.0-1-py3-none-any.whl"))
    assert why(old, new) == {"filed a": "another file of the same version"}


def test_what_is_alike_in_two_interpreters_is_one_change():
    new = {tag: lock(dist("a"), dist("b", tag), tag=tag) for tag in ("cp313", "cp311")}
    found = differences({"cp313": None, "cp311": None}, new, Moves(packages={}))
    assert [(change.name, change.tags) for change in found] == [
        ("a", ("cp313", "cp311")),
        ("b", ("cp311",)),
        ("b", ("cp313",)),
    ]


def test_what_only_builds_have_is_told_apart():
    new = lock(build=(dist("wheel", required_by={"a": ""}),))
    (change,) = differences({"cp313": lock()}, {"cp313": new}, Moves(packages={}))
    assert change.build


def test_entries_that_only_tell_something_else():
    old = lock(dist("a"), dist("b"))
    new = lock(replace(dist("a"), required_by={"c": ""}), dist("b"), dist("c"))
    assert retold({"cp313": old}, {"cp313": new}) == 1
    assert retold({"cp313": None}, {"cp313": new}) == 0
