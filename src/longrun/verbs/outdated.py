"""``outdated``: what is newer than the locks, per interpreter, and what holds it back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from longrun.errors import LongrunError, SpecError
from longrun.index.client import File, in_parallel
from longrun.lock.closure import Target, read_facts, target_of
from longrun.lock.make import Order, question_for
from longrun.lock.offers import Offer, newest, offers
from longrun.lock.resolve import Uv
from longrun.model import Distribution, Interpreter, Lock, Package
from longrun.plan import choose_interpreters
from longrun.specs import normalised
from longrun.stack import packages_for
from longrun.term import paint
from longrun.verbs.desk import Desk, open_desk


@dataclass(frozen=True, kw_only=True)
class Newer:
    """A distribution of which the index has something newer than the lock of ``tags``.

    ``upgrade`` is what `lock --upgrade-all` would take (empty: nothing newer), ``newest`` what
    there is; ``held`` says what keeps the newest out, and is empty where nothing does.
    """

    name: str
    locked: str
    upgrade: str
    newest: str
    held: tuple[str, ...]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class State:
    """What one interpreter has, and could have."""

    lock: Lock
    packages: Mapping[str, Package]
    target: Target
    reachable: Mapping[str, str]
    pages: Mapping[str, tuple[File, ...]]


def outdated(root: Path, arguments: argparse.Namespace) -> int:
    """Compare the locks with the index."""
    desk = open_desk(root, arguments)
    versions = arguments.python or list(desk.release.interpreters)
    interpreters = choose_interpreters(desk.specs, desk.release, versions)
    locks = {item.tag: _require_lock(desk, item) for item in interpreters}
    names = sorted({dist.name for lock in locks.values() for dist in lock.distribution})
    uv = desk.uv  # found once, before the threads ask for it
    jobs: list[Interpreter | None] = [*interpreters, None]
    *found, pages = in_parallel(lambda job: _ask(job, desk, uv, locks, names), jobs)
    rows: dict[Newer, tuple[str, ...]] = {}
    for interpreter, reachable in zip(interpreters, found, strict=True):
        state = State(
            lock=locks[interpreter.tag],
            packages=packages_for(desk.specs.packages, desk.release, interpreter.tag),
            target=target_of(interpreter, desk.release.floor),
            reachable=reachable,
            pages=pages,
        )
        for row in compare(state, desk):
            rows[row] = (*rows.get(row, ()), interpreter.tag)
    merged = [replace(row, tags=tags) for row, tags in rows.items()]
    merged.sort(key=lambda row: (row.name, row.tags))
    if arguments.json:
        print(json.dumps(document(desk, locks, merged), indent=1))
    else:
        print_rows(merged, list(locks))
    return 0


def _require_lock(desk: Desk, interpreter: Interpreter) -> Lock:
    lock = desk.specs.lock(desk.release.name, interpreter.tag)
    if lock is None:
        path = desk.specs.lock_path(desk.release.name, interpreter.tag)
        label = path.relative_to(desk.context.root).as_posix()
        raise SpecError(f"{label}: there is no such lock yet", remedy="./build.py lock")
    return lock


def _ask(
    job: Interpreter | None, desk: Desk, uv: Uv, locks: Mapping[str, Lock], names: list[str]
) -> Any:
    """What an upgrade of everything would take, by name; for None, all pages of the index."""
    if job is None:
        return desk.index.projects(names)
    order = Order(
        release=desk.release,
        interpreter=job,
        packages=packages_for(desk.specs.packages, desk.release, job.tag),
        before=locks[job.tag],
        upgrade_all=True,
    )
    try:
        return uv.resolve(question_for(order, desk.index))
    except LongrunError:
        return {}  # then each row tells what is in the way


def compare(state: State, desk: Desk) -> Iterator[Newer]:
    """A row for each distribution that is not the newest."""
    for dist in state.lock.distribution:
        rows = offers(state.pages[dist.name], state.target)
        top = _newest_there_is(rows, dist)
        if top is None:
            continue
        reached = state.reachable.get(dist.name, dist.version)
        better = Version(reached) > Version(dist.version)
        yield Newer(
            name=dist.name,
            locked=dist.version,
            upgrade=reached if better else "",
            newest=str(top.version),
            held=() if Version(reached) >= top.version else tuple(reasons(top, dist, state, desk)),
        )


def _newest_there_is(rows: Iterable[Offer], dist: Distribution) -> Offer | None:
    """The newest version that is newer than what is locked; a pre-release only beside none."""
    locked = Version(dist.version)
    newer = [offer for offer in rows if offer.version > locked]
    stable = [offer for offer in newer if not offer.version.is_prerelease]
    return next(iter(stable or newer), None)


def reasons(offer: Offer, dist: Distribution, state: State, desk: Desk) -> Iterator[str]:
    """What holds a version back."""
    package = state.packages.get(dist.name)
    constraint = package.constraint_for(state.target.tag) if package else ""
    build = package is not None and package.build is not None
    if not _allows(constraint, offer.version):
        yield f"specs/packages/{dist.name}.toml asks for {constraint}"
    for asker, at in dist.required_by.items():
        if not _allows(at, offer.version):
            yield f"{asker} asks for {at}"
    if not offer.fits(build=build):
        yield offer.lacks()
        best = newest(offers(state.pages[dist.name], state.target), constraint, build=build)
        if best and best.version > Version(dist.version):
            yield f"{best.version} is the newest that fits"
        return
    if offer.version.is_prerelease and not Version(dist.version).is_prerelease:
        yield "is a pre-release"
    yield from _own_needs(offer, state, desk, build=build)


def _own_needs(offer: Offer, state: State, desk: Desk, *, build: bool) -> Iterator[str]:
    """What the version itself asks for, and the stack cannot have with the rest."""
    choice = offer.choice(build=build)
    if choice is None:
        return
    facts = read_facts(desk.index.metadata(choice.file), choice.file.name)
    locked = {dist.name: dist.version for dist in state.lock.distribution}
    for requirement in facts.requires:
        name = normalised(requirement.name)
        version = state.reachable.get(name) or locked.get(name)
        if not version or not state.target.applies(requirement, ()):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"asks for {name}{requirement.specifier}, and the stack can have {version}"


def _allows(constraint: str, version: Version) -> bool:
    return SpecifierSet(constraint).contains(version, prereleases=True)


def document(desk: Desk, locks: Mapping[str, Lock], rows: Iterable[Newer]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "schema": 1,
        "release": desk.release.name,
        "interpreters": list(locks),
        "outdated": [asdict(row) for row in rows],
    }


def print_rows(rows: list[Newer], tags: list[str]) -> None:
    """A line for each, what can be had first told, then what holds the newest back."""
    if not rows:
        print("everything is the newest that the index has")
        return
    table = [
        (
            row.name,
            "" if list(row.tags) == tags else ", ".join(row.tags),
            row.locked,
            f"-> {row.upgrade}" if row.upgrade else "",
            f"newest {row.newest}" if row.newest != row.upgrade else "",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in table) for i in range(5)]
    for row, line in zip(rows, table, strict=True):
        cells = "  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True) if w)
        why = "; ".join(row.held)
        if row.upgrade:
            command = f"./build.py lock --upgrade {row.name}"
            why = f"{command}; {why}" if why else command
        elif not why:
            why = "no resolution of all specs has it"
        print(f"  {cells}  {paint('dim', why)}")
