"""Reads which distributions a site directory has; done with few rights, see ``distributions``.

It reads names of directories, ``top_level.txt`` and RECORD; it imports nothing and runs nothing
of what it finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence

MOST_DISTRIBUTIONS = 5000
MOST_BYTES = 16_000_000
"""Of one RECORD; torch's has a million and a half."""

Names = dict[str, list[list[str]]]

_INFO = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info")
_EGG = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-py[0-9.]+)?\.egg-info")
_MODULE = re.compile(r"(?P<name>[^/.]+)(\.[^/]*)?\.(py|pyc|so|pyd)")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def answers(places: Sequence[tuple[str, str | None]], *, trusted: bool) -> Iterator[bytes]:
    """A line of JSON for each (directory, stamp that is known), as soon as it was looked at.

    ``[directory, null]`` where it cannot be read, or an object with its ``stamp`` and, where that
    is not the known one, ``names``: what can be imported from it, to a list of ``[name, version]``.
    With ``trusted``, only directories answer that root alone can change, from ``/`` on.
    """
    for place, known in places:
        yield json.dumps([place, look(place, known, trusted=trusted)]).encode() + b"\n"


def look(place: str, known: str | None, *, trusted: bool) -> dict[str, object] | None:
    """A directory's stamp, and its names where the stamp is not the known one; None if unread."""
    try:
        descriptor = open_directory(os.path.realpath(place), trusted=trusted)
    except OSError:
        return None
    try:
        found: dict[str, object] = {"stamp": _stamp(descriptor)}
        if found["stamp"] != known:
            found["names"] = names(descriptor)
        return found
    except OSError:
        return None
    finally:
        os.close(descriptor)


def open_directory(place: str, *, trusted: bool) -> int:
    """Open a directory from the root on, following no link; PermissionError if not trusted."""
    descriptor = os.open("/", _DIRECTORY)
    try:
        for part in place.strip("/").split("/"):
            below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            if trusted and not _roots_alone(os.fstat(descriptor)):
                raise PermissionError(place)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _roots_alone(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & 0o022


def _stamp(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}"


def names(descriptor: int) -> Names:
    """What can be imported from a site directory, and the distributions that brought it."""
    found: Names = {}
    for entry, match in _metadata(descriptor):
        distribution = [canonical(match["name"]), match["version"]]
        for name in _top_level(descriptor, entry):
            if distribution not in (known := found.setdefault(name, [])):
                known.append(distribution)
    return found


def _metadata(descriptor: int) -> Iterator[tuple[str, re.Match[str]]]:
    with os.scandir(descriptor) as entries:
        found = (entry.name for entry in entries)
        matches = ((name, _INFO.fullmatch(name) or _EGG.fullmatch(name)) for name in found)
        chosen = sorted((name, match) for name, match in matches if match)
    return iter(chosen[:MOST_DISTRIBUTIONS])


def _top_level(descriptor: int, entry: str) -> Iterable[str]:
    """The top-level names of a distribution, from RECORD or else from ``top_level.txt``."""
    try:
        inside = os.open(entry, _DIRECTORY, dir_fd=descriptor)
    except OSError:
        return ()
    try:
        recorded = _read(inside, "RECORD")
        if recorded:
            return sorted({name for name in map(_first, recorded.splitlines()) if name})
        listed = _read(inside, "top_level.txt").splitlines()
        return [name.strip() for name in listed if name.strip().isidentifier()]
    finally:
        os.close(inside)


def _first(line: str) -> str:
    """The name that a line of RECORD lets one import; empty where none.

    A path that goes up leads to a script or data, and one with quotes to nothing importable.
    """
    path = line.split(",", 1)[0]
    head, slash, _ = path.partition("/")
    if slash:
        return head if head.isidentifier() and head != "__pycache__" else ""
    match = _MODULE.fullmatch(path)
    return match["name"] if match and match["name"].isidentifier() else ""


def _read(descriptor: int, name: str) -> str:
    with contextlib.suppress(OSError):
        file = os.open(name, _FILE, dir_fd=descriptor)
        try:
            if stat.S_ISREG(os.fstat(file).st_mode):
                return _content(file).decode("utf-8", "replace")
        finally:
            os.close(file)
    return ""


def _content(file: int) -> bytes:
    parts: list[bytes] = []
    left = MOST_BYTES
    while left > 0 and (part := os.read(file, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left > 0 else b""


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
