"""The agent's memory: one SQLite file, in which every change is whole or not there.

A chunk of a claimed file is kept in the transaction that notes how far the file is read. So a kill
leaves either both or neither, and the next agent goes on at the noted place. A record's id is a
key, and one that comes twice is counted and kept once. An event waits in the outbox until the
store has taken it; a batch once begun keeps its bounds, so that after a kill the store is given
the very same events again, which changes nothing there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from longrun.errors import TelemetryError

DATABASE = "agent.sqlite"
LOCK = "agent.lock"

STARTED, ENDED, PAIRED, TOLD, DONE = range(5)
"""What is known of an invocation. TOLD: its start went to the store, its end may still come."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invocations (
    id TEXT NOT NULL UNIQUE, uid INTEGER NOT NULL, boot TEXT NOT NULL,
    read REAL NOT NULL, phase INTEGER NOT NULL, first BLOB, last BLOB);
CREATE INDEX IF NOT EXISTS phases ON invocations (phase, read);
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sites (
    place TEXT NOT NULL, uid INTEGER NOT NULL, stamp TEXT NOT NULL, names TEXT NOT NULL,
    PRIMARY KEY (place, uid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boots (boot TEXT PRIMARY KEY, start REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

ADD_START = f"""
INSERT INTO invocations (id, uid, boot, read, phase, first) VALUES (?, ?, ?, ?, {STARTED}, ?)
ON CONFLICT (id) DO UPDATE SET first = excluded.first, uid = excluded.uid, phase = {PAIRED}
WHERE phase = {ENDED}"""  # noqa: S608

ADD_END = f"""
INSERT INTO invocations (id, uid, boot, read, phase, last) VALUES (?, ?, ?, ?, {ENDED}, ?)
ON CONFLICT (id) DO UPDATE SET last = excluded.last, phase = {PAIRED}
WHERE phase IN ({STARTED}, {TOLD})"""  # noqa: S608


class Line(NamedTuple):
    """A record to keep: its id, the user's number, the boot, and the line as it came."""

    id: str
    uid: int
    boot: str
    line: bytes


@dataclass(kw_only=True)
class Chunk:
    """What a part of a claimed file holds; ``offset`` is where the next part begins."""

    name: str
    offset: int
    starts: list[Line] = field(default_factory=list)
    ends: list[Line] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class Invocation(NamedTuple):
    """What is known of one invocation; ``first`` and ``last`` are its records, as lines."""

    id: str
    uid: int
    boot: str
    read: float
    first: bytes | None
    last: bytes | None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only agent of a state directory; TelemetryError where another one is."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TelemetryError(
            f"{error.filename}: {error.strerror}",
            remedy="run the agent as root, or name a state directory of your own",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TelemetryError(
            f"another agent runs on {directory}",
            remedy="systemctl status longrun-usage; only one may collect",
        ) from None
    finally:
        os.close(descriptor)


class State:
    """The open database. Only the agent that holds the lock writes."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / DATABASE
        with _told(self.file):
            before = os.umask(0o077)
            try:
                self._db = sqlite3.connect(self.file, isolation_level=None, timeout=30)
                self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(SCHEMA)
            finally:
                os.umask(before)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever goes wrong with the database within is a TelemetryError."""
        with _told(self.file):
            yield

    def close(self) -> None:
        """Close the database; what was committed is there."""
        self._db.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything within, or nothing of it; TelemetryError where the disk does not take it."""
        with _told(self.file):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # claimed files

    def offset(self, name: str) -> int:
        """How far a claimed file is read, in bytes."""
        row = self._db.execute("SELECT offset FROM files WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def keep(self, chunk: Chunk) -> None:
        """Keep the records of a chunk and note how far its file is read, in one transaction."""
        now = time.time()
        with self.transaction():
            new = 0
            for statement, lines in ((ADD_START, chunk.starts), (ADD_END, chunk.ends)):
                rows = [(line.id, line.uid, line.boot, now, line.line) for line in lines]
                new += self._db.executemany(statement, rows).rowcount if rows else 0
            again = len(chunk.starts) + len(chunk.ends) - new
            self._count({"records": new, "refused: came twice": again} | chunk.counts)
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?)", (chunk.name, chunk.offset)
            )

    def forget_files(self, there: Iterable[str]) -> None:
        """Forget claimed files that are not there any more."""
        known = {row[0] for row in self._db.execute("SELECT name FROM files")}
        gone = [(name,) for name in known - set(there)]
        if gone:
            with self.transaction():
                self._db.executemany("DELETE FROM files WHERE name = ?", gone)

    # invocations

    def invocations(
        self, phase: int, *, before: float = 1e12, most: int = 1000
    ) -> list[Invocation]:
        """Invocations of a phase that were read before a time, oldest first."""
        rows = self._db.execute(
            "SELECT id, uid, boot, read, first, last FROM invocations "
            "WHERE phase = ? AND read < ? ORDER BY read LIMIT ?",
            (phase, before, most),
        )
        return [Invocation(*row) for row in rows]

    def open_ids(self) -> list[str]:
        """The ids of all invocations of which nothing but the start is known."""
        rows = self._db.execute("SELECT id FROM invocations WHERE phase = ?", (STARTED,))
        return [row[0] for row in rows]

    def find(self, ids: Sequence[str]) -> list[Invocation]:
        """Those of some invocations that have nothing but a start still."""
        found = []
        for id_ in ids:
            row = self._db.execute(
                "SELECT id, uid, boot, read, first, last FROM invocations "
                "WHERE id = ? AND phase = ?",
                (id_, STARTED),
            ).fetchone()
            if row:
                found.append(Invocation(*row))
        return found

    def queue(self, events: Sequence[tuple[str, str]], phase: int) -> None:
        """Put events (invocation's id, event's JSON) into the outbox, in one transaction.

        With DONE, an invocation's records go: only its id stays for a while, so that a record that
        comes again is known. With TOLD, its start stays for the end that may come.
        """
        emptied = ", first = NULL, last = NULL" if phase == DONE else ""
        now = time.time()
        with self.transaction():
            self._db.executemany("INSERT INTO outbox (event) VALUES (?)", [(e[1],) for e in events])
            self._db.executemany(
                f"UPDATE invocations SET phase = ?, read = ?{emptied} WHERE id = ?",  # noqa: S608
                [(phase, now, id_) for id_, _ in events],
            )

    def forget(self, phase: int, before: float) -> None:
        """Forget invocations of a phase that came to it before a time."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM invocations WHERE phase = ? AND read < ?", (phase, before)
            )

    def forget_ids(self, ids: Sequence[str]) -> None:
        """Forget some invocations."""
        with self.transaction():
            self._db.executemany("DELETE FROM invocations WHERE id = ?", [(id_,) for id_ in ids])

    # outbox

    def batch(self, most: int) -> list[str]:
        """The events to give to the store now: those of a batch begun before, or the oldest."""
        bound = self.note("batch")
        if not bound:
            row = self._db.execute(
                "SELECT max(seq) FROM (SELECT seq FROM outbox ORDER BY seq LIMIT ?)", (most,)
            ).fetchone()
            if row[0] is None:
                return []
            bound = str(row[0])
            with self.transaction():
                self._note("batch", bound)
        rows = self._db.execute("SELECT event FROM outbox WHERE seq <= ? ORDER BY seq", (bound,))
        return [row[0] for row in rows]

    def stored(self, count: int) -> None:
        """The store has taken the batch."""
        with self.transaction():
            self._db.execute("DELETE FROM outbox WHERE seq <= ?", (int(self.note("batch")),))
            self._note("batch", "")
            self._note("stored", repr(time.time()))
            self._count({"events": count})

    def waiting(self) -> tuple[int, int]:
        """Events in the outbox and, estimated from the newest, their bytes; without reading all."""
        first, last = self._db.execute("SELECT min(seq), max(seq) FROM outbox").fetchone()
        if last is None:
            return 0, 0
        (length,) = self._db.execute(
            "SELECT avg(length(event)) FROM (SELECT event FROM outbox ORDER BY seq DESC LIMIT 100)"
        ).fetchone()
        return last - first + 1, int((last - first + 1) * length)

    def size(self) -> int:
        """Bytes that the database takes."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    def shrink(self) -> None:
        """Give pages that are free back to the file system, as after a store was long away."""
        with _told(self.file):
            self._db.execute("PRAGMA incremental_vacuum").fetchall()

    # site directories

    def sites(self) -> dict[tuple[str, int], tuple[str, str]]:
        """What is known of site directories: (place, uid) to (stamp, JSON of names)."""
        rows = self._db.execute("SELECT place, uid, stamp, names FROM sites")
        return {(place, uid): (stamp, names) for place, uid, stamp, names in rows}

    def keep_sites(self, found: Mapping[tuple[str, int], tuple[str, str]], most: int) -> None:
        """Keep what was found of site directories, and of all of them the newest."""
        rows = [(place, uid, stamp, names) for (place, uid), (stamp, names) in found.items()]
        with self.transaction():
            self._db.executemany("INSERT OR REPLACE INTO sites VALUES (?, ?, ?, ?)", rows)
            (count,) = self._db.execute("SELECT count(*) FROM sites").fetchone()
            if count > most:
                self._db.execute("DELETE FROM sites")

    # boots, notes, counters

    def see_boot(self, boot: str, start: float) -> None:
        """Remember a boot and when it was (Unix seconds)."""
        with self.transaction():
            self._db.execute("INSERT OR REPLACE INTO boots VALUES (?, ?)", (boot, start))

    def boots(self) -> list[tuple[float, str]]:
        """Every boot that an agent saw: when, and its id; oldest first."""
        return sorted((start, boot) for boot, start in self._db.execute("SELECT * FROM boots"))

    def note(self, name: str) -> str:
        """A noted text; empty where there is none."""
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def write_note(self, name: str, value: str) -> None:
        """Note a text under a name."""
        with self.transaction():
            self._note(name, value)

    def count(self, counts: Mapping[str, int]) -> None:
        """Add to counters."""
        if any(counts.values()):
            with self.transaction():
                self._count(counts)

    def counters(self) -> dict[str, int]:
        """Every counter, by name."""
        return dict(self._db.execute("SELECT name, value FROM counters ORDER BY name"))

    def open(self) -> int:
        """How many invocations have no end."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM invocations WHERE phase IN (?, ?)", (STARTED, TOLD)
        ).fetchone()
        return int(count)

    def _note(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    def _count(self, counts: Mapping[str, int]) -> None:
        rows = [(name, value) for name, value in counts.items() if value]
        self._db.executemany(
            "INSERT INTO counters VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            rows,
        )


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Turn a database's errors into one that names its file and what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise TelemetryError(
            f"{file}: {error}",
            remedy=f"see that {file.parent} is there, has room, and is the agent's own",
        ) from error
    except sqlite3.DatabaseError as error:
        raise TelemetryError(
            f"{file}: {error}",
            remedy=f"move {file} away and keep it; the agent makes a new one, and what is still "
            "in the spool is not lost",
        ) from error
