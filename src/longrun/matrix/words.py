"""What the reports of a matrix say in the same words: states, ends of programs, logs, verdicts."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from longrun.matrix.report import (
    FAILED,
    FIXED,
    FLAKY,
    GAP,
    PASSED,
    Attempt,
    CellResult,
    Column,
    Matrix,
)


@dataclass(frozen=True, kw_only=True)
class State:
    """How a state is shown: a symbol one column wide, a word, its meaning, a terminal's colour."""

    symbol: str
    word: str
    meaning: str
    style: str


STATES = {
    PASSED: State(
        symbol="✔", word="passed", meaning="The round trip held, at once.", style="green"
    ),
    FLAKY: State(
        symbol="↻",
        word="flaky",
        meaning="It passed, but only after it had failed.",
        style="yellow",
    ),
    GAP: State(
        symbol="◐",
        word="known gap",
        meaning="It fails as its spec says that it does; users are told how to live with it.",
        style="yellow",
    ),
    FIXED: State(
        symbol="!",
        word="fixed",
        meaning="It passes where its spec still says that it fails: the spec has to be mended.",
        style="cyan",
    ),
    FAILED: State(symbol="✘", word="failed", meaning="It has to pass, and does not.", style="red"),
}
"""By state, the good ones first."""

ISOLATIONS = {
    "namespaces": "namespaces of its own, no network but loopback",
    "engine": "a container without network",
    "session": "a session of its own; the network was reachable",
}

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Sequences that move and colour a terminal's cursor, and set its title."""

UNFIT = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids or discourages; no page shows them either."""


def plain(text: str) -> str:
    """What a program printed as text that XML and pages can hold: nothing for a terminal in it.

    Of a line that a program wrote over, the last form stays.
    """
    lines = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    return UNFIT.sub("\N{REPLACEMENT CHARACTER}", "\n".join(map(_last_form, lines)))


def _last_form(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def tail(text: str, limit: int) -> str:
    """The end of a text in whole lines, at most so many characters; it says what it leaves out."""
    if len(text) <= limit:
        return text
    kept = text[-limit:].partition("\n")[2] or text[-limit:]
    return f"[… {len(text) - len(kept)} characters before this are left out]\n{kept}"


def end_of(attempt: Attempt) -> str:
    """How a run came to its end: ``exit status 1``, ``killed by SIGSEGV``."""
    if attempt.timed_out:
        return "killed at its time limit"
    if attempt.status < 0:
        return f"killed by {signal_name(-attempt.status)}"
    if attempt.orphans and attempt.status == 0:
        return f"left {_count(len(attempt.orphans), 'process', 'processes')} running"
    return "ended well" if attempt.status == 0 else f"exit status {attempt.status}"


def signal_name(number: int) -> str:
    """The name of a signal, such as ``SIGSEGV``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Cells of one check that say the same."""

    check: str
    state: str
    why: str
    link: str
    since: str
    cells: list[CellResult]


def findings(cells: Iterable[CellResult], *states: str) -> list[Finding]:
    """What is to say of the cells in some states, in the order of the states."""
    found: dict[tuple[str, ...], Finding] = {}
    for cell in cells:
        if cell.state in states:
            said = {"check": cell.check, "state": cell.state, "why": cell.why}
            said |= {"link": cell.link, "since": cell.since}
            finding = found.setdefault(tuple(said.values()), Finding(**said, cells=[]))
            finding.cells.append(cell)
    return sorted(found.values(), key=lambda finding: states.index(finding.state))


def reruns(cell: CellResult) -> int:
    """How often a cell was run again."""
    return max(0, len(cell.attempts) - 1)


def column_title(column: Column) -> str:
    """A column for people, such as ``cp313 · Debian 12``."""
    return f"{column.tag} · {column.title}"


def verdict(matrix: Matrix) -> str:
    """What came of it, in a sentence."""
    counts = matrix.counts()
    total = sum(counts.values())
    if not total:
        return "No cell was run."
    if not matrix.ok:
        bad = [
            _count(counts[FAILED], "cell fails", "cells fail"),
            _count(counts[FIXED], "known gap passes now", "known gaps pass now"),
        ]
        return f"{' and '.join(filter(None, bad))}, of {total} cells: not fit for a release."
    if counts[PASSED] == total:
        return f"All {total} cells pass." if total > 1 else "The one cell passes."
    notes = [
        _count(counts[PASSED] + counts[FLAKY], "cell passes", "cells pass"),
        _count(counts[FLAKY], "of them only when run again", "of them only when run again"),
        _count(counts[GAP], "is a known gap", "are known gaps"),
    ]
    return f"No cell fails: {', '.join(filter(None, notes))}."


def _count(number: int, one: str, many: str) -> str:
    """A number with its noun; empty for none."""
    return f"{number} {one if number == 1 else many}" if number else ""
