"""What the dynamic linker would find for every file, as ld.so(8) and glibc's dl-load.c have it.

A file's own RUNPATH is not all: a library that is loaded already is not looked for again, and an
RPATH holds for all that is loaded on behalf of its file. Wheels rely on both: ``auditwheel`` gives
the paths to the extension modules, and the libraries beside them need none.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from longrun.elf import Elf

# ld.so knows $LIB and $PLATFORM too, whose values differ from machine to machine
ORIGIN = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})((?:/[^$]*)?)")
_MOST_LINKS = 8


@dataclass(frozen=True, kw_only=True)
class Loads:
    """The outcome, as pairs of a file and the name of a library that it needs.

    ``found`` are those that are found in the prefix whenever the file is loaded, ``missing`` those
    that are not at least once: the system has to have them. ``imported`` are the files that are
    loaded when extension modules are imported, or programs started.
    """

    found: frozenset[tuple[str, str]]
    missing: frozenset[tuple[str, str]]
    imported: frozenset[str]


def inside(path: str, entry: str) -> str | None:
    """The directory of the prefix that a RUNPATH entry of the file at ``path`` names, or None."""
    origin = ORIGIN.fullmatch(entry)
    if not origin:
        return None
    directory = os.path.normpath(os.path.join(os.path.dirname(path), f".{origin[1]}"))
    return None if directory.split("/")[0] == ".." else directory


def load(objects: Mapping[str, Elf], links: Mapping[str, str]) -> Loads:
    """Load every file of a prefix; ``links`` maps paths of symbolic links to their targets.

    First all that is imported or started, then what is left: plugins, and libraries that Python
    code opens by name.
    """
    linker = _Linker(objects, links)
    for path in _starts(objects):
        linker.open(path)
    imported = frozenset(linker.seen)
    for path in objects:
        if path not in linker.seen:
            linker.open(path)
    return Loads(
        found=frozenset(linker.found - linker.missing),
        missing=frozenset(linker.missing),
        imported=imported,
    )


def _starts(objects: Mapping[str, Elf]) -> Iterator[str]:
    for path, found in objects.items():
        if found.interpreter or any(s.name.startswith("PyInit") for s in found.exports):
            yield path


class _Linker:
    def __init__(self, objects: Mapping[str, Elf], links: Mapping[str, str]) -> None:
        self._objects = objects
        self._links = links
        self._paths = {
            path: (_directories(path, found.rpath), _directories(path, found.runpath))
            for path, found in objects.items()
        }
        self.seen: set[str] = set()
        self.found: set[tuple[str, str]] = set()
        self.missing: set[tuple[str, str]] = set()

    def open(self, start: str) -> None:
        """Load one file and all that it needs, breadth first, as into an empty process."""
        loaded = {self._objects[start].soname, start.rpartition("/")[2]}
        queue: deque[tuple[str, tuple[str, ...]]] = deque([(start, ())])
        while queue:
            path, inherited = queue.popleft()
            self.seen.add(path)
            rpath, runpath = self._paths[path]
            # with a RUNPATH, no RPATH counts: neither the file's own nor those of its loaders
            handed_on = inherited if runpath else (*rpath, *inherited)
            for library in self._objects[path].needed:
                if library in loaded:
                    self.found.add((path, library))
                elif target := self._search(library, runpath or handed_on):
                    self.found.add((path, library))
                    loaded |= {library, self._objects[target].soname}
                    queue.append((target, handed_on))
                else:
                    self.missing.add((path, library))

    def _search(self, library: str, directories: Iterable[str]) -> str:
        for directory in directories:
            path = self._real(os.path.normpath(f"{directory}/{library}"))
            if path in self._objects:
                return path
        return ""

    def _real(self, path: str) -> str:
        for _ in range(_MOST_LINKS):
            if path not in self._links:
                break
            path = os.path.normpath(os.path.join(os.path.dirname(path), self._links[path]))
        return path


def _directories(path: str, entries: str) -> tuple[str, ...]:
    found = (inside(path, entry) for entry in entries.split(":") if entry)
    return tuple(directory for directory in found if directory is not None)
