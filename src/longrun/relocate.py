"""Make an installed CPython answer for the place where it stands, wherever that is.

CPython writes the prefix that it was configured for, and the flags that it was compiled with, into
text files: into the data of ``sysconfig``, a Makefile, ``.pc`` files, ``python3.x-config`` and the
first lines of scripts. Here each of them is told to find its prefix from its own place, and to name
a compiler and flags that a console has. The programs and libraries need no mend: they are built
without a path.
"""

from __future__ import annotations

import ast
import pprint
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longrun.errors import BuildError

OPT = "-DNDEBUG -fwrapv -O3 -Wall"
"""Flags that sysconfig gives to builds of extension modules, beside CPython's own basic ones."""

HERE = "{prefix}"
"""Stands for the prefix in the data of sysconfig, and is filled in when that is imported."""

BUILD_ONLY = re.compile(
    r".*NODIST.*|.*NOLTO.*|PY_CORE_.*|PY_STDMODULE_CFLAGS|PY_BUILTIN_MODULE_CFLAGS|PGO_.*|LLVM_PROF_.*"
    r"|PROFILE_TASK|COVERAGE_.*|MODULE_.*_(CFLAGS|LDFLAGS|DEPS)|LIB(EXPAT|HACL|MPDEC)_.*|abs_.*dir"
    r"|WASM_.*|LIBREADLINE_.*|TCLTK_.*|OPENSSL_.*|LIBFFI_.*|BLDLIBRARY|PY3LIBRARY"
)
"""Variables that tell how CPython itself was compiled; nobody else's build may use them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of an installed CPython are."""

    prefix: Path
    version: str

    @property
    def stdlib(self) -> Path:
        """Directory of the standard library."""
        return self.prefix / "lib" / f"python{self.version}"

    @property
    def config(self) -> Path:
        """Directory of the Makefile."""
        return _only(self.stdlib, f"config-{self.version}*")

    @property
    def sysconfigdata(self) -> Path:
        """The module with the data of sysconfig."""
        return _only(self.stdlib, "_sysconfigdata_*.py")

    @property
    def library(self) -> str:
        """Name of the shared library, without its version."""
        return f"libpython{self.version}.so"


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise BuildError(f"{directory}: expected one {pattern}, found {len(found)}")
    return found[0]


def layout(prefix: Path) -> Layout:
    """The layout of the CPython in ``prefix``; BuildError where there is not exactly one."""
    landmark = _only(prefix / "lib", "python3*/os.py")
    return Layout(prefix=prefix, version=landmark.parent.name.removeprefix("python"))


def relocate(prefix: Path, built_for: str) -> None:
    """Mend every file below ``prefix`` that names ``built_for``, the path it was configured for.

    BuildError names each file in which that path is still found.
    """
    here = layout(prefix)
    relocate_sysconfig(here, built_for)
    relocate_makefile(here, built_for)
    relocate_pkgconfig(here)
    relocate_config_script(here, built_for)
    relocate_scripts(here, built_for)
    check_forgotten(prefix, built_for)


def _overrides(here: Layout) -> dict[str, str]:
    """Variables of sysconfig and of the Makefile with what is right on a console."""
    basic = "-fno-strict-overflow -Wsign-compare"
    return {
        "CC": "gcc",
        "CXX": "g++",
        "CPP": "gcc -E",
        "LINKCC": "gcc",
        "MAINCC": "gcc",
        "AR": "ar",
        "ARFLAGS": "rcs",
        "READELF": "readelf",
        "RANLIB": "ranlib",
        "LDSHARED": "gcc -shared",
        "BLDSHARED": "gcc -shared",
        "LDCXXSHARED": "g++ -shared",
        "BASECFLAGS": basic,
        "OPT": OPT,
        "CFLAGS": f"{basic} {OPT}",
        "PY_CFLAGS": f"{basic} {OPT}",
        "CONFIGURE_CFLAGS": "",
        "CONFIGURE_CPPFLAGS": "",
        "CONFIGURE_LDFLAGS": "",
        "CPPFLAGS": "",
        "PY_CPPFLAGS": "",
        "LDFLAGS": "",
        "PY_LDFLAGS": "",
        "CONFIG_ARGS": "",
        "LIBS": "-lpthread -ldl -lutil",
        "SYSLIBS": "-lm",
        "SHLIBS": "-lpthread -ldl -lutil",
        # the program is static, and the shared library is for programs that embed Python
        "LDLIBRARY": here.library,
        "LIBRARY_DEPS": here.library,
        "INSTSONAME": f"{here.library}.1.0",
    }


def relocate_sysconfig(here: Layout, built_for: str) -> None:
    """Rewrite the data of sysconfig: its paths become those of the running prefix."""
    path = here.sysconfigdata
    values = read_sysconfigdata(path)
    values = {name: value for name, value in values.items() if not BUILD_ONLY.fullmatch(name)}
    values |= {name: value for name, value in _overrides(here).items() if name in values}
    moving = {}
    for name, value in values.items():
        if isinstance(value, str) and built_for in value:
            moving[name] = value.replace(built_for, HERE)
    fixed = {name: value for name, value in values.items() if name not in moving}
    path.write_text(
        '"""Data of sysconfig, for the prefix that Python runs from. Written by Longrun."""\n\n'
        "import sys\n\n"
        f"build_time_vars = {pprint.pformat(fixed, width=100)}\n\n"
        f"for _name, _value in {pprint.pformat(moving, width=100)}.items():\n"
        f"    build_time_vars[_name] = _value.replace({HERE!r}, sys.base_prefix)\n",
        encoding="utf-8",
    )


def read_sysconfigdata(path: Path) -> dict[str, Any]:
    """``build_time_vars`` as CPython wrote them, without running the file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "build_time_vars":
            values = ast.literal_eval(node.value)
            assert isinstance(values, dict)
            return values
    raise BuildError(f"{path}: no build_time_vars in it")


def relocate_makefile(here: Layout, built_for: str) -> None:
    """The prefix from the Makefile's own place, and the compiler of a console."""
    path = here.config / "Makefile"
    overrides = _overrides(here)

    def line(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "prefix":
            up = "/".join([".."] * len(here.config.relative_to(here.prefix).parts))
            return f"prefix= $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/{up})"
        if name in overrides:
            return f"{name}= {overrides[name]}"
        if BUILD_ONLY.fullmatch(name):
            return f"{name}="
        return match[0]

    # a value goes on while lines end with a backslash
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(?P<name>\w+)[ \t]*=(?:[^\n]*\\\n)*[^\n]*$", line, text)
    path.write_text(text.replace(built_for, "$(prefix)"), encoding="utf-8")


def relocate_pkgconfig(here: Layout) -> None:
    """The prefix from the .pc file's own place; what embeds Python finds the library again."""
    for path in sorted((here.prefix / "lib" / "pkgconfig").glob("*.pc")):
        if path.is_symlink():
            continue
        text = re.sub(
            r"(?m)^prefix=.*$", "prefix=${pcfiledir}/../..", path.read_text(encoding="utf-8")
        )
        text = text.replace("Libs: -L${libdir} -lpython", f"Libs: {RPATH} -L${{libdir}} -lpython")
        path.write_text(text, encoding="utf-8")


RPATH = "-Wl,-rpath,${libdir}"
"""The loader does not search a prefix that may stand anywhere; both sh and pkg-config read this."""


def relocate_config_script(here: Layout, built_for: str) -> None:
    """``python3.x-config``: the place of the script itself, also when it is run through a link."""
    path = here.prefix / "bin" / f"python{here.version}-config"
    text = path.read_text(encoding="utf-8")
    text = _replace(path, text, 'installed_prefix "$0"', 'installed_prefix "$(readlink -f "$0")"')
    text = _replace(path, text, f'prefix="{built_for}"', 'prefix="$prefix_real"')
    text = _replace(path, text, 'LIBS_EMBED="', f'LIBS_EMBED="{RPATH} ')
    text = re.sub(r'(?m)^(LIBS(?:_EMBED)?="(?:[^"]*-lpython\S*)?)[^"]*"$', r'\1 -ldl -lm"', text)
    text = re.sub(r"(?m)^BASECFLAGS=.*$", 'BASECFLAGS="-fno-strict-overflow -Wsign-compare"', text)
    text = re.sub(r"(?m)^CFLAGS=.*$", 'CFLAGS=""', text)
    text = re.sub(r"(?m)^OPT=.*$", f'OPT="{OPT}"', text)
    text = re.sub(r"(?m)^LDLIBRARY=.*$", f'LDLIBRARY="{here.library}"', text)
    path.write_text(text.replace(built_for, "$prefix_real"), encoding="utf-8")


def _replace(path: Path, text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise BuildError(f"{path}: expected one {old!r}, found {text.count(old)}")
    return text.replace(old, new)


def relocate_scripts(here: Layout, built_for: str) -> None:
    """Start every Python script with the interpreter of its own prefix."""
    for path in sorted([*(here.prefix / "bin").iterdir(), *here.config.iterdir()]):
        if path.is_symlink() or not path.is_file():
            continue
        first, newline, rest = path.read_bytes().partition(b"\n")
        if first.startswith(f"#!{built_for}/bin/python".encode()) and newline:
            depth = len(path.parent.relative_to(here.prefix).parts)
            python = "/".join([*[".."] * depth, "bin", f"python{here.version}"])
            path.write_bytes(polyglot(python).encode() + rest)


def polyglot(python: str) -> str:
    """First lines of a script that is first read by sh and then by Python.

    ``python`` is the path from the script's directory. For sh, the first word is ``exec`` with some
    quotes about it; for Python, the whole is a string. Links to the script are followed.
    """
    return (
        "#!/bin/sh\n"
        f'\'\'\'exec\' "$(dirname -- "$(readlink -f -- "$0")")/{python}" "$0" "$@"\n'
        "' '''\n"
    )


def check_forgotten(prefix: Path, path: str) -> None:
    """BuildError that names every file below ``prefix`` that still holds ``path``."""
    needle = path.encode()
    found = files_with(prefix, lambda content: needle in content)
    if found:
        raise BuildError(f"{path} is still in {', '.join(found)}")


def files_with(tree: Path, test: Callable[[bytes], bool]) -> list[str]:
    """The files of a tree whose content passes a test, relative and sorted."""
    return [
        path.relative_to(tree).as_posix()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and test(path.read_bytes())
    ]
