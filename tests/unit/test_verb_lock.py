"""``lock`` against a real index on loopback, with uv: what is locked, and what never is."""

from __future__ import annotations

import hashlib

import pytest
from shelf import NATIVE, NEWER
from web import status

from longrun import fs as fs_module
from longrun.errors import SpecError
from longrun.verbs.desk import Proposal


@pytest.fixture
def small(desk):
    """`app` asks for `lib`, which is native; both are locked for both interpreters."""
    desk.shelf.put("lib", "1.0", tag=NATIVE.format(tag="cp313"))
    desk.shelf.put("lib", "1.0", tag=NATIVE.format(tag="cp311"))
    desk.shelf.put("app", "1.0", requires=["lib>=1", "nothing; sys_platform == 'win32'"])
    desk.package("app")
    desk.run("lock", "--accept-all")
    return desk


def unchanged(desk, *argv: str, status: int) -> str:
    """Run a verb that must fail and change nothing; its complaint."""
    before = desk.files()
    complaint = desk.run(*argv, status=status)
    assert desk.files() == before
    return complaint


def test_a_lock_says_which_file_is_locked_and_who_asks_for_it(small):
    lib = small.find("lib", "cp311")
    assert lib.file == "lib-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert lib.tag == "cp311-cp311-manylinux_2_28_x86_64"
    content = (small.shelf.directory / lib.file).read_bytes()
    assert (lib.sha256, lib.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert lib.required_by == {"app": ">=1"}
    assert (lib.licence, lib.summary) == ("MIT", "What lib is.")
    assert small.brings("app") == ("lib",)
    assert small.shelf.url not in small.files()[str(_lock_path(small))].decode()
    assert small.load("cp311").lock == small.lock("cp311")


def _lock_path(desk, tag: str = "cp313"):
    return desk.checkout.root / f"specs/locks/2026.1/{tag}.lock.toml"


def test_a_second_run_asks_uv_nothing_and_touches_no_file(small, monkeypatch):
    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("uv was asked")

    monkeypatch.setattr("longrun.lock.resolve.outcome", never)
    before = {path: path.stat().st_mtime_ns for path in small.checkout.root.rglob("*.toml")}
    assert "nothing to write" in small.run("lock")
    assert "nothing to write" in small.run("lock", "--check")
    assert {path: path.stat().st_mtime_ns for path in small.checkout.root.rglob("*.toml")} == before


def test_what_is_locked_stays_when_something_newer_is_there(small):
    small.shelf.put("app", "2.0", requires=["lib"])
    assert "nothing to write" in small.run("lock")
    assert "--upgrade app" in small.run("lock", "--upgrade", "app")
    assert small.versions()["app"] == "2.0"
    assert small.find("lib").required_by == {"app": ""}


def test_upgrade_moves_only_what_is_named_where_that_goes(small):
    for version in ("2.0", "3.0"):
        small.shelf.put("lib", version)
        small.shelf.put("app", version, requires=["lib>=1"])
    small.run("lock", "--upgrade", "app")
    assert small.versions() == {"app": "3.0", "lib": "1.0"}
    small.shelf.put("app", "4.0", requires=["lib>=2"])
    printed = small.run("lock", "--upgrade", "app")
    assert small.versions() == {"app": "4.0", "lib": "3.0"}
    assert "app asks for >=2" in printed
    small.shelf.put("lib", "5.0")
    assert "--upgrade-all" in small.run("lock", "--upgrade-all")
    assert small.versions()["lib"] == "5.0"


def test_upgrade_of_something_that_is_not_locked(small):
    complaint = unchanged(small, "lock", "--upgrade", "libb", status=2)
    assert "--upgrade libb: nothing of that name is locked (did you mean 'lib'?)" in complaint


def test_a_constraint_that_the_lock_does_not_meet_moves_it(small):
    small.shelf.put("app", "2.0", requires=["lib"])
    small.package("app", 'constraint = ">=2"\nbrings = ["lib"]\n')
    with pytest.raises(SpecError, match=r"asks for app>=2, and .* has 1\.0") as caught:
        small.load()
    assert caught.value.remedy == "./build.py lock"
    assert "not what the specs say" in unchanged(small, "lock", "--check", status=3)
    assert "specs/packages/app.toml asks for >=2" in small.run("lock")
    assert small.load().lock == small.lock()


def test_constraints_may_differ_by_interpreter(small):
    small.shelf.put("app", "2.0", requires=["lib"])
    more = 'constraint = ">=2"\nbrings = ["lib"]\n[constraints]\ncp311 = "<2"\n'
    small.package("app", more)
    small.run("lock")
    assert small.versions("cp313")["app"] == "2.0"
    assert small.versions("cp311")["app"] == "1.0"


def test_an_arrival_is_refused_until_it_is_accepted(small):
    small.shelf.put("extra", "0.3", licence="GPL-3.0-only", requires=["deep"])
    small.shelf.put("deep", "0.1")
    small.shelf.put("app", "2.0", requires=["lib", "extra>=0.2"])
    complaint = unchanged(small, "lock", "--upgrade", "app", status=3)
    assert "extra 0.3  GPL-3.0-only" in complaint
    assert " B  asked for by app (>=0.2)" in complaint
    assert "./build.py lock --accept deep --accept extra" in complaint
    complaint = unchanged(small, "lock", "--upgrade", "app", "--accept", "extra", status=3)
    assert "deep 0.1" in complaint
    assert "extra 0.3" not in complaint
    small.run("lock", "--upgrade", "app", "--accept", "extra", "--accept", "Deep")
    assert small.brings("app") == ("deep", "extra", "lib")
    assert "nothing to write" in small.run("lock")


def test_accepting_what_nothing_brings(small):
    complaint = unchanged(small, "lock", "--accept", "libs", status=2)
    assert "--accept libs: nothing brings it (did you mean 'lib'?)" in complaint


def test_what_nothing_brings_any_more_goes_out(small):
    small.shelf.put("app", "2.0")
    printed = small.run("lock", "--upgrade", "app")
    assert "- lib 1.0" in printed
    assert "app no longer asks for it" in printed
    assert "specs/packages/app.toml: brings lib no more: nothing brings it any more" in printed
    assert small.brings("app") == ()
    assert small.versions() == {"app": "2.0"}


def test_a_spec_that_goes_takes_along_what_it_brought(small):
    small.shelf.put("other")
    small.package("other")
    small.run("lock")
    (small.checkout.root / "specs/packages/app.toml").unlink()
    with pytest.raises(SpecError, match=r"app 1.0 is no package of specs/packages"):
        small.load()
    printed = small.run("lock")
    assert "its spec is gone" in printed
    assert small.versions() == {"other": "1.0"}


def test_what_two_bring_stays_when_one_goes(small):
    small.shelf.put("zebra", requires=["lib"])
    small.package("zebra")
    small.run("lock")
    assert small.brings("zebra") == ()
    (small.checkout.root / "specs/packages/app.toml").unlink()
    small.run("lock")
    assert small.brings("zebra") == ("lib",)
    assert small.versions() == {"lib": "1.0", "zebra": "1.0"}


def test_an_extra_brings_more(small):
    small.shelf.put("fast")
    small.shelf.put("app", "2.0", requires=["lib", 'fast; extra == "speed"'], extras=["speed"])
    small.run("lock", "--upgrade", "app")
    assert "fast" not in small.versions()
    small.package("app", 'extras = ["speed"]\nbrings = ["lib"]\n')
    small.run("lock", "--accept", "fast")
    assert small.find("app").extras == ("speed",)
    assert small.find("fast").required_by == {"app": ""}


def test_an_unknown_package_in_a_spec(small):
    small.package("apq")
    complaint = unchanged(small, "lock", status=4)
    assert "no package apq on the index (did you mean 'app'?)" in complaint
    assert "specs/packages/apq.toml" in complaint


def test_an_unknown_dependency_names_who_asks_for_it(small):
    small.shelf.put("broken", requires=["never-heard-of>=1"])
    small.package("broken")
    complaint = unchanged(small, "lock", status=4)
    assert "no package never-heard-of on the index" in complaint
    assert "asked for by broken" in complaint


def test_no_version_for_one_interpreter_says_which_and_what_there_is(small):
    for version in ("1.3", "1.4"):
        small.shelf.put("native", version, tag=NATIVE.format(tag="cp313"))
    small.shelf.put("native", "1.3", tag=NATIVE.format(tag="cp311"))
    small.package("native", 'constraint = ">=1.4"\n')
    complaint = unchanged(small, "lock", status=3)
    assert "no version of native>=1.4 for cp311 on manylinux_2_28_x86_64" in complaint
    assert "newest that fits: 1.3; 1.4 has wheels only for cp313" in complaint
    assert "leave cp311 out of its `interpreters`" in complaint
    small.package("native", 'constraint = ">=1.4"\ninterpreters = ["cp313"]\n')
    small.run("lock")
    assert "native" in small.versions("cp313")
    assert "native" not in small.versions("cp311")


def test_an_interpreter_that_requires_python_leaves_out(small):
    small.shelf.put("modern", "2.0", python=">=3.12")
    small.package("modern")
    complaint = unchanged(small, "lock", status=3)
    assert "no version of modern for cp311" in complaint
    assert "2.0 needs Python >=3.12" in complaint


def test_a_wheel_above_the_floor_is_refused_with_the_name_of_who_wants_it(small):
    for tag in ("cp313", "cp311"):
        small.shelf.put("high", tag=NEWER.format(tag=tag))
    small.shelf.put("wants-high", requires=["high"])
    small.package("wants-high")
    complaint = unchanged(small, "lock", status=3)
    assert "no version of high for cp313 on manylinux_2_28_x86_64" in complaint
    assert "1.0 has a wheel only for manylinux_2_34_x86_64, above the floor" in complaint
    assert "asked for by wants-high" in complaint


def test_a_conflict_is_told_by_its_causes(small):
    small.shelf.put("lib", "2.0")
    small.shelf.put("old-tool", requires=["lib<2"])
    small.shelf.put("new-tool", requires=["lib>=2"])
    small.package("old-tool")
    small.package("new-tool")
    complaint = unchanged(small, "lock", status=3)
    assert "nothing satisfies all specs for cp313 on manylinux_2_28_x86_64" in complaint
    assert "old-tool" in complaint
    assert "asks for lib<2" in complaint
    assert "asks for lib>=2" in complaint
    assert "specs/packages/new-tool.toml asks for any new-tool" in complaint
    assert "we can conclude" not in complaint
    assert len(complaint.splitlines()) < 10


def test_a_yanked_version_is_not_chosen_and_a_wish_for_it_refused(small):
    small.shelf.put("app", "2.0", requires=["lib"], yanked="eats beam")
    small.run("lock", "--upgrade", "app")
    assert small.versions()["app"] == "1.0"
    small.package("app", 'constraint = "==2.0"\nbrings = ["lib"]\n')
    complaint = unchanged(small, "lock", status=3)
    assert "2.0 is yanked" in complaint
    assert "eats beam" in complaint
    assert "specs/packages/app.toml" in complaint


def test_what_is_yanked_after_it_was_locked_stays_and_is_told(small):
    small.shelf.yank("lib", "lib-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", "bad flag")
    printed = small.run("lock", "--check")
    assert "cp313: lib 1.0 was yanked since it was locked: bad flag" in printed
    assert "cp311: lib" not in printed


def test_what_is_gone_from_the_index_is_told(small):
    small.shelf.remove("app", "app-1.0-py3-none-any.whl")
    printed = small.run("lock")
    assert "app-1.0-py3-none-any.whl is not on the index any more" in printed
    assert small.versions()["app"] == "1.0"


def test_other_bytes_under_the_name_of_a_locked_file(small):
    sha256 = small.find("app").sha256
    small.shelf.link("app", "app-1.0-py3-none-any.whl", b"other")
    complaint = unchanged(small, "lock", status=4)
    assert f"hash mismatch: app-1.0-py3-none-any.whl is locked with sha256 {sha256}" in complaint
    assert hashlib.sha256(b"other").hexdigest() in complaint


def test_the_index_goes_down_half_way(small):
    small.shelf.put("late", requires=["lib"])
    small.package("late")
    small.shelf.site.does["/simple/late/"] = status(503)
    complaint = unchanged(small, "lock", status=4)
    assert "/simple/late/" in complaint
    small.shelf.put("late", requires=["lib"])
    del small.shelf.site.does["/files/late-1.0-py3-none-any.whl"]
    complaint = unchanged(small, "lock", status=4)
    assert "late-1.0-py3-none-any.whl" in complaint


def test_an_sdist_is_locked_only_with_a_build_table_and_never_run(small):
    small.shelf.put_sdist("tracker", "0.9", requires=["lib"])
    small.shelf.put_sdist("tracker", "1.0", requires=["lib>=1"])
    small.package("tracker")
    complaint = unchanged(small, "lock", status=3)
    assert "no version of tracker for cp313" in complaint
    assert "1.0 has no wheel, only an sdist" in complaint
    assert "give it a [build] table" in complaint
    small.shelf.put("setuptools", "80", requires=["wheel"])
    small.shelf.put("wheel", "0.4")
    small.package("tracker", '[build]\nrequires = ["setuptools>=61"]\n')
    complaint = unchanged(small, "lock", status=3)
    assert "wheel 0.4" in complaint
    assert "asked for by setuptools" in complaint
    assert "setuptools 80  " not in complaint, "the spec names it"
    small.run("lock", "--accept", "wheel")
    assert small.find("tracker").tag == "sdist"
    assert small.find("tracker").version == "1.0"
    assert small.find("lib").required_by == {"app": ">=1", "tracker": ">=1"}
    build = {dist.name: dist.required_by for dist in small.lock().build}
    assert build == {"setuptools": {"tracker": ">=61"}, "wheel": {"setuptools": ""}}
    assert small.brings("tracker") == ("wheel",)
    assert [dist.name for dist in small.load().build_closure(small.load().packages["tracker"])] == [
        "setuptools",
        "wheel",
    ]
    assert not (small.shelf.directory / "RAN").exists()
    assert "nothing to write" in small.run("lock")


def test_a_build_takes_the_stack_s_own_versions(small):
    small.shelf.put("lib", "2.0")
    small.shelf.put("maker", requires=["lib"])
    small.shelf.put_sdist("tracker", "1.0")
    small.package("tracker", '[build]\nrequires = ["lib", "maker"]\n')
    small.run("lock")
    assert small.versions()["lib"] == "1.0"
    assert [dist.name for dist in small.lock().build] == ["maker"]
    assert small.find("lib").required_by == {"app": ">=1", "maker": ""}
    closure = small.load().build_closure(small.load().packages["tracker"])
    assert [dist.name for dist in closure] == ["lib", "maker"]


def test_a_build_that_wants_another_version_than_the_stack_s(small):
    small.shelf.put("lib", "2.0")
    small.shelf.put_sdist("tracker", "1.0")
    small.package("tracker", '[build]\nrequires = ["lib>=2"]\n')
    complaint = unchanged(small, "lock", status=3)
    assert "lib>=2" in complaint
    assert "lib==1.0" in complaint


def test_metadata_that_are_not_those_that_uv_saw(small, monkeypatch):
    """An index whose metadata beside a file differ from those in it would do this."""
    small.shelf.put("two-faced")
    small.package("two-faced")
    real = "longrun.index.client.Index.metadata"
    monkeypatch.setattr(real, lambda self, file: "Requires-Dist: surprise>=1\n")
    complaint = unchanged(small, "lock", status=4)
    assert "does not agree with the distributions' own metadata" in complaint
    assert "surprise is missing, which two-faced asks for" in complaint


def test_dry_run_and_check_change_nothing(small):
    small.shelf.put("app", "2.0", requires=["lib"])
    before = small.files()
    assert "would write specs/locks/2026.1/cp313" in small.run(
        "lock", "--upgrade", "app", "--dry-run"
    )
    assert "not what the specs say" in small.run("lock", "--upgrade", "app", "--check", status=3)
    assert small.files() == before


def test_json_has_what_a_script_needs(small):
    small.shelf.put("extra", requires=[])
    small.shelf.put("app", "2.0", requires=["lib", "extra"])
    document = small.json("lock", "--upgrade", "app", "--accept-all", "--dry-run")
    assert document["distributions"] == {"cp313": 3, "cp311": 3}
    kinds = {change["name"]: change["kind"] for change in document["changes"]}
    assert kinds == {"app": "moved", "extra": "added"}
    assert document["changes"][0]["interpreters"] == ["cp313", "cp311"]
    assert document["brings"]["accepted"][0]["name"] == "extra"
    assert "specs/packages/app.toml" in document["files"]


def test_a_kill_between_two_files_is_seen_and_mended(small, monkeypatch):
    small.shelf.put("extra")
    small.shelf.put("app", "2.0", requires=["lib", "extra"])

    class Killed(BaseException):
        pass

    renamed = []

    def die(temporary, target):
        if len(renamed) == 2:
            raise Killed
        renamed.append(target.name)
        temporary.rename(target)

    monkeypatch.setattr(fs_module, "rename", die)
    small.package("app", 'constraint = ">=2"\nbrings = ["lib"]\n')
    with pytest.raises(Killed):
        small.run("lock", "--accept", "extra")
    assert renamed == ["app.toml", "cp313.lock.toml"]
    assert small.load("cp313").lock.distribution
    with pytest.raises(SpecError) as caught:
        small.load("cp311")
    assert caught.value.remedy == "./build.py lock"
    monkeypatch.setattr(fs_module, "rename", lambda old, new: old.rename(new))
    small.run("lock")
    assert small.load("cp311").lock == small.lock("cp311")
    left = [path.name for path in small.checkout.root.rglob(".*.staged")]
    assert left == []


def test_specs_that_change_while_lock_runs(small, monkeypatch):
    small.shelf.put("app", "2.0", requires=["lib"])

    def edit(_proposal: Proposal) -> None:
        small.package("app", 'brings = ["lib"]\nextras = ["speed"]\n')

    monkeypatch.setattr(Proposal, "check", edit)
    complaint = small.run("lock", "--upgrade", "app", status=3)
    assert "changed while this command ran" in complaint
    assert small.versions()["app"] == "1.0"


def test_a_new_interpreter_version_resolves_anew_and_keeps_what_it_can(small):
    small.shelf.put("app", "2.0", requires=["lib"])
    small.checkout.replace("specs/interpreters/cpython-3.13.toml", '"3.13.5"', '"3.13.6"')
    small.run("lock")
    assert small.lock().python == "3.13.6"
    assert small.versions()["app"] == "1.0"


def test_comments_in_specs_stay(small):
    text = (
        'name = "app"\nlayer = "base"\nwhy = "a test"  # why not\nowner = "tests"\n'
        'imports = ["app"]\n'
        'brings = [\n    "lib",  # its numbers\n]\n'
    )
    path = small.checkout.write("specs/packages/app.toml", text)
    small.shelf.put("zlibx")
    small.shelf.put("app", "2.0", requires=["lib", "zlibx"])
    small.run("lock", "--upgrade", "app", "--accept-all")
    assert '"lib",  # its numbers\n' in path.read_text()
    assert "# why not" in path.read_text()
    assert small.brings("app") == ("lib", "zlibx")


def test_a_lock_that_a_merge_broke(small):
    path = _lock_path(small)
    path.write_text("<<<<<<< ours\n" + path.read_text())
    complaint = unchanged(small, "lock", status=3)
    assert "specs/locks/2026.1/cp313.lock.toml: not TOML" in complaint
    assert "take it as it was on one side, then ./build.py lock" in complaint


def test_locks_are_the_same_bytes_wherever_they_are_made(small, tmp_path, monkeypatch):
    """From nothing, with other caches, at another time."""
    texts = {tag: _lock_path(small, tag).read_bytes() for tag in ("cp313", "cp311")}
    for tag in texts:
        _lock_path(small, tag).unlink()
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "another"))
    small.run("lock")
    assert {tag: _lock_path(small, tag).read_bytes() for tag in texts} == texts
