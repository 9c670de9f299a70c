"""States of cells: what was found, held against what the spec says."""

from __future__ import annotations

import pytest
from check_maker import make_gap

from longrun.cage import Attempt
from longrun.matrix.judge import state_of
from longrun.matrix.report import FAILED, FIXED, FLAKY, GAP, GOOD, PASSED
from longrun.steps.check import CellRecord

OK, BAD = 0, 1


def record(*statuses: int, log: str = "") -> CellRecord:
    attempts = tuple(
        Attempt(status=status, timed_out=False, seconds=1, cpu=1, memory=1, orphans=())
        for status in statuses
    )
    return CellRecord(attempts=attempts, isolation="session", log=log)


@pytest.mark.parametrize(
    ("found", "gap", "state"),
    [
        (record(OK), None, PASSED),
        (record(BAD, OK), None, FLAKY),
        (record(BAD, BAD), None, FAILED),
        (record(), None, FAILED),
        (record(BAD, log="the known words are here"), make_gap(), GAP),
        (record(BAD, log="other words"), make_gap(), FAILED),
        (record(OK, log="the known words are here"), make_gap(), FIXED),
        (record(BAD, OK), make_gap(), FIXED),
    ],
)
def test_state(found, gap, state):
    assert state_of(found, gap) == state


def test_a_gap_that_is_fixed_fails_the_run_until_its_spec_is_mended():
    assert FIXED not in GOOD
    assert FAILED not in GOOD
    assert {PASSED, FLAKY, GAP} == set(GOOD)
