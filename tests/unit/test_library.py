"""A library's build, with commands that need no compiler."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import pytest
from job_maker import make_job

from longrun.errors import BuildError
from longrun.model import Build, Library, Source
from longrun.steps import library
from longrun.steps.job import Job

PC = """\
prefix=/usr
exec_prefix=/usr
libdir=${exec_prefix}/lib
includedir=/usr/include
Libs: -L/usr/lib -lx
Cflags: -I/usr/include/x -I/opt/usr/include
"""

BUILD = Build(
    commands=(
        ("mkdir", "-p", "{out}/usr/lib/pkgconfig", "{out}/usr/share/man", "{out}/etc"),
        ("cp", "x.pc", "{out}/usr/lib/pkgconfig/"),
        ("cp", "libx.a", "{out}/usr/lib/"),
        ("cp", "x.pc", "{out}/usr/lib/libx.la"),
        ("cp", "x.pc", "{out}/usr/share/man/x.3"),
    ),
    expects=("lib/libx.a", "lib/pkgconfig/x.pc"),
)


def spec(build: Build) -> Library:
    """A library named x."""
    source = Source(file="x-1.tar.gz", sha256="0" * 64, size=1)
    return Library(
        name="x", version="1", licence="MIT", summary="a library", source=source, build=build
    )


@pytest.fixture
def made(tmp_path: Path) -> Job:
    """A job for ``x`` with its source archive and an empty toolchain."""
    source = tmp_path / "x-1"
    source.mkdir()
    for name, text in {"x.pc": PC, "libx.a": "archive", "COPYING": "do as you like\n"}.items():
        (source / name).write_text(text)
    entry = tmp_path / "source"
    entry.mkdir()
    with tarfile.open(entry / "x-1.tar.gz", "w:gz") as archive:
        archive.add(source, "x-1")
    (tmp_path / "toolchain/bin").mkdir(parents=True)
    inputs = {"source/x": entry, "toolchain/cc": tmp_path / "toolchain"}
    return make_job(tmp_path / "job", spec(BUILD), inputs)


def with_build(job: Job, **changes: object) -> Job:
    """The job with another build."""
    return dataclasses.replace(job, spec=spec(dataclasses.replace(BUILD, **changes)))  # type: ignore[arg-type]


def files(tree: Path) -> list[str]:
    """Every file of a tree."""
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())


def test_result_is_flat_and_holds_what_later_steps_read(made: Job) -> None:
    library.build(made)
    assert files(made.out) == ["lib/libx.a", "lib/pkgconfig/x.pc", "share/licenses/x/COPYING"]
    assert not (made.out / "share/man").exists()


def test_pkgconfig_files_find_their_tree_from_where_they_are(made: Job) -> None:
    library.build(made)
    text = (made.out / "lib/pkgconfig/x.pc").read_text()
    assert text == (
        "prefix=${pcfiledir}/../..\n"
        "exec_prefix=${prefix}\n"
        "libdir=${exec_prefix}/lib\n"
        "includedir=${prefix}/include\n"
        "Libs: -L${prefix}/lib -lx\n"
        "Cflags: -I${prefix}/include/x -I/opt/usr/include\n"
    )


def test_pkgconfig_file_without_prefix_gets_one() -> None:
    text = library.relocated("Name: x\nCflags: -I/usr/include/x\n")
    assert text.startswith("prefix=${pcfiledir}/../..\n")
    assert "-I${prefix}/include/x" in text


def test_modes_do_not_depend_on_the_umask(made: Job) -> None:
    private = ("chmod", "-R", "go-rwx", "{out}")
    program = ("install", "-D", "-m700", "libx.a", "{out}/usr/libexec/x")
    library.build(with_build(made, commands=(*BUILD.commands, program, private)))
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.out.rglob("*")}
    assert modes["libx.a"] == 0o644
    assert modes["x"] == modes["lib"] == 0o755


def test_missing_file_is_named(made: Job) -> None:
    with pytest.raises(BuildError, match=r"x: .*lib/liby\.a, include/y\.h"):
        library.build(with_build(made, expects=("lib/libx.a", "lib/liby.a", "include/y.h")))


def test_removed_paths_are_gone_with_their_empty_directories(made: Job) -> None:
    library.build(with_build(made, remove=("lib/pkgconfig/*.pc",), expects=("lib/libx.a",)))
    assert not (made.out / "lib/pkgconfig").exists()


def test_missing_licence_is_an_error(made: Job) -> None:
    with pytest.raises(BuildError, match="LICENSE"):
        library.build(with_build(made, licences=("LICENSE",)))


def test_build_path_in_the_result_is_an_error(made: Job) -> None:
    leak = ("sh", "-c", "pwd >{out}/usr/lib/config.sh")
    with pytest.raises(BuildError, match=r"x: lib/config\.sh holds the build path"):
        library.build(with_build(made, commands=(*BUILD.commands, leak)))


def test_nothing_installed_is_an_error(made: Job) -> None:
    with pytest.raises(BuildError, match="nothing was installed"):
        library.build(with_build(made, commands=(("true",),)))


def test_commands_run_in_the_directory_with_the_environment(made: Job) -> None:
    show = ("sh", "-c", 'printf "%s %s" "$PROCESSOR" "${{PWD##*/}}" >{out}/usr/shown')
    (made.work / "source/sub").mkdir(parents=True)
    (made.out / "usr").mkdir()
    build = dataclasses.replace(
        BUILD, commands=(show,), directory="sub", env={"PROCESSOR": "{arch}"}
    )
    library.run_commands(made, build, made.work / "source", {"PATH": "/usr/bin:/bin"})
    assert (made.out / "usr/shown").read_text() == "x86_64 sub"


VALUES = {"out": "/o", "arch": "x86_64"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("DESTDIR={out}", "DESTDIR=/o"),
        ("linux-{arch}", "linux-x86_64"),
        ("s/${{x}}/y/", "s/${x}/y/"),
        ("plain $HOME *", "plain $HOME *"),
    ],
)
def test_placeholders(text: str, expanded: str) -> None:
    assert library.expand(text, VALUES) == expanded


@pytest.mark.parametrize("text", ["{prefix}", "{}", "{out", "out}"])
def test_wrong_placeholder_is_an_error_that_shows_the_word(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        library.expand(text, VALUES)
    assert text in caught.value.message


def test_patch_is_applied(made: Job, tmp_path: Path) -> None:
    good = tmp_path / "0001-good.patch"
    good.write_text("--- a/COPYING\n+++ b/COPYING\n@@ -1 +1 @@\n-do as you like\n+ask first\n")
    library.build(dataclasses.replace(made, patches=(good,)))
    assert (made.out / "share/licenses/x/COPYING").read_text() == "ask first\n"


def test_patch_that_does_not_fit_is_an_error(made: Job, tmp_path: Path) -> None:
    bad = tmp_path / "0001-bad.patch"
    bad.write_text("--- a/libx.a\n+++ b/libx.a\n@@ -1 +1 @@\n-other\n+patched\n")
    with pytest.raises(BuildError, match="patch"):
        library.build(dataclasses.replace(made, patches=(bad,)))
