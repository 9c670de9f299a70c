"""``status``: what waits, what was refused, when all went well last; the same as metrics."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from longrun.errors import TelemetryError
from longrun.term import duration, paint, print_rows, size
from longrun.usage.config import Config, load_config
from longrun.usage.spool import Spool
from longrun.usage.state import DATABASE, State

REFUSED = "refused: "


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known of an agent; times in Unix seconds, 0 for never; ``full``: its buffer is."""

    store: str
    spool_files: int
    spool_bytes: int
    waiting: int
    waiting_bytes: int
    state_bytes: int
    running: int
    last_round: float
    last_stored: float
    error: str
    full: bool
    counters: Mapping[str, int]

    @property
    def refused(self) -> dict[str, int]:
        """How much was refused, by reason."""
        return {
            name.removeprefix(REFUSED): value
            for name, value in self.counters.items()
            if name.startswith(REFUSED)
        }


def status(arguments: argparse.Namespace) -> int:
    """Print the status; 0, or 10 where the store is away or the buffer is full."""
    config = load_config(arguments.config)
    _require_agent(config)
    with State(config.state) as state, state.guarded():
        found = read_status(config, state)
    if arguments.json:
        print(json.dumps({"schema": 1} | asdict(found) | {"refused": found.refused}, indent=1))
    else:
        print_rows(_rows(found))
    return TelemetryError.exit_code if found.error or found.full else 0


def _require_agent(config: Config) -> None:
    try:
        (config.state / DATABASE).stat()
    except PermissionError as error:
        raise TelemetryError(
            f"{config.state}: {error.strerror}", remedy="run this as root: the state is the agent's"
        ) from error
    except OSError as error:
        raise TelemetryError(
            f"{config.state}: no agent has run here",
            remedy="systemctl enable --now longrun-usage, or longrun-usage agent --once",
        ) from error


def read_status(config: Config, state: State) -> Status:
    """The status, read from state and spool."""
    try:
        with Spool(config.spool, config.claimed) as spool:
            files, count = spool.size()
        error = state.note("error")
    except TelemetryError as wrong:
        files, count, error = 0, 0, wrong.message
    waiting, kept = state.waiting()
    return Status(
        store=config.store,
        spool_files=files,
        spool_bytes=count,
        waiting=waiting,
        waiting_bytes=kept,
        state_bytes=state.size(),
        running=state.open(),
        last_round=float(state.note("round") or 0.0),
        last_stored=float(state.note("stored") or 0.0),
        error=error,
        full=bool(state.note("full")),
        counters=state.counters(),
    )


def _rows(found: Status) -> Iterator[tuple[str, str]]:
    mark = paint("red", "✘") if found.error or found.full else paint("green", "✔")
    yield "agent", f"{mark} last round {_ago(found.last_round)}"
    yield "spool", f"{found.spool_files} files, {size(found.spool_bytes)}"
    yield "store", f"{found.store}: took events {_ago(found.last_stored)}"
    if found.error:
        yield "store", paint("red", f"{found.error}")
    yield "waiting", f"{found.waiting:,} events, {size(found.waiting_bytes)}"
    if found.full:
        yield "waiting", paint("red", "the buffer is full: records stay in the spool")
    yield "no end", f"{found.running:,} invocations, which run still or were killed"
    stored = found.counters.get("events", 0)
    yield "so far", f"{found.counters.get('records', 0):,} records, {stored:,} events stored"
    for reason, count in found.refused.items():
        yield "refused", f"{count:,} {reason}"


def _ago(moment: float) -> str:
    return f"{duration(max(0.0, time.time() - moment))} ago" if moment else "never"


def metrics(found: Status) -> str:
    """The status in the text format of Prometheus."""
    lines = []
    values = {
        "spool_files": found.spool_files,
        "spool_bytes": found.spool_bytes,
        "waiting_events": found.waiting,
        "waiting_bytes": found.waiting_bytes,
        "state_bytes": found.state_bytes,
        "open_invocations": found.running,
        "last_round_timestamp_seconds": found.last_round,
        "last_stored_timestamp_seconds": found.last_stored,
        "store_away": int(bool(found.error)),
        "buffer_full": int(found.full),
    }
    for name, value in values.items():
        lines += [f"# TYPE longrun_usage_{name} gauge", f"longrun_usage_{name} {value}"]
    for name in ("records", "events"):
        lines.append(f"# TYPE longrun_usage_{name}_total counter")
        lines.append(f"longrun_usage_{name}_total {found.counters.get(name, 0)}")
    lines.append("# TYPE longrun_usage_refused_total counter")
    for reason, count in found.refused.items():
        lines.append(f'longrun_usage_refused_total{{reason="{reason}"}} {count}')
    return "\n".join(lines) + "\n"
