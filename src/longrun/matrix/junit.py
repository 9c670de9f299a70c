"""A matrix as JUnit XML: what GitLab and other servers show of tests.

GitLab tells tests apart by suite, class and name; it reads the text of ``failure`` and ``skipped``
(their attributes only where there is no text), and at most one ``system-out`` a test.
https://docs.gitlab.com/ci/testing/unit_test_reports/
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from longrun.matrix.report import (
    FAILED,
    FIXED,
    FLAKY,
    GAP,
    CellResult,
    Column,
    Matrix,
    Row,
)
from longrun.matrix.words import STATES, column_title, end_of, plain, reruns, tail
from longrun.term import duration

LOG = 20_000
"""Characters of a log that are shown."""


def render(matrix: Matrix) -> str:
    """The document: a suite for each column, a test for each cell."""
    root = Element("testsuites", name=f"Longrun {matrix.release}")
    _count(root, matrix.cells)
    rows = {row.name: row for row in matrix.rows}
    for column in matrix.columns:
        _suite(root, matrix, column, rows)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _suite(root: Element, matrix: Matrix, column: Column, rows: dict[str, Row]) -> None:
    here = (column.tag, column.system)
    cells = [cell for cell in matrix.cells if (cell.tag, cell.system) == here]
    suite = SubElement(
        root,
        "testsuite",
        name=column_title(column),
        timestamp=matrix.date,
        hostname=matrix.host,
    )
    _count(suite, cells)
    properties = SubElement(suite, "properties")
    for name in ("tag", "python", "system", "glibc"):
        SubElement(properties, "property", name=name, value=getattr(column, name))
    for cell in cells:
        _case(suite, cell, rows[cell.check])


def _case(suite: Element, cell: CellResult, row: Row) -> None:
    case = SubElement(
        suite, "testcase", classname=row.group, name=cell.check, time=f"{cell.seconds:.3f}"
    )
    _properties(case, cell)
    if cell.state in (FAILED, FIXED):
        message = _message(cell)
        failure = SubElement(case, "failure", message=message, type=cell.state)
        failure.text = "\n".join([message, *_attempts(cell), "", tail(plain(cell.log), LOG)])
    elif cell.state == GAP:
        message = " ".join(filter(None, [_message(cell), _since(cell), cell.link]))
        SubElement(case, "skipped", message=plain(message)).text = plain(message)
    elif cell.state == FLAKY:
        lines = [f"flaky: passed when run again, reruns: {reruns(cell)}", *_attempts(cell)]
        SubElement(case, "system-out").text = "\n".join(lines)


def _properties(case: Element, cell: CellResult) -> None:
    properties = SubElement(case, "properties")
    found = {"state": cell.state, "reruns": str(reruns(cell)), "key": cell.key, **cell.versions}
    for name, value in found.items():
        SubElement(properties, "property", name=name, value=value)


def _message(cell: CellResult) -> str:
    return plain(f"{STATES[cell.state].word}: {cell.why or STATES[cell.state].meaning}")


def _since(cell: CellResult) -> str:
    return f"(since {cell.since})" if cell.since else ""


def _attempts(cell: CellResult) -> list[str]:
    return [
        plain(
            f"attempt {number}: {end_of(attempt)}, {duration(attempt.seconds)}"
            + (f", left behind: {'; '.join(attempt.orphans)}" if attempt.orphans else "")
        )
        for number, attempt in enumerate(cell.attempts, 1)
    ]


def _count(element: Element, cells: Iterable[CellResult]) -> None:
    states = [cell.state for cell in cells]
    element.set("tests", str(len(states)))
    element.set("failures", str(sum(state in (FAILED, FIXED) for state in states)))
    element.set("errors", "0")
    element.set("skipped", str(states.count(GAP)))
    element.set("time", f"{sum(cell.seconds for cell in cells):.3f}")
