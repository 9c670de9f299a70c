"""What a look into a distribution's file tells: modules of a wheel, build needs of an sdist."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO

from longrun.errors import SourceError
from longrun.index.client import Index
from longrun.index.metadata import DAMAGED
from longrun.index.simple import File
from longrun.specs import normalised

WITHOUT_PYPROJECT = ("setuptools>=40.8.0",)
"""What PEP 517 front ends take where a source says nothing."""

UNWANTED = {"test", "tests", "doc", "docs", "example", "examples", "scripts", "benchmarks"}
"""Top-level directories that some wheels carry by mistake."""

LIMIT = 1 << 20


def modules_of(index: Index, file: File, name: str) -> tuple[str, ...]:
    """The modules that a distribution is there for, as a first guess for its check.

    Of a wheel the top-level modules in its list of files, of which only the end is downloaded;
    the one that bears the distribution's name stands for all.
    """
    guess = normalised(name).replace("-", "_")
    if not file.is_wheel:
        return (guess,)
    try:
        with index.open(file) as opened, zipfile.ZipFile(opened) as archive:
            found = top_level(archive.namelist())
    except DAMAGED as error:
        raise SourceError(f"{file.name} cannot be read: {error}") from None
    named = [module for module in found if normalised(module) == normalised(name)]
    return tuple(named or found or [guess])


def top_level(paths: Iterable[str]) -> list[str]:
    """The importable names among a wheel's paths; private ones only where there are no others."""
    found: dict[str, None] = {}
    for path in map(PurePosixPath, paths):
        parts = path.parts
        if parts and parts[0].endswith(".data"):
            parts = parts[2:] if len(parts) > 2 and parts[1] in ("purelib", "platlib") else ()
        if len(parts) > 1 and path.suffix in (".py", ".so") and "." not in parts[0]:
            found[parts[0]] = None
        elif len(parts) == 1 and path.suffix in (".py", ".so"):
            found[parts[0].partition(".")[0]] = None
    names = [name for name in found if name.isidentifier() and name not in UNWANTED]
    return [name for name in names if not name.startswith("_")] or names


def build_requires(index: Index, file: File) -> tuple[str, ...]:
    """What the build of an sdist asks for, in its pyproject.toml; SourceError where that is bad."""
    try:
        with index.open(file) as opened:
            text = _pyproject(opened, file.name)
        table = tomllib.loads(text or "").get("build-system", {})
        found = tuple(str(item) for item in table.get("requires", WITHOUT_PYPROJECT))
    except (*DAMAGED, tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        raise SourceError(f"{file.name}: its pyproject.toml cannot be read: {error}") from None
    return found


def _pyproject(opened: IO[bytes], name: str) -> str | None:
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(opened) as archive:
            for path in archive.namelist():
                if _is_top(path):
                    with archive.open(path) as file:
                        return file.read(LIMIT).decode()
        return None
    with tarfile.open(fileobj=opened) as tar:
        for member in tar:
            extracted = tar.extractfile(member) if member.isfile() else None
            if extracted is not None and _is_top(member.name.removeprefix("./")):
                with extracted:
                    return extracted.read(LIMIT).decode()
    return None


def _is_top(path: str) -> bool:
    return path.count("/") == 1 and path.endswith("/pyproject.toml")
