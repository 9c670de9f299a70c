"""Counts of events in a Parquet store."""

# ruff: noqa: S608 - fields are names of this module; values are parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from longrun.usage.report import DAY, Count, Group, Span
from longrun.usage.stores.parquet import COLUMNS, Reader

SERIES = "regexp_extract(python, '^[0-9]+\\.[0-9]+')"

EXPRESSIONS = {
    **{name: f'"{name}"' for name in COLUMNS},
    "day": f"CAST(floor(start / {DAY}) AS INTEGER)",
    "series": SERIES,
}

DISTINCT = {"hosts": "host", "users": "user", "programs": "name"}

MANY = {
    "package": "map_entries(packages)",
    "package_name": "map_keys(packages)",
    "forbidden": "forbidden",
}
"""Fields of which an event has several."""

COLUMN = {"package": "packages", "package_name": "packages", "forbidden": "forbidden"}

EPOCH = date(1970, 1, 1)


class ParquetSource:
    """The events of a span of days in a directory."""

    def __init__(self, directory: Path, span: Span, *, memory: int = 2000) -> None:
        self.title = str(directory)
        self._reader = Reader(directory, span.since, span.until, memory=memory)

    def __enter__(self) -> ParquetSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def group(
        self,
        by: Sequence[str],
        where: Mapping[str, object] | None = None,
        *,
        distinct: Sequence[str] = ("hosts", "users", "programs"),
    ) -> list[Group]:
        """See ``longrun.usage.report.Source``."""
        conditions, values = _conditions(where or {})
        several = [name for name in by if name in MANY]
        query = (
            _query(by, conditions, distinct)
            if not several
            else _query_many(by, several[0], conditions, distinct)
        )
        rows = self._reader.rows(query, values)
        return [_group(by, row, distinct) for row in rows if row[len(by)]]


def _query(by: Sequence[str], conditions: str, distinct: Sequence[str]) -> str:
    keys = [EXPRESSIONS[name] for name in by]
    counts = [f'count(DISTINCT "{DISTINCT[name]}")' for name in distinct]
    selected = ", ".join([*keys, "count(*)", "max(start)", *counts])
    grouped = " GROUP BY ALL" if keys else ""
    return f"SELECT {selected} FROM events WHERE {conditions}{grouped}"


def _query_many(by: Sequence[str], many: str, conditions: str, distinct: Sequence[str]) -> str:
    """Events that are alike are counted before their lists are taken apart: these are long."""
    others = [name for name in by if name != many]
    keys = {name: f"k{at}" for at, name in enumerate(others)}
    alike = ["h", *keys.values(), *distinct]
    first = [
        # a hash of 64 bits is told from another much faster than a map, and there are thousands
        f"hash({COLUMN[many]}) AS h",
        f"any_value({MANY[many]}) AS many",
        *(f"{EXPRESSIONS[name]} AS {key}" for name, key in keys.items()),
        *(f'"{DISTINCT[name]}" AS {name}' for name in distinct),
        "count(*) AS n, max(start) AS t",
    ]
    selected = [keys.get(name, "one") for name in by]
    outer = [*selected, "sum(n)", "max(t)", *(f"count(DISTINCT {name})" for name in distinct)]
    return (
        f"SELECT {', '.join(outer)} FROM (SELECT * EXCLUDE (many), unnest(many) AS one FROM"
        f" (SELECT {', '.join(first)} FROM events WHERE {conditions} GROUP BY {', '.join(alike)}))"
        f" GROUP BY ALL"
    )


def _conditions(where: Mapping[str, object]) -> tuple[str, list[object]]:
    conditions, values = ["true"], []
    for name, value in where.items():
        if isinstance(value, list):
            marks = ", ".join("?" for _ in value)
            conditions.append(f"{EXPRESSIONS[name]} IN ({marks})")
            values += value
        else:
            conditions.append(f"{EXPRESSIONS[name]} = ?")
            values.append(value)
    return " AND ".join(conditions), values


def _group(by: Sequence[str], row: tuple[Any, ...], distinct: Sequence[str]) -> Group:
    keys = tuple(_key(name, value) for name, value in zip(by, row, strict=False))
    invocations, last, *counts = row[len(by) :]
    counted = dict(zip(distinct, map(int, counts), strict=True))
    return Group(keys=keys, count=Count(invocations=int(invocations), last=last, **counted))


def _key(name: str, value: Any) -> Any:
    if name == "day":
        return (EPOCH + timedelta(days=value)).isoformat()
    if name == "package":
        return value["key"], value["value"]
    return value
