"""``matrix``: every build against the controls libraries, in every system."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from longrun import fs
from longrun.cage import machine
from longrun.errors import MatrixError
from longrun.executor import Outcome
from longrun.log import Reporter
from longrun.matrix import compare, html, imports, junit, needs
from longrun.matrix.judge import judge, states
from longrun.matrix.report import CellResult, Matrix
from longrun.matrix.table import PlainTableReporter, TableReporter, place_of, summary
from longrun.plan import Plan, Step, plan_imports
from longrun.setup import require
from longrun.store import Store
from longrun.term import paint, size
from longrun.verbs.build import add_sums, failure, realise
from longrun.verbs.context import Context
from longrun.verbs.scope import Scope, cells_of, choose, columns, plan_ground, rows

CELLS_PER_CORE = 2
"""Cells run at once for each core: most of a check's time is spent waiting for its servers."""


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
    cells = cells_of(context.specs, scope, ground, context.store)
    results = run(context, scope, ground, cells, arguments)
    outcome, timings = measure(context, scope, ground, arguments)
    if outcome.failed:
        return failure(outcome)
    found = assemble(context, scope, results, timings, arguments, start)
    tell(context, found, arguments)
    return 0 if found.ok else MatrixError.exit_code


def foretell(context: Context, scope: Scope, ground: Plan) -> int:
    """Say what would be built and run."""
    missing = context.store.missing(ground.steps, ground.targets)
    if missing:
        print(f"{len(missing)} steps to build first: {', '.join(step.id for step in missing)}")
        print("which cells are cached is known once these are there")
        return 0
    cells = cells_of(context.specs, scope, ground, context.store)
    waiting = [step for step in cells if context.store.get(step.key) is None]
    for step in waiting:
        print(step.id)
    print(f"{len(waiting)} cells to run, {len(cells) - len(waiting)} cached")
    return 0


def run(
    context: Context,
    scope: Scope,
    ground: Plan,
    cells: tuple[Step, ...],
    arguments: argparse.Namespace,
) -> tuple[CellResult, ...]:
    """Run the cells that the store lacks, and judge all of them."""
    store = context.store
    if arguments.setup:
        require(["bwrap"], install=True)
    if arguments.fresh:
        forget(store, cells)
    cached = frozenset(step.id for step in cells if store.get(step.key))
    plan = Plan(release=ground.release, steps=(*ground.steps, *cells), targets=cells)
    jobs = arguments.jobs or CELLS_PER_CORE * context.jobs(arguments)
    many = argparse.Namespace(**{**vars(arguments), "jobs": jobs})

    def shown_by(steps: tuple[Step, ...], weights: Mapping[str, float]) -> Reporter:
        return make_table(context, scope, cells, weights, jobs)

    outcome = realise(context, plan, cells, many, shown_by=shown_by)
    return judge(cells, store, outcome.failed, cached)


def measure(
    context: Context, scope: Scope, ground: Plan, arguments: argparse.Namespace
) -> tuple[Outcome, tuple[Step, ...]]:
    """Measure import times where the matrix is whole, alone, after all cells."""
    if not scope.whole:
        return Outcome(), ()
    steps = plan_imports(context.specs, scope.release, scope.interpreters)
    if arguments.fresh:
        forget(context.store, steps)
    plan = Plan(release=ground.release, steps=(*ground.steps, *steps), targets=steps)
    alone = argparse.Namespace(**{**vars(arguments), "jobs": 1})
    return realise(context, plan, steps, alone), steps


def make_table(
    context: Context,
    scope: Scope,
    cells: tuple[Step, ...],
    weights: Mapping[str, float],
    jobs: int,
) -> Reporter:
    """What shows the run: a live table on a terminal, a line a cell in a log."""
    shown = columns(context.specs, scope), rows(scope)
    state = states(context.store)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        known = {
            place: found
            for step in cells
            if (place := place_of(step)) and (found := state(step)) is not None
        }
        return TableReporter(*shown, weights, jobs=jobs, judge=state, known=known)
    return PlainTableReporter(*shown, weights, jobs=jobs, judge=state)


def forget(store: Store, steps: tuple[Step, ...]) -> None:
    """Take the steps' entries out of the store."""
    with store.used(alone=True):
        for step in steps:
            if entry := store.get(step.key):
                store.remove(entry)


def assemble(
    context: Context,
    scope: Scope,
    results: tuple[CellResult, ...],
    timings: tuple[Step, ...],
    arguments: argparse.Namespace,
    start: float,
) -> Matrix:
    """All that the run found."""
    import_times, start_times = imports.times(timings, context.store)
    path = earlier(context, scope, arguments.compare)
    before = compare.read(path) if path else None
    changes = compare.changes(results, before, whole=scope.whole) if before else ()
    return Matrix(
        release=scope.release.name,
        whole=scope.whole,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=", glibc ".join(machine()),
        columns=columns(context.specs, scope),
        rows=rows(scope),
        cells=results,
        needs=needs.survey(context.specs, scope.release, scope.interpreters, context.store)
        if scope.whole
        else (),
        imports=import_times,
        starts=start_times,
        seconds=round(time.monotonic() - start, 1),
        before=str(before["release"]) if before else "",
        changes=changes,
    )


def earlier(context: Context, scope: Scope, named: Path | None) -> Path | None:
    """The matrix to compare with: the one that is named, or the last release's before this one."""
    if named:
        return named
    dates = {release.name: release.date for release in context.specs.releases.values()}
    older = [name for name in dates if dates[name] < scope.release.date]
    for name in sorted(older, key=lambda name: dates[name], reverse=True):
        path = context.root / "dist" / f"{stem(name)}.json"
        if path.is_file():
            return path
    return None


def stem(release: str) -> str:
    """The name of a report's files, less their endings."""
    return f"longrun-{release}-matrix"


def tell(context: Context, found: Matrix, arguments: argparse.Namespace) -> None:
    """Write the report, and print what a person or a script wants of it."""
    files = write(context, found, arguments)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
        return
    print("\n".join(summary(found)))
    for path in files:
        print(f"  {paint('green', '✔')} {os.path.relpath(path)}  {size(path.stat().st_size)}")


def write(context: Context, found: Matrix, arguments: argparse.Namespace) -> list[Path]:
    """Put the report's files where they belong; a part of a matrix only where it is asked for."""
    if not found.whole and arguments.output is None:
        return []
    directory = arguments.output or context.root / "dist"
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "html": html.render(found),
        "json": json.dumps(found.to_json(), indent=1) + "\n",
        "xml": junit.render(found),
    }
    files = {directory / f"{stem(found.release)}.{kind}": text for kind, text in texts.items()}
    fs.write_together(files)
    if arguments.output is None:
        add_sums(directory, {path.name: fs.sha256_file(path) for path in files})
    return list(files)
