"""What lies inside compressed files and zip archives, so that a path cannot hide there."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

_Reader = IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile

_MOST_BYTES = 256 * 1024 * 1024  # a size bomb costs no more than this, and is reported
_DEEPEST = 3

_COMPRESSED: dict[bytes, Callable[[io.BytesIO], _Reader]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,  # an encrypted member; also NotImplementedError, an unknown compression
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


class TooLargeError(Exception):
    """More was unpacked than any real file of a prefix holds."""


def is_archive(data: bytes) -> bool:
    """Whether the first bytes are those of a zip archive or a compressed file."""
    return data.startswith((b"PK\x03\x04", *_COMPRESSED))


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of all that is inside, also of archives in archives.

    Raises TooLargeError past 256 MB, ValueError where the archive is damaged or encrypted.
    """
    try:
        yield from _unpack(data, "", _Budget(), 1)
    except _DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error


class _Budget:
    def __init__(self) -> None:
        self.left = _MOST_BYTES

    def read(self, file: _Reader) -> bytes:
        data = file.read(self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise TooLargeError
        return data


def _unpack(data: bytes, name: str, budget: _Budget, depth: int) -> Iterator[tuple[str, bytes]]:
    for inner, content in _level(data, name, budget):
        yield inner, content
        if is_archive(content):
            if depth == _DEEPEST:
                raise TooLargeError
            yield from _unpack(content, inner, budget, depth + 1)


def _level(data: bytes, name: str, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    for magic, open_ in _COMPRESSED.items():
        if data.startswith(magic):
            with open_(io.BytesIO(data)) as file:
                yield f"{name}!(unpacked)", budget.read(file)
            return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                yield f"{name}!{info.filename}", budget.read(file)
