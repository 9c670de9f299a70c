"""What the build of an interpreter notices by itself; the builds are in tests/integration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longrun.errors import BuildError
from longrun.specs import load_specs
from longrun.steps.interpreter import (
    PREFIX,
    check_modules,
    forget_paths,
    link_partners,
    unpack_series,
)

ROOT = Path(__file__).resolve().parents[2]
SPEC = replace(
    load_specs(ROOT).interpreters["cpython-3.13"],
    modules=("_json", "_ssl"),
    test_modules=("_testcapi",),
)


def dynload(tree: Path, *names: str) -> Path:
    directory = tree / "lib/python3.13/lib-dynload"
    directory.mkdir(parents=True)
    for name in names:
        (directory / f"{name}.cpython-313-x86_64-linux-gnu.so").write_text(name)
    return directory


def test_the_promised_modules_and_no_other_pass(tmp_path):
    dynload(tmp_path, "_json", "_ssl", "_testcapi")
    check_modules(SPEC, tmp_path)


def test_every_missing_module_is_named(tmp_path):
    dynload(tmp_path, "_testcapi")
    with pytest.raises(BuildError, match="not built: _json, _ssl"):
        check_modules(SPEC, tmp_path)


def test_a_module_that_could_not_be_imported_counts_as_missing(tmp_path):
    directory = dynload(tmp_path, "_json", "_testcapi")
    # this is how CPython 3.11 renames it
    (directory / "_ssl_failed.cpython-313-x86_64-linux-gnu.so").write_text("")
    with pytest.raises(BuildError, match="not built: _ssl"):
        check_modules(SPEC, tmp_path)


def test_a_module_that_nobody_promised_is_named(tmp_path):
    dynload(tmp_path, "_json", "_ssl", "_testcapi", "_new")
    with pytest.raises(BuildError, match="not in the spec: _new"):
        check_modules(SPEC, tmp_path)


def test_a_partner_becomes_a_link_to_the_file_that_it_shares(tmp_path):
    directory = dynload(tmp_path, "_ssl", "_hashlib", "_curses", "_curses_panel")
    link_partners(directory)
    for name, target in (("_hashlib", "_ssl"), ("_curses_panel", "_curses")):
        link = directory / f"{name}.cpython-313-x86_64-linux-gnu.so"
        assert link.is_symlink()
        assert link.read_text() == target


def job(tmp_path: Path) -> Any:
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "source").mkdir(parents=True)
    out.mkdir()
    return SimpleNamespace(work=work, out=out)


def test_the_work_directory_is_forgotten_in_text(tmp_path):
    given = job(tmp_path)
    (given.out / "Makefile").write_text(f"A={given.work}/source\nB={given.work}/deps/lib\n")
    forget_paths(given, given.work / "source")
    assert (given.out / "Makefile").read_text() == f"A={PREFIX}/source\nB={PREFIX}/work/deps/lib\n"


def test_a_program_that_holds_the_work_directory_is_an_error(tmp_path):
    given = job(tmp_path)
    (given.out / "python").write_bytes(b"\x7fELF\0" + str(given.work).encode() + b"\0")
    with pytest.raises(BuildError, match="python holds the path of the work directory"):
        forget_paths(given, given.work / "source")


def test_a_patch_that_the_series_lacks_is_named(tmp_path, monkeypatch):
    given = job(tmp_path)
    given.source = lambda name: Path(name)
    monkeypatch.setattr(
        "longrun.steps.interpreter.unpack", lambda archive, into: into.mkdir(parents=True)
    )
    series = replace(SPEC.series[0], patches=("CVE-0000-1.patch",))
    with pytest.raises(BuildError, match=r"patches/CVE-0000-1\.patch is not in it"):
        unpack_series(given, SPEC, series)


@pytest.mark.parametrize("name", ["cpython-3.13", "cpython-3.11"])
def test_every_patch_of_ours_says_why_and_until_when(name):
    patches = load_specs(ROOT).interpreters[name].patches
    on_disk = sorted((ROOT / "patches/cpython" / name.removeprefix("cpython-")).iterdir())
    assert [path.name for path in on_disk] == [Path(patch).name for patch in patches]
    for path in on_disk:
        head = path.read_text().partition("\n--- ")[0]
        for field in ("Subject: ", "Why: ", "Upstream: ", "Goes: "):
            assert f"\n{field}" in f"\n{head}", f"{path.name}: {field}"
