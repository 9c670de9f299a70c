"""What a person sees of a build, on a terminal, in a log and in GitLab."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from longrun.errors import BuildError
from longrun.log import GitLabReporter, PlainReporter, TerminalReporter, log_tail, make_reporter
from longrun.term import duration, size

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def steps(checkout):
    return checkout.plan().steps


def test_a_log_has_a_line_a_step_with_its_time(steps):
    out = io.StringIO()
    reporter = PlainReporter({step.id: 60.0 for step in steps}, jobs=2, retry="x", out=out)
    reporter.begin(steps, cached=3)
    reporter.finished(steps[0], 75.0)
    lines = out.getvalue().splitlines()
    alone = 3  # interpreter, prefix and archive: two jobs do not shorten them
    about = duration(60.0 * (len(steps) - alone) / 2 + 60.0 * alone)
    assert lines[0] == f"{len(steps)} steps to build, 3 cached; about {about}"
    assert re.fullmatch(rf"\[ 1/{len(steps)}\] {steps[0].id} \S+ +1 min 15 s", lines[1])


def test_a_failure_says_all_that_is_needed_to_go_on(steps, tmp_path):
    out, log = io.StringIO(), tmp_path / "z.log"
    log.write_text("".join(f"line {n}\n" for n in range(1000)))
    reporter = PlainReporter({}, jobs=2, retry="./build.py build 2026.1", out=out)
    error = BuildError("make ended with exit status 2", remedy="mend it")
    reporter.failed(steps[0], error, log, [steps[-1]])
    printed = out.getvalue()
    for expected in (
        f"{steps[0].title} FAILED: make ended with exit status 2",
        "| line 999",
        "remedy:  mend it",
        f"log:     {log}",
        f"blocks:  {steps[-1].id}",
        f"retry:   ./build.py build 2026.1 --step {steps[0].id}",
    ):
        assert expected in printed
    assert "line 900" not in printed


def test_what_build_does_not_plan_is_retried_by_its_own_command(steps, tmp_path):
    out = io.StringIO()
    reporter = PlainReporter({}, jobs=2, retry="./build.py build 2026.1", out=out)
    part = replace(steps[0], kind="part")
    reporter.failed(part, BuildError("disk full", remedy="make room"), tmp_path / "no.log", [])
    assert "retry:   the same command\n" in out.getvalue()


def test_gitlab_gets_sections_that_open_and_close(steps):
    out = io.StringIO()
    reporter = GitLabReporter({}, jobs=2, retry="x", out=out)
    reporter.begin(steps, cached=0)
    reporter.finished(steps[0], 2.0)
    found = re.findall(r"\x1b\[0Ksection_(start|end):(\d+):([\w]+)", out.getvalue())
    assert [kind for kind, _, _ in found] == ["start", "end"]
    assert found[0][2] == found[1][2], "a section's name has no character that GitLab refuses"
    assert int(found[1][1]) - int(found[0][1]) in (2, 3)


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"GITLAB_CI": "true", "CI": "true"}, "GitLabReporter"),
        ({"CI": "true"}, "PlainReporter"),
        ({}, "PlainReporter"),
    ],
)
def test_the_reporter_fits_where_the_output_goes(environ, kind):
    assert type(make_reporter(environ, {}, jobs=1, retry="x")).__name__ == kind


LIVE = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from conftest import Checkout
from longrun.errors import BuildError
from longrun.log import make_reporter
steps = Checkout(Path({checkout!r})).plan().steps
reporter = make_reporter({{"TERM": "xterm"}}, {{s.id: 3.0 for s in steps}}, jobs=2, retry="retry")
reporter.begin(steps, cached=0)
reporter.started(steps[0])
reporter.said(steps[0], "[not markup] " * 30)
time.sleep(0.3)
reporter.finished(steps[0], 1.0)
reporter.started(steps[1])
reporter.failed(steps[1], BuildError("[/] no"), Path("/nonexistent"), [])
reporter.end()
"""


def test_a_terminal_shows_running_steps_a_bar_and_an_estimate(checkout):
    script = textwrap.dedent(LIVE).format(
        paths=[str(Path(__file__).parent), str(ROOT / "src")], checkout=str(checkout.root)
    )
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", script], stderr=other, env=env)
    os.close(other)
    os.set_blocking(main, False)
    printed = ""
    while True:
        try:
            printed += os.read(main, 65536).decode("utf-8", "replace")
        except OSError:
            break
    assert done.returncode == 0, printed
    steps = checkout.plan().steps
    plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", printed)
    assert f"▸ {steps[0].title}" in plain
    assert "left" in plain
    assert "✔ source/cc 1.0" in plain or f"✔ {steps[0].title}" in plain
    assert f"✘ {steps[1].title} FAILED: [/] no" in plain
    assert f"0/{len(steps)}" in plain


def test_the_tail_of_a_log_is_short_and_readable(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 300_000 + b"\n\xff\xfe last\n")
    lines = log_tail(log)
    assert lines[-1].endswith(" last")
    assert all(len(line) <= 200 for line in lines)
    assert log_tail(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3700, "1 h 01 min"),
    ],
)
def test_durations_in_the_unit_that_a_person_would_use(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (12_345, "12 kB"), (17_500_000, "17.5 MB"), (2e9, "2.0 GB")]
)
def test_sizes_in_the_unit_that_a_person_would_use(count, text):
    assert size(count) == text


def test_a_terminal_is_never_printed_to_under_the_lock_that_drawing_takes(
    steps, tmp_path, monkeypatch
):
    """Rich draws under a lock of its own: a print from within ours waits for it, and it for us."""
    reporter = TerminalReporter({}, jobs=2, retry="./build.py build")
    reporter.console.file = io.StringIO()
    held = []
    original = reporter.console.print

    def watched(*arguments, **options):
        held.append(reporter.lock.locked())
        original(*arguments, **options)

    monkeypatch.setattr(reporter.console, "print", watched)
    reporter.begin(steps, cached=0)
    reporter.waiting(steps[0])
    reporter.started(steps[0])
    reporter.finished(steps[0], 1.0)
    reporter.failed(steps[1], BuildError("no"), tmp_path / "none", [])
    reporter.end()
    assert len(held) >= 3
    assert not any(held)
