"""``plan``: what is cached, what would be built, and why."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longrun.estimate import share, weights
from longrun.plan import RECIPES, Plan, Step, changes
from longrun.store import Store
from longrun.term import clip, duration, paint, terminal, width
from longrun.verbs.context import Context

KINDS = tuple(RECIPES)
CACHED, BUILD, UNNEEDED = "cached", "build", "unneeded"

ROWS = 4
"""Steps that differ in nothing but their names, up to which each has a line on a terminal."""

REASONS = 4
"""Reasons of one step that are shown."""


def plan(root: Path, arguments: argparse.Namespace) -> int:
    """Print the steps of a release."""
    context = Context(root)
    made = context.plan(arguments)
    rows = describe_plan(made, context.store)
    if arguments.json:
        print(json.dumps(_document(made, rows), indent=1))
    else:
        print_plan(made, rows, every=arguments.all)
    return 0


def describe_plan(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Each step with its state, why it is not cached, and how long it takes in seconds."""
    missing = {step.key for step in store.missing(plan.steps, plan.targets)}
    seconds = weights(store, plan.steps)
    rows = []
    for step in plan.steps:
        state = BUILD if step.key in missing else CACHED if store.get(step.key) else UNNEEDED
        rows.append(
            {
                "id": step.id,
                "version": step.version,
                "platform": step.platform,
                "key": step.key,
                "state": state,
                "reasons": reasons(step, store) if state == BUILD else [],
                "seconds": seconds[step.id],
                "share": share(step, seconds[step.id], os.cpu_count() or 1),
                "inputs": [needed.id for needed in step.inputs],
            }
        )
    return rows


def reasons(step: Step, store: Store) -> list[str]:
    """Why a step is not in the store, compared with what was built of it before."""
    before = store.predecessor(step)
    if before is None:
        return ["never fetched here" if step.kind == "source" else "never built here"]
    if step.kind == "source":
        if before.record["version"] == step.version:
            return [f"another file of {step.version}"]
        return [f"{step.name} {before.record['version']} -> {step.version}"]
    return changes(before.record["material"], step.material)


def print_plan(plan: Plan, rows: list[dict[str, Any]], *, every: bool = False) -> None:
    """The plan for a person: on a terminal many equal steps in one line, unless ``every`` one."""
    groups = list(_groups(rows, most=ROWS if terminal() and not every else len(rows)))
    names = ", ".join(step.name for step in plan.targets)
    if len(plan.targets) > ROWS:
        names = f"{len(plan.targets)} archives"
    print(f"Longrun {paint('bold', plan.release.name)}: {names} for {plan.targets[0].platform}\n")
    widths = (max(len(group.name) for group in groups), max(len(g.version) for g in groups))
    for group in groups:
        group.print(*widths)
    print(f"\n{summary(rows)}")
    if len(groups) < len(rows):
        print(paint("dim", "./build.py plan --all lists every step"))


@dataclass(frozen=True, kw_only=True)
class Group:
    """A line of the plan: one step, or many of one kind in one state for the same reasons."""

    kind: str
    name: str
    version: str
    state: str
    text: str

    def print(self, name: int, version: int) -> None:
        """Print the line, with so many columns for name and version."""
        line = f"  {self.kind:<12} {self.name:<{name}}  {self.version:<{version}} "
        colour = {CACHED: "green", BUILD: "yellow", UNNEEDED: "dim"}[self.state]
        text = clip(self.text, width() - len(line) - 10) if terminal() else self.text
        print(f"{line}{paint(colour, f'{self.state:<8}')}  {paint('dim', text)}".rstrip())


def _groups(rows: list[dict[str, Any]], *, most: int) -> Iterator[Group]:
    """The rows by kind; more than ``most`` that are equal but for their names become one."""
    equal: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=_order):
        equal.setdefault(_equal(row), []).append(row)
    for (kind, tag, state, *why), members in equal.items():
        if len(members) <= most:
            yield from map(_alone, members)
            continue
        names = ", ".join(row["id"].removeprefix(f"{kind}/{tag}") for row in members)
        text = ": ".join(filter(None, [in_short(why), names]))
        count = f"{len(members)} for {tag[:-1]}" if tag else f"{len(members)} steps"
        yield Group(kind=kind, name=count, version="", state=state, text=text)


def _order(row: dict[str, Any]) -> tuple[int, int]:
    """By kind, and what is to be done last."""
    kind = row["id"].partition("/")[0]
    return KINDS.index(kind), (CACHED, UNNEEDED, BUILD).index(row["state"])


def _equal(row: dict[str, Any]) -> tuple[str, ...]:
    """What rows of one group have in common: kind, interpreter of wheels, state, and reasons.

    A new source's reason is that of the step which it is for, and told there.
    """
    kind, _, name = row["id"].partition("/")
    tag = f"{name.partition('-')[0]}-" if kind == "wheel" else ""
    return (kind, tag, row["state"], *(() if kind == "source" else row["reasons"]))


def _alone(row: dict[str, Any]) -> Group:
    kind, _, name = row["id"].partition("/")
    text = in_short(row["reasons"])
    return Group(kind=kind, name=name, version=row["version"], state=row["state"], text=text)


def in_short(reasons: list[str]) -> str:
    """Reasons in one line: a layer may have one for each of its wheels."""
    more = len(reasons) - REASONS
    return "; ".join([*reasons[:REASONS], *([f"and {more} more"] if more > 0 else [])])


def summary(rows: list[dict[str, Any]]) -> str:
    """Counts and an estimate, in one line."""
    counts = {
        state: sum(row["state"] == state for row in rows) for state in (CACHED, BUILD, UNNEEDED)
    }
    text = f"{len(rows)} steps: {counts[CACHED]} cached, {counts[BUILD]} to build"
    if counts[UNNEEDED]:
        text += f", {counts[UNNEEDED]} not needed"
    if counts[BUILD]:
        text += f" (about {duration(sum(row['share'] for row in rows if row['state'] == BUILD))})"
    return text


def _document(plan: Plan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "release": plan.release.name,
        "platform": plan.targets[0].platform,
        "targets": [step.id for step in plan.targets],
        "steps": rows,
    }
