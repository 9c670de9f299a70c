"""``lock``: the locks of a release as its specs want them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from longrun.errors import SpecError, UsageError
from longrun.lockfile import Moves
from longrun.plan import choose_release
from longrun.specs import near, normalised
from longrun.term import paint
from longrun.verbs.context import Context
from longrun.verbs.desk import (
    Desk,
    Proposal,
    arrival_lines,
    document,
    print_changes,
    propose,
    require_made,
)


def lock(root: Path, arguments: argparse.Namespace) -> int:
    """Resolve every interpreter anew, show what changes, and write it where all is accepted."""
    desk = open_desk(root, arguments)
    upgrade = _upgrades(desk, arguments)
    packages = desk.specs.packages
    made = desk.make(packages, upgrade=upgrade, upgrade_all=arguments.upgrade_all)
    accepted = {normalised(name) for name in arguments.accept}
    proposal = propose(
        desk,
        packages,
        require_made(made),
        Moves(packages=packages, upgrade=upgrade, upgrade_all=arguments.upgrade_all),
        accept=lambda name: arguments.accept_all or name in accepted,
    )
    _require_known(accepted, proposal)
    tell(proposal, arguments)
    if refused := proposal.settlement.refused:
        raise SpecError(
            "nobody accepted yet what comes along"
            + "".join(f"\n  {line}" for line in arrival_lines(refused, packages)),
            remedy="./build.py lock "
            + " ".join(f"--accept {arrival.dist.name}" for arrival in refused[:8])
            + (" ... or --accept-all" if len(refused) > 8 else ""),
        )
    proposal.check()
    return finish(proposal, arguments)


def open_desk(root: Path, arguments: argparse.Namespace) -> Desk:
    """The release that a verb is about."""
    context = Context(root)
    return Desk(context, choose_release(context.specs, arguments.release))


def _upgrades(desk: Desk, arguments: argparse.Namespace) -> frozenset[str]:
    """The names to upgrade; UsageError where one is neither locked nor a package."""
    known = set(desk.specs.packages)
    for before in desk.before.values():
        known |= {dist.name for dist in (*before.distribution, *before.build)} if before else set()
    names = frozenset(normalised(name) for name in arguments.upgrade)
    for name in sorted(names - known):
        raise UsageError(
            f"--upgrade {name}: nothing of that name is locked{near(name, sorted(known))}",
            remedy="./build.py list tells what is; ./build.py add takes in something new",
        )
    return names


def _require_known(accepted: set[str], proposal: Proposal) -> None:
    present = {
        dist.name for lock in proposal.locks.values() for dist in (*lock.distribution, *lock.build)
    }
    for name in sorted(accepted - present):
        raise UsageError(f"--accept {name}: nothing brings it{near(name, sorted(present))}")


def tell(proposal: Proposal, arguments: argparse.Namespace) -> None:
    """Print the diff, or all of it as JSON."""
    if arguments.json:
        print(json.dumps(document(proposal), indent=1))
        return
    counts = _counts({tag: len(lock.distribution) for tag, lock in proposal.locks.items()})
    print(f"Longrun {paint('bold', proposal.desk.release.name)}: {counts}")
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
