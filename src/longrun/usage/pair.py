"""Start and end become one event.

An event goes to the store when it is whole; then most are written once, which suits files of a
day best. Three kinds of start go without an end: the process is gone and everything
that it can have written is read (it was killed, or left by ``os._exit``); its boot is over; or it
runs longer than the configured time, since a panel that stays open for months is use, too.

If the end comes after that, the event is put again, whole, under the same id. OpenSearch
replaces a document by its ``_id`` at no cost. A Parquet file is written once: there a replaced
event makes its day be written anew, or stand beside it until then, and that is rare because the
agent waits first. To hold every event back until its end would spare that, but hide what runs for
weeks; to put each at its start would write everything twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longrun.usage.event import NONE, Event
from longrun.usage.record import BadRecord, Bounds, End, Record, Start, parse
from longrun.usage.state import Invocation

ALL_TIMES = Bounds()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The records of one invocation, one of which may be missing."""

    found: Invocation
    start: Start | None
    end: End | None

    @property
    def known(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.start or self.end)

    def sites(self) -> set[tuple[int, str]]:
        """Whose record names which site directories."""
        return {(self.found.uid, place) for place in self.end.use} if self.end else set()


def read_pair(found: Invocation) -> Pair:
    """The records of an invocation as the state keeps them: lines that were once accepted.

    Another version may have accepted more than this one does: such a record is as if it were lost.
    """
    start, end = _record(found.first), _record(found.last)
    return Pair(
        found=found,
        start=start if isinstance(start, Start) else None,
        end=end if isinstance(end, End) else None,
    )


def _record(line: bytes | None) -> Record | None:
    try:
        return None if line is None else parse(line, ALL_TIMES)
    except BadRecord:
        return None


def make_event(pair: Pair, *, host: str, user: str, packages: Mapping[str, str]) -> Event:
    """The event of an invocation."""
    found = pair.found
    values = _begin(pair.start, pair.end) | _finish(pair.start, pair.end)
    return Event(
        id=f"{host}-{found.boot}-{found.id}",
        host=host,
        boot=found.boot,
        uid=found.uid,
        user=user,
        packages=packages,
        **values,
    )


def _begin(start: Start | None, end: End | None) -> dict[str, Any]:
    if start is None:
        assert end is not None
        return {"start": end.t - (end.seconds or 0.0)}
    return {
        "start": start.t,
        "python": start.python,
        "release": start.release,
        "layer": start.layer,
        "prefix": start.prefix,
        "base": start.base,
        "exe": start.exe,
        "how": start.how,
        "name": start.name,
        "ci": start.ci,
        "forbidden": start.forbidden,
        "flags": start.flags,
        "venv": bool(start.base) and start.prefix != start.base,
    }


def _finish(start: Start | None, end: End | None) -> dict[str, Any]:
    if end is None:
        return {"exit": NONE}
    seconds = end.seconds
    if seconds is None and start is not None:
        seconds = max(0.0, end.t - start.t)
    return {
        "end": end.t,
        "seconds": seconds,
        "exit": end.exit,
        "code": end.code,
        "exc": end.exc,
        "more": end.more,
    }
