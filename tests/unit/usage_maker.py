"""Records, spools and agents for the tests of telemetry."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longrun.usage.agent import Agent
from longrun.usage.config import Config, make_config
from longrun.usage.event import Event
from longrun.usage.state import State

NOW = time.time()


def record_id(number: int, moment: float = NOW, of: int | None = None) -> str:
    """An id as the hook makes it; by default of this process, which is there."""
    return f"{os.getpid() if of is None else of}-{int(moment * 1e9) + number:x}"


def start(number: int, moment: float = NOW, of: int | None = None, **changes: Any) -> bytes:
    """A line as the hook writes it when a program starts."""
    record = {
        "v": 1,
        "k": "start",
        "id": record_id(number, moment, of),
        "t": moment,
        "pid": os.getpid(),
        "ppid": 1,
        "py": "3.13.5",
        "release": "2026.1",
        "layer": "controls",
        "prefix": "/opt/longrun/cp313",
        "base": "/opt/longrun/cp313",
        "how": "module",
        "name": "orbit",
        "ci": None,
        "forbidden": [],
        "flags": "",
    }
    return json.dumps(record | changes).encode() + b"\n"


def end(number: int, moment: float = NOW, of: int | None = None, **changes: Any) -> bytes:
    """A line as the hook writes it when a program ends."""
    record = {
        "v": 1,
        "k": "end",
        "id": record_id(number, moment, of),
        "t": moment + 2.5,
        "s": 2.5,
        "exit": "ok",
        "code": None,
        "exc": None,
        "use": {},
        "more": 0,
    }
    return json.dumps(record | changes).encode() + b"\n"


class Shelf:
    """A store that remembers; ``away`` makes it refuse, ``puts`` are all that came."""

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.puts: list[list[Event]] = []
        self.events: dict[str, Event] = {}

    def put(self, events: Sequence[Event]) -> None:
        self.puts.append(list(events))
        if self.away:
            raise self.away
        self.events |= {event.id: event for event in events}

    def prune(self, before: float) -> int:
        old = [event.id for event in self.events.values() if event.start < before]
        for id_ in old:
            del self.events[id_]
        return len(old)

    def pseudonymise(self, before: float, name: Any) -> int:
        old = [
            event
            for event in self.events.values()
            if event.start < before and event.uid is not None
        ]
        for event in old:
            self.events[event.id] = replace(event, uid=None, user=name(event.user))
        return len(old)


class Desk:
    """A spool and an agent with a store that remembers, below a directory."""

    def __init__(self, place: Path, **options: Any) -> None:
        self.spool = place / "spool"
        self.spool.mkdir(mode=0o1733, exist_ok=True)
        self.spool.chmod(0o1733)
        table = {"spool": str(self.spool), "state": str(place / "state"), "host": "console7"}
        self.config: Config = make_config(place / "usage.toml", table | options, {})
        self.config.state.mkdir(exist_ok=True)
        self.store = Shelf()
        self.state = State(self.config.state)
        self.agent = Agent(self.config, self.state, self.store)

    @property
    def own(self) -> Path:
        """This user's file in the spool."""
        return self.spool / f"{os.getuid()}.jsonl"

    def write(self, *lines: bytes) -> None:
        """Append to this user's file, as programs do."""
        with open(os.open(self.own, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as file:
            file.write(b"".join(lines))

    def round(self, *lines: bytes) -> list[Event]:
        """Write, let the agent do a round, and give all events that are stored, by start."""
        if lines:
            self.write(*lines)
        self.agent.round()
        return self.stored

    @property
    def stored(self) -> list[Event]:
        return sorted(self.store.events.values(), key=lambda event: (event.start, event.id))

    def again(self) -> Desk:
        """Another agent in the place of this one, which was killed."""
        self.state.close()
        self.state = State(self.config.state)
        self.agent = Agent(self.config, self.state, self.store)
        return self

    @property
    def refused(self) -> Mapping[str, int]:
        """What was refused, by reason."""
        counters = self.state.counters()
        return {k.removeprefix("refused: "): v for k, v in counters.items() if "refused" in k}

    def claimed(self) -> Iterator[Path]:
        """What the agent has taken and not read to its end."""
        return self.config.claimed.iterdir()
