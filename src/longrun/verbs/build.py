"""``build`` and ``fetch``: realise a plan, then put the archives into ``dist/``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from longrun import fs
from longrun.errors import BuildError, LongrunError
from longrun.estimate import weights
from longrun.executor import Options, Outcome, execute
from longrun.log import Reporter, make_reporter
from longrun.model import Archive, BasePlan, Cell, Interpreter, Library, Source, System
from longrun.oci.image import writing
from longrun.plan import Plan, Step
from longrun.setup import require
from longrun.store import Entry
from longrun.term import duration, paint, size
from longrun.verbs.context import Context

if TYPE_CHECKING:
    from longrun.fetch import Fetcher

SUMS = "SHA256SUMS"
"""The file of ``dist/`` that sha256sum checks."""


def build(root: Path, arguments: argparse.Namespace) -> int:
    """Build what a release's archives need, and the archives; 0, or the first failure's code."""
    context = Context(root)
    check_dist(root)
    plan = context.plan(arguments)
    targets = tuple(map(plan.find, arguments.step)) or plan.targets
    if arguments.dry_run:
        return _dry_run(context, plan, targets)
    start = time.monotonic()
    outcome = realise(context, plan, targets, arguments)
    if outcome.failed:
        return failure(outcome)
    if arguments.step:
        _print_entries(context, targets)
    else:
        publish(context, plan)
        _print_archives(context, plan, outcome, time.monotonic() - start)
    return 0


def fetch(root: Path, arguments: argparse.Namespace) -> int:
    """Get every source of a release, for all its interpreters unless some are named."""
    context = Context(root)
    plan = context.plan(arguments, every=True)
    sources = tuple(step for step in plan.steps if step.kind == "source")
    outcome = realise(context, plan, sources, arguments)
    if outcome.failed:
        return failure(outcome)
    total = sum(step.spec.size for step in sources if isinstance(step.spec, Source))
    print(f"{len(sources)} sources, {size(total)}, are in the store; `build --offline` can run")
    return 0


MakeReporter = Callable[[tuple[Step, ...], Mapping[str, float]], Reporter]
"""From the steps to build and their seconds to what shows them."""


def realise(
    context: Context,
    plan: Plan,
    targets: tuple[Step, ...],
    arguments: argparse.Namespace,
    *,
    shown_by: MakeReporter | None = None,
) -> Outcome:
    """Build the targets and what they need and the store lacks."""
    with context.store.used():
        return _realise(context, plan, targets, arguments, shown_by)


def _realise(
    context: Context,
    plan: Plan,
    targets: tuple[Step, ...],
    arguments: argparse.Namespace,
    shown_by: MakeReporter | None,
) -> Outcome:
    store = context.store
    store.sweep()
    store.write_root(context.root, plan)
    steps = store.missing(plan.steps, targets)
    if not steps:
        return Outcome()
    require(tools_of(steps), install=arguments.setup)
    from longrun.engine import Engines
    from longrun.steps import builders  # HTTP and all the builders: nothing that a no-op needs

    estimates = weights(store, steps)
    jobs = context.jobs(arguments)
    if shown_by is not None:
        reporter = shown_by(steps, estimates)
    else:
        reporter = make_reporter(os.environ, estimates, jobs=jobs, retry=_retry(plan))
    # of a matrix a person wants to know about cells
    counted = targets if shown_by else plan.needed(*targets)
    cached = sum(store.get(step.key) is not None for step in counted)
    fetcher = _fetcher(context, arguments)
    engines = Engines(context.config.engine, os.environ)

    def stop() -> None:
        fetcher.stop()
        engines.stop()

    reporter.begin(steps, cached=cached)
    try:
        return execute(
            steps,
            store,
            builders=builders(fetcher, engines),
            stop=stop,
            cache=context.config.cache / "compiler",
            options=Options(jobs=jobs, keep_failed=getattr(arguments, "keep_failed", False)),
            reporter=reporter,
            weights=estimates,
        )
    finally:
        reporter.end()


def tools_of(steps: tuple[Step, ...]) -> list[str]:
    """The programs of the system that the steps' builds need."""
    tools: dict[str, None] = {}
    for step in steps:
        if isinstance(step.spec, Library | Interpreter):
            tools |= dict.fromkeys(step.spec.tools)
        if isinstance(step.spec, System | BasePlan):
            tools["mmdebstrap"] = None
        if isinstance(step.spec, Cell):
            tools |= dict.fromkeys(step.spec.check.needs)
        if step.patches:
            tools["patch"] = None
    return list(tools)


def publish(context: Context, plan: Plan) -> None:
    """Put the archives and their SHA256SUMS into ``dist/``; a file that is right stays."""
    dist = context.root / "dist"
    sums = {}
    for step in plan.targets:
        entry = _entry(context, step)
        (record,) = entry.files()
        source, target = entry.tree / record.path, dist / record.path
        same = target.is_file() and target.samefile(source)
        if not same and not (target.is_file() and fs.sha256_file(target) == record.value):
            with writing(target):
                fs.link_atomic(source, target)
        sums[record.path] = record.value
    add_sums(dist, sums)


def check_dist(root: Path) -> None:
    """BuildError where ``dist`` is something else than a directory: told before anything is built.

    A link to a directory is one.
    """
    dist = root / "dist"
    if os.path.lexists(dist) and not dist.is_dir():
        raise BuildError(f"{dist}: is no directory", remedy="move it to another place")


def add_sums(dist: Path, sums: Mapping[str, str]) -> None:
    """Add files of ``dist/`` by name to its SHA256SUMS, from which those go that are gone."""
    known = read_sums(dist) | dict(sums)
    kept = {name: digest for name, digest in sorted(known.items()) if (dist / name).exists()}
    path = dist / SUMS
    with writing(path):
        fs.write_atomic(path, "".join(f"{digest}  {name}\n" for name, digest in kept.items()))


def _fetcher(context: Context, arguments: argparse.Namespace) -> Fetcher:
    from longrun.fetch import Fetcher, find_hosts
    from longrun.index.client import find_index, once

    config = context.config
    python = Path(os.environ["LONGRUN_ENVIRONMENT"]) / "bin" / "python"
    return Fetcher(
        hosts=find_hosts(config),
        downloads=config.cache / "downloads",
        keys=context.root / "specs" / "keys",
        index=once(lambda: find_index(config, python)),
        directories=(arguments.sources,) if arguments.sources else (),
        offline=arguments.offline,
        advice=str(config.file),
    )


def read_sums(dist: Path) -> dict[str, str]:
    """The sha256 of files of ``dist/`` by name, as they were written down."""
    path = dist / SUMS
    if not path.exists():
        return {}
    rows = (line.split(maxsplit=1) for line in path.read_text(errors="replace").splitlines())
    return {row[1]: row[0] for row in rows if len(row) == 2}


def _retry(plan: Plan) -> str:
    options: dict[str, None] = {}
    for step in plan.targets:
        if not isinstance(step.spec, Archive):
            continue
        options[f" --python {step.spec.interpreter.removeprefix('cpython-')}"] = None
        if step.spec.layer:
            options[f" --layer {step.spec.layer}"] = None
    return f"./build.py build {plan.release.name}{''.join(options)}"


def _entry(context: Context, step: Step) -> Entry:
    entry = context.store.get(step.key)
    assert entry is not None, f"{step.id} was built or is cached"
    return entry


def failure(outcome: Outcome) -> int:
    """Say what failed and what is kept; the exit code of the first."""
    names = ", ".join(outcome.failed)
    print(
        f"\nbuild.py: {len(outcome.failed)} failed ({names}), {len(outcome.blocked)} blocked, "
        f"{outcome.built} built and kept",
        file=sys.stderr,
    )
    first: LongrunError = next(iter(outcome.failed.values()))
    return first.exit_code


def _dry_run(context: Context, plan: Plan, targets: tuple[Step, ...]) -> int:
    from longrun.verbs.plan import describe_plan, print_plan

    wanted = Plan(release=plan.release, steps=plan.needed(*targets), targets=targets)
    print_plan(wanted, describe_plan(wanted, context.store))
    return 0


def _print_entries(context: Context, targets: tuple[Step, ...]) -> None:
    for step in targets:
        entry = _entry(context, step)
        print(f"{paint('green', '✔')} {step.title}  {size(entry.record['size'])}  {entry.tree}")


def _print_archives(context: Context, plan: Plan, outcome: Outcome, seconds: float) -> None:
    what = f"{outcome.built} steps built" if outcome.built else "nothing to build, all is cached"
    print(f"\n{paint('bold', f'Longrun {plan.release.name}')}: {what} in {duration(seconds)}\n")
    for step in plan.targets:
        (record,) = _entry(context, step).files()
        path = Path(os.path.relpath(context.root / "dist" / record.path))
        print(f"  {paint('green', '✔')} {path}  {size(record.size)}")
        print(f"    sha256 {record.value}")
    stem = record.path.removesuffix(".tar.zst")
    assert isinstance(step.spec, Archive), "a plan's targets are archives"
    executable = f"python{step.spec.interpreter.removeprefix('cpython-')}"
    print(
        "\nUnpack it anywhere and run it (tar reads .zst where the program zstd is installed):\n\n"
        f"    tar -xf {path} -C /tmp\n    /tmp/{stem}/bin/{executable}"
    )
