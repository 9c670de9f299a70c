"""What a matrix found, and the stable form of it that machines read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from longrun.cage import Attempt as Attempt

SCHEMA = 1
"""Raised when a key of the JSON form changes its meaning or goes away; new keys do not raise it."""

PASSED, FLAKY, GAP, FIXED, FAILED = "passed", "flaky", "gap", "fixed", "failed"
"""States of a cell: ``gap`` fails as a spec says that it will; ``fixed`` passes where a spec still
says that it fails; ``flaky`` passed after it had failed."""

GOOD = (PASSED, FLAKY, GAP)
"""The states that do not fail a run."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One interpreter in one system."""

    tag: str
    python: str
    system: str
    title: str
    glibc: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check."""

    name: str
    title: str
    group: str
    layer: str
    pair: bool


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What came of one check in one column.

    ``isolation`` is ``namespaces``, ``engine`` or ``session``; ``cached`` whether it was run
    before; ``why`` says in a line what is wrong, ``link`` where more is told of a known gap.
    """

    check: str
    tag: str
    system: str
    state: str
    attempts: tuple[Attempt, ...]
    isolation: str
    versions: Mapping[str, str]
    why: str
    link: str
    since: str
    log: str
    cached: bool
    key: str

    @property
    def seconds(self) -> float:
        """How long the last attempt took."""
        return self.attempts[-1].seconds if self.attempts else 0.0


@dataclass(frozen=True, kw_only=True)
class Need:
    """The highest symbol versions that the files of one distribution need of the system."""

    tag: str
    name: str
    version: str
    layer: str
    files: int
    glibc: str
    glibcxx: str


@dataclass(frozen=True, kw_only=True)
class ImportTime:
    """Seconds that a module takes to import, less those of a bare start of the interpreter.

    ``cold`` is after the prefix's files were dropped from memory.
    """

    tag: str
    name: str
    module: str
    layer: str
    warm: float
    cold: float


@dataclass(frozen=True, kw_only=True)
class StartTime:
    """Seconds that a bare start of an interpreter takes, to its end."""

    tag: str
    warm: float
    cold: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """A cell whose state, or a version in it, differs from the matrix before."""

    check: str
    tag: str
    system: str
    before: str
    now: str
    versions: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All of it, or where it is not ``whole``, what was asked for.

    ``before`` names the matrix that ``changes`` compares with; it is empty without one.
    """

    release: str
    whole: bool = True
    date: str
    host: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    cells: tuple[CellResult, ...]
    needs: tuple[Need, ...]
    imports: tuple[ImportTime, ...]
    starts: tuple[StartTime, ...]
    seconds: float
    before: str
    changes: tuple[Change, ...]

    @property
    def ok(self) -> bool:
        """Whether no cell fails the run."""
        return all(cell.state in GOOD for cell in self.cells)

    def counts(self, **where: str) -> dict[str, int]:
        """How many cells have which state; ``where`` chooses by tag, system or check."""
        found = dict.fromkeys((PASSED, FLAKY, GAP, FIXED, FAILED), 0)
        for cell in self.cells:
            if all(getattr(cell, name) == value for name, value in where.items()):
                found[cell.state] += 1
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON object with stable keys; ``schema`` tells readers which."""
        return {"schema": SCHEMA, "ok": self.ok, "counts": self.counts(), **asdict(self)}
