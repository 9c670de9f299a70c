"""One pass over a prefix: every path with its mode, every file read once, nothing executed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from longrun import elf, fs
from longrun.audit.content import Content, Reader, Search
from longrun.audit.distributions import Distribution, Recorded, installed, owners
from longrun.audit.loading import Loads, load

_MAGIC_IN_PYTHON = re.compile(r"^MAGIC_NUMBER = \((\d+)\)", re.M)
_MAGIC_IN_C = re.compile(r"^#define PYC_MAGIC_NUMBER (\d+)", re.M)


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

    @cached_property
    def distributions(self) -> tuple[Distribution, ...]:
        """What is installed below site-packages; to read it is a matter of its own."""
        start = len(self.packages)
        inside = [node for node in self.nodes.values() if node.path.startswith(self.packages)]
        names = [node.path[start:] for node in inside if "/" not in node.path[start:]]
        texts = {n.path[start:]: n.content.text for n in inside if n.content.text is not None}
        return installed(self.packages, names, texts)

    @cached_property
    def owners(self) -> Mapping[str, list[tuple[Distribution, Recorded]]]:
        """Every path that a RECORD lists, with those who list it."""
        return owners(self.distributions)

    @cached_property
    def loads(self) -> Loads:
        """What the dynamic linker finds for every executable and shared object."""
        links = {node.path: node.target for node in self.nodes.values() if node.target}
        return load({node.path: found for node, found in self.objects()}, links)

    def is_packaged(self, path: str) -> bool:
        """Whether a file came with a distribution: also a program that one put into ``bin``."""
        return path.startswith(self.packages) or (
            path in self.owners and not path.startswith(f"{self.library}/")
        )

    def objects(self) -> Iterator[tuple[Node, elf.Elf]]:
        """Executables and shared objects: the ELF files that can be loaded."""
        yield from self._objects

    @cached_property
    def _objects(self) -> tuple[tuple[Node, elf.Elf], ...]:
        found = ((node, node.content.elf) for node in self.nodes.values())
        return tuple((n, e) for n, e in found if e and e.type in (elf.ET_EXEC, elf.ET_DYN))


def is_cached(path: str) -> bool:
    """Whether a file is bytecode of a source one directory above."""
    return path.endswith(".pyc") and "/__pycache__/" in path


def source_of(path: str) -> str:
    """The source of a ``.pyc``: its name may have dots, and so may what comes after its tag."""
    directory, _, name = path.rpartition("/")
    stem = name.removesuffix(".pyc")
    if is_cached(path):
        directory, stem = directory.removesuffix("/__pycache__"), stem.partition(".cpython-")[0]
    return f"{directory}/{stem}.py"


def scan(prefix: Path, forbidden: Mapping[str, str]) -> Tree:
    """Read a prefix; ``forbidden`` maps what a path is to the path to look for in every file."""
    root = Path(os.path.realpath(prefix))
    python = _python(root)
    library = f"lib/python{python}"
    search = Search(
        forbidden=forbidden,
        magic=_magic(root / library) if python else 0,
        library=library,
        packages=f"{library}/site-packages/",
        hashed=any(root.glob(f"{library}/site-packages/*.dist-info")),
    )
    nodes = _read_all(list(fs.walk(root)), search)
    return Tree(root=root, python=python, magic=search.magic, nodes=nodes)


def _read_all(entries: list[tuple[str, os.DirEntry[str]]], search: Search) -> dict[str, Node]:
    """All nodes in order. Reading and hashing use all cores; the rest waits for its turn."""
    todo = iter(entries)  # shared: each thread takes the next path as soon as it is free

    def work() -> list[Node]:
        reader = Reader(search)
        return [_node(path, entry, reader) for path, entry in todo]

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(work) for _ in range(threads)]
    found = {node.path: node for part in parts for node in part.result()}
    return {path: found[path] for path, _ in entries}


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


def _node(path: str, entry: os.DirEntry[str], reader: Reader) -> Node:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Node(path, status.st_mode, 0, os.readlink(entry.path))
    if not stat.S_ISREG(status.st_mode):
        return Node(path, status.st_mode, 0)
    try:
        content = reader.read(path, entry.path, status.st_size)
    except OSError as error:
        return Node(path, status.st_mode, status.st_size, unread=error.strerror or str(error))
    return Node(path, status.st_mode, status.st_size, content=content)
