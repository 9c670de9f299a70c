"""The toolchain: the ziglang wheel as C compiler, linker and archiver for any glibc.

The entry holds the wheel's tree and ``bin/``: small scripts with the ordinary names (``cc``,
``ar``, ...) that configure scripts look for. The scripts read where things are from the environment
that ``environment`` makes, so a build says ``cc`` and nothing else, and no path of the building
machine ends up in what a configure script writes down.
"""

from __future__ import annotations

import os
import platform
import shlex
from pathlib import Path

from longrun.errors import BuildError
from longrun.model import Toolchain
from longrun.run import SYSTEM_PATH
from longrun.steps.job import Job
from longrun.unpack import unpack

ZIG = "ziglang/zig"
"""The compiler below the entry, where the wheel has it."""

BUILD_GLIBC = "2.17"
"""Programs that run during a build are linked for this glibc, which every builder has."""

ABSENT = ("as", "nm", "objcopy", "objdump", "readelf", "size", "strip")
"""Tools that zig lacks (its objcopy and objdump read no ELF); the system's must not stand in."""


def build(job: Job) -> None:
    """Unpack the wheel and write the scripts beside it."""
    spec = job.spec
    assert isinstance(spec, Toolchain)
    unpack(job.source(spec.name), job.out)
    zig = job.out / ZIG
    if not zig.is_file():
        raise BuildError(f"{spec.name}: {ZIG} is not in {spec.source.file}")
    zig.chmod(0o755)
    write_scripts(job.out / "bin", spec)


def write_scripts(directory: Path, spec: Toolchain) -> None:
    """Write every script of the toolchain into a new directory."""
    directory.mkdir()
    directory.chmod(0o755)  # whatever the umask is
    for name, text in scripts(spec).items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


def scripts(spec: Toolchain) -> dict[str, str]:
    """The scripts by name; each is POSIX sh."""
    compiler = {name: _compiler("cc", spec) for name in ("cc", "gcc", "c99")}
    compiler |= {name: _compiler("c++", spec) for name in ("c++", "g++")}
    return {
        **compiler,
        "ar": _archiver(),
        "ranlib": _script('exec "$LONGRUN_ZIG" ranlib "$@"'),
        "cpp": _script('exec cc -E "$@"'),
        "ld": _script('exec "$LONGRUN_ZIG" ld.lld "$@"'),
        # some configure scripts call it by name, and every library here is a static one
        "pkg-config": _script('PATH="${PATH#*:}" exec pkg-config --static "$@"'),
        "build-cc": _script('exec "$LONGRUN_ZIG" cc -target "$LONGRUN_BUILD_TARGET" "$@"'),
        **{name: _absent(name) for name in ABSENT},
    }


def _script(*lines: str) -> str:
    return "\n".join(("#!/bin/sh", *lines, ""))


def _compiler(language: str, spec: Toolchain) -> str:
    # libtool and configure scripts ask these questions; zig's answers name the host or are errors
    answers = (
        'case "$1" in',
        "-print-prog-name=*|--print-prog-name=*|-print-file-name=*|--print-file-name=*)",
        '    printf "%s\\n" "${1#*=}"; exit ;;',
        "-dumpmachine|-print-multiarch|--print-multiarch)",
        '    printf "%s\\n" "${LONGRUN_TARGET%%.*}"; exit ;;',
        "-print-search-dirs|--print-search-dirs)",
        '    printf "libraries: =%s\\n" "$LONGRUN_DEPS/lib"; exit ;;',
        f'--version) exec "$LONGRUN_ZIG" {language} --version ;;',
        "esac",
    )
    words = (
        f'exec "$LONGRUN_ZIG" {language} -target "$LONGRUN_TARGET"',
        '-ffile-prefix-map="$LONGRUN_WORK"=.',
        *(shlex.quote(flag) for flag in (*spec.cflags, *spec.ldflags)),
        '"$@"',
        # last, so that a source's own directories go first
        '-isystem "$LONGRUN_DEPS/include" -L"$LONGRUN_DEPS/lib"',
    )
    return _script(*answers, " ".join(words))


def _archiver() -> str:
    # zig's ar leaves times and owners out, unless the letter U asks for them (ncurses does)
    return _script(
        'case "$1" in',
        "*[!-A-Za-z]*) ;;",
        '*U*) operation=$(printf "%s" "$1" | tr -d U); shift; set -- "$operation" "$@" ;;',
        "esac",
        'exec "$LONGRUN_ZIG" ar "$@"',
    )


def _absent(name: str) -> str:
    return _script(f"echo '{name}: this toolchain has none' >&2", "exit 1")


def environment(job: Job) -> dict[str, str]:
    """The variables for everything that a step runs: the toolchain first, and nothing of the host.

    Makes ``job.work/deps`` where it is not there yet. BuildError where the work directory has
    a character that make and configure scripts cannot take.
    """
    check_directory(job.work)
    tree = toolchain_tree(job)
    deps = merge_deps(job)
    cache = job.cache / "zig"
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{tree / 'bin'}:{SYSTEM_PATH}",
        "LONGRUN_ZIG": str(tree / ZIG),
        "LONGRUN_TARGET": f"{job.floor.triple}.{job.floor.glibc}",
        "LONGRUN_BUILD_TARGET": f"{build_triple()}.{BUILD_GLIBC}",
        "LONGRUN_WORK": str(job.work),
        "LONGRUN_DEPS": str(deps),
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
        **_tools(),
        **_search_paths(deps),
    }


def _tools() -> dict[str, str]:
    names = {name.upper(): name for name in ("ar", "ranlib", "ld", *ABSENT)}
    for_build = dict.fromkeys(("CC_FOR_BUILD", "BUILD_CC", "CC_BUILD", "HOSTCC"), "build-cc")
    return {"CC": "cc", "CXX": "c++", "CPP": "cc -E", **names, **for_build}


def _search_paths(deps: Path) -> dict[str, str]:
    places = [f"{deps}/{name}/pkgconfig" for name in ("lib", "share")]
    # the prefix as the .pc files have it; pkg-config compares paths by their letters
    prefixes = [str(deps), *(f"{place}/../.." for place in places)]
    return {
        "PKG_CONFIG": "pkg-config",
        "PKG_CONFIG_PATH": "",
        "PKG_CONFIG_LIBDIR": ":".join(places),
        # the compiler searches these by itself; left out, they are recorded nowhere
        "PKG_CONFIG_SYSTEM_INCLUDE_PATH": ":".join(f"{prefix}/include" for prefix in prefixes),
        "PKG_CONFIG_SYSTEM_LIBRARY_PATH": ":".join(f"{prefix}/lib" for prefix in prefixes),
        "ACLOCAL_PATH": f"{deps}/share/aclocal",
    }


def check_directory(directory: Path) -> None:
    """BuildError where a path has white space or another character that make or sh splits at."""
    bad = sorted(
        {character for character in str(directory) if character in " \t\n:'\"$\\#%;&|<>=`"}
    )
    if bad:
        shown = ", ".join(repr(character) for character in bad)
        raise BuildError(
            f"{directory}: make and configure scripts cannot work below a path with {shown}",
            remedy="set the cache directory to a path of letters, digits and .-_/",
        )


def build_triple() -> str:
    """The GNU triple of the building machine, such as ``x86_64-linux-gnu``."""
    return f"{platform.machine()}-linux-gnu"


def toolchain_tree(job: Job) -> Path:
    """The tree of the job's one toolchain."""
    (tree,) = (path for name, path in job.inputs.items() if name.startswith("toolchain/"))
    return tree


def merge_deps(job: Job) -> Path:
    """``job.work/deps`` with links to the files of every library input; made once.

    BuildError where two libraries install the same path.
    """
    deps = job.work / "deps"
    if deps.exists():
        return deps
    for name in ("include", "lib"):
        (deps / name).mkdir(parents=True)
    for name, tree in sorted(job.inputs.items()):
        if name.startswith("library/"):
            _link_tree(name, tree, deps)
    return deps


def _link_tree(name: str, tree: Path, deps: Path) -> None:
    for directory, _, files in os.walk(tree):
        target = deps / Path(directory).relative_to(tree)
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            link = target / file
            if link.is_symlink():
                path = link.relative_to(deps)
                raise BuildError(f"{name}: {path} is also in {link.readlink()}")
            link.symlink_to(Path(directory) / file)
