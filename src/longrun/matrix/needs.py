"""What the files of each distribution need of the system: their highest symbol versions.

Read from the files as the store has them, by the rules of the audit: a version that is wanted of
a library which the same distribution brings does not count. Nothing is executed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

from longrun import elf, fs
from longrun.audit.content import Content
from longrun.audit.elf_checks import highest_versions
from longrun.audit.tree import Node, Tree
from longrun.errors import StoreError
from longrun.matrix.report import Need
from longrun.model import Interpreter, Release
from longrun.plan import Step, make_plan
from longrun.specs import Specs
from longrun.stack import load_stack
from longrun.store import Entry, Store

NEITHER = Content()

Seen = dict[str, Content]
"""What was read before, by the sha256 of the file."""


def survey(
    specs: Specs, release: Release, interpreters: tuple[Interpreter, ...], store: Store
) -> tuple[Need, ...]:
    """The needs of each interpreter, then of what its layers hold, by name.

    Nothing is built: StoreError where an entry is not there yet.
    """
    plan = make_plan(specs, release, interpreters, layers=tuple(release.layers))
    steps = {step.id: step for step in plan.steps}
    seen: Seen = {}
    found = []
    for interpreter in interpreters:
        stack = load_stack(specs, release, interpreter)
        prefix = realised(store, steps[f"prefix/{interpreter.name}"], interpreter)
        found.append(
            _need(interpreter.tag, interpreter.name, interpreter.version, "", prefix, seen)
        )
        for dist in stack.lock.distribution:
            entry = realised(store, steps[f"wheel/{interpreter.tag}-{dist.name}"], interpreter)
            layer = stack.layers_of(dist.name)[0]
            found.append(_need(interpreter.tag, dist.name, dist.version, layer, entry, seen))
    return tuple(found)


def realised(store: Store, step: Step, interpreter: Interpreter) -> Entry:
    """The entry of a step of an interpreter's layers; StoreError where it has not been built."""
    entry = store.get(step.key)
    if entry is None:
        version = interpreter.name.removeprefix("cpython-")
        raise StoreError(
            f"{step.title}: not in the store",
            remedy=f"./build.py build --layer all --python {version}",
        )
    return entry


def _need(tag: str, name: str, version: str, layer: str, entry: Entry, seen: Seen) -> Need:
    files, glibc, glibcxx = needs_of(entry.tree, entry.files(), seen)
    return Need(
        tag=tag,
        name=name,
        version=version,
        layer=layer,
        files=files,
        glibc=glibc,
        glibcxx=glibcxx,
    )


def needs_of(
    tree: Path, files: Iterable[fs.Record], seen: Seen | None = None
) -> tuple[int, str, str]:
    """How many ELF files a tree has, and the highest GLIBC and GLIBCXX that they need.

    Such as ``(12, "2.28", "3.4.25")``; "" where no file asks for any. ``seen`` remembers what was
    read over several trees, so that equal files are read once. ElfError where a file is damaged.
    """
    nodes = {node.path: node for node in _nodes(tree, files, {} if seen is None else seen)}
    objects = Tree(root=tree, python="", magic=0, nodes=nodes)
    highest = highest_versions(objects)
    glibc, glibcxx = (
        highest[kind].version if kind in highest else "" for kind in ("GLIBC", "GLIBCXX")
    )
    return sum(1 for _ in objects.objects()), glibc, glibcxx


def _nodes(tree: Path, files: Iterable[fs.Record], seen: Seen) -> Iterator[Node]:
    """What the dynamic linker may come to: links, and the files that it could load."""
    for record in files:
        if record.type == fs.LINK:
            yield Node(record.path, record.mode, 0, record.value)
        elif record.type == fs.FILE and _may_be_elf(record):
            if record.value not in seen:
                seen[record.value] = _content(tree / record.path)
            if seen[record.value] is not NEITHER:
                yield Node(record.path, record.mode, record.size, content=seen[record.value])


def _may_be_elf(record: fs.Record) -> bool:
    """Whether a file is worth opening: it is a library, or a program, by name or by mode.

    Of a hundred thousand files these are a few thousand.
    """
    name = record.path.rpartition("/")[2]
    return bool(record.size) and (".so" in name or "." not in name or bool(record.mode & 0o111))


def _content(path: Path) -> Content:
    """A library or program of this kind of machine; anything else is ``NEITHER``."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != elf.MAGIC:
            return NEITHER
        try:
            # that a module is one decides what is loaded first; nobody asks for other symbols
            return Content(elf=elf.parse(data, str(path), exporting=b"PyInit"))
        except elf.OtherElfError:  # some wheels carry libraries for several machines
            return NEITHER
