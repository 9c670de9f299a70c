"""Runs a plan: in parallel, resumable, nothing twice; what fails blocks only what needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from longrun import fs
from longrun.errors import BuildError, LongrunError, StoreError
from longrun.log import Reporter
from longrun.plan import Step
from longrun.run import JobServer, Programs, Runner
from longrun.steps.job import Job
from longrun.store import Entry, Stage, Store

Builders = Mapping[str, Callable[[Job], None]]
"""The builder of each kind of step."""

DOWNLOADS = 4
"""Sources fetched at once; they wait for the network, not for a core."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a plan is run."""

    jobs: int
    keep_failed: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What came of a run: entries by step id, failures, and what each failure blocked."""

    entries: dict[str, Entry] = field(default_factory=dict)
    failed: dict[str, LongrunError] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    built: int = 0


def execute(
    steps: tuple[Step, ...],
    store: Store,
    *,
    builders: Builders,
    cache: Path,
    options: Options,
    reporter: Reporter,
    weights: Mapping[str, float],
    stop: Callable[[], None] = lambda: None,
) -> Outcome:
    """Build the steps, which are in order and not in the store; see ``Store.missing``.

    ``stop`` is called where the run is interrupted, to end what builders do in this process.
    """
    jobserver, programs = JobServer(options.jobs), Programs()
    yard = _Yard(
        store=store,
        builders=builders,
        cache=cache,
        options=options,
        reporter=reporter,
        jobserver=jobserver,
        programs=programs,
    )
    pools = _Pools(options.jobs)
    try:
        return _run(steps, yard, pools, _ranks(steps, weights))
    except BaseException:
        programs.stop()
        stop()
        raise
    finally:
        jobserver.release_waiters()
        pools.close()


class _Pools:
    """The threads of a run: some that download, and as many that build as there are jobs."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="fetch")
        self._builds = ThreadPoolExecutor(jobs, thread_name_prefix="build")

    def submit(self, yard: _Yard, step: Step) -> Future[Entry]:
        pool = self._downloads if step.kind == "source" else self._builds
        return pool.submit(yard.realise, step)

    def close(self) -> None:
        self._downloads.shutdown(cancel_futures=True)
        self._builds.shutdown(cancel_futures=True)


def _run(steps: tuple[Step, ...], yard: _Yard, pools: _Pools, rank: Mapping[str, float]) -> Outcome:
    outcome = Outcome()
    waiting = {step.key: step for step in steps}
    running: dict[Future[Entry], Step] = {}
    while waiting or running:
        for step in _ready(waiting, running, rank, pools.jobs):
            del waiting[step.key]
            running[pools.submit(yard, step)] = step
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            _finish(running.pop(future), future, waiting, outcome, yard)
    return outcome


def _ready(
    waiting: Mapping[str, Step],
    running: Mapping[Future[Entry], Step],
    rank: Mapping[str, float],
    jobs: int,
) -> list[Step]:
    """Every source, and as many other steps as there are free jobs, the longest way first."""
    unfinished = {*waiting, *(step.key for step in running.values())}
    free = [s for s in waiting.values() if not any(i.key in unfinished for i in s.inputs)]
    sources = [step for step in free if step.kind == "source"]
    builds = sorted((s for s in free if s.kind != "source"), key=lambda s: -rank[s.key])
    slots = jobs - sum(step.kind != "source" for step in running.values())
    return sources + builds[:slots]


def _finish(
    step: Step,
    future: Future[Entry],
    waiting: dict[str, Step],
    outcome: Outcome,
    yard: _Yard,
) -> None:
    try:
        outcome.entries[step.id] = future.result()
        outcome.built += 1
    except LongrunError as error:
        outcome.failed[step.id] = error
        blocked = _dependents(step, waiting.values())
        for other in blocked:
            outcome.blocked[other.id] = step.id
            del waiting[other.key]
        yard.reporter.failed(step, error, yard.store.log(step), blocked)


@dataclass(frozen=True, kw_only=True)
class _Yard:
    """Where single steps are realised; called from several threads."""

    store: Store
    builders: Builders
    cache: Path
    options: Options
    reporter: Reporter
    jobserver: JobServer
    programs: Programs
    checked: set[str] = field(default_factory=set)

    def realise(self, step: Step) -> Entry:
        with self.store.building(step, lambda: self.reporter.waiting(step)):
            entry = self.store.get(step.key)
            if entry is not None:
                return entry
            if step.kind == "source":
                return self._build(step)
            with self.jobserver.token():
                return self._build(step)

    def _build(self, step: Step) -> Entry:
        self.reporter.started(step)
        start = time.monotonic()
        log = self.store.log(step)
        log.write_bytes(b"")
        with self.store.stage(step, keep_failed=self.options.keep_failed) as stage:
            job = self._job(step, stage, log)
            try:
                self.builders[step.kind](job)
                check_files(step)
            except OSError as error:
                raise BuildError(f"{step.id}: {error}") from error
            seconds = time.monotonic() - start
            entry = self.store.commit(stage, step, seconds=seconds, known=job.known)
        self.reporter.finished(step, time.monotonic() - start)
        return entry

    def _job(self, step: Step, stage: Stage, log: Path) -> Job:
        runner = Runner(
            work=stage.work,
            private=stage.path / "private",
            log=log,
            epoch=step.epoch,
            jobserver=self.jobserver,
            programs=self.programs,
            held=(stage.lock,),
        )
        needed = {needed.id: needed for needed in step.inputs}
        return Job(
            spec=step.spec,
            floor=step.floor,
            epoch=step.epoch,
            inputs={name: self._input(needed).tree for name, needed in needed.items()},
            patches=step.patches,
            data=step.data,
            out=stage.tree,
            work=stage.work,
            cache=self.cache,
            jobs=self.options.jobs,
            run=runner,
            log=log,
            say=lambda text: self.reporter.said(step, text),
            files=lambda name: self._input(needed[name]).files(),
        )

    def _input(self, step: Step) -> Entry:
        """The entry of an input, checked once a run: a cache is not trusted blindly."""
        entry = self.store.get(step.key)
        if entry is None:
            raise StoreError(f"{step.id}: its entry vanished from the store while it was needed")
        if step.key not in self.checked:
            if step.kind == "source" and (problems := self.store.verify(entry)):
                raise StoreError(
                    f"{entry.path}: {problems[0]}",
                    remedy="./build.py verify --repair removes damaged entries",
                )
            self.store.check(entry)
            self.checked.add(step.key)
        return entry


def check_files(step: Step) -> None:
    """Raise BuildError where a file of the checkout is not what the step's key was made of."""
    known = [*step.material.get("patches", {}).values(), *step.material.get("data", {}).values()]
    for path, digest in zip((*step.patches, *step.data.values()), known, strict=True):
        if fs.sha256_file(path) != digest:
            raise BuildError(
                f"{path} was changed while {step.id} was built of it",
                remedy="the same command again builds it of what the file is now",
            )


def _dependents(step: Step, waiting: Iterable[Step]) -> list[Step]:
    """The waiting steps that cannot be built without this one."""
    lost = {step.key}
    found = []
    for other in waiting:  # in order: inputs come before what needs them
        if any(needed.key in lost for needed in other.inputs):
            lost.add(other.key)
            found.append(other)
    return found


def _ranks(steps: tuple[Step, ...], weights: Mapping[str, float]) -> dict[str, float]:
    """For each step the length of the longest way through it to a target, in seconds."""
    rank = {step.key: weights.get(step.id, 1.0) for step in steps}
    for step in reversed(steps):
        for needed in step.inputs:
            if needed.key in rank:
                way = rank[step.key] + weights.get(needed.id, 1.0)
                rank[needed.key] = max(rank[needed.key], way)
    return rank
