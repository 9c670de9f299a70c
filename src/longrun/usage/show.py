"""``show``: runs a command and prints what would be recorded of it; nothing is kept."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from longrun.errors import UsageError
from longrun.term import duration, paint, print_rows
from longrun.usage.agent import user_name
from longrun.usage.child import attach
from longrun.usage.config import load_config
from longrun.usage.event import NONE, Event
from longrun.usage.machine import boot_id
from longrun.usage.pair import Pair, make_event
from longrun.usage.record import BadRecord, Bounds, End, Start, parse
from longrun.usage.resolve import look
from longrun.usage.state import Invocation

WORDS = {
    "ok": "came to its end",
    "status": "ended with a status",
    "exception": "an exception ended it",
    "signal": "a signal ended it",
    NONE: "no end seen",
}


def show(arguments: argparse.Namespace) -> int:
    """Run the command with a spool of its own and print its events; the command's exit status.

    With ``--json``, what the command prints goes to standard error.
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise UsageError("no command", remedy="longrun-usage show python3.13 -c 'import numpy'")
    if not shutil.which(command[0]):
        raise UsageError(f"{command[0]}: not found", remedy="name a program that can be run")
    with tempfile.TemporaryDirectory(prefix="longrun-usage-") as name:
        spool = Path(name)
        # the hook makes no file where a variable leads it
        (spool / f"{os.geteuid()}.jsonl").touch(mode=0o600)
        status = _run(command, spool, quiet=arguments.json)
        lines = [line for file in sorted(spool.iterdir()) for line in _lines(file)]
    records, bad = read_lines(lines)
    events = list(make_events(records))
    if arguments.json:
        print(json.dumps(_document(lines, bad, events), indent=1))
    else:
        _print(command[0], lines, bad, events)
    return status


def _run(command: Sequence[str], spool: Path, *, quiet: bool) -> int:
    env = os.environ | {"LONGRUN_USAGE": str(spool)}
    # the hook makes no file where a variable says, lest who sets it has others make theirs
    (spool / f"{os.getuid()}.jsonl").touch(mode=0o600)
    sys.stdout.flush()
    return attach(command, env=env, stdout=sys.stderr.fileno() if quiet else None)


def _lines(file: Path) -> list[bytes]:
    return [line for line in file.read_bytes().split(b"\n") if line] if file.is_file() else []


def read_lines(lines: Sequence[bytes]) -> tuple[list[Start | End], list[str]]:
    """The records of lines, and what is wrong with the others."""
    records, bad = [], []
    for line in lines:
        try:
            records.append(parse(line, Bounds()))
        except BadRecord as error:
            bad.append(f"{error}: {line[:200]!r}")
    return records, bad


def make_events(records: Sequence[Start | End]) -> Iterator[Event]:
    """The events of records, as the agent of this machine would make them."""
    host, user = load_config().host, user_name(os.getuid())
    starts = {record.id: record for record in records if isinstance(record, Start)}
    ends = {record.id: record for record in records if isinstance(record, End)}
    for id_ in dict.fromkeys([*starts, *ends]):
        end = ends.get(id_)
        found = Invocation(id_, os.getuid(), boot_id(), 0.0, None, None)
        pair = Pair(found=found, start=starts.get(id_), end=end)
        yield make_event(pair, host=host, user=user, packages=_packages(end))


def _packages(end: End | None) -> dict[str, str]:
    """Distributions and versions; looked up here, with the rights of whoever asks."""
    found: dict[str, str] = {}
    for place, imported in end.use.items() if end else ():
        names = (look(place, None, trusted=False) or {}).get("names", {})
        assert isinstance(names, dict)
        for name in imported:
            found.update(names.get(name, ()))
    return dict(sorted(found.items()))


def _document(
    lines: Sequence[bytes], bad: Sequence[str], events: Sequence[Event]
) -> dict[str, object]:
    return {
        "schema": 1,
        "records": [line.decode("utf-8", "replace") for line in lines],
        "refused": list(bad),
        "events": [event.document() for event in events],
    }


def _print(
    command: str, lines: Sequence[bytes], bad: Sequence[str], events: Sequence[Event]
) -> None:
    if not lines:
        print(
            f"\nNothing would be recorded of {command}: it started no interpreter with the hook, "
            "or telemetry is off (LONGRUN_USAGE=off, /etc/longrun/usage-off)."
        )
        return
    count = f"{len(events)} invocation{'s' if len(events) != 1 else ''}"
    print(f"\n{paint('bold', 'Would be recorded')}: {count}, {sum(map(len, lines))} bytes\n")
    for event in events:
        print_rows(rows(event))
        print()
    for text in bad:
        print(f"{paint('red', 'refused')} {text}")
    print("Never recorded: arguments, environment, working directory, names of other files.")


def rows(event: Event) -> Iterator[tuple[str, str]]:
    """An event for people: a label and a text each."""
    what = {"module": "-m ", "command": "-c", "stdin": "standard input"}.get(event.how, "")
    yield "program", paint("bold", f"{what}{event.name or ''}" or event.how) + f"  ({event.how})"
    layer = f", layer {event.layer}" if event.layer else ""
    release = f" of Longrun {event.release}" if event.release else ""
    yield "python", f"{event.python}{release}{layer}"
    yield "prefix", event.prefix
    if event.venv:
        yield "base", f"{event.base}  (the prefix is a virtual environment)"
    if event.exe:
        yield "embedded in", event.exe
    yield "user", f"{event.user} on {event.host}"
    yield "start", f"{datetime.fromtimestamp(event.start).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    yield "end", _ending(event)
    if event.ci:
        yield "ci", event.ci
    if event.forbidden:
        yield "set", ", ".join(event.forbidden)
    if event.flags:
        yield "options", f"-{event.flags}"
    for name, version in event.packages.items():
        yield "packages", f"{name} {version}"
    if event.more:
        yield "packages", f"and {event.more} names that did not fit"


def _ending(event: Event) -> str:
    told = WORDS.get(event.exit, event.exit)
    detail = event.exc or ("" if event.code is None else str(event.code))
    took = f", after {duration(event.seconds)}" if event.seconds is not None else ""
    return f"{told}{f' ({detail})' if detail else ''}{took}"
