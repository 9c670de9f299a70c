"""``test`` and ``selftest``: Longrun's own tests, and CPython's on a built prefix."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from longrun.errors import BuildError
from longrun.executor import Outcome
from longrun.fs import Inode
from longrun.plan import Plan, Step, choose_release, plan_systems
from longrun.run import attach
from longrun.selftest import Verdict, run_suite
from longrun.setup import TEST_TOOLS, require
from longrun.store import Store
from longrun.term import paint
from longrun.verbs.build import publish, realise
from longrun.verbs.context import Context

NOTHING_COLLECTED = 5
"""pytest's exit status where a selection is empty."""


def test(root: Path, arguments: argparse.Namespace) -> int:
    """Run the unit tests, then build every prefix and run the integration tests on them."""
    if not arguments.unit:
        require(TEST_TOOLS, install=arguments.setup)
    extra = arguments.pytest
    status = _pytest(root, "tests/unit", *extra)
    if status not in (0, NOTHING_COLLECTED) or arguments.unit:
        return status
    context = Context(root)
    arguments.release, arguments.python = None, []
    plan = context.plan(arguments, every=True)
    _distrust(context.store, plan)
    outcome = realise(context, plan, plan.targets, arguments)
    if outcome.failed:
        return next(iter(outcome.failed.values())).exit_code
    publish(context, plan)
    for realise_more in (realise_layers, realise_oldest_system):
        outcome = realise_more(context, arguments)
        if outcome.failed:
            return next(iter(outcome.failed.values())).exit_code
    slow = _pytest(root, "tests/integration", *extra)
    return 0 if {status, slow} == {0, NOTHING_COLLECTED} else slow


def realise_layers(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Build every layer for every interpreter, but not their archives: those take longest."""
    arguments.layer = ["all"]
    plan = context.plan(arguments, every=True)
    _distrust(context.store, plan)
    targets = tuple(step for step in plan.steps if step.kind == "layer")
    return realise(context, plan, targets, arguments)


def realise_oldest_system(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Make the root of the system with the oldest C library: what runs there runs elsewhere."""
    specs = context.specs
    systems = sorted(specs.systems.values(), key=lambda system: Version(system.glibc))
    release = choose_release(specs, None)
    steps = plan_systems(specs, release, systems[:1])
    plan = Plan(release=release, steps=steps, targets=steps)
    _distrust(context.store, plan)
    return realise(context, plan, steps, arguments)


def _distrust(store: Store, plan: Plan) -> None:
    """Hash a plan's cached entries and remove damaged ones: a cache may come from elsewhere."""
    read: dict[Inode, str] = {}
    for step in plan.steps:
        entry = store.get(step.key)
        if entry and (problems := store.verify(entry, read)):
            print(f"{step.title}: damaged in the cache ({problems[0]}); it is made anew")
            with store.used(alone=True):
                store.forget(entry)
                store.remove(entry)


def _pytest(root: Path, *arguments: str) -> int:
    python = Path(os.environ["LONGRUN_ENVIRONMENT"]) / "bin" / "python"
    return attach([str(python), "-m", "pytest", *arguments], cwd=root)


def selftest(root: Path, arguments: argparse.Namespace) -> int:
    """Build an interpreter if need be and run CPython's own suite on its prefix; 1 on surprises."""
    context = Context(root)
    arguments.release, arguments.python = None, [arguments.python]
    plan = context.plan(arguments)
    (name,) = (step.name for step in plan.targets)
    targets = tuple(plan.find(f"{kind}/{name}") for kind in ("interpreter", "prefix", "source"))
    outcome = realise(context, plan, targets, arguments)
    if outcome.failed:
        return next(iter(outcome.failed.values())).exit_code
    built, prefix, source = (_tree(context.store, step) for step in targets)
    (archive,) = source.iterdir()
    log = context.store.root / "logs" / f"selftest-{name}.log"
    verdict = run_suite(
        context.specs.interpreters[name],
        prefix,
        built,
        archive,
        arguments.tests,
        jobs=context.jobs(arguments),
        log=log,
        line=_show,
    )
    if arguments.json:
        print(json.dumps(verdict.to_json(), indent=1))
    else:
        _print(name, verdict, context.specs.interpreters[name].ignored_tests, log)
    return 0 if verdict.ok else 1


def _tree(store: Store, step: Step) -> Path:
    entry = store.get(step.key)
    if entry is None:
        raise BuildError(f"{step.id}: not in the store after it was built")
    return entry.tree


def _show(line: str) -> None:
    """regrtest's own progress: `0:00:12 load avg: 2.10 [ 31/478] test_ssl passed`."""
    if re.match(r"\d+:\d\d:\d\d ", line):
        print(line, file=sys.stderr, flush=True)


def _print(name: str, verdict: Verdict, ignored: Mapping[str, str], log: Path) -> None:
    mark = paint("green", "✔") if verdict.ok else paint("red", "✘")
    print(
        f"{mark} {name}: {verdict.run:,} tests of CPython's own suite run, "
        f"{verdict.failures} failed, {verdict.skipped:,} skipped"
    )
    for file, reason in verdict.known.items():
        print(f"  {paint('yellow', 'known')}   {file}: {reason}")
    for test, reason in ignored.items():
        print(f"  {paint('yellow', 'not run')} {test}: {reason}")
    for file in verdict.surprises:
        print(f"  {paint('red', 'failed')}  {file}")
    if not verdict.ok and not verdict.surprises:
        print(f"  the suite did not come to its end (exit status {verdict.status})")
    print(f"  log: {log}")
