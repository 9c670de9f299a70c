"""``matrix`` and ``check``: every build against the controls libraries, in every system."""

from __future__ import annotations

import argparse
import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path

from longrun.cage import machine
from longrun.errors import MatrixError, UsageError
from longrun.matrix.judge import judge
from longrun.matrix.report import CellResult, Column, Matrix, Row
from longrun.model import Check, Interpreter, Release
from longrun.plan import Plan, Step, choose_release, make_plan, plan_cells, plan_systems
from longrun.specs import Specs, near
from longrun.steps.check import HOST
from longrun.store import Store
from longrun.verbs.build import failure, realise
from longrun.verbs.context import Context


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a run is about."""

    release: Release
    interpreters: tuple[Interpreter, ...]
    checks: tuple[Check, ...]
    systems: tuple[str, ...]


def matrix(root: Path, arguments: argparse.Namespace) -> int:
    """Run the cells that are asked for and say how each came out; 9 where one counts as failed."""
    context = Context(root)
    start = time.monotonic()
    scope = choose(context, arguments)
    ground = plan_ground(context.specs, scope)
    if arguments.dry_run:
        return foretell(context, scope, ground)
    outcome = realise(context, ground, ground.targets, arguments)
    if outcome.failed:
        return failure(outcome)
    cells = plan_cells(
        context.specs,
        scope.release,
        scope.interpreters,
        scope.checks,
        contents(context.store, ground, scope.systems),
    )
    results = run(context, ground, cells, arguments)
    found = assemble(context, scope, cells, results, time.monotonic() - start)
    show(found, arguments)
    return 0 if found.ok else MatrixError.exit_code


def choose(context: Context, arguments: argparse.Namespace, *, every: bool = True) -> Scope:
    """What the command line asks for, with ``every`` interpreter where it names none.

    UsageError for what there is not, and where no interpreter has what a check is about.
    """
    specs = context.specs
    release = choose_release(specs, arguments.release)
    return Scope(
        release=release,
        interpreters=context.interpreters(release, arguments, every=every),
        checks=choose_checks(specs, arguments.check),
        systems=choose_systems(specs, arguments.where),
    )


def choose_checks(specs: Specs, names: list[str]) -> tuple[Check, ...]:
    """The named checks, or those of a named group; all of them without a name."""
    every = specs.checks.values()
    chosen: dict[str, Check] = {}
    for name in names or [*specs.checks]:
        found = [check for check in every if name in (check.name, check.group)]
        if not found:
            known = [*specs.checks, *sorted({check.group for check in every})]
            raise UsageError(
                f"no check {name!r}{near(name, known)}", remedy=f"checks: {', '.join(known)}"
            )
        chosen |= {check.name: check for check in found}
    return tuple(chosen.values())


def choose_systems(specs: Specs, names: list[str]) -> tuple[str, ...]:
    """The named systems, or all; ``host`` is the machine itself."""
    known = [HOST, *sorted(specs.systems, key=lambda name: specs.systems[name].glibc)]
    for name in names:
        if name not in known:
            raise UsageError(
                f"no system {name!r}{near(name, known)}", remedy=f"systems: {', '.join(known)}"
            )
    return tuple(name for name in known if not names or name in names)


def plan_ground(specs: Specs, scope: Scope) -> Plan:
    """What must be there before the first cell: the layers, and the roots of the systems."""
    layers = tuple(dict.fromkeys(check.layer for check in scope.checks))
    stacks = make_plan(specs, scope.release, scope.interpreters, layers=layers)
    outside = [specs.systems[name] for name in scope.systems if name != HOST]
    systems = plan_systems(specs, scope.release, outside)
    prefixes = tuple(step for step in stacks.steps if step.kind == "layer")
    return Plan(
        release=scope.release, steps=(*stacks.steps, *systems), targets=(*prefixes, *systems)
    )


def foretell(context: Context, scope: Scope, ground: Plan) -> int:
    """Say what would be built and run."""
    missing = context.store.missing(ground.steps, ground.targets)
    if missing:
        print(f"{len(missing)} steps to build first: {', '.join(step.id for step in missing)}")
        print("which cells are cached is known once these are there")
        return 0
    found = contents(context.store, ground, scope.systems)
    cells = plan_cells(context.specs, scope.release, scope.interpreters, scope.checks, found)
    waiting = [step for step in cells if context.store.get(step.key) is None]
    for step in waiting:
        print(step.id)
    print(f"{len(waiting)} cells to run, {len(cells) - len(waiting)} cached")
    return 0


def contents(store: Store, ground: Plan, systems: tuple[str, ...]) -> dict[str, str]:
    """What each system is: the digest of its root, or the machine's own name."""
    found = {}
    for name in systems:
        if name == HOST:
            found[name] = ", glibc ".join(machine())
        else:
            entry = store.get(ground.find(f"system/{name}").key)
            assert entry is not None, f"system/{name} was just made"
            found[name] = entry.record["digest"]
    return found


def run(
    context: Context, ground: Plan, cells: tuple[Step, ...], arguments: argparse.Namespace
) -> tuple[CellResult, ...]:
    """Run the cells that the store lacks, and judge all of them."""
    store = context.store
    if arguments.fresh:
        forget(store, cells)
    cached = frozenset(step.id for step in cells if store.get(step.key))
    plan = Plan(release=ground.release, steps=(*ground.steps, *cells), targets=cells)
    outcome = realise(context, plan, cells, arguments)
    return judge(cells, store, outcome.failed, cached)


def forget(store: Store, cells: tuple[Step, ...]) -> None:
    """Take the cells' entries out of the store."""
    with store.used(alone=True):
        for step in cells:
            if entry := store.get(step.key):
                store.remove(entry)


def assemble(
    context: Context,
    scope: Scope,
    cells: tuple[Step, ...],
    results: tuple[CellResult, ...],
    seconds: float,
) -> Matrix:
    """All that the run found."""
    title, glibc = machine()
    return Matrix(
        release=scope.release.name,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=f"{title}, glibc {glibc}",
        columns=columns(context.specs, scope),
        rows=tuple(
            Row(
                name=check.name,
                title=check.title,
                group=check.group,
                layer=check.layer,
                pair=check.pair,
            )
            for check in scope.checks
        ),
        cells=results,
        needs=(),
        imports=(),
        starts=(),
        seconds=round(seconds, 1),
        before="",
        changes=(),
    )


def columns(specs: Specs, scope: Scope) -> tuple[Column, ...]:
    """Each system with each interpreter."""
    title, glibc = machine()
    titles = {HOST: (f"this machine: {title}", glibc)}
    titles |= {name: (system.title, system.glibc) for name, system in specs.systems.items()}
    return tuple(
        Column(
            tag=interpreter.tag,
            python=interpreter.version,
            system=name,
            title=titles[name][0],
            glibc=titles[name][1],
        )
        for name in scope.systems
        for interpreter in scope.interpreters
    )


def show(found: Matrix, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
        return
    for cell in found.cells:
        print(
            f"{cell.state:8} {cell.check}-{cell.tag}-{cell.system} {cell.seconds:.1f} s {cell.why}"
        )
    print(found.counts())
