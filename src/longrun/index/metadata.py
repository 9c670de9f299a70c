"""Core metadata in the files of distributions: a wheel's METADATA, an sdist's PKG-INFO.

Nothing is unpacked and nothing run; a file that is no archive, or has none, is BadArchive.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from typing import IO

LIMIT = 16 << 20

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)


class BadArchive(Exception):
    """Why there is no metadata in a file."""


def read_metadata(content: IO[bytes], name: str) -> bytes:
    """The core metadata of the wheel or sdist of this file name; raises BadArchive."""
    try:
        return _wheel(content) if name.endswith(".whl") else _sdist(content, name)
    except DAMAGED as error:
        raise BadArchive(str(error) or type(error).__name__) from None


def _wheel(content: IO[bytes]) -> bytes:
    """METADATA of a wheel's own dist-info; a wheel may carry others below its modules."""
    with zipfile.ZipFile(content) as archive:
        for info in archive.infolist():
            directory, _, base = info.filename.partition("/")
            if base == "METADATA" and directory.endswith(".dist-info"):
                return _limited(archive.open(info))
    raise BadArchive("it has no METADATA")


def _sdist(content: IO[bytes], name: str) -> bytes:
    """PKG-INFO at the top of an sdist."""
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(content) as archive:
            for path in archive.namelist():
                if _is_top(path):
                    return _limited(archive.open(path))
    else:
        with tarfile.open(fileobj=content) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None and _is_top(member.name.removeprefix("./")):
                    return _limited(file)
    raise BadArchive("it has no PKG-INFO")


def _is_top(path: str) -> bool:
    return path.count("/") == 1 and path.endswith("/PKG-INFO")


def _limited(file: IO[bytes]) -> bytes:
    with file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise BadArchive(f"its metadata has more than {LIMIT} bytes")
    return content
