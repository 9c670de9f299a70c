from __future__ import annotations

import csv
import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from elf_maker import make_elf
from job_maker import make_job
from wheel_maker import make_wheel

from longrun import elf
from longrun.errors import BuildError
from longrun.fs import scan, sha256_file, tree_digest
from longrun.model import Source, Wheel
from longrun.steps import wheel
from longrun.steps.job import Job
from longrun.steps.wheel import encoded

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PACKAGES = f"lib/python{VERSION}/site-packages"


def job_for(directory: Path, file: Path, name: str = "demo") -> Job:
    """A job that installs a wheel for the Python that runs the tests."""
    interpreter = directory / "interpreter"
    (interpreter / "bin").mkdir(parents=True)
    (interpreter / "bin" / f"python{VERSION}").symlink_to(sys.executable)
    source = Source(file=file.name, sha256="a" * 64, size=1, index=f"{name}==1.0")
    spec = Wheel(name=name, version="1.0", tag=TAG, source=source)
    inputs = {f"source/{name}-py3-none": file.parent, "interpreter/cpython": interpreter}
    return make_job(directory / "job", spec, inputs)


def install(tmp_path: Path, **options: object) -> Job:
    file = make_wheel(tmp_path / "source", **options)  # type: ignore[arg-type]
    job = job_for(tmp_path, file)
    wheel.build(job)
    return job


def rows(out: Path) -> dict[str, tuple[str, str]]:
    text = (out / PACKAGES / "demo-1.0.dist-info" / "RECORD").read_text()
    return {path: (checksum, size) for path, checksum, size in csv.reader(text.splitlines())}


def test_files_are_where_a_prefix_has_them(tmp_path: Path) -> None:
    job = install(
        tmp_path,
        files={
            "demo/__init__.py": "",
            "demo-1.0.data/data/share/demo/table.txt": "1 2\n",
            "demo-1.0.data/headers/demo.h": "int demo;\n",
            "demo-1.0.data/purelib/other.py": "",
        },
    )
    assert (job.out / PACKAGES / "demo/__init__.py").is_file()
    assert (job.out / PACKAGES / "other.py").is_file()
    assert (job.out / "share/demo/table.txt").read_text() == "1 2\n"
    assert (job.out / f"include/python{VERSION}/demo/demo.h").is_file()


def test_record_lists_every_file_with_its_true_hash_and_size(tmp_path: Path) -> None:
    job = install(tmp_path, entry_points="[console_scripts]\ndemo = demo:main\n")
    listed = rows(job.out)
    records = {os.path.relpath(r.path, PACKAGES): r for r in scan(job.out) if r.type == "file"}
    assert set(listed) == set(records)
    own = "demo-1.0.dist-info/RECORD"
    assert listed.pop(own) == ("", "")
    for path, found in listed.items():
        assert found == (f"sha256={encoded(records[path].value)}", str(records[path].size))
    assert any(path.endswith(".pyc") for path in listed)


def test_installer_is_named(tmp_path: Path) -> None:
    job = install(tmp_path)
    assert (job.out / PACKAGES / "demo-1.0.dist-info/INSTALLER").read_text() == "longrun\n"


def test_known_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    job = install(tmp_path, entry_points="[console_scripts]\ndemo = demo:main\n")
    assert job.known == {r.path: r.value for r in scan(job.out) if r.type == "file"}


def run_script(job: Job, name: str, elsewhere: Path) -> str:
    """Run a script of the wheel from a prefix that was moved, through a link."""
    elsewhere.mkdir()
    for path in ("bin", "lib"):
        (elsewhere / path).symlink_to(job.out / path)
    job.out.joinpath("bin").chmod(0o755)
    (job.out / "bin" / f"python{VERSION}").symlink_to(sys.executable)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(job.out / PACKAGES)}
    done = subprocess.run([elsewhere / "bin" / name, "x"], env=env, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    return done.stdout


def test_entry_point_starts_the_python_beside_it(tmp_path: Path) -> None:
    source = (
        "import sys\nclass Tool:\n    def main():\n        print(sys.argv[1:])\n        return 3\n"
    )
    job = install(
        tmp_path,
        files={"demo/__init__.py": source},
        entry_points="[console_scripts]\ndemo = demo:Tool.main\n",
    )
    assert run_script(job, "demo", tmp_path / "moved") == "['x']\n"


def test_python_script_starts_the_python_beside_it(tmp_path: Path) -> None:
    script = "#!python\nimport sys, demo\nprint(demo.value)\nsys.exit(3)\n"
    job = install(
        tmp_path,
        files={"demo/__init__.py": "value = 7\n", "demo-1.0.data/scripts/tool.py": script},
    )
    assert run_script(job, "tool.py", tmp_path / "moved") == "7\n"


def test_shell_script_stays_as_it_is(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho hello\n"
    job = install(tmp_path, files={"demo.py": "", "demo-1.0.data/scripts/hello": text})
    assert (job.out / "bin/hello").read_text() == text
    assert os.access(job.out / "bin/hello", os.X_OK)


def test_a_program_inside_a_package_stays_executable(tmp_path: Path) -> None:
    path = "demo/libexec/helper"
    job = install(tmp_path, files={"demo/__init__.py": "", path: "x"}, executable=(path,))
    assert stat.S_IMODE((job.out / PACKAGES / path).stat().st_mode) == 0o555
    assert stat.S_IMODE((job.out / PACKAGES / "demo/__init__.py").stat().st_mode) == 0o444


def test_bytecode_is_valid_whatever_the_times_are(tmp_path: Path) -> None:
    job = install(tmp_path)
    (cached,) = (job.out / PACKAGES / "demo/__pycache__").iterdir()
    assert int.from_bytes(cached.read_bytes()[4:8], "little") == 1  # unchecked hash (PEP 552)
    assert str(job.out).encode() not in cached.read_bytes()
    assert cached.stat().st_mtime == job.epoch


def test_a_file_that_is_no_python_of_today_is_shipped_without_bytecode(tmp_path: Path) -> None:
    job = install(tmp_path, files={"demo/__init__.py": "", "demo/old.py": "print 'hello'\n"})
    assert (job.out / PACKAGES / "demo/old.py").is_file()
    cached = [path.name for path in (job.out / PACKAGES / "demo/__pycache__").iterdir()]
    assert [name.split(".")[0] for name in cached] == ["__init__"]


def test_same_wheel_gives_the_same_bytes(tmp_path: Path) -> None:
    options = {"entry_points": "[console_scripts]\ndemo = demo:main\n"}
    digests = {
        tree_digest(scan(install(tmp_path / name, **options).out)) for name in ("one", "two")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("path", ["../../../../../evil.py", "demo/../../../../../evil.py"])
def test_a_wheel_cannot_write_outside_of_the_prefix(tmp_path: Path, path: str) -> None:
    with pytest.raises(BuildError, match="leads out of the prefix"):
        install(tmp_path, files={"demo/__init__.py": "", path: "x"})
    assert not list(tmp_path.rglob("evil.py"))


def test_a_file_that_record_gives_another_hash_is_refused(tmp_path: Path) -> None:
    record = {"demo/__init__.py": "sha256=" + "A" * 43}
    with pytest.raises(BuildError, match=r"demo/__init__\.py is not as the wheel's RECORD says"):
        install(tmp_path, record=record)


def test_what_is_no_wheel_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "source" / "demo-1.0-py3-none-any.whl"
    file.parent.mkdir()
    file.write_bytes(b"no zip")
    with pytest.raises(BuildError, match=r"demo-1\.0-py3-none-any\.whl: not a valid wheel"):
        wheel.build(job_for(tmp_path, file))


def rebuilt(tmp_path: Path, file: Path, **changes: object) -> Job:
    job = job_for(tmp_path, file)
    job = dataclasses.replace(job, spec=dataclasses.replace(job.spec, **changes))  # type: ignore[type-var]
    wheel.build(job)
    return job


def test_excluded_files_are_not_installed_and_record_does_not_name_them(tmp_path: Path) -> None:
    files = {"demo/__init__.py": "", "demo/win/a.dll": "x", "demo/win/b.dll": "x"}
    file = make_wheel(tmp_path / "source", files=files)
    job = rebuilt(tmp_path, file, exclude=("demo/win/*", "demo/win"))
    assert not (job.out / PACKAGES / "demo/win").exists()
    assert not [path for path in rows(job.out) if "win" in path]


@pytest.mark.parametrize("key", ["exclude", "clean_runpath"])
def test_a_glob_that_matches_nothing_is_an_error(tmp_path: Path, key: str) -> None:
    file = make_wheel(tmp_path / "source")
    with pytest.raises(BuildError, match=rf"demo: {key}: 'nothing/\*' matches no file"):
        rebuilt(tmp_path, file, **{key: ("nothing/*",)})


@pytest.mark.parametrize(
    ("runpath", "cleaned"),
    [
        ("\\$ORIGIN/.:$ORIGIN/.", "$ORIGIN/."),
        ("$ORIGIN/../x.libs:\\$ORIGIN/.", "$ORIGIN/../x.libs"),
        ("/home/qt/lib", ""),
        ("$ORIGIN", "$ORIGIN"),
        ("", ""),
    ],
)
def test_a_runpath_that_leads_out_of_the_prefix_is_taken_out(
    tmp_path: Path, runpath: str, cleaned: str
) -> None:
    library = make_elf(runpath=runpath, needed=("libc.so.6",))
    file = make_wheel(tmp_path / "source", files={"demo/__init__.py": "", "demo/libx.so": library})
    job = rebuilt(tmp_path, file, clean_runpath=("demo/*.so",))
    path = job.out / PACKAGES / "demo/libx.so"
    assert elf.read(path).runpath == cleaned
    assert b"\\$ORIGIN" not in path.read_bytes()
    assert b"/home/qt" not in path.read_bytes()
    assert rows(job.out)["demo/libx.so"][0] == f"sha256={encoded(sha256_file(path))}"
