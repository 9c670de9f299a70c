"""Lock files as text, and what differs between two locks, in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import SpecifierSet

from longrun.model import Distribution, Lock, Package

HEADER = "# Written by ./build.py lock: change specs/packages instead, and run it.\n"

ADDED, MOVED, REMOVED, FILED = "added", "moved", "removed", "filed"
KINDS = (ADDED, MOVED, FILED, REMOVED)


def lock_text(lock: Lock) -> str:
    """A lock as its file has it: the same lock always gives the same text.

    One key to a line and one asker to a line, so that a change shows as the lines that it changes.
    """
    return HEADER + "\n".join(_lines(lock))


def _lines(lock: Lock) -> Iterator[str]:
    for key in ("release", "interpreter", "python", "platform"):
        yield f"{key} = {quoted(getattr(lock, key))}"
    for key in ("distribution", "build"):
        for dist in sorted(getattr(lock, key), key=lambda dist: dist.name):
            yield f"\n[[{key}]]"
            yield from _distribution(dist, key)
    yield ""


def _distribution(dist: Distribution, table: str) -> Iterator[str]:
    for item in dataclasses.fields(Distribution):
        value = getattr(dist, item.name)
        if item.name == "required_by" or value in ("", ()):
            continue
        if isinstance(value, tuple):
            yield f"{item.name} = [{', '.join(map(quoted, value))}]"
        else:
            yield f"{item.name} = {value if isinstance(value, int) else quoted(value)}"
    if dist.required_by:
        yield f"[{table}.required_by]"
        yield from (f"{name} = {quoted(at)}" for name, at in sorted(dist.required_by.items()))


def quoted(text: str) -> str:
    """A TOML basic string; its escapes are those of JSON, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happened to one distribution, alike for all interpreters of ``tags``.

    ``dist`` is what is locked now, or was, where it was removed; ``build`` says that only builds
    have it.
    """

    kind: str
    name: str
    before: str
    after: str
    why: str
    tags: tuple[str, ...]
    dist: Distribution
    build: bool = False


@dataclass(frozen=True, kw_only=True)
class Moves:
    """For the reasons in a diff: what was asked to move, and the packages."""

    packages: Mapping[str, Package]
    upgrade: frozenset[str] = frozenset()
    upgrade_all: bool = False


def differences(
    old: Mapping[str, Lock | None], new: Mapping[str, Lock], moves: Moves
) -> list[Change]:
    """What differs between locks by interpreter tag; what is alike in several is one change."""
    found: dict[tuple[Any, ...], Change] = {}
    for tag, lock in new.items():
        for change in _differences(old.get(tag), lock, moves):
            key = (change.kind, change.name, change.before, change.after, change.why, change.build)
            known = found.get(key)
            tags = (*known.tags, tag) if known else (tag,)
            found[key] = dataclasses.replace(known or change, tags=tags)
    return sorted(found.values(), key=lambda c: (KINDS.index(c.kind), c.name, c.tags))


def _differences(old: Lock | None, new: Lock, moves: Moves) -> Iterator[Change]:
    for build in (False, True):
        was = {dist.name: dist for dist in _part(old, build)}
        now = {dist.name: dist for dist in _part(new, build)}
        for name in sorted(was.keys() | now.keys()):
            change = _change(was.get(name), now.get(name), old, new, moves)
            if change:
                yield dataclasses.replace(change, build=build)


def _part(lock: Lock | None, build: bool) -> tuple[Distribution, ...]:
    if lock is None:
        return ()
    return lock.build if build else lock.distribution


def _change(
    was: Distribution | None,
    now: Distribution | None,
    old: Lock | None,
    new: Lock,
    moves: Moves,
) -> Change | None:
    tags = (new.interpreter,)
    if was is None and now is not None:
        return Change(
            kind=ADDED,
            name=now.name,
            before="",
            after=now.version,
            why=why_here(now, moves.packages),
            tags=tags,
            dist=now,
        )
    if was is not None and now is None:
        return Change(
            kind=REMOVED,
            name=was.name,
            before=was.version,
            after="",
            why=_why_removed(was, new),
            tags=tags,
            dist=was,
        )
    assert was is not None
    assert now is not None
    if was.version != now.version or was.file != now.file:
        return Change(
            kind=MOVED if was.version != now.version else FILED,
            name=now.name,
            before=was.version if was.version != now.version else was.file,
            after=now.version if was.version != now.version else now.file,
            why=_why_moved(was, now, old, new, moves),
            tags=tags,
            dist=now,
        )
    return None


def why_here(dist: Distribution, packages: Mapping[str, Package]) -> str:
    """Who wants a distribution: its spec, or those that ask for it."""
    if dist.name in packages:
        return f"specs/packages/{dist.name}.toml"
    return f"asked for by {_askers(dist.required_by)}"


def _askers(askers: Mapping[str, str], limit: int = 5) -> str:
    shown = [f"{name} ({at})" if at else name for name, at in list(askers.items())[:limit]]
    if len(askers) > limit:
        shown.append(f"{len(askers) - limit} more")
    return ", ".join(shown)


def _why_removed(was: Distribution, new: Lock) -> str:
    left = {dist.name for dist in new.distribution}
    gone = [name for name in was.required_by if name not in left]
    stays = [name for name in was.required_by if name in left]
    if not was.required_by:
        return "its spec is gone"
    if stays and not gone:
        return f"{', '.join(stays[:5])} no longer asks for it"
    return f"nothing asks for it: {', '.join(gone[:5])} is gone"


def _why_moved(
    was: Distribution, now: Distribution, old: Lock | None, new: Lock, moves: Moves
) -> str:
    package = moves.packages.get(now.name)
    constraint = package.constraint_for(new.interpreter) if package else ""
    if not _allows(constraint, was):
        return f"specs/packages/{now.name}.toml asks for {constraint}"
    for asker, at in now.required_by.items():
        if not _allows(at, was):
            return f"{asker} asks for {at}"
    versions = {dist.name: dist for dist in new.distribution}
    for dist in old.distribution if old else ():
        at = dist.required_by.get(now.name, "")
        if dist.name in versions and not _allows(at, versions[dist.name]):
            return f"{was.version} asks for {dist.name}{at}, which is {versions[dist.name].version}"
    if now.name in moves.upgrade:
        return f"--upgrade {now.name}"
    if moves.upgrade_all:
        return "--upgrade-all"
    if was.version == now.version:
        return "another file of the same version"
    return "so that all go together"


def _allows(constraint: str, dist: Distribution) -> bool:
    return SpecifierSet(constraint).contains(dist.version, prereleases=True)


def retold(old: Mapping[str, Lock | None], new: Mapping[str, Lock]) -> int:
    """How many entries differ only in what they tell: who asks, licence, summary."""
    count = 0
    for tag, lock in new.items():
        before = old.get(tag)
        was = {dist.name: dist for dist in (*before.distribution, *before.build)} if before else {}
        for dist in (*lock.distribution, *lock.build):
            known = was.get(dist.name)
            if known and known != dist and known.file == dist.file:
                count += 1
    return count
