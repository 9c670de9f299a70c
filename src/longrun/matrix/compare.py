"""What differs between a matrix and an earlier one, whose JSON was kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longrun.errors import SpecError
from longrun.matrix.report import SCHEMA, CellResult, Change

Place = tuple[str, str, str]
"""Check, tag and system: what names a cell."""

Result = tuple[str, Mapping[str, str]]
"""State and versions."""


REMEDY = "compare with a matrix.json that ./build.py matrix wrote"


def read(path: Path) -> dict[str, Any]:
    """The JSON of an earlier matrix; SpecError where the file is no such thing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", remedy=REMEDY) from error
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}", remedy=REMEDY) from error
    _cells(found if isinstance(found, dict) else {}, str(path))
    return dict(found)


def changes(
    now: Iterable[CellResult],
    before: Mapping[str, Any],
    *,
    name: str = "the matrix before",
    whole: bool = True,
) -> tuple[Change, ...]:
    """The cells whose state or versions differ from those of an earlier matrix's JSON.

    A cell that is new has no state ``before``, one that is gone none ``now``; ``whole`` is false
    where only some cells were asked for, and then none counts as gone. The order is that of
    ``now``. SpecError, with the matrix' ``name``, where the JSON is not that of a matrix.
    """
    old = _cells(before, name)
    new = {(cell.check, cell.tag, cell.system): (cell.state, cell.versions) for cell in now}
    gone = [place for place in old if place not in new] if whole else []
    found = [_change(place, old.get(place), new.get(place)) for place in [*new, *gone]]
    return tuple(change for change in found if change.before != change.now or change.versions)


def _change(place: Place, before: Result | None, now: Result | None) -> Change:
    check, tag, system = place
    versions = different(before[1], now[1]) if before and now else {}
    return Change(
        check=check,
        tag=tag,
        system=system,
        before=before[0] if before else "",
        now=now[0] if now else "",
        versions=versions,
    )


def different(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The distributions whose versions differ; a side that has none has an empty version."""
    names = sorted({*before, *now})
    pairs = {name: (before.get(name, ""), now.get(name, "")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _cells(before: Mapping[str, Any], name: str) -> dict[Place, Result]:
    if (schema := before.get("schema")) != SCHEMA:
        raise SpecError(f"{name}: schema: expected {SCHEMA}, found {schema!r}", remedy=REMEDY)
    try:
        return {
            (cell["check"], cell["tag"], cell["system"]): (cell["state"], dict(cell["versions"]))
            for cell in before["cells"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(
            f"{name}: cells: not those of a matrix: {error!r}", remedy=REMEDY
        ) from error
