"""``add`` against a real index on loopback, with uv: one command from a name to spec and locks."""

from __future__ import annotations

import pytest
from shelf import NATIVE

from longrun.specs import parse_spec


@pytest.fixture
def small(desk):
    """`app` of the base layer brings `lib`."""
    desk.shelf.put("lib", "1.0")
    desk.shelf.put("app", "1.0", requires=["lib>=1"])
    desk.package("app")
    desk.run("lock", "--accept-all")
    return desk


def unchanged(desk, *argv: str, status: int) -> str:
    """Run a verb that must fail and change nothing; its complaint."""
    before = desk.files()
    complaint = desk.run(*argv, status=status)
    assert desk.files() == before
    return complaint


def test_a_package_with_what_it_brings(small):
    small.shelf.put("helper", "0.2", licence="BSD-3-Clause")
    small.shelf.put(
        "py-tool",
        "3.1",
        requires=["helper>=0.1", "lib"],
        files={"tool/__init__.py": "", "_tool.py": "", "tests/test_a.py": ""},
    )
    printed = small.run("add", "Py.Tool", "--layer", "controls")
    assert "+ helper 0.2" in printed
    assert "BSD-3-Clause" in printed
    assert "asked for by py-tool (>=0.1)" in printed
    text = (small.checkout.root / "specs/packages/py-tool.toml").read_text()
    assert text.startswith("#:schema ../schema/package.schema.json\n")
    package = small.checkout.specs().packages["py-tool"]
    assert (package.layer, package.owner) == ("controls", "unassigned")
    assert package.why == "What py-tool is."
    assert package.imports == ("tool",)
    assert package.brings == ("helper",)
    for tag in ("cp313", "cp311"):
        assert small.load(tag).find("py-tool").version == "3.1"
    assert "nothing to write" in small.run("lock")


def test_what_is_told_goes_into_the_spec(small):
    small.shelf.put("tool", "1.9", extras=["fast"], requires=['lib; extra == "fast"'])
    small.shelf.put("tool", "2.0", extras=["fast"])
    argv = ("tool[fast]<2", "--layer", "base", "--why", 'It "just" works.', "--owner", "physics")
    small.run("add", *argv)
    package = small.checkout.specs().packages["tool"]
    assert (package.constraint, package.extras) == ("<2", ("fast",))
    assert (package.why, package.owner) == ('It "just" works.', "physics")
    assert small.versions()["tool"] == "1.9"


def test_what_is_locked_does_not_move_and_is_not_asked_for_again(small):
    small.shelf.put("lib", "2.0")
    small.shelf.put("tool", requires=["lib"])
    small.shelf.site.asked.clear()
    small.run("add", "tool", "--layer", "base")
    assert small.versions() == {"app": "1.0", "lib": "1.0", "tool": "1.0"}
    assert small.shelf.asked("app") == 0


def test_what_must_move_for_the_newest_moves_and_is_told(small):
    small.shelf.put("lib", "2.0")
    small.shelf.put("tool", "1.0", requires=["lib"])
    small.shelf.put("tool", "2.0", requires=["lib>=2"])
    printed = small.run("add", "tool", "--layer", "base")
    assert small.versions() == {"app": "1.0", "lib": "2.0", "tool": "2.0"}
    assert "lib 1.0 -> 2.0" in printed
    assert "tool asks for >=2" in printed


def test_a_dry_run_changes_nothing(small):
    small.shelf.put("tool")
    before = small.files()
    assert "would write specs/packages/tool.toml" in small.run(
        "add", "tool", "--layer", "base", "--dry-run"
    )
    document = small.json("add", "tool", "--layer", "base", "--dry-run")
    assert document["changes"][0]["name"] == "tool"
    assert "tool.toml" in document["files"][0]
    assert small.files() == before


def test_what_was_brought_along_gets_a_spec_of_its_own(small):
    printed = small.run("add", "lib", "--layer", "base")
    assert "specs/packages/app.toml: brings lib no more: it has a spec of its own" in printed
    assert small.brings("app") == ()
    assert small.load().packages["lib"].layer == "base"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("app", "--layer", "base"), "app has a spec already: specs/packages/app.toml"),
        (("tool", "--layer", "bases"), "no layer 'bases' (did you mean 'base'?)"),
        (("tool==", "--layer", "base"), "expected a name, with extras and versions if any"),
        (("a @ https://h/a.whl", "--layer", "base"), "neither address nor marker can be locked"),
        (("a; os_name == 'nt'", "--layer", "base"), "neither address nor marker can be locked"),
        (("tool", "--layer", "base", "--python", "3.9"), "no interpreter '3.9'"),
    ],
)
def test_a_command_line_that_does_not_go(small, argv, words):
    assert words in unchanged(small, "add", *argv, status=2)


def test_an_unknown_package(small):
    small.package("pyepics", layer="base")
    (small.checkout.root / "specs/packages/pyepics.toml").unlink()
    complaint = unchanged(small, "add", "lbi", "--layer", "base", status=4)
    assert "no package lbi on the index (did you mean 'lib'?)" in complaint


def test_the_name_of_a_module_is_not_that_of_its_package(small):
    small.checkout.replace("specs/packages/app.toml", 'imports = ["app"]', 'imports = ["epics"]')
    complaint = unchanged(small, "add", "epics", "--layer", "base", status=4)
    assert "did you mean 'app', which has the module epics?" in complaint


def test_only_for_one_interpreter(small):
    small.shelf.put("native", "1.0", tag=NATIVE.format(tag="cp313"))
    complaint = unchanged(small, "add", "native", "--layer", "base", status=3)
    assert "no version of native for cp311 on manylinux_2_28_x86_64" in complaint
    assert "1.0 has wheels only for cp313" in complaint
    assert "./build.py add native --layer base --python 3.13" in complaint
    small.run("add", "native", "--layer", "base", "--python", "3.13")
    assert small.checkout.specs().packages["native"].interpreters == ("cp313",)
    assert "native" not in small.versions("cp311")
    small.load("cp311")


def test_a_dependency_that_only_one_interpreter_has(small):
    small.shelf.put("deep", "1.0", python=">=3.12")
    small.shelf.put("tool", requires=["deep"])
    complaint = unchanged(small, "add", "tool", "--layer", "base", status=3)
    assert "no version of deep for cp311" in complaint
    assert "asked for by tool" in complaint
    assert "--python 3.13" in complaint


def test_a_conflict_with_the_stack(small):
    small.checkout.replace("specs/packages/app.toml", "owner", 'constraint = "<2"\nowner')
    small.shelf.put("tool", requires=["app>=2"])
    small.shelf.put("app", "2.0")
    complaint = unchanged(small, "add", "tool", "--layer", "base", status=3)
    assert "tool asks for app>=2" in complaint
    assert "specs/packages/app.toml asks for app<2" in complaint


def test_only_an_sdist(small):
    small.shelf.put("setuptools", "80")
    small.shelf.put_sdist("tracker", "1.0", requires=["lib"], build='["setuptools>=61"]')
    complaint = unchanged(small, "add", "tracker", "--layer", "base", status=3)
    assert "1.0 has no wheel, only an sdist" in complaint
    assert "tracker-1.0.tar.gz can be built, which needs setuptools>=61" in complaint
    assert "--sdist writes that into [build]" in complaint
    small.run("add", "tracker", "--layer", "base", "--sdist")
    build = small.checkout.specs().packages["tracker"].build
    assert build is not None
    assert build.requires == ("setuptools>=61",)
    assert [dist.name for dist in small.lock().build] == ["setuptools"]
    assert not (small.shelf.directory / "RAN").exists()


def test_an_sdist_without_pyproject_needs_setuptools(small):
    small.shelf.put("setuptools", "80")
    small.shelf.put_sdist("tracker", "1.0")
    small.run("add", "tracker", "--layer", "base", "--sdist")
    text = (small.checkout.root / "specs/packages/tracker.toml").read_text()
    assert '[build]\nrequires = ["setuptools>=40.8.0"]\n' in text
    parse_spec(text, type(small.checkout.specs().packages["app"]), "x")


def test_sdist_is_not_taken_where_there_is_a_wheel(small):
    small.shelf.put_sdist("tool", "1.0")
    small.shelf.put("tool", "1.0")
    small.run("add", "tool", "--layer", "base", "--sdist")
    assert small.checkout.specs().packages["tool"].build is None
    assert small.find("tool").tag == "py3-none-any"


def test_nothing_else_comes_in_with_an_add(small):
    """A spec that was edited by hand brings more: that is for `lock` to show."""
    small.shelf.put("secret")
    small.shelf.put("app", "2.0", requires=["secret"])
    small.checkout.replace("specs/packages/app.toml", "owner", 'constraint = ">=2"\nowner')
    small.shelf.put("tool")
    complaint = unchanged(small, "add", "tool", "--layer", "base", status=3)
    assert "secret 1.0" in complaint
    assert "./build.py lock, first" in complaint


def test_the_index_is_down(small):
    small.shelf.site.server.shutdown()
    small.shelf.site.server.server_close()
    complaint = unchanged(small, "add", "tool", "--layer", "base", status=4)
    assert small.shelf.site.url in complaint
