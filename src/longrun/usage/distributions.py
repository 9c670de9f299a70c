"""From names that were imported to distributions and versions: PIL is pillow, yaml is PyYAML.

A record names the site directory and what was imported from it. Directories are read once, and
again when they change. The agent is root, and a user can name any directory: one on a file server
that hangs, in a file system of the user's own making, full of links to what only root may read, or
with a million files. So the agent looks at none of them itself, not even with ``stat``. A
child does, with a bound on time and output:

1. as ``nobody``: directories that root alone can change, such as prefixes. Their answer is the same
   for everybody and is kept for everybody.
2. as the user whose record names the directory: everything else. It reads what that user can read
   anyway. What is there is the user's own affair, so the answer is kept for that user alone.

What a root's program imported is only ever looked up as ``nobody``. An agent that is not root
looks as itself. Nothing is ever imported. A name that several distributions share (``google``)
counts for each of them; a name that none claims is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping

from longrun.usage.child import answer, nobody
from longrun.usage.resolve import answers
from longrun.usage.state import State

SECONDS = 10.0
TRIES = 3
"""Of a child in which directories hang; each time the next one that hangs is left out."""

PENANCE = 3600.0
"""Seconds for which a directory that hung is not looked at."""

MOST_BYTES = 16_000_000
MOST_SITES = 5000
EVERYBODY = -1
"""In place of a uid: a directory that root alone can change."""

Names = Mapping[str, list[list[str]]]
Key = tuple[str, int]
Question = list[tuple[str, str | None]]
Ask = Callable[[Question, int], bytes]


class Distributions:
    """What site directories have. ``begin`` forgets what was looked at, not what was found."""

    def __init__(self, state: State, ask: Ask | None = None) -> None:
        self._state = state
        self._ask = ask or _ask
        self._known: dict[Key, tuple[str, str]] = state.sites()
        self._names: dict[Key, Names] = {}
        self._hung: dict[Key, float] = {}
        self.begin()

    def begin(self) -> None:
        """Begin a round, in which every directory is looked at once."""
        self._looked: set[Key] = set()
        self._trusted: set[str] = set()

    def look(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Look at site directories (uid, directory) that were not looked at in this round."""
        fresh: dict[Key, tuple[str, str]] = {}
        asked = set(wanted)
        self._trusted |= self._look_as(EVERYBODY, {place for _, place in asked}, fresh)
        for uid in sorted({uid for uid, _ in asked} - {0}):
            self._look_as(uid, {p for u, p in asked if u == uid} - self._trusted, fresh)
        if fresh:
            self._state.keep_sites(fresh, MOST_SITES)

    def _look_as(self, uid: int, places: set[str], fresh: dict[Key, tuple[str, str]]) -> set[str]:
        """Ask a child about new directories; those that it answered for."""
        now = time.monotonic()
        new = {
            place
            for place in places
            if (place, uid) not in self._looked and self._hung.get((place, uid), 0.0) < now
        }
        self._looked |= {(place, uid) for place in places}
        answered = set()
        for place, entry in self._ask_all(uid, new).items():
            key = (place, uid)
            if entry is None:
                self._known.pop(key, None)
                continue
            answered.add(place)
            stamp, names = entry
            if names is not None:
                self._known[key] = fresh[key] = (stamp, json.dumps(names))
                self._names.pop(key, None)
        return answered

    def _ask_all(self, uid: int, places: set[str]) -> dict[str, tuple[str, Names | None] | None]:
        """The answers of a child; where one hangs, it is named and another goes on behind it."""
        # what is known first: a new directory that hangs is to keep nobody else waiting
        left = sorted(places, key=lambda place: ((place, uid) not in self._known, place))
        found: dict[str, tuple[str, Names | None] | None] = {}
        for _ in range(TRIES):
            if not left:
                break
            question = [(place, self._known.get((place, uid), (None, ""))[0]) for place in left]
            found |= _checked(self._ask(question, uid), set(left))
            left = [place for place in left if place not in found]
            if left:
                self._hung[left.pop(0), uid] = time.monotonic() + PENANCE
        return found

    def packages(self, uid: int, use: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        """Distributions and versions of what a user imported, of the directories looked at."""
        found: dict[str, str] = {}
        for place, imported in use.items():
            names = self._of(place, EVERYBODY if place in self._trusted else uid)
            for name in imported:
                for distribution, version in names.get(name, ()):
                    found.setdefault(distribution, version)
        return dict(sorted(found.items()))

    def _of(self, place: str, uid: int) -> Names:
        key = (place, uid)
        if key not in self._names:
            _, text = self._known.get(key, ("", "{}"))
            self._names[key] = json.loads(text)
        return self._names[key]


def _ask(question: Question, uid: int) -> bytes:
    child = nobody() if uid == EVERYBODY else uid
    return answer(
        lambda: answers(question, trusted=uid == EVERYBODY),
        uid=child if os.geteuid() == 0 else None,
        seconds=SECONDS,
        most=MOST_BYTES,
    )


def _checked(output: bytes, places: set[str]) -> dict[str, tuple[str, Names | None] | None]:
    """What a child said, as far as it has the right form: a user may have had it say anything."""
    found: dict[str, tuple[str, Names | None] | None] = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, RecursionError, TypeError):
            place, entry = json.loads(line)
            if place in places:
                found[place] = _checked_entry(entry)
    return found


def _checked_entry(entry: object) -> tuple[str, Names | None] | None:
    if not isinstance(entry, dict) or not _is_name(entry.get("stamp")):
        return None
    names = entry.get("names")
    return str(entry["stamp"]), None if names is None else _checked_names(names)


def _checked_names(names: object) -> Names:
    if not isinstance(names, dict):
        return {}
    return {
        name: [pair for pair in pairs[:50] if _is_pair(pair)]
        for name, pairs in names.items()
        if _is_name(name) and isinstance(pairs, list)
    }


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(_is_name, pair))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()
