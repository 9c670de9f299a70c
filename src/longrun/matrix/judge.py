"""From what came of the cells to their states: a spec's known gaps decide what counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from longrun.errors import LongrunError
from longrun.matrix.report import FAILED, FIXED, FLAKY, GAP, PASSED, CellResult
from longrun.model import Cell, Gap
from longrun.plan import Step
from longrun.steps.check import CellError, CellRecord, read, reason
from longrun.store import Store


def judge(
    steps: Iterable[Step],
    store: Store,
    failed: Mapping[str, LongrunError],
    cached: frozenset[str],
) -> tuple[CellResult, ...]:
    """The state of every cell; ``cached`` are the ids of those that were not run now."""
    return tuple(_judge(step, store, failed.get(step.id), step.id in cached) for step in steps)


def _judge(step: Step, store: Store, error: LongrunError | None, cached: bool) -> CellResult:
    cell = step.spec
    assert isinstance(cell, Cell)
    entry = store.get(step.key)
    if entry is not None:
        record = read(entry.tree)
    elif isinstance(error, CellError):
        record = error.record
    else:
        record = CellRecord(attempts=(), isolation="", log="")
    gap = cell.check.gap(cell.tag, cell.system)
    state = state_of(record, gap)
    known = gap is not None and state in (GAP, FIXED)
    return CellResult(
        check=cell.check.name,
        tag=cell.tag,
        system=cell.system,
        state=state,
        attempts=record.attempts,
        isolation=record.isolation,
        versions=cell.versions,
        why=_why(state, record, gap, error),
        link=gap.link if gap and known else "",
        since=gap.since if gap and known else "",
        log=record.log,
        cached=cached,
        key=step.key,
    )


def states(store: Store) -> Callable[[Step], str | None]:
    """Tells the state of a cell that is in the store, or None."""

    def state(step: Step) -> str | None:
        entry = store.get(step.key)
        if entry is None or not isinstance(step.spec, Cell):
            return None
        gap = step.spec.check.gap(step.spec.tag, step.spec.system)
        return state_of(read(entry.tree), gap)

    return state


def state_of(record: CellRecord, gap: Gap | None) -> str:
    """A cell's state: what was found, held against what a spec says of it."""
    if not record.attempts:
        return FAILED
    if record.attempts[-1].passed:
        if gap:
            return FIXED
        return PASSED if len(record.attempts) == 1 else FLAKY
    return GAP if gap and gap.shows in record.log else FAILED


def _why(state: str, record: CellRecord, gap: Gap | None, error: LongrunError | None) -> str:
    if state == FIXED and gap:
        return f"passes, but its spec says that it does not: {gap.why}"
    if state == GAP and gap:
        return gap.why
    if state == FLAKY:
        return f"attempt 1: {reason(record.attempts[0], record.log.partition('--- attempt 2')[0])}"
    if state == FAILED:
        return error.message if error else reason(record.attempts[-1], record.log)
    return ""
