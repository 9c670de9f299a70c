"""What ``matrix`` and ``check`` are about: checks, interpreters, systems, and their steps."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from packaging.version import Version

from longrun.cage import machine
from longrun.errors import UsageError
from longrun.matrix.report import Column, Row
from longrun.model import Check, Interpreter, Release
from longrun.plan import Plan, Step, choose_release, make_plan, plan_cells, plan_systems
from longrun.specs import Specs, near
from longrun.steps.check import HOST
from longrun.store import Store
from longrun.verbs.context import Context


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a run is about; ``whole`` where that is all of the release."""

    release: Release
    interpreters: tuple[Interpreter, ...]
    checks: tuple[Check, ...]
    systems: tuple[str, ...]
    whole: bool


def choose(context: Context, arguments: argparse.Namespace, *, every: bool = True) -> Scope:
    """What the command line asks for, with ``every`` interpreter where it names none.

    UsageError for what there is not.
    """
    specs = context.specs
    release = choose_release(specs, arguments.release)
    return Scope(
        release=release,
        interpreters=context.interpreters(release, arguments, every=every),
        checks=choose_checks(specs, arguments.check),
        systems=choose_systems(specs, arguments.where),
        whole=not (arguments.python or arguments.check or arguments.where),
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
    known = [HOST, *sorted(specs.systems, key=lambda name: Version(specs.systems[name].glibc))]
    for name in names:
        if name not in known:
            raise UsageError(
                f"no system {name!r}{near(name, known)}", remedy=f"systems: {', '.join(known)}"
            )
    return tuple(name for name in known if not names or name in names)


def plan_ground(specs: Specs, scope: Scope) -> Plan:
    """What must be there before the first cell: the layers, and the roots of the systems."""
    used = dict.fromkeys(check.layer for check in scope.checks)
    layers = tuple(scope.release.layers) if scope.whole else tuple(used)
    stacks = make_plan(specs, scope.release, scope.interpreters, layers=layers)
    outside = [specs.systems[name] for name in scope.systems if name != HOST]
    systems = plan_systems(specs, scope.release, outside)
    prefixes = tuple(step for step in stacks.steps if step.kind == "layer")
    return Plan(
        release=scope.release, steps=(*stacks.steps, *systems), targets=(*prefixes, *systems)
    )


def cells_of(specs: Specs, scope: Scope, ground: Plan, store: Store) -> tuple[Step, ...]:
    """The cells, once what must be there is there."""
    contents = _contents(store, ground, scope.systems)
    return plan_cells(specs, scope.release, scope.interpreters, scope.checks, contents)


def _contents(store: Store, ground: Plan, systems: tuple[str, ...]) -> dict[str, str]:
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


def columns(specs: Specs, scope: Scope) -> tuple[Column, ...]:
    """Each system with each interpreter."""
    titles = {HOST: ("This machine", machine()[1])}
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


def rows(scope: Scope) -> tuple[Row, ...]:
    """The checks, family by family, as a report shows them; pairs come last."""
    checks = sorted(scope.checks, key=lambda check: (check.pair, check.group, check.name))
    return tuple(
        Row(
            name=check.name,
            title=check.title,
            group=check.group,
            layer=check.layer,
            pair=check.pair,
        )
        for check in checks
    )
