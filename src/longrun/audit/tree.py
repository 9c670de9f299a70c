"""One pass over a prefix: every path with its mode, every file read once, nothing executed."""

from __future__ import annotations

import _imp
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longrun import elf, fs
from longrun.audit import archives

_CONTEXT = 60  # printable bytes shown on either side of a path that was found
_PRINTABLE_END = re.compile(rb"[\x20-\x7e]*\Z")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_MAGIC_IN_PYTHON = re.compile(r"^MAGIC_NUMBER = \((\d+)\)", re.M)
_MAGIC_IN_C = re.compile(r"^#define PYC_MAGIC_NUMBER (\d+)", re.M)


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
    """What one pass over a file's bytes tells."""

    elf: elf.Elf | None = None
    elf_error: str = ""
    leaks: tuple[Leak, ...] = ()
    archive_error: str = ""
    shebang: str = ""
    pyc: bytes | None = None
    source_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Node:
    """One path below the prefix; ``mode`` with the type bits, ``target`` of a link."""

    path: str
    mode: int
    size: int
    target: str = ""
    unread: str = ""
    content: Content = field(default=Content())

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A prefix as it was read. ``python`` is such as ``3.13``, "" where none or several are there.

    ``magic`` is the number in the first four bytes of its bytecode, 0 where not found.
    """

    root: Path
    python: str
    magic: int
    nodes: Mapping[str, Node]

    @property
    def library(self) -> str:
        """The directory of the standard library, such as ``lib/python3.13``."""
        return f"lib/python{self.python}"

    @property
    def packages(self) -> str:
        """The directory of installed packages, with a slash at its end."""
        return f"{self.library}/site-packages/"

    def objects(self) -> Iterator[tuple[Node, elf.Elf]]:
        """Executables and shared objects: the ELF files that can be loaded."""
        for node in self.nodes.values():
            found = node.content.elf
            if found and found.type in (elf.ET_EXEC, elf.ET_DYN):
                yield node, found


def scan(prefix: Path, forbidden: Mapping[str, str]) -> Tree:
    """Read a prefix; ``forbidden`` maps what a path is to the path to look for in every file."""
    root = Path(os.path.realpath(prefix))
    python = _python(root)
    magic = _magic(root / f"lib/python{python}") if python else 0
    needles = tuple((label, path.encode()) for label, path in forbidden.items())
    # one thread: the work is in bytes.find and struct, which keep the GIL
    nodes = {path: _node(path, entry, needles, magic) for path, entry in fs.walk(root)}
    return Tree(root=root, python=python, magic=magic, nodes=nodes)


def _python(root: Path) -> str:
    found = [path.parent.name.removeprefix("python") for path in root.glob("lib/python3.*/os.py")]
    return found[0] if len(found) == 1 else ""


def _magic(library: Path) -> int:
    """The bytecode's first four bytes, from the prefix's importlib or, since 3.14, a header."""
    header = library.parents[1] / "include" / library.name / "internal/pycore_magic_number.h"
    sources = (
        (library / "importlib/_bootstrap_external.py", _MAGIC_IN_PYTHON),
        (header, _MAGIC_IN_C),
    )
    for path, pattern in sources:
        if path.is_file() and (found := pattern.search(path.read_text("utf-8", "replace"))):
            return int.from_bytes(int(found[1]).to_bytes(2, "little") + b"\r\n", "little")
    return 0


def _node(
    path: str, entry: os.DirEntry[str], needles: tuple[tuple[str, bytes], ...], magic: int
) -> Node:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Node(path, status.st_mode, 0, os.readlink(entry.path))
    if not stat.S_ISREG(status.st_mode):
        return Node(path, status.st_mode, 0)
    try:
        with open(entry.path, "rb", buffering=0) as file:
            data = file.readall()
    except OSError as error:
        return Node(path, status.st_mode, status.st_size, unread=error.strerror or str(error))
    content = read_content(path, data, needles, magic)
    return Node(path, status.st_mode, status.st_size, content=content)


def read_content(
    path: str, data: bytes, needles: tuple[tuple[str, bytes], ...], magic: int
) -> Content:
    """What the checks need to know of one file's bytes."""
    leaks = _leaks(data, needles, "")
    found, elf_error, archive_error = None, "", ""
    if data.startswith(elf.MAGIC):
        try:
            found = elf.parse(data, path)
        except elf.ElfError as error:
            elf_error = error.message
    elif needles and archives.is_archive(data):
        inner, archive_error = _archive_leaks(data, needles)
        leaks += inner
    shebang = data[:4096].split(b"\n", 1)[0] if data.startswith(b"#!") else b""
    return Content(
        elf=found,
        elf_error=elf_error,
        leaks=leaks,
        archive_error=archive_error,
        shebang=shebang.decode("utf-8", "backslashreplace"),
        pyc=data[:16] if path.endswith(".pyc") else None,
        # the key is the audited interpreter's magic number (PEP 552), not that of this process
        source_hash=_imp.source_hash(magic, data) if magic and path.endswith(".py") else b"",
    )


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
    found: list[Leak] = []
    try:
        for member, content in archives.members(data):
            found += _leaks(content, needles, member)
    except archives.TooLargeError:
        return tuple(found), "it unpacks to more than 256 MB or to archives in archives"
    except ValueError as error:
        return tuple(found), str(error)
    return tuple(found), ""
