from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from job_maker import make_job

from longrun.errors import BuildError
from longrun.fs import scan
from longrun.model import Floor, Interpreter, LayerPrefix, Lifecycle, Source
from longrun.seal import MARKER
from longrun.steps import layer
from longrun.steps.job import Job

INTERPRETER = Interpreter(
    name="cpython-3.13",
    version="3.13.5",
    licence="PSF-2.0",
    lifecycle=Lifecycle(released="2025-06-11", end_of_life="2029-10-31"),
    source=Source(file="x", sha256="a" * 64, size=1),
    libraries=(),
    modules=(),
)
SPEC = LayerPrefix(
    release="2026.1",
    layer="controls",
    interpreter=INTERPRETER,
    distributions={"one": "1.0", "two": "2.0"},
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def job_with(tmp_path: Path, **wheels: dict[str, str]) -> Job:
    """A job of a prefix and some wheels' files."""
    marker = json.dumps({"release": "2026.1", "glibc": "2.28"})
    base = tree(tmp_path / "prefix", {MARKER: marker, "lib/python3.13/os.py": "x"})
    (base / "bin").mkdir()
    (base / "bin/python3").symlink_to("python3.13")
    inputs = {"prefix/cpython-3.13": base}
    for name, files in wheels.items():
        inputs[f"wheel/cp313-{name}"] = tree(tmp_path / name, files)
    job = make_job(tmp_path / "job", SPEC, inputs)
    return dataclasses.replace(job, files=lambda step: scan(inputs[step]))


def test_files_are_linked_and_nothing_is_copied(tmp_path: Path) -> None:
    job = job_with(tmp_path, one={"lib/one.py": "1"}, two={"lib/two.py": "2"})
    layer.assemble(job)
    for path, source in (("lib/one.py", "one"), ("lib/python3.13/os.py", "prefix")):
        assert (job.out / path).samefile(tmp_path / source / path)
    assert (job.out / "bin/python3").readlink() == Path("python3.13")


def test_hashes_come_from_the_inputs(tmp_path: Path) -> None:
    job = job_with(tmp_path, one={"lib/one.py": "1"})
    layer.assemble(job)
    assert job.known == {r.path: r.value for r in scan(job.out) if r.type == "file"}


def test_two_distributions_with_different_files_of_one_name_are_an_error(tmp_path: Path) -> None:
    job = job_with(tmp_path, one={"bin/tool": "1"}, two={"bin/tool": "2"})
    with pytest.raises(BuildError, match=r"cp313-two and wheel/cp313-one both have bin/tool"):
        layer.assemble(job)


def test_two_distributions_may_have_the_same_file(tmp_path: Path) -> None:
    job = job_with(tmp_path, one={"lib/ns/x.py": "1"}, two={"lib/ns/x.py": "1"})
    layer.assemble(job)
    assert (job.out / "lib/ns/x.py").read_text() == "1"


def test_a_file_with_too_many_names_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(31, "Too many links")

    job = job_with(tmp_path, one={"lib/one.py": "1"})
    monkeypatch.setattr("os.link", link)
    layer.assemble(job)
    assert (job.out / "lib/one.py").read_text() == "1"
    assert not (job.out / "lib/one.py").samefile(tmp_path / "one/lib/one.py")


def test_the_marker_says_what_is_installed_and_the_bare_prefixs_stays(tmp_path: Path) -> None:
    job = job_with(tmp_path, one={"lib/one.py": "1"})
    layer.assemble(job)
    layer.mark(job, SPEC)
    marker = json.loads((job.out / MARKER).read_text())
    assert marker["layer"] == "controls"
    assert marker["distributions"] == {"one": "1.0", "two": "2.0"}
    assert marker["glibc"] == Floor(arch="x86_64", glibc="2.28").glibc
    assert "layer" not in json.loads((tmp_path / "prefix" / MARKER).read_text())
    assert MARKER not in job.known  # it is hashed when the entry is made


HOOK = "lib/python3.13/_longrun_usage.py"


def hooked(tmp_path: Path) -> Job:
    """A layer's job whose prefix has a hook; its interpreter is the one that runs the test."""
    job = job_with(tmp_path, one={"lib/one.py": "1"})
    prefix = job.inputs["prefix/cpython-3.13"]
    stale = "lib/python3.13/__pycache__/_longrun_usage.cpython-300.pyc"
    tree(prefix, {HOOK: 'RELEASE = "2026.1"\nLAYER = ""\n', stale: "of the bare prefix"})
    python = prefix / "bin/python3.13"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    layer.assemble(job)
    return job


def test_the_hook_says_of_which_layer_it_is_and_the_bare_prefixs_stays(tmp_path: Path) -> None:
    job = hooked(tmp_path)
    written = layer.name_layer(job, SPEC)
    assert (job.out / HOOK).read_text() == 'RELEASE = "2026.1"\nLAYER = "controls"\n'
    assert 'LAYER = ""' in (job.inputs["prefix/cpython-3.13"] / HOOK).read_text()
    (bytecode,) = (job.out / HOOK).parent.glob("__pycache__/_longrun_usage.*")
    assert written == [job.out / HOOK, bytecode]
    assert b"controls" in bytecode.read_bytes()
    # both are hashed when the entry is made
    assert not {str(path.relative_to(job.out)) for path in written} & set(job.known)


def test_what_the_layer_writes_is_read_only_and_has_its_time(tmp_path: Path) -> None:
    job = hooked(tmp_path)
    layer.stamp(job, layer.name_layer(job, SPEC))
    status = (job.out / HOOK).stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o444, job.epoch)
