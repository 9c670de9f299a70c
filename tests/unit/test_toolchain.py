"""The toolchain's scripts, its environment, and the merge of libraries."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from job_maker import make_job

from longrun.errors import BuildError
from longrun.model import Source, Toolchain
from longrun.steps.job import Job
from longrun.steps.toolchain import check_directory, environment, merge_deps, write_scripts

SPEC = Toolchain(
    name="cc",
    version="1",
    licence="MIT",
    summary="a compiler",
    source=Source(file="cc.whl", sha256="0" * 64, size=1),
    cflags=("-fPIC", "-DNAME='a b'"),
    ldflags=("-Wl,-z,now",),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A toolchain whose compiler prints its arguments."""
    tree = tmp_path / "toolchain"
    (tree / "ziglang").mkdir(parents=True)
    zig = tree / "ziglang/zig"
    zig.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    zig.chmod(0o755)
    write_scripts(tree / "bin", SPEC)
    return tree


@pytest.fixture
def made(tmp_path: Path, tree: Path) -> Job:
    """A job with the toolchain and one library."""
    library = tmp_path / "zlib"
    (library / "include").mkdir(parents=True)
    (library / "include/zlib.h").write_text("")
    return make_job(tmp_path / "job", SPEC, {"toolchain/cc": tree, "library/zlib": library})


def call(job: Job, *argv: str) -> str:
    """What a script prints."""
    done = subprocess.run(argv, env=environment(job), check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_arguments_arrive_as_they_were_given(made: Job) -> None:
    odd = ["-DX='$HOME \"q\"'", "a b.c", "*", "", "-o", "back\\slash"]
    argv = json.loads(call(made, "cc", *odd))
    at = argv.index(odd[0])
    assert argv[at : at + len(odd)] == odd


def test_compiler_gets_target_flags_and_libraries(made: Job) -> None:
    argv = json.loads(call(made, "cc", "-c", "x.c"))
    assert argv[:3] == ["cc", "-target", "x86_64-linux-gnu.2.28"]
    assert {"-fPIC", "-DNAME='a b'", "-Wl,-z,now"} <= set(argv)
    assert f"-ffile-prefix-map={made.work}=." in argv
    assert argv[-3:] == ["-isystem", f"{made.work}/deps/include", f"-L{made.work}/deps/lib"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("-dumpmachine", "x86_64-linux-gnu"),
        ("--print-multiarch", "x86_64-linux-gnu"),
        ("-print-prog-name=ld", "ld"),
    ],
)
def test_compiler_answers_without_the_host(made: Job, question: str, answer: str) -> None:
    assert call(made, "cc", question) == answer


@pytest.mark.parametrize(("given", "passed"), [("crU", "cr"), ("-curvU", "-curv"), ("crs", "crs")])
def test_archives_hold_no_times(made: Job, given: str, passed: str) -> None:
    argv = json.loads(call(made, "ar", given, "libU.a", "U.o"))
    assert argv == ["ar", passed, "libU.a", "U.o"]


def test_tools_that_zig_lacks_do_not_fall_through_to_the_host(made: Job) -> None:
    done = subprocess.run(["strip", "x"], env=environment(made), check=False, capture_output=True)
    assert done.returncode == 1
    assert b"strip: this toolchain has none" in done.stderr


def test_no_path_is_in_what_a_configure_script_records(made: Job) -> None:
    env = environment(made)
    recorded = ("CC", "CXX", "CPP", "AR", "RANLIB", "LD", "NM", "STRIP", "PKG_CONFIG")
    assert not [name for name in recorded if "/" in env[name]]


@pytest.mark.parametrize("name", ["with space", "with:colon", "it's", "a$b", "tab\t"])
def test_directories_that_make_cannot_take_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildError) as caught:
        check_directory(tmp_path / name)
    assert name in caught.value.message
    assert "letters, digits" in caught.value.remedy


def test_libraries_are_merged_by_links(made: Job) -> None:
    deps = merge_deps(made)
    assert (deps / "include/zlib.h").is_symlink()
    assert (deps / "lib").is_dir()
    assert merge_deps(made) == deps


def test_two_libraries_with_one_path_are_an_error(made: Job, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "include").mkdir(parents=True)
    (other / "include/zlib.h").write_text("")
    job = dataclasses.replace(made, inputs={**made.inputs, "library/other": other})
    with pytest.raises(BuildError, match=r"include/zlib\.h"):
        merge_deps(job)


def test_caches_stay_below_the_cache_directory(made: Job) -> None:
    env = environment(made)
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        assert Path(env[name]).is_relative_to(made.cache)
    assert env["PATH"].split(os.pathsep)[0] == str(made.inputs["toolchain/cc"] / "bin")
