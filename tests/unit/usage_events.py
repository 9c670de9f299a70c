"""Events as programs of a control room leave them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from longrun.usage.event import Event

NOON = 1763726400.0
"""2025-11-21, 12:00 UTC, in Unix seconds."""

DAY = 86400.0


def make_event(number: int = 1, **changes: Any) -> Event:
    """An event; a number of its own gives it an id of its own, a second later."""
    start = changes.get("start", NOON + number)
    event = Event(
        id=f"console1-0a1b2c3d-{4000 + number}-{number:x}",
        host="console1",
        boot="0a1b2c3d",
        uid=1000,
        user="operator",
        start=start,
        end=start + 2.5,
        seconds=2.5,
        python="3.13.5",
        release="2026.1",
        layer="controls",
        prefix="/opt/longrun/cp313",
        base="/opt/longrun/cp313",
        how="module",
        name="orbit.display",
        exit="ok",
        packages={"numpy": "2.3.4", "pyepics": "3.5.7"},
    )
    return replace(event, **changes)


def make_events(count: int, first: int = 1, **changes: Any) -> list[Event]:
    """So many events, numbered from the first."""
    return [make_event(number, **changes) for number in range(first, first + count)]
