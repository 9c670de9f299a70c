"""What one pass over a file's bytes tells: nothing is executed, and big files are never held whole.

A prefix with packages has gigabytes, most of them in a few hundred libraries. Those go through a
buffer that stays in the processor's cache; hashing leaves the other threads their turn.
"""

from __future__ import annotations

import _imp
import hashlib
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO

from longrun import elf
from longrun.audit import archives

_CONTEXT = 60  # printable bytes shown on either side of a path that was found
_PRINTABLE_END = re.compile(rb"[\x20-\x7e]*\Z")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_CHUNK = 1 << 20
_SHORTEST_COMMON = 8  # a shorter beginning, such as "/home/", would be found for nothing
_TEXTS = ("/METADATA", "/WHEEL", "/RECORD", "/PKG-INFO", ".pth", ".egg-info")


@dataclass(frozen=True, slots=True)
class Leak:
    """A forbidden path inside a file; ``member`` names the part of an archive that holds it."""

    label: str
    path: str
    member: str
    offset: int
    count: int
    context: str


@dataclass(frozen=True, slots=True)
class Content:
    """What the checks need to know of one file's bytes.

    ``elf_other`` tells an ELF file of another kind of machine from a damaged one. ``sha256`` is
    there where a RECORD can list the file, ``text`` where the file is metadata of a distribution.
    """

    elf: elf.Elf | None = None
    elf_error: str = ""
    elf_other: bool = False
    leaks: tuple[Leak, ...] = ()
    archive_error: str = ""
    shebang: str = ""
    pyc: bytes | None = None
    source_hash: bytes = b""
    sha256: bytes = b""
    text: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to look for in the files of a prefix.

    ``forbidden`` maps what a path is to the path that no file may hold, ``magic`` is the number in
    the interpreter's bytecode, ``packages`` the directory whose files have their metadata kept.
    Files below ``library`` but not below ``packages`` belong to the interpreter; no RECORD lists
    them. ``hashed`` is whether there are any RECORDs.
    """

    forbidden: Mapping[str, str]
    magic: int
    library: str
    packages: str
    hashed: bool

    def is_hashed(self, path: str) -> bool:
        """Whether a RECORD may list this file."""
        return self.hashed and (
            path.startswith(self.packages) or not path.startswith(f"{self.library}/")
        )

    def is_text(self, path: str) -> bool:
        """Whether this file is metadata of a distribution, or tells ``site`` what to do."""
        return path.endswith(_TEXTS) and path.startswith(self.packages)


class Reader:
    """Reads one file after another through its own buffer: each thread needs one."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._needles = tuple((label, path.encode()) for label, path in search.forbidden.items())
        self._stems = _stems([needle for _, needle in self._needles])
        self._overlap = max(map(len, self._stems), default=1) - 1
        self._buffer = bytearray(_CHUNK + self._overlap)

    def read(self, path: str, place: str, size: int) -> Content:
        """What is in the file at ``place``, known as ``path`` in the prefix; may raise OSError."""
        with open(place, "rb", buffering=0) as file:
            if size <= _CHUNK or path.endswith(".py") or self._search.is_text(path):
                return self._whole(path, file.readall())
            head = file.read(_CHUNK)
            if self._needles and archives.is_archive(head):
                return self._whole(path, head + file.readall())
            file.seek(0)
            return self._in_parts(path, file, head)

    def _whole(self, path: str, data: bytes) -> Content:
        found = any(data.find(stem) >= 0 for stem in self._stems)
        leaks = _leaks(data, self._needles, "") if found else ()
        inner, archive_error = _archive_leaks(data, self._needles)
        sha256 = hashlib.sha256(data).digest() if self._search.is_hashed(path) else b""
        text = data if self._search.is_text(path) else None
        return self._content(path, data, data, leaks + inner, archive_error, sha256, text)

    def _in_parts(self, path: str, file: FileIO, head: bytes) -> Content:
        found, sha256 = self._pass(file, hashed=self._search.is_hashed(path))
        leaks: tuple[Leak, ...] = ()
        if found:
            file.seek(0)
            leaks = _leaks(file.readall(), self._needles, "")
        # of a library, only its tables are read again: a small part
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return self._content(path, head, data, leaks, "", sha256, None)

    def _pass(self, file: FileIO, *, hashed: bool) -> tuple[bool, bytes]:
        """Whether anything that is looked for is in a file, and its sha256."""
        buffer, digest, found, kept = self._buffer, hashlib.sha256(), False, 0
        with memoryview(buffer) as view:
            while count := file.readinto(view[kept : kept + _CHUNK]):
                end = kept + count
                if hashed:
                    digest.update(view[kept:end])
                found = found or any(buffer.find(stem, 0, end) >= 0 for stem in self._stems)
                # what is looked for may lie across two parts
                kept = min(self._overlap, end)
                view[:kept] = view[end - kept : end]
        return found, digest.digest() if hashed else b""

    def _content(
        self,
        path: str,
        head: bytes,
        data: elf.Buffer,
        leaks: tuple[Leak, ...],
        archive_error: str,
        sha256: bytes,
        text: bytes | None,
    ) -> Content:
        # nobody asks for the symbols of a library that a wheel brings, only of its modules
        exporting = b"PyInit" if path.startswith(self._search.packages) else b""
        is_elf = head.startswith(elf.MAGIC)
        found, elf_error, elf_other = _elf(path, data, exporting) if is_elf else _NO_ELF
        shebang = head[:4096].split(b"\n", 1)[0] if head.startswith(b"#!") else b""
        magic = self._search.magic
        return Content(
            elf=found,
            elf_error=elf_error,
            elf_other=elf_other,
            leaks=leaks,
            archive_error=archive_error,
            shebang=shebang.decode("utf-8", "backslashreplace"),
            pyc=head[:16] if path.endswith(".pyc") else None,
            # the key is the audited interpreter's magic number (PEP 552), not that of this process
            source_hash=_imp.source_hash(magic, head) if magic and path.endswith(".py") else b"",
            sha256=sha256,
            text=text,
        )


def _stems(needles: list[bytes]) -> tuple[bytes, ...]:
    """Common beginnings of what is looked for: where none of them is, there is nothing."""
    stems: list[bytes] = []
    for needle in sorted(needles):
        common = _common(stems[-1], needle) if stems else b""
        if len(common) >= _SHORTEST_COMMON:
            stems[-1] = common
        else:
            stems.append(needle)
    return tuple(stems)


def _common(one: bytes, other: bytes) -> bytes:
    same = (a == b for a, b in zip(one, other, strict=False))
    return one[: next((i for i, equal in enumerate(same) if not equal), min(len(one), len(other)))]


_NO_ELF: tuple[elf.Elf | None, str, bool] = (None, "", False)


def _elf(path: str, data: elf.Buffer, exporting: bytes) -> tuple[elf.Elf | None, str, bool]:
    try:
        return elf.parse(data, path, exporting=exporting), "", False
    except elf.ElfError as error:
        return None, error.message, isinstance(error, elf.OtherElfError)


def _leaks(data: bytes, needles: tuple[tuple[str, bytes], ...], member: str) -> tuple[Leak, ...]:
    found = []
    for label, path in needles:
        offset = data.find(path)
        if offset >= 0:
            context = _context(data, offset, len(path))
            leak = Leak(label, path.decode(), member, offset, data.count(path), context)
            found.append(leak)
    return tuple(found)


def _context(data: bytes, offset: int, length: int) -> str:
    before = _PRINTABLE_END.search(data[max(0, offset - _CONTEXT) : offset])
    after = _PRINTABLE.match(data, offset, offset + length + _CONTEXT)
    return ((before[0] if before else b"") + (after[0] if after else b"")).decode()


def _archive_leaks(
    data: bytes, needles: tuple[tuple[str, bytes], ...]
) -> tuple[tuple[Leak, ...], str]:
    """What is inside an archive; nothing where the file is none."""
    found: list[Leak] = []
    if not needles or not archives.is_archive(data):
        return (), ""
    try:
        for member, content in archives.members(data):
            found += _leaks(content, needles, member)
    except archives.TooLargeError:
        return tuple(found), "it unpacks to more than 256 MB or to archives in archives"
    except ValueError as error:
        return tuple(found), str(error)
    return tuple(found), ""
