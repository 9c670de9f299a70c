"""What a person sees of a matrix while it runs, and the lines that sum it up."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from longrun.errors import LongrunError
from longrun.log import log_tail
from longrun.matrix.report import FAILED, FIXED, FLAKY, GAP, PASSED, CellResult, Column, Matrix, Row
from longrun.matrix.words import (
    STATES,
    Finding,
    column_title,
    end_of,
    findings,
    plain,
    reruns,
    verdict,
)
from longrun.model import Cell
from longrun.plan import Step
from longrun.term import clip, duration, fold, paint

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Place = tuple[str, str, str]
"""Check, tag and system: what names a cell."""

Judge = Callable[[Step], str | None]
"""The state of a cell that was run; None counts as passed."""

WAITING, RUNNING, BROKEN, NONE = "waiting", "running", "broken", "none"
"""What only a live table has: a broken cell could not be run, none is not for an interpreter."""

SYMBOLS = {
    **{name: (state.symbol, state.style) for name, state in STATES.items()},
    BROKEN: ("⊘", "red"),
    RUNNING: ("▸", "bold"),
    WAITING: ("·", "dim"),
    NONE: ("—", "dim"),
}

WORDS = {
    **{name: state.word for name, state in STATES.items()},
    BROKEN: "not run",
    RUNNING: "running",
    WAITING: "waiting",
}

FIRST = (FAILED, BROKEN, FIXED, RUNNING, WAITING, FLAKY, GAP, PASSED, NONE)
"""Which state stands for those of several checks."""

HOT = (RUNNING, FAILED, BROKEN, FIXED)
"""States whose checks are shown first where there is no room for all."""

WIDTH = 5
"""Characters of a column."""


def place_of(step: Step) -> Place | None:
    """The place of a step in the table; None for a step that is no cell."""
    if not isinstance(step.spec, Cell):
        return None
    return step.spec.check.name, step.spec.tag, step.spec.system


class PlainTableReporter:
    """A line a cell as it ends, in columns that line up: for logs."""

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        weights: Mapping[str, float],
        *,
        jobs: int,
        judge: Judge | None = None,
        out: TextIO | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.rows = tuple(rows)
        self.weights = weights
        self.jobs = jobs
        self.judge = judge
        self.out = out or sys.stderr
        self.total = self.done = 0
        self.remaining = 0.0
        self.lock = threading.Lock()
        self.check_width = max((len(row.name) for row in rows), default=0)
        self.system_width = max((len(column.system) for column in columns), default=0)

    def begin(self, steps: tuple[Step, ...], *, cached: int) -> None:
        self.total = len(steps)
        self.remaining = sum(self.share(step) for step in steps)
        cells = sum(place_of(step) is not None for step in steps)
        rest = len(steps) - cells
        others = f" and {rest} other step{'s' if rest > 1 else ''}" if rest else ""
        about = f"; about {duration(self.remaining)}" if steps else ""
        self.line(f"{cells} cells{others} to run, {cached} cached{about}")

    def waiting(self, step: Step) -> None:
        self.line(f"{'':{len(self.count())}} {step.title}: another run makes it")

    def started(self, step: Step) -> None:
        pass

    def said(self, step: Step, text: str) -> None:
        pass

    def finished(self, step: Step, seconds: float) -> None:
        word = self.word(step)
        with self.lock:
            self.ended(step)
            self.line(f"{self.count()} {word:<9}  {self.name(step)}  {duration(seconds):>12}")

    def failed(self, step: Step, error: LongrunError, log: Path, blocked: list[Step]) -> None:
        with self.lock:
            self.ended(step, *blocked)
            for line in broken_lines(step, error, log, blocked):
                self.line(line)

    def end(self) -> None:
        pass

    def state(self, step: Step) -> str:
        """The state of a cell that was run."""
        return (self.judge(step) if self.judge and place_of(step) else None) or PASSED

    def word(self, step: Step) -> str:
        """How a step ended; what a person has to look at is in capitals."""
        if place_of(step) is None:
            return "made"
        state = self.state(step)
        word = STATES[state].word
        return word if state in (PASSED, GAP) else word.upper()

    def ended(self, *steps: Step) -> None:
        """Count steps that are done, or never will be."""
        self.done += len(steps)
        self.remaining -= sum(self.share(step) for step in steps)

    def share(self, step: Step) -> float:
        """Seconds that a step adds to the whole run."""
        return self.weights.get(step.id, 1.0) / self.jobs

    def name(self, step: Step) -> str:
        place = place_of(step)
        if place is None:
            return step.title
        check, tag, system = place
        return f"{check:<{self.check_width}}  {tag:<5}  {system:<{self.system_width}}"

    def count(self) -> str:
        width = len(str(self.total))
        return f"[{self.done:>{width}}/{self.total}]"

    def line(self, text: str) -> None:
        print(text.rstrip(), file=self.out, flush=True)


class TableReporter(PlainTableReporter):
    """Live: all cells as a table, what runs with its seconds, counts, a bar and the time left.

    Where the terminal is too low for all of it, families in which nothing happens are a line each.
    ``known`` has the states of cells that are not run again.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        weights: Mapping[str, float],
        *,
        jobs: int,
        judge: Judge | None = None,
        known: Mapping[Place, str] | None = None,
        console: Console | None = None,
    ) -> None:
        super().__init__(columns, rows, weights, jobs=jobs, judge=judge)
        from rich.console import Console  # 40 ms that only a terminal pays
        from rich.live import Live

        self.console = console or Console(stderr=True, highlight=False)
        self.states: dict[Place, str] = dict(known or {})
        self.running: dict[str, tuple[Step, float]] = {}
        # what it shows goes at the end, when the whole table is printed in its place
        self.live = Live(
            console=self.console,
            refresh_per_second=8,
            get_renderable=self.render,
            transient=True,
        )

    def begin(self, steps: tuple[Step, ...], *, cached: int) -> None:
        self.total = len(steps)
        self.remaining = sum(self.share(step) for step in steps)
        self.mark(steps, WAITING)
        if steps:
            self.live.start()

    def waiting(self, step: Step) -> None:
        self.show([f"… {step.title}: another run makes it"], style="yellow")

    def started(self, step: Step) -> None:
        with self.lock:
            self.running[step.id] = (step, time.monotonic())
            self.mark([step], RUNNING)

    def finished(self, step: Step, seconds: float) -> None:
        state = self.state(step)
        with self.lock:
            self.running.pop(step.id, None)
            self.ended(step)
            self.mark([step], state)

    def failed(self, step: Step, error: LongrunError, log: Path, blocked: list[Step]) -> None:
        with self.lock:
            self.running.pop(step.id, None)
            self.ended(step, *blocked)
            self.mark([step, *blocked], BROKEN)
        self.show(
            [
                f"⊘ {line}" if not at else f"  {line}"
                for at, line in enumerate(broken_lines(step, error, log, blocked))
            ],
            style="red",
        )

    def end(self) -> None:
        self.live.stop()
        for line in self.lines(sum(len(rows) + 1 for rows in families(self.rows).values())):
            self.console.print(line, no_wrap=True, overflow="crop")
        self.console.print()

    def show(self, lines: list[str], *, style: str) -> None:
        """Print above the table; not under the lock, which the table is drawn with as well."""
        from rich.text import Text

        for number, line in enumerate(lines):
            self.console.print(Text(line, style="" if number else style))

    def mark(self, steps: Iterable[Step], state: str) -> None:
        for step in steps:
            if place := place_of(step):
                self.states[place] = state

    def render(self) -> Any:
        """What the terminal shows now."""
        from rich.console import Group

        footer = ["", *self.others(), self.counts(), self.bar()]
        room = max(1, self.console.height - len(footer) - 3)
        return Group(*self.lines(room)[: room + 2], *footer)

    def lines(self, room: int) -> list[Text]:
        """The table: its head, and so many lines for families and checks."""
        with self.lock:
            states = dict(self.states)
            seconds = self.seconds()
        lines = self.head()
        for family, shown in unfolded(families(self.rows), states, room).items():
            inside = [row for row in self.rows if row.group == family]
            folded = len(shown) < len(inside)
            lines.append(self.family(family, inside, states) if folded else self.text(family, {}))
            lines += [
                self.text(f"  {row.name}", self.symbols(row, states, seconds)) for row in shown
            ]
        return lines

    def seconds(self) -> dict[Place, float]:
        """How long the cells that run have been running."""
        now = time.monotonic()
        found = {place_of(step): now - start for step, start in self.running.values()}
        return {place: spent for place, spent in found.items() if place}

    def head(self) -> list[Text]:
        """The systems, and below them their interpreters."""
        from rich.text import Text

        systems, tags = (
            Text(" " * self.label_width, no_wrap=True, overflow="crop") for _ in range(2)
        )
        for inside in self.systems():
            width = len(inside) * (WIDTH + 1) - 1
            systems.append(f"  {clip(inside[0].title, width):^{width}}", style="bold")
            tags.append("  " + " ".join(f"{column.tag:^{WIDTH}}" for column in inside), style="dim")
        return [systems, tags]

    @property
    def label_width(self) -> int:
        """Characters of the first column: less than its labels have, where the rest needs them."""
        wanted = max([self.check_width, *(len(row.group) + 5 for row in self.rows)]) + 3
        others = sum(len(inside) * (WIDTH + 1) + 1 for inside in self.systems())
        return max(12, min(wanted, self.console.width - others))

    def systems(self) -> list[list[Column]]:
        """The columns, those of one system together."""
        return [list(inside) for _, inside in groupby(self.columns, key=lambda one: one.system)]

    def text(self, label: str, symbols: Mapping[Column, tuple[str, str]]) -> Text:
        """One line: a label, and below each column a symbol in its style."""
        from rich.text import Text

        indent = label.startswith("  ")
        line = Text(no_wrap=True, overflow="crop")
        line.append(
            f"{clip(label, self.label_width - 1):<{self.label_width}}",
            style="" if indent else "bold",
        )
        for inside in self.systems():
            line.append(" ")
            for column in inside:
                symbol, style = symbols.get(column, ("", ""))
                line.append(f" {symbol:^{WIDTH}}", style=style)
        return line

    def symbols(
        self, row: Row, states: Mapping[Place, str], seconds: Mapping[Place, float]
    ) -> dict[Column, tuple[str, str]]:
        """What a check's line has in each column."""
        found = {}
        for column in self.columns:
            place = (row.name, column.tag, column.system)
            symbol, style = SYMBOLS[states.get(place, NONE)]
            if place in seconds:
                symbol = f"{symbol} {seconds[place]:.0f}"
            found[column] = (symbol, style)
        return found

    def family(self, name: str, rows: Sequence[Row], states: Mapping[Place, str]) -> Text:
        """A family in one line: in each column the state that a person wants to know of first."""
        found = {}
        for column in self.columns:
            inside = {states.get((row.name, column.tag, column.system), NONE) for row in rows}
            found[column] = SYMBOLS[next(state for state in FIRST if state in inside)]
        return self.text(f"{name} ({len(rows)})", found)

    def others(self) -> list[Text]:
        """Steps that run and are no cells, such as a system that is made."""
        from rich.text import Text

        with self.lock:
            running = list(self.running.values())
        now = time.monotonic()
        return [
            Text(f"▸ {step.title}  {duration(now - start)}", no_wrap=True, overflow="crop")
            for step, start in running
            if place_of(step) is None
        ]

    def counts(self) -> Text:
        """How many cells have which state, behind their symbols: also what explains these."""
        from rich.text import Text

        with self.lock:
            found = Counter(self.states.values())
        long = Text(no_wrap=True, overflow="crop")
        short = long.copy()
        for state, (symbol, style) in SYMBOLS.items():
            if found[state]:
                short.append(f"{symbol} {found[state]}  ", style=style)
                long.append(f"{symbol} {found[state]}", style=style)
                long.append(f" {WORDS[state]}   ", style="dim")
        return long if long.cell_len <= self.console.width else short

    def bar(self) -> Any:
        """How much is done, and about how long the rest takes."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        with self.lock:
            running = list(self.running.values())
            done, left = self.done, self.remaining
        now = time.monotonic()
        left -= sum(min((now - start) / self.jobs, self.share(step)) for step, start in running)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(self.total, 1), completed=done, width=42),
            f"{done}/{self.total}",
            f"[dim]about {duration(left)} left[/]" if left > 1 else "",
        )
        return bar


def families(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The checks by family, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def unfolded(
    families: Mapping[str, list[Row]], states: Mapping[Place, str], room: int
) -> dict[str, list[Row]]:
    """The checks that get a line of their own below that of their family.

    All, where there are so many lines; else those first that run, fail or are fixed, then the other
    checks of their families, then other families, each as a whole.
    """
    shown: dict[str, list[Row]] = {name: [] for name in families}
    left = room - len(families)
    heats = {row.name: _heat(row, states) for rows in families.values() for row in rows}
    if sum(map(len, families.values())) <= left:
        return dict(families)
    hot = [row for rows in families.values() for row in rows if heats[row.name] < len(HOT)]
    for row in sorted(hot, key=lambda row: heats[row.name])[: max(0, left)]:
        shown[row.group].append(row)
        left -= 1
    for name in sorted(families, key=lambda name: not shown[name]):
        if len(families[name]) - len(shown[name]) <= left:
            left -= len(families[name]) - len(shown[name])
            shown[name] = families[name]
    return {name: [row for row in families[name] if row in rows] for name, rows in shown.items()}


def _heat(row: Row, states: Mapping[Place, str]) -> int:
    """How soon a check is shown: the lower the sooner."""
    inside = {state for (check, _, _), state in states.items() if check == row.name}
    return next((at for at, state in enumerate(HOT) if state in inside), len(HOT))


def broken_lines(step: Step, error: LongrunError, log: Path, blocked: list[Step]) -> list[str]:
    """What a person needs of a step that could not be run: cause, log, remedy, what it blocks."""
    lines = [f"{step.title} FAILED: {error.message}"]
    lines += [f"| {line}" for line in log_tail(log)]
    if error.remedy:
        lines.append(f"remedy:  {error.remedy}")
    if blocked:
        names = ", ".join(other.id for other in blocked[:5])
        more = f" and {len(blocked) - 5} more" if len(blocked) > 5 else ""
        lines.append(f"blocks:  {names}{more}")
    return lines


def summary(matrix: Matrix) -> list[str]:
    """What is printed at the end: counts by column, what did not simply pass and why, a verdict."""
    lines = _count_lines(matrix)
    # what matters most is read last, above the prompt
    for finding in findings(matrix.cells, GAP, FLAKY, FIXED, FAILED):
        lines += ["", *_finding_lines(finding, matrix)]
    return [*lines, "", paint("bold", paint("green" if matrix.ok else "red", verdict(matrix)))]


def _count_lines(matrix: Matrix) -> list[str]:
    titles = [column_title(column) for column in matrix.columns]
    width = max([len("all"), *map(len, titles)])
    head = "".join(f"{state.word:>11}" for state in STATES.values())
    lines = [paint("dim", f"{'':{width}}{head}")]
    for title, column in zip(titles, matrix.columns, strict=True):
        counts = matrix.counts(tag=column.tag, system=column.system)
        lines.append(f"{title:<{width}}{_numbers(counts)}")
    if len(titles) > 1:
        lines.append(f"{'all':<{width}}{_numbers(matrix.counts())}")
    return lines


def _numbers(counts: Mapping[str, int]) -> str:
    """Counts in columns; a zero is a dash, and only what is there has its colour."""
    return "".join(
        paint(state.style if counts[name] else "dim", f"{counts[name] or '-':>11}")
        for name, state in STATES.items()
    )


def _finding_lines(finding: Finding, matrix: Matrix) -> list[str]:
    """What did not simply pass: state, check, why, where, and where more is told."""
    state = STATES[finding.state]
    lines = [
        f"{paint(state.style, f'{state.symbol} {state.word}')}  {paint('bold', finding.check)}",
        *(f"    {line}" for line in fold(plain(finding.why), indent=4) if line),
        *(f"    {line}" for line in _where(finding, matrix)),
    ]
    if finding.since or finding.link:
        since = f"since {finding.since}" if finding.since else ""
        lines.append(paint("dim", f"    {'  '.join(filter(None, [since, finding.link]))}"))
    return lines


def _where(finding: Finding, matrix: Matrix) -> list[str]:
    """The cells of a finding; each with its runs, where it passed late or not at all."""
    titles = {(one.tag, one.system): column_title(one) for one in matrix.columns}
    named = {titles[cell.tag, cell.system]: cell for cell in finding.cells}
    if finding.state in (GAP, FIXED):
        everywhere = len(named) == len(titles) > 1
        return fold(f"in all {len(titles)} columns" if everywhere else ", ".join(named), indent=4)
    width = max(map(len, named))
    return [f"{title:<{width}}  {paint('dim', _runs(cell))}" for title, cell in named.items()]


def _runs(cell: CellResult) -> str:
    ends = [f"{end_of(one)} ({duration(one.seconds)})" for one in cell.attempts]
    again = f"reruns: {reruns(cell)}; " if cell.state == FLAKY else ""
    return again + ", then ".join(ends)
