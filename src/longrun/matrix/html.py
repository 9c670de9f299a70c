"""A matrix as one page that needs nothing else: for a wall, a desk or a phone.

All of it is in the HTML: a cell's details show as the target of its link, without a program. What
the script adds is filters, sorting, keys and copying. Logs may hold anything: the template escapes
every value, and the page's own policy lets no script run but that one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longrun.matrix.report import (
    FAILED,
    FIXED,
    FLAKY,
    GAP,
    PASSED,
    CellResult,
    Change,
    Column,
    ImportTime,
    Matrix,
    Need,
    Row,
)
from longrun.matrix.words import (
    ISOLATIONS,
    STATES,
    column_title,
    end_of,
    findings,
    plain,
    reruns,
    tail,
    verdict,
)
from longrun.term import duration, size

HERE = Path(__file__).parent

LOG = 20_000
"""Characters that are shown of the log of a cell that did not pass at once."""

PASSED_LOG = 3_000
"""Characters that are shown of the log of one that did."""

LOGS = 1_500_000
"""Characters that the logs of all cells which did not pass share, however many they are."""

FIRST = 12
"""Lines of a long list that are shown before the rest is asked for."""

QUALITY = {PASSED: 4, FLAKY: 3, FIXED: 2, GAP: 1, FAILED: 0}


def render(matrix: Matrix) -> str:
    """The page."""
    import jinja2  # takes as long to load as all the rest, and only a report needs it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (duration, size, seconds, plain, anchor, end_of, reruns, column_title, web):
        environment.filters[function.__name__] = function
    return environment.get_template("matrix.html.j2").render(_content(matrix))


def _content(matrix: Matrix) -> dict[str, Any]:
    """What the template shows, by the names that it uses."""
    script = (HERE / "matrix.js").read_text(encoding="utf-8")
    return {
        "matrix": matrix,
        "style": (HERE / "matrix.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "verdict": verdict(matrix),
        "when": _when(matrix.date),
        "counts": matrix.counts(),
        "states": STATES,
        "isolations": ISOLATIONS,
        "systems": _systems(matrix.columns),
        "families": _families(matrix.rows),
        "cells": {(cell.check, cell.tag, cell.system): cell for cell in matrix.cells},
        "libraries": _libraries(matrix),
        "rows": {row.name: row for row in matrix.rows},
        "columns": {(column.tag, column.system): column for column in matrix.columns},
        "logs": _logs(matrix.cells),
        "urgent": findings(matrix.cells, FAILED, FIXED),
        "lesser": findings(matrix.cells, GAP, FLAKY),
        "moves": _moves(matrix.changes),
        "upgrades": _upgrades(matrix.changes),
        "imports": _imports(matrix.imports),
        "longest": max((max(one.warm, one.cold) for one in matrix.imports), default=0.0),
        "needs": _needs(matrix.needs),
        "bare": _bare(matrix.needs),
        "first": FIRST,
    }


def anchor(cell: CellResult | Change) -> str:
    """What a link to a cell ends with."""
    return f"{cell.check}-{cell.tag}-{cell.system}"


def web(link: str) -> bool:
    """Whether a link may be followed; any other, such as ``javascript:``, is shown as text."""
    return link.startswith(("https://", "http://"))


def seconds(value: float) -> str:
    """A short time in the unit that a person would use: ``14 ms``, ``0.62 s``."""
    return f"{value * 1000:.0f} ms" if value < 0.0995 else f"{value:.2f} s"


def _when(date: str) -> str:
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return date
    if moment.tzinfo is None:
        return date
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _systems(columns: Iterable[Column]) -> dict[str, list[Column]]:
    found: dict[str, list[Column]] = {}
    for column in columns:
        found.setdefault(column.system, []).append(column)
    return found


def _families(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def _libraries(matrix: Matrix) -> dict[str, list[str]]:
    """The distributions that each check is about."""
    found: dict[str, set[str]] = {row.name: set() for row in matrix.rows}
    for cell in matrix.cells:
        found[cell.check] |= set(cell.versions)
    return {check: sorted(names) for check, names in found.items()}


def _logs(cells: tuple[CellResult, ...]) -> dict[str, str]:
    """The log of each cell by its anchor, as long as the page can bear."""
    count = sum(cell.state != PASSED for cell in cells)
    limit = min(LOG, LOGS // max(1, count))
    return {
        anchor(cell): tail(plain(cell.log), PASSED_LOG if cell.state == PASSED else limit)
        for cell in cells
    }


@dataclass(frozen=True, kw_only=True)
class Move:
    """Cells of one check whose states changed in the same way."""

    check: str
    before: str
    now: str
    changes: list[Change]


def _moves(changes: Iterable[Change]) -> dict[str, list[Move]]:
    """The changes of states, by what they mean for a user."""
    found: dict[tuple[str, str, str], Move] = {}
    for change in changes:
        if change.before != change.now:
            key = (change.check, change.before, change.now)
            move = Move(check=change.check, before=change.before, now=change.now, changes=[])
            found.setdefault(key, move).changes.append(change)
    moves: dict[str, list[Move]] = {"Worse": [], "Better": [], "New": [], "Gone": []}
    for move in found.values():
        moves[_meaning(move)].append(move)
    return moves


def _meaning(move: Move) -> str:
    if not move.before:
        return "New"
    if not move.now:
        return "Gone"
    return "Worse" if QUALITY[move.now] < QUALITY[move.before] else "Better"


def _upgrades(changes: Iterable[Change]) -> dict[tuple[str, str, str], list[str]]:
    """Tags of the interpreters by name, version before and version now of a distribution."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        for name, (before, now) in change.versions.items():
            tags = found.setdefault((name, before, now), [])
            if change.tag not in tags:
                tags.append(change.tag)
    return dict(sorted(found.items()))


def _imports(times: Iterable[ImportTime]) -> dict[str, list[ImportTime]]:
    """By interpreter, what takes longest from a cold disk first."""
    found: dict[str, list[ImportTime]] = {}
    for time in sorted(times, key=lambda time: -time.cold):
        found.setdefault(time.tag, []).append(time)
    return dict(sorted(found.items(), reverse=True))


@dataclass(frozen=True, kw_only=True)
class SharedNeed:
    """A need, and the interpreters that have it."""

    need: Need
    tags: list[str]

    @property
    def order(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What sorts needs, the highest last."""
        return _numbers(self.need.glibc), _numbers(self.need.glibcxx)


def _needs(needs: Iterable[Need]) -> list[SharedNeed]:
    """The needs of distributions with native code, the highest first."""
    found: dict[Need, SharedNeed] = {}
    for need in needs:
        if need.glibc or need.glibcxx:
            same = replace(need, tag="", files=0)  # how many files may differ by interpreter
            found.setdefault(same, SharedNeed(need=need, tags=[])).tags.append(need.tag)
    by_name = sorted(found.values(), key=lambda shared: shared.need.name)
    return sorted(by_name, key=lambda shared: shared.order, reverse=True)


def _bare(needs: Iterable[Need]) -> int:
    """How many distributions need nothing of the system."""
    needy = {need.name for need in needs if need.glibc or need.glibcxx}
    return len({need.name for need in needs} - needy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
