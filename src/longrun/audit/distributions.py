"""Installed distributions, read from the metadata beside them (PyPA's "Recording installed ...").

Reading is cheap, so that an audit of a prefix without packages pays nothing: ``packaging`` is
imported when there is something to read.
"""

from __future__ import annotations

import base64
import csv
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

_FILE = re.compile(r"([^/]+\.(?:dist|egg)-info)(?:/(METADATA|PKG-INFO|WHEEL|RECORD))?")
_DESCRIPTION = re.compile(rb"\r?\n\r?\n")


class MetadataError(Exception):
    """Metadata that cannot be read; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a distribution says of itself. ``unread`` are fields that break the rules, with why."""

    name: str
    version: Version
    requires: tuple[Requirement, ...]
    python: SpecifierSet | None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line of a RECORD: a path below the prefix, its hash as ``sha256=...``, its size or -1."""

    path: str
    hash: str
    size: int

    def agrees(self, sha256: bytes) -> bool:
        """Whether a file with this sha256 is the one that was recorded."""
        digest = base64.urlsafe_b64encode(sha256).rstrip(b"=").decode()
        return self.hash.removeprefix("sha256=").rstrip("=") == digest


@dataclass(frozen=True, eq=False)
class Distribution:
    """One ``.dist-info``, or an ``.egg-info`` of before; ``files`` are its files' texts by name.

    ``packages`` is the directory that it is in, with a slash at its end.
    """

    packages: str
    directory: str
    files: Mapping[str, bytes]

    @property
    def path(self) -> str:
        """The directory below the prefix; of old distributions, it can be a file."""
        return self.packages + self.directory

    @property
    def is_old(self) -> bool:
        """Whether it was installed before RECORD and WHEEL were there."""
        return self.directory.endswith(".egg-info")

    @property
    def metadata_path(self) -> str:
        """The file with name, version and requirements."""
        name = "PKG-INFO" if self.is_old else "METADATA"
        return self.path if "" in self.files else f"{self.path}/{name}"

    @cached_property
    def name(self) -> str:
        """The normalised name, by its directory: what installers and imports go by."""
        from packaging.utils import canonicalize_name

        return canonicalize_name(self._stem.partition("-")[0])

    @property
    def label(self) -> str:
        """Name and version for people, as its directory has them."""
        return " ".join(self._stem.split("-")[:2])

    @property
    def _stem(self) -> str:
        return self.directory.rpartition(".")[0]

    @cached_property
    def metadata(self) -> Metadata:
        """Name, version, requirements; MetadataError where they cannot be read."""
        data = self.files.get("PKG-INFO" if self.is_old else "METADATA", self.files.get(""))
        if data is None:
            raise MetadataError("it is missing")
        found = _parse_metadata(data)
        self._compare(found)
        return found

    def _compare(self, found: Metadata) -> None:
        """Directory and content name the same; ``importlib.metadata`` finds it by the first."""
        from packaging.utils import canonicalize_name, canonicalize_version

        if self.is_old:  # its name may have dashes, or no version
            return
        # where a version has a dash, the directory has an underscore
        version = self._stem.partition("-")[2].replace("_", "-")
        same = canonicalize_name(found.name) == self.name
        if not same or canonicalize_version(version) != canonicalize_version(str(found.version)):
            raise MetadataError(f"it is that of {found.name} {found.version}")

    @cached_property
    def tags(self) -> frozenset[str]:
        """The tags of its wheel, one by one; MetadataError where there is no WHEEL with any."""
        from packaging.tags import parse_tag

        if "WHEEL" not in self.files:
            raise MetadataError("it is missing")
        lines = self.files["WHEEL"].decode("utf-8", "replace").splitlines()
        values = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
        try:
            found = frozenset(str(tag) for value in values for tag in parse_tag(value))
        except ValueError as error:
            raise MetadataError(str(error)) from error
        if not found:
            raise MetadataError("it has no Tag")
        return found

    @cached_property
    def record(self) -> tuple[Recorded, ...]:
        """The files that it consists of; MetadataError where no RECORD can be read."""
        if "RECORD" not in self.files:
            raise MetadataError("it is missing")
        try:
            rows = list(csv.reader(self.files["RECORD"].decode("utf-8").splitlines()))
            return tuple(_recorded(self.packages, row) for row in rows if row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise MetadataError(str(error)) from error


def _recorded(packages: str, row: list[str]) -> Recorded:
    if len(row) != 3 or not (row[2].isdecimal() or not row[2]):
        raise MetadataError(f"the line {','.join(row)!r} is not path, hash and size")
    # join keeps an absolute path as it is; nearly all paths are without detours
    path = os.path.join(packages, row[0])
    path = os.path.normpath(path) if "./" in path or "//" in path else path
    return Recorded(path, row[1], int(row[2]) if row[2] else -1)


def _parse_metadata(data: bytes) -> Metadata:
    from packaging.metadata import parse_email
    from packaging.version import InvalidVersion, Version

    # most of the file is the description, which nobody needs here
    raw, unparsed = parse_email(_DESCRIPTION.split(data, maxsplit=1)[0] + b"\n\n")
    for field in ("name", "version"):
        if field not in raw:
            raise MetadataError(f"{field.title()} is missing, or is there twice")
    try:
        version = Version(raw["version"])
    except InvalidVersion as error:
        raise MetadataError(str(error)) from error
    requires, unread = _parse_requires(raw.get("requires_dist", []))
    python, wrong = _parse_python(raw.get("requires_python"))
    odd = [name for name in unparsed if name in ("requires-python", "requires-dist")]
    return Metadata(
        name=raw["name"],
        version=version,
        requires=tuple(requires),
        python=python,
        unread=(*unread, *wrong, *odd),
    )


def _parse_requires(lines: Iterable[str]) -> tuple[list[Requirement], list[str]]:
    from packaging.requirements import InvalidRequirement, Requirement

    requires, unread = [], []
    for line in lines:
        try:
            requires.append(Requirement(line))
        except InvalidRequirement as error:
            unread.append(f"Requires-Dist: {line}: {str(error).splitlines()[0]}")
    return requires, unread


def _parse_python(text: str | None) -> tuple[SpecifierSet | None, list[str]]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return (SpecifierSet(text) if text else None), []
    except InvalidSpecifier:
        return None, [f"Requires-Python: {text}: not a version specifier"]


def installed(
    packages: str, names: Iterable[str], texts: Mapping[str, bytes]
) -> tuple[Distribution, ...]:
    """The distributions of a directory, by the names in it and its metadata, by path below it."""
    found: dict[str, dict[str, bytes]] = {name: {} for name in names if _FILE.fullmatch(name)}
    for path, text in texts.items():
        if match := _FILE.fullmatch(path):
            found.setdefault(match[1], {})[match[2] or ""] = text
    return tuple(Distribution(packages, directory, found[directory]) for directory in sorted(found))


def owners(
    distributions: Iterable[Distribution],
) -> dict[str, list[tuple[Distribution, Recorded]]]:
    """Every path that a RECORD lists, with those who list it."""
    found: dict[str, list[tuple[Distribution, Recorded]]] = {}
    for distribution in distributions:
        try:
            record = distribution.record
        except MetadataError:
            continue
        for line in record:
            found.setdefault(line.path, []).append((distribution, line))
    return found
