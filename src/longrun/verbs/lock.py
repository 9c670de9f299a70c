"""``lock``: the locks of a release as its specs want them."""

from __future__ import annotations

import argparse
from pathlib import Path

from longrun.errors import SpecError, UsageError
from longrun.lock.lockfile import Moves
from longrun.specs import near, normalised
from longrun.verbs.desk import (
    Desk,
    Proposal,
    arrival_lines,
    finish,
    open_desk,
    propose,
    require_made,
    tell,
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
