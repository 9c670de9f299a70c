"""Events as lines of JSON, a file for each day: for rsyslog, or whatever else a site ships with.

``DIRECTORY/2026-11-21.jsonl`` holds what started on that day (UTC), in the order it came. An event
that comes again with more (see ``Store``) is a further line with the same id: the last one counts,
as it does wherever the id becomes the document's. Lines are only ever added, until the retention
takes the file, so a shipper can follow it. So users' names cannot be taken out later: this store
is given pseudonyms from the first, unless ``names`` is true.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from longrun.errors import StoreAway
from longrun.usage.config import Options
from longrun.usage.event import Event

DIRECTORY = Path("/var/log/longrun/usage")
DAY_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.jsonl")


def open_store(options: Options) -> Lines:
    """The store that the table ``[lines]`` describes: ``directory``, ``mode``, ``names``."""
    mode = options.text("mode", "0640")
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise options.wrong("mode", "a mode such as 0640", mode)
    return Lines(
        directory=options.path("directory", DIRECTORY),
        mode=int(mode, 8),
        names=options.flag("names", False),
    )


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A directory of daily files; ``mode`` is theirs. ``names`` keeps users' names in them."""

    directory: Path
    mode: int = 0o640
    names: bool = False

    def put(self, events: Sequence[Event]) -> None:
        """Add events to the files of their days; StoreAway where the disk does not take them."""
        days: dict[str, list[bytes]] = {}
        for event in events:
            day = datetime.fromtimestamp(event.start, UTC).strftime("%Y-%m-%d")
            days.setdefault(day, []).append(event.to_json().encode("utf-8", "replace") + b"\n")
        try:
            self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            for day, lines in days.items():
                self._add(self.directory / f"{day}.jsonl", lines)
        except OSError as error:
            raise StoreAway(
                f"{error.filename or self.directory}: {error.strerror}",
                remedy=f"see that {self.directory} has room and is the agent's",
            ) from error

    def _add(self, file: Path, lines: list[bytes]) -> None:
        """Add those lines that are not there. Only an agent that was killed left some there.

        What comes again is what came last: so no more than the file's end needs to be looked at.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(file, flags, self.mode)
        try:
            there = _tail(descriptor, sum(map(len, lines)))
            _write(descriptor, b"".join(line for line in lines if line not in there))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def prune(self, before: float) -> int:
        """Delete the files of days that were over before a time; how many."""
        last = datetime.fromtimestamp(before, UTC).strftime("%Y-%m-%d")
        gone = 0
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(self.directory.iterdir()):
                match = DAY_FILE.fullmatch(file.name)
                if match and match[1] < last:
                    file.unlink()
                    gone += 1
        return gone

    def pseudonymise(self, before: float, name: Callable[[str], str]) -> int:
        """Nothing: lines are not changed."""
        return 0


def _tail(descriptor: int, most: int) -> set[bytes]:
    """The lines in the last bytes of a file, of which a torn one at the very end is cut off."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, most, max(0, size - most))
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(descriptor, size - torn)
    return set(content[: len(content) - torn].splitlines(keepends=True))


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
