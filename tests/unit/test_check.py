"""The step of a cell: attempts, known gaps, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from check_maker import make_cell, make_gap, make_prefix
from job_maker import make_job

from longrun.config import BUBBLEWRAP
from longrun.engine import Engines
from longrun.errors import BuildError
from longrun.model import Cell
from longrun.steps import check
from longrun.steps.check import CellError, read
from longrun.steps.job import Job


def job(directory: Path, cell: Cell, program: str) -> Job:
    """A job of a cell whose check is a program text."""
    directory.chmod(0o755)
    (directory / cell.check.program).write_text(program)
    made = make_job(directory / "job", cell, {"layer/base-cp313": make_prefix(directory / "p")})
    return replace(made, data={cell.check.program: directory / cell.check.program})


def build(job: Job) -> None:
    """Run the cell as a matrix does that uses no engine."""
    check.build(job, Engines(BUBBLEWRAP, {}))


FLAKY = """
import os
first = not os.path.exists({mark!r})
open({mark!r}, "w").close()
print("first time" if first else "second time")
exit(first)
"""


@pytest.fixture(autouse=True)
def in_a_session(monkeypatch):
    """Without namespaces, a check may write a mark for its next attempt."""
    monkeypatch.setattr("longrun.cage.namespaces", lambda: False)


def test_a_pass_is_kept_with_its_log(tmp_path):
    made = job(tmp_path, make_cell(), "print('there and back')")
    build(made)
    record = read(made.out)
    assert [attempt.passed for attempt in record.attempts] == [True]
    assert record.log == "there and back\n"
    assert "there and back" in made.log.read_text()


def test_a_failure_is_told_and_every_attempt_is_counted(tmp_path):
    made = job(tmp_path, make_cell(attempts=3), "print('so'); raise SystemExit('it is lost')")
    with pytest.raises(CellError, match=r"exit status 1: it is lost \(attempt 3 of 3\)") as caught:
        build(made)
    record = caught.value.record
    assert [attempt.status for attempt in record.attempts] == [1, 1, 1]
    assert record.log.count("it is lost") == 3
    assert "--- attempt 3" in record.log


def test_what_passes_the_second_time_shows_both(tmp_path):
    made = job(tmp_path, make_cell(attempts=2), FLAKY.format(mark=str(tmp_path / "mark")))
    build(made)
    record = read(made.out)
    assert [attempt.passed for attempt in record.attempts] == [False, True]
    assert "first time" in record.log
    assert "second time" in record.log


def test_a_known_failure_is_kept_and_not_tried_again(tmp_path):
    cell = make_cell(attempts=3, gaps=(make_gap("lost its way"),))
    made = job(tmp_path, cell, "exit('it lost its way')")
    build(made)
    assert len(read(made.out).attempts) == 1


def test_another_failure_than_the_known_one_counts(tmp_path):
    cell = make_cell(gaps=(make_gap("lost its way"),))
    with pytest.raises(CellError, match=r"fell over.*the known gap would show 'lost its way'"):
        build(job(tmp_path, cell, "exit('it fell over')"))


def test_a_gap_elsewhere_is_none_here(tmp_path):
    cell = make_cell(gaps=(make_gap("lost", systems=("bookworm",)),))
    with pytest.raises(CellError):
        build(job(tmp_path, cell, "exit('lost')"))


def test_words_of_a_known_gap_in_a_log_that_passes_change_nothing(tmp_path):
    made = job(tmp_path, make_cell(gaps=(make_gap("lost"),)), "print('lost, and found')")
    build(made)
    assert read(made.out).attempts[-1].passed


def test_a_check_that_hangs_says_so(tmp_path):
    cell = make_cell(timeout=1)
    with pytest.raises(CellError, match=r"still running after [12] s: waits"):
        build(job(tmp_path, cell, "import time; print('waits', flush=True); time.sleep(60)"))


def test_a_broken_cage_is_not_a_failed_check(tmp_path):
    made = job(tmp_path, make_cell(), "pass")
    broken = make_prefix(tmp_path / "q")
    (broken / "bin" / "python3.13").unlink()
    (broken / "bin" / "python3.13").symlink_to("/bin/false")
    with pytest.raises(BuildError, match="the cage of orbit failed, not the check") as caught:
        build(replace(made, inputs={"layer/base-cp313": broken}))
    assert not isinstance(caught.value, CellError)


def test_the_log_of_a_check_that_never_stops_talking_is_cut(tmp_path):
    made = job(tmp_path, make_cell(), "for n in range(60_000): print('noise', n)")
    build(made)
    log = read(made.out).log
    assert len(log) <= 200_000
    assert log.endswith("noise 59999\n")
