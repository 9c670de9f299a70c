"""What ``lock``, ``add`` and ``outdated`` share: the locks of a release, made anew and written."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.version import Version

from longrun.errors import LongrunError, SetupError, SpecError
from longrun.fs import write_together
from longrun.index.client import Index, find_index
from longrun.lock.accept import Arrival, Settlement, settle
from longrun.lock.lockfile import (
    ADDED,
    FILED,
    MOVED,
    REMOVED,
    Change,
    Moves,
    differences,
    lock_text,
    retold,
    why_here,
)
from longrun.lock.make import Made, Order, make_lock
from longrun.lock.resolve import Uv
from longrun.lock.specfile import with_brings
from longrun.model import Interpreter, Lock, Package, Release
from longrun.plan import choose_interpreters, choose_release
from longrun.specs import Specs, check_packages, parse_spec
from longrun.stack import check_stack, packages_for
from longrun.term import clip, paint, size
from longrun.verbs.context import Context


@dataclass(frozen=True)
class Desk:
    """A release whose locks are looked at or made."""

    context: Context
    release: Release

    @property
    def specs(self) -> Specs:
        """Every spec of the checkout."""
        return self.context.specs

    @cached_property
    def environment(self) -> Path:
        """Longrun's own environment, which has uv and pip."""
        return Path(os.environ.get("LONGRUN_ENVIRONMENT", sys.prefix))

    @cached_property
    def index(self) -> Index:
        """The site's package index."""
        return find_index(self.context.config, self.environment / "bin" / "python")

    @cached_property
    def uv(self) -> Uv:
        """The resolver; SetupError where it is not there."""
        program = self.environment / "bin" / "uv"
        if not program.is_file():
            raise SetupError(
                f"{program}: not found",
                remedy="remove this environment; the next ./build.py makes it again",
            )
        return Uv(
            program=program,
            python=self.environment / "bin" / "python",
            cache=self.context.config.cache / "uv",
            index=self.index,
        )

    @cached_property
    def interpreters(self) -> dict[str, Interpreter]:
        """The interpreters of the release by tag, the default first."""
        chosen = choose_interpreters(self.specs, self.release, list(self.release.interpreters))
        return {interpreter.tag: interpreter for interpreter in chosen}

    @cached_property
    def before(self) -> dict[str, Lock | None]:
        """The locks as they are, by tag; SpecError where one cannot be read."""
        try:
            return {tag: self.specs.lock(self.release.name, tag) for tag in self.interpreters}
        except SpecError as error:  # two branches that both changed it, merged
            raise SpecError(
                error.message, remedy="take it as it was on one side, then ./build.py lock"
            ) from None

    def make(
        self,
        packages: Mapping[str, Package],
        *,
        upgrade: Iterable[str] = (),
        upgrade_all: bool = False,
        thorough: bool = True,
    ) -> dict[str, Made | LongrunError]:
        """New locks of all interpreters at once, or why there is none."""
        check_packages(packages)
        self.uv  # noqa: B018 - made once, before the threads ask for it

        def one(interpreter: Interpreter) -> Made | LongrunError:
            order = Order(
                release=self.release,
                interpreter=interpreter,
                packages=packages_for(packages, self.release, interpreter.tag),
                before=self.before[interpreter.tag],
                upgrade=frozenset(upgrade),
                upgrade_all=upgrade_all,
                thorough=thorough,
            )
            try:
                return make_lock(order, self.index, self.uv)
            except LongrunError as error:
                return error

        with ThreadPoolExecutor(len(self.interpreters)) as pool:
            return dict(
                zip(self.interpreters, pool.map(one, self.interpreters.values()), strict=True)
            )


def open_desk(root: Path, arguments: argparse.Namespace) -> Desk:
    """The release that a verb is about."""
    context = Context(root)
    return Desk(context, choose_release(context.specs, arguments.release))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What would be written: new locks, `brings` of all packages, and what all that changes."""

    desk: Desk
    locks: Mapping[str, Lock]
    settlement: Settlement
    changes: tuple[Change, ...]
    retold: int
    warnings: tuple[str, ...] = ()
    new_specs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> dict[Path, str]:
        """Every file that changes, with its new text, in the order in which they are written.

        Specs come first, those that take names in before those that let names out: whatever a
        kill leaves, `lock` mends it without asking again.
        """
        root = self.desk.context.root
        found: list[tuple[bool, Path, str]] = []
        for name, package in self.settlement.packages.items():
            path = root / "specs" / "packages" / f"{name}.toml"
            known = self.desk.specs.packages.get(name)
            if name in self.new_specs:
                found.append((False, path, self.new_specs[name]))
            elif known is not None and known.brings != package.brings:
                text = with_brings(path.read_text(encoding="utf-8"), package.brings)
                found.append((bool(set(known.brings) - set(package.brings)), path, text))
        files = {path: text for _, path, text in sorted(found, key=lambda item: item[:2])}
        for tag, lock in self.locks.items():
            path = self.desk.specs.lock_path(self.desk.release.name, tag)
            text = lock_text(lock)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                files[path] = text
        return files

    def check(self) -> None:
        """Hold the texts that would be written against each other, as a build will."""
        packages = dict(self.settlement.packages)
        for path, text in self.files.items():
            label = path.relative_to(self.desk.context.root).as_posix()
            if path.parent.name == "packages":
                found = parse_spec(text, Package, label)
                if found != packages[path.stem]:
                    raise SpecError(f"{label}: `brings` cannot be edited here", remedy="edit it")
        check_packages(packages)
        for tag, interpreter in self.desk.interpreters.items():
            path = self.desk.specs.lock_path(self.desk.release.name, tag)
            label = path.relative_to(self.desk.context.root).as_posix()
            lock = parse_spec(lock_text(self.locks[tag]), Lock, label)
            chosen = packages_for(packages, self.desk.release, tag)
            check_stack(self.desk.release, interpreter, chosen, lock, label)

    def write(self) -> None:
        """Check, then write all; SpecError where somebody changed a file meanwhile."""
        self.check()
        self._require_unchanged()
        write_together(self.files)

    def _require_unchanged(self) -> None:
        fresh = Context(self.desk.context.root)
        now = {tag: fresh.specs.lock(self.desk.release.name, tag) for tag in self.desk.interpreters}
        if fresh.specs.packages != self.desk.specs.packages or now != self.desk.before:
            raise SpecError(
                "specs or locks were changed while this command ran", remedy="run it again"
            )


def propose(
    desk: Desk,
    packages: Mapping[str, Package],
    made: Mapping[str, Made],
    moves: Moves,
    *,
    accept: Callable[[str], bool],
    prefer: str = "",
) -> Proposal:
    """What new locks change, and where what they bring goes."""
    locks = {tag: item.lock for tag, item in made.items()}
    return Proposal(
        desk=desk,
        locks=locks,
        settlement=settle(
            packages,
            locks,
            accept=accept,
            prefer=prefer,
            before=[lock for lock in desk.before.values() if lock],
        ),
        changes=tuple(differences(desk.before, locks, moves)),
        retold=retold(desk.before, locks),
        warnings=tuple(warning for item in made.values() for warning in item.warnings),
    )


def require_made(made: Mapping[str, Made | LongrunError]) -> dict[str, Made]:
    """All locks, or the first error; a second one of other words is told with it."""
    errors = {tag: item for tag, item in made.items() if isinstance(item, LongrunError)}
    if errors:
        raise next(iter(errors.values()))
    return {tag: item for tag, item in made.items() if isinstance(item, Made)}


SHOWN_LICENCE = 28

SIGNS = {
    ADDED: ("+", "green"),
    MOVED: ("~", "yellow"),
    FILED: ("~", "yellow"),
    REMOVED: ("-", "red"),
}


def print_changes(proposal: Proposal) -> None:
    """The diff for a person: what is added, moved, removed, in which interpreters, and why."""
    rows = [_row(change, proposal) for change in proposal.changes]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    for change, row in zip(proposal.changes, rows, strict=True):
        sign, colour = SIGNS[change.kind]
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True) if width]
        print(f"  {paint(colour, sign)} {'  '.join(cells)}  {paint('dim', change.why)}".rstrip())
    if proposal.retold:
        print(f"    {proposal.retold} entries differ only in who asks for them")
    for line in _brings_lines(proposal.settlement):
        print(f"  {paint('yellow', '~')} {line}")
    for warning in proposal.warnings:
        print(f"  {paint('yellow', '!')} {warning}")
    for name, text in proposal.new_specs.items():
        print(f"\nspecs/packages/{name}.toml\n{paint('dim', textwrap.indent(text, '  '))}")


def _row(change: Change, proposal: Proposal) -> tuple[str, str, str, str]:
    """The columns of a change: name and versions, interpreters, size, licence."""
    versions = " -> ".join(filter(None, (change.before, change.after)))
    if change.kind == MOVED and Version(change.after) < Version(change.before):
        versions += " (older)"
    tags = "" if set(change.tags) == set(proposal.locks) else ", ".join(change.tags)
    told = [size(change.dist.size), change.dist.licence] if change.kind == ADDED else ["", ""]
    licence = clip(told[1], SHOWN_LICENCE)
    build = "(only for a build)" if change.build else ""
    return f"{change.name} {versions}", tags, told[0], " ".join(filter(None, [licence, build]))


def _brings_lines(settlement: Settlement) -> Iterator[str]:
    """What changes in `brings`, a line for each package and reason."""
    homes: dict[str, list[str]] = {}
    for arrival in settlement.accepted:
        homes.setdefault(arrival.home, []).append(arrival.dist.name)
    for home, names in sorted(homes.items()):
        yield f"specs/packages/{home}.toml: brings {', '.join(names)}"
    gone: dict[tuple[str, str], list[str]] = {}
    for item in settlement.dropped:
        gone.setdefault((item.package, item.why), []).append(item.name)
    for (package, why), names in gone.items():
        yield f"specs/packages/{package}.toml: brings {', '.join(names)} no more: {why}"


def arrival_lines(arrivals: Iterable[Arrival], packages: Mapping[str, Package]) -> list[str]:
    """Each arrival in a line: name, version, licence, size, who asks for it."""
    return [
        f"{item.dist.name} {item.dist.version}  "
        f"{clip(item.dist.licence, SHOWN_LICENCE) or 'no licence given'}  "
        f"{size(item.dist.size)}  {why_here(item.dist, packages)}"
        for item in arrivals
    ]


def document(proposal: Proposal) -> dict[str, Any]:
    """What a script reads of a proposal."""
    settlement = proposal.settlement
    root = proposal.desk.context.root
    return {
        "schema": 1,
        "release": proposal.desk.release.name,
        "distributions": {tag: len(lock.distribution) for tag, lock in proposal.locks.items()},
        "changes": [
            {
                "kind": change.kind,
                "name": change.name,
                "before": change.before,
                "after": change.after,
                "interpreters": list(change.tags),
                "why": change.why,
                "build": change.build,
                "distribution": asdict(change.dist),
            }
            for change in proposal.changes
        ],
        "retold": proposal.retold,
        "brings": {
            "accepted": [_arrival(item) for item in settlement.accepted],
            "refused": [_arrival(item) for item in settlement.refused],
            "dropped": [asdict(item) for item in settlement.dropped],
        },
        "warnings": list(proposal.warnings),
        "files": [path.relative_to(root).as_posix() for path in proposal.files],
        "specs": dict(proposal.new_specs),
    }


def _arrival(item: Arrival) -> dict[str, Any]:
    return {"package": item.home, "interpreters": list(item.tags)} | {
        "name": item.dist.name,
        "version": item.dist.version,
        "licence": item.dist.licence,
        "size": item.dist.size,
        "required_by": item.dist.required_by,
    }


def tell(proposal: Proposal, arguments: argparse.Namespace) -> None:
    """Print the diff, or all of it as JSON."""
    if arguments.json:
        print(json.dumps(document(proposal), indent=1))
        return
    counts = _counts({tag: len(lock.distribution) for tag, lock in proposal.locks.items()})
    print(f"Longrun {paint('bold', proposal.desk.release.name)}: {counts}\n")
    print_changes(proposal)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{tag} {count} distributions" for tag, count in counts.items())


def finish(proposal: Proposal, arguments: argparse.Namespace) -> int:
    """Write, or say what would be written; SpecError where --check finds a difference."""
    root = proposal.desk.context.root
    names = [path.relative_to(root).as_posix() for path in proposal.files]
    say = (lambda _text: None) if arguments.json else print
    if not names:
        say("the locks are what the specs say; nothing to write")
        return 0
    if getattr(arguments, "check", False):
        raise SpecError(f"not what the specs say: {', '.join(names)}", remedy="./build.py lock")
    if arguments.dry_run:
        say(f"would write {', '.join(names)}")
        return 0
    proposal.write()
    say(f"wrote {', '.join(names)}")
    return 0
