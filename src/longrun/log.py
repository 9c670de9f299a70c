"""What a person sees of a build: live on a terminal, plain lines in a log, folded groups in CI."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from longrun.errors import LongrunError
from longrun.estimate import share
from longrun.plan import Step
from longrun.term import duration

TAIL = 25
"""Lines of a failed step's log that are shown."""


class Reporter(Protocol):
    """Told of what happens in a build; called from several threads."""

    def begin(self, steps: tuple[Step, ...], *, cached: int) -> None: ...
    def waiting(self, step: Step) -> None: ...
    def started(self, step: Step) -> None: ...
    def said(self, step: Step, text: str) -> None: ...
    def finished(self, step: Step, seconds: float) -> None: ...
    def failed(self, step: Step, error: LongrunError, log: Path, blocked: list[Step]) -> None: ...
    def end(self) -> None: ...


def make_reporter(
    environ: Mapping[str, str], weights: Mapping[str, float], *, jobs: int, retry: str
) -> Reporter:
    """The reporter that fits where the output goes; ``retry`` is the command a failure names."""
    if environ.get("GITLAB_CI"):
        return GitLabReporter(weights, jobs=jobs, retry=retry)
    if sys.stderr.isatty() and environ.get("TERM") != "dumb" and not environ.get("CI"):
        return TerminalReporter(weights, jobs=jobs, retry=retry)
    return PlainReporter(weights, jobs=jobs, retry=retry)


class PlainReporter:
    """A line a step as it ends: for logs."""

    def __init__(
        self, weights: Mapping[str, float], *, jobs: int, retry: str, out: TextIO | None = None
    ) -> None:
        self.out = out or sys.stderr
        self.weights = weights
        self.jobs = jobs
        self.retry = retry
        self.total = self.done = 0
        self.remaining = 0.0
        self.lock = threading.Lock()

    def begin(self, steps: tuple[Step, ...], *, cached: int) -> None:
        self.total = len(steps)
        self.remaining = sum(map(self.share, steps))
        if steps:
            about = duration(self.remaining)
            self.line(f"{len(steps)} steps to build, {cached} cached; about {about}")

    def waiting(self, step: Step) -> None:
        self.line(f"        {step.title}: waiting for another build that makes it")

    def started(self, step: Step) -> None:
        pass

    def said(self, step: Step, text: str) -> None:
        pass

    def finished(self, step: Step, seconds: float) -> None:
        with self.lock:
            self.done += 1
            self.remaining -= self.share(step)
            self.line(f"{self.count()} {step.title:<44} {duration(seconds):>12}")

    def failed(self, step: Step, error: LongrunError, log: Path, blocked: list[Step]) -> None:
        with self.lock:
            self.done += 1 + len(blocked)
            for line in failure_lines(step, error, log, blocked, retry=self.retry):
                self.line(line)

    def end(self) -> None:
        pass

    def share(self, step: Step) -> float:
        return share(step, self.weights.get(step.id, 1.0), self.jobs)

    def count(self) -> str:
        width = len(str(self.total))
        return f"[{self.done:>{width}}/{self.total}]"

    def line(self, text: str) -> None:
        print(text, file=self.out, flush=True)


class GitLabReporter(PlainReporter):
    """As the plain one, each step's log in a folded section of GitLab's job log."""

    def finished(self, step: Step, seconds: float) -> None:
        with self.lock:
            self.done += 1
            now = int(time.time())
            name = step.id.replace("/", "_").replace(".", "_")
            title = f"{self.count()} {step.title}  {duration(seconds)}"
            # https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
            self.line(
                f"\x1b[0Ksection_start:{int(now - seconds)}:{name}[collapsed=true]\r\x1b[0K{title}"
            )
            self.line(f"key {step.key}")
            self.line(f"\x1b[0Ksection_end:{now}:{name}\r\x1b[0K")


class TerminalReporter(PlainReporter):
    """Live: finished steps above, running ones with their times below, a bar and an estimate."""

    def __init__(self, weights: Mapping[str, float], *, jobs: int, retry: str) -> None:
        super().__init__(weights, jobs=jobs, retry=retry)
        from rich.console import Console  # 40 ms that only a terminal pays
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self.running: dict[str, tuple[Step, float, str]] = {}
        # Live renders once as it is made
        self.live = Live(console=self.console, refresh_per_second=8, get_renderable=self.render)

    def begin(self, steps: tuple[Step, ...], *, cached: int) -> None:
        super().begin(steps, cached=cached)
        if steps:
            self.live.start()

    def waiting(self, step: Step) -> None:
        self.console.print(f"  [yellow]…[/] {step.title}: waiting for another build that makes it")

    def started(self, step: Step) -> None:
        with self.lock:
            self.running[step.id] = (step, time.monotonic(), "")

    def said(self, step: Step, text: str) -> None:
        with self.lock:
            if step.id in self.running:
                self.running[step.id] = (*self.running[step.id][:2], text)

    def finished(self, step: Step, seconds: float) -> None:
        with self.lock:
            self.running.pop(step.id, None)
            self.done += 1
            self.remaining -= self.share(step)
        # never under the lock: printing waits for Live, which may be waiting for it in ``render``
        kind, name = step.kind, step.name
        self.console.print(
            f"  [green]✔[/] [dim]{kind}/[/]{name} [cyan]{step.version}[/]"
            f"{' ' * max(1, 44 - len(step.title))}[dim]{duration(seconds):>12}[/]"
        )

    def failed(self, step: Step, error: LongrunError, log: Path, blocked: list[Step]) -> None:
        from rich.markup import escape

        with self.lock:
            self.running.pop(step.id, None)
            self.done += 1 + len(blocked)
        first, *rest = failure_lines(step, error, log, blocked, retry=self.retry)
        self.console.print(
            "\n".join([f"  [red]✘ {escape(first)}[/]", *(f"    {escape(line)}" for line in rest)])
        )

    def end(self) -> None:
        self.live.stop()

    def render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self.lock:
            running = list(self.running.values())
        now = time.monotonic()
        spent = sum(
            min(share(step, now - start, self.jobs), self.share(step)) for step, start, _ in running
        )
        steps = Table.grid(padding=(0, 1))
        steps.add_column(width=3, justify="right")
        steps.add_column(width=43, no_wrap=True)
        steps.add_column(width=12, justify="right")
        steps.add_column(no_wrap=True)
        room = max(0, self.console.width - 64)  # a longer text would squeeze the columns before it
        for step, start, text in running:
            steps.add_row(
                "[yellow]▸[/]", step.title, duration(now - start), Text(text[:room], style="dim")
            )
        if self.done >= self.total and not running:
            return Text("")
        left = max(0.0, self.remaining - spent)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            "   ",
            ProgressBar(total=max(self.total, 1), completed=self.done, width=42),
            f"{self.done}/{self.total}",
            f"[dim]about {duration(left)} left[/]" if left > 1 else "",
        )
        return Group(steps, bar)


def failure_lines(
    step: Step, error: LongrunError, log: Path, blocked: list[Step], *, retry: str
) -> list[str]:
    """All that a person needs of a failed step: cause, log, what it blocks, how to retry."""
    lines = [f"{step.title} FAILED: {error.message}"]
    tail = log_tail(log)
    if tail:
        lines += ["", *(f"| {line}" for line in tail), ""]
    if error.remedy:
        lines.append(f"remedy:  {error.remedy}")
    if tail:
        lines.append(f"log:     {log}")
    if blocked:
        lines.append(f"blocks:  {', '.join(other.id for other in blocked)}")
    # images, bases and systems are in no plan of `build`
    alone = step.kind not in ("part", "image", "base", "system")
    lines.append(f"retry:   {retry} --step {step.id}" if alone else "retry:   the same command")
    return lines


def log_tail(log: Path, count: int = TAIL) -> list[str]:
    """The last lines of a log, cut to a readable width."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line[:200] for line in text.splitlines()[-count:]]
