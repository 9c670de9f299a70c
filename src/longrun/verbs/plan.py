"""``plan``: what is cached, what would be built, and why."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from longrun.estimate import share, weights
from longrun.plan import RECIPES, Plan, Step, changes
from longrun.store import Store
from longrun.term import duration, paint
from longrun.verbs.context import Context

KINDS = tuple(RECIPES)
CACHED, BUILD, UNNEEDED = "cached", "build", "unneeded"


def plan(root: Path, arguments: argparse.Namespace) -> int:
    """Print the steps of a release."""
    context = Context(root)
    made = context.plan(arguments)
    rows = describe_plan(made, context.store)
    if arguments.json:
        print(json.dumps(_document(made, rows), indent=1))
    else:
        print_plan(made, rows)
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
        return [f"{step.name} {before.record['version']} -> {step.version}"]
    return changes(before.record["material"], step.material)


def print_plan(plan: Plan, rows: list[dict[str, Any]]) -> None:
    """The plan for a person."""
    rows = sorted(rows, key=lambda row: KINDS.index(row["id"].partition("/")[0]))
    names = ", ".join(step.name for step in plan.targets)
    print(f"Longrun {paint('bold', plan.release.name)}: {names} for {plan.targets[0].platform}\n")
    width = max(len(row["id"].partition("/")[2]) for row in rows)
    for row in rows:
        kind, _, name = row["id"].partition("/")
        colour = {CACHED: "green", BUILD: "yellow", UNNEEDED: "dim"}[row["state"]]
        line = f"  {kind:<12} {name:<{width}}  {row['version']:<14}"
        why = paint("dim", "; ".join(row["reasons"]))
        state = paint(colour, f"{row['state']:<8}")
        print(f"{line} {state}  {why}".rstrip())
    print(f"\n{summary(rows)}")


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
