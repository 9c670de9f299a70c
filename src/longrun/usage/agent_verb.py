"""``agent``: collect and store, for ever or once."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from dataclasses import asdict

from longrun.errors import StoreAway, TelemetryError
from longrun.term import duration
from longrun.usage.agent import Agent, run, status_of, write_metrics
from longrun.usage.config import load_config
from longrun.usage.state import State, locked
from longrun.usage.stores import open_store


def agent(arguments: argparse.Namespace) -> int:
    """Run the agent until SIGTERM or SIGINT, or with ``--once`` for one round."""
    config = load_config(arguments.config)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with locked(config.state), State(config.state) as state:
        found = Agent(config, state, open_store(config))
        if arguments.once:
            return _once(found, ended, arguments)
        print(
            f"longrun-usage: collecting {config.spool} into {config.store} "
            f"every {duration(config.interval)}",
            file=sys.stderr,
            flush=True,
        )
        run(found, ended.is_set, ended.wait, arguments.metrics)
    return 0


def _once(found: Agent, ended: threading.Event, arguments: argparse.Namespace) -> int:
    before = found.state.counters()
    away: TelemetryError | None = None
    try:
        found.round(ended.is_set)
    except StoreAway as error:
        away = error
    write_metrics(found, arguments.metrics)
    status = status_of(found)
    new = {k: v - before.get(k, 0) for k, v in status.counters.items() if v > before.get(k, 0)}
    if arguments.json:
        print(json.dumps({"schema": 1, "new": new} | {"status": asdict(status)}, indent=1))
    else:
        told = ", ".join(f"{value:,} {name}" for name, value in sorted(new.items()))
        print(f"{told or 'nothing new'}; {status.waiting:,} events wait")
    if away:
        raise away
    return 0
