"""Events as daily Parquet files, written and queried with DuckDB: the store that needs no server.

    DIR/manifest.json                       which files count; replaced by one rename
    DIR/day=2026-11-21/00000042.parquet     events that started on that day (UTC)

What is put is a new file for each of its days; when a day has many small ones they become one.
A file counts once the manifest names it, so whenever the machine dies, and whoever reads
meanwhile, there is the state before or the state after. Files that no longer count are removed
when nobody reads.

Events of one day have different ids, but for days that say ``repeats``: there the event in the
newest file counts, and the next merge leaves only that.
"""

# ruff: noqa: S608 - DuckDB's COPY and read_parquet take no parameters; paths are quoted by `_text`

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from longrun.errors import StoreAway, TelemetryError
from longrun.fs import write_atomic
from longrun.usage.config import Options
from longrun.usage.event import Event

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = 1
"""The form of the manifest and of the columns."""

FAN = 8
"""Files of about one size that a day may have; then they become one, FAN times as big."""

TRIES = 5
"""How often a query is begun anew where a file went away below it (only without locks)."""

DAY = 86400

COLUMNS = {
    "id": "VARCHAR",
    "host": "VARCHAR",
    "boot": "VARCHAR",
    "uid": "BIGINT",
    "user": "VARCHAR",
    "start": "DOUBLE",
    "end": "DOUBLE",
    "seconds": "DOUBLE",
    "python": "VARCHAR",
    "release": "VARCHAR",
    "layer": "VARCHAR",
    "prefix": "VARCHAR",
    "base": "VARCHAR",
    "exe": "VARCHAR",
    "how": "VARCHAR",
    "name": "VARCHAR",
    "ci": "VARCHAR",
    "forbidden": "VARCHAR[]",
    "flags": "VARCHAR",
    "exit": "VARCHAR",
    "code": "BIGINT",
    "exc": "VARCHAR",
    "packages": "MAP(VARCHAR, VARCHAR)",
    "venv": "BOOLEAN",
    "more": "INTEGER",
}

_encode = json.JSONEncoder(separators=(",", ":")).encode

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of one day: how many events it has, and the first and last of their starts."""

    name: str
    events: int
    first: float
    last: float

    @property
    def tier(self) -> int:
        """Files of one tier are about as big as each other."""
        return int(math.log(max(self.events, 1), FAN))


@dataclass(frozen=True, kw_only=True)
class Day:
    """The files of a day, the newest last.

    ``repeats``: an id may come twice. ``renamed``: users that started before this time (Unix
    seconds) are pseudonyms.
    """

    parts: tuple[Part, ...] = ()
    repeats: bool = False
    renamed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What counts. ``next`` numbers the next file; ``gone`` are files that may be removed."""

    next: int = 1
    days: Mapping[str, Day] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def files(self) -> set[str]:
        """The paths of all files that count."""
        return {f"day={day}/{part.name}" for day, one in self.days.items() for part in one.parts}

    def with_day(self, name: str, day: Day, *, written: int = 0) -> Manifest:
        """The manifest with another content of a day; what that no longer names is gone."""
        before = {f"day={name}/{part.name}" for part in self.days.get(name, Day()).parts}
        after = {f"day={name}/{part.name}" for part in day.parts}
        days = {**self.days, name: day}
        if not day.parts:
            del days[name]
        return Manifest(
            next=self.next + written,
            days=dict(sorted(days.items())),
            gone=tuple(sorted({*self.gone, *(before - after)})),
        )


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a store, an empty one where there is no store yet."""
    path = directory / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if found.get("format") != FORMAT:
        raise TelemetryError(
            f"{path}: format {found.get('format')}, this program knows {FORMAT}",
            remedy="use the Longrun that wrote it, or a later one",
        )
    try:
        days = {
            name: Day(**{**day, "parts": tuple(Part(**part) for part in day["parts"])})
            for name, day in found["days"].items()
        }
        return Manifest(next=found["next"], days=days, gone=tuple(found["gone"]))
    except (KeyError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> TelemetryError:
    return TelemetryError(
        f"{path}: cannot be read: {error}",
        remedy="restore it from a backup; the Parquet files beside it are whole",
    )


def connect(directory: Path, *, memory: int = 256, threads: int = 1) -> DuckDBPyConnection:
    """A DuckDB of our own that fetches nothing from anywhere; ``memory`` is in MB.

    What does not fit into memory goes to a hidden directory of the store.
    """
    try:
        import duckdb
    except ImportError:
        raise TelemetryError(
            "this Python has no DuckDB, which the Parquet store needs",
            remedy="pip install duckdb, or use another store (docs/how-to/usage-reports.md)",
        ) from None
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": f"{memory}MB",
            "temp_directory": str(directory / ".spill"),
            "threads": threads,
        }
    )


def _away(
    method: Callable[Concatenate[ParquetStore, P], T],
) -> Callable[Concatenate[ParquetStore, P], T]:
    """Tell the failures of disks and of DuckDB as StoreAway: all of what was done is undone."""

    @wraps(method)
    def call(store: ParquetStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        import duckdb

        try:
            return method(store, *args, **kwargs)
        except (OSError, duckdb.Error) as error:
            # what is in memory may be half of something
            store.forget()
            raise StoreAway(
                f"{store.directory}: {error}", remedy="see that the disk is there and not full"
            ) from error

    return call


class ParquetStore:
    """A directory of daily files; one program at a time writes, any number read."""

    def __init__(self, directory: Path, *, memory: int = 256, threads: int = 1) -> None:
        self.directory = directory
        self._db = connect(directory, memory=memory, threads=threads)

    def close(self) -> None:
        """Give back the memory."""
        self._db.close()

    @_away
    def put(self, events: Sequence[Event]) -> None:
        """Keep events; those that are there already change nothing, changed ones replace."""
        with self._writing() as manifest:
            days = {name: list(ones) for name, ones in groupby(_by_day(events), _day)}
            changed = manifest
            for name, ones in days.items():
                self._load(ones)
                changed = self._add(changed, name)
            for name in days:
                changed = self._merge(changed, name)
            self._commit(manifest, changed)

    @_away
    def prune(self, before: float) -> int:
        """Drop the days that ended before a time (Unix seconds), and what kills left."""
        with self._writing() as manifest:
            old = [name for name in manifest.days if _begin(name) + DAY <= before]
            changed = manifest
            for name in old:
                changed = changed.with_day(name, Day())
            self._commit(manifest, changed)
            self._remove_strays(changed)
            return sum(part.events for name in old for part in manifest.days[name].parts)

    @_away
    def pseudonymise(self, before: float, name: Callable[[str], str]) -> int:
        """Rename users of what started before a time; how many events that changed."""
        with self._writing() as manifest:
            changed, count = manifest, 0
            for day, content in manifest.days.items():
                # a day is done when all of it was before the time that it was done for
                until = min(before, _begin(day) + DAY)
                if content.renamed < until and _begin(day) < before:
                    changed, renamed = self._rename(changed, day, before, name)
                    count += renamed
            self._commit(manifest, changed)
            return count

    @_away
    def compact(self) -> None:
        """Make one file of each day that has several, however small."""
        with self._writing() as manifest:
            changed = manifest
            for name, day in manifest.days.items():
                if len(day.parts) > 1 or day.repeats:
                    changed = self._rewrite(
                        changed,
                        name,
                        day.parts,
                        f"SELECT * FROM {_source(self.directory, name, day)}",
                    )
            self._commit(manifest, changed)

    def forget(self) -> None:
        """Drop what is in memory, after a failure."""
        with contextlib.suppress(Exception):
            self._db.execute("DROP TABLE IF EXISTS incoming; DROP TABLE IF EXISTS fresh")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Manifest]:
        """The manifest, while no other program writes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield read_manifest(self.directory)

    def _load(self, events: Sequence[Event]) -> None:
        """Put events into the table ``incoming``; of one id the last counts."""
        last = {event.id: event for event in events}
        lines = self.directory / ".incoming.json"
        text = "".join(f"{_encode(event.document())}\n" for event in last.values())
        lines.write_text(text, "utf-8")
        try:
            columns = ", ".join(f"{_quoted(n)}: {_text(kind)}" for n, kind in COLUMNS.items())
            self._db.execute(
                f"CREATE OR REPLACE TEMP TABLE incoming AS SELECT * FROM read_json({_text(lines)},"
                f" format='newline_delimited', columns={{{columns}}})"
            )
        finally:
            lines.unlink()

    def _add(self, manifest: Manifest, name: str) -> Manifest:
        """Write the new ones of ``incoming`` into a file of the day; the manifest with it."""
        day = manifest.days.get(name, Day())
        known = self._known(name, day)
        (fresh,) = self._one("SELECT count(*) FROM fresh")
        if not fresh:
            return manifest
        first, last = self._one("SELECT min(start), max(start) FROM fresh")
        part = self._write(name, manifest.next, "SELECT * FROM fresh", fresh, first, last)
        added = replace(
            day,
            parts=(*day.parts, part),
            repeats=day.repeats or known,
            renamed=min(day.renamed, first),
        )
        return manifest.with_day(name, added, written=1)

    def _known(self, name: str, day: Day) -> bool:
        """Fill ``fresh`` with what ``incoming`` has new; whether some of it replaces others.

        An event keeps its start, so only files with starts of that time are looked into.
        """
        first, last = self._one("SELECT min(start), max(start) FROM incoming")
        near = tuple(part for part in day.parts if part.first <= last and part.last >= first)
        self._db.execute("DROP TABLE IF EXISTS fresh")
        if not near:
            self._db.execute("ALTER TABLE incoming RENAME TO fresh")
            return False
        source = _source(self.directory, name, replace(day, parts=near))
        self._db.execute(
            f"CREATE TEMP TABLE old AS SELECT o.* FROM {source} o SEMI JOIN incoming USING (id)"
            f" WHERE o.start BETWEEN {first!r} AND {last!r}"
        )
        self._db.execute(
            "CREATE TEMP TABLE fresh AS SELECT i.* FROM incoming i LEFT JOIN old o USING (id)"
            " WHERE o.id IS NULL OR i IS DISTINCT FROM o"
        )
        (known,) = self._one("SELECT count(*) FROM fresh SEMI JOIN old USING (id)")
        self._db.execute("DROP TABLE old")
        return bool(known)

    def _merge(self, manifest: Manifest, name: str) -> Manifest:
        """Make one file of FAN that are about as big; of all, where an id may come twice."""
        while True:
            day = manifest.days.get(name, Day())
            tiers: dict[int, list[Part]] = {}
            for part in day.parts:
                tiers.setdefault(part.tier, []).append(part)
            full = next((parts for parts in tiers.values() if len(parts) >= FAN), None)
            if full is None:
                return manifest
            chosen = day.parts if day.repeats else tuple(full)
            source = _source(self.directory, name, replace(day, parts=chosen))
            manifest = self._rewrite(manifest, name, chosen, f"SELECT * FROM {source}")

    def _rename(
        self, manifest: Manifest, name: str, before: float, pseudonym: Callable[[str], str]
    ) -> tuple[Manifest, int]:
        """Write a day anew with pseudonyms; the manifest, and how many events have a new name."""
        day = manifest.days[name]
        source = _source(self.directory, name, day)
        users = self._db.execute(
            f'SELECT "user", count(*) FROM {source} WHERE start < {before!r} GROUP BY ALL'
        ).fetchall()
        names = {user: pseudonym(user) for user, _ in users}
        count = sum(events for user, events in users if names[user] != user)
        done = replace(day, renamed=min(before, _begin(name) + DAY))
        if not count:
            return manifest.with_day(name, done), 0
        chosen = {user: new for user, new in names.items() if user != new}
        self._db.execute('CREATE OR REPLACE TEMP TABLE renamed ("user" VARCHAR, new VARCHAR)')
        self._db.executemany("INSERT INTO renamed VALUES (?, ?)", list(chosen.items()))
        query = (
            f"SELECT e.* REPLACE (coalesce(r.new, e.user) AS user,"
            f" CASE WHEN r.new IS NULL THEN e.uid END AS uid) FROM {source} e"
            f" LEFT JOIN renamed r ON e.user = r.user AND e.start < {before!r}"
        )
        manifest = self._rewrite(manifest, name, day.parts, query)
        written = manifest.days[name]
        return manifest.with_day(name, replace(written, renamed=done.renamed)), count

    def _rewrite(
        self, manifest: Manifest, name: str, parts: tuple[Part, ...], query: str
    ) -> Manifest:
        """Write what a query gives in place of some files of a day."""
        day = manifest.days[name]
        part = self._write(name, manifest.next, f"{query} ORDER BY start", 0, 0.0, 0.0)
        path = _text(self.directory / f"day={name}" / part.name)
        events, first, last = self._one(
            f"SELECT count(*), min(start), max(start) FROM read_parquet({path})"
        )
        part = replace(part, events=events, first=first, last=last)
        rest = tuple(one for one in day.parts if one not in parts)
        merged = replace(day, parts=(*rest, part), repeats=day.repeats and bool(rest))
        return manifest.with_day(name, merged, written=1)

    def _write(
        self, name: str, number: int, query: str, events: int, first: float, last: float
    ) -> Part:
        """Write a file beside its place, see it safe on the disk, rename it."""
        directory = self.directory / f"day={name}"
        directory.mkdir(exist_ok=True)
        target = directory / f"{number:08}.parquet"
        staged = directory / f".{target.name}.staged"
        self._db.execute(f"COPY ({query}) TO {_text(staged)} (FORMAT parquet, COMPRESSION zstd)")
        _sync(staged)
        staged.rename(target)
        _sync(directory)
        return Part(name=target.name, events=events, first=first, last=last)

    def _commit(self, before: Manifest, after: Manifest) -> None:
        """From here on the new files count; then those that no longer do may go."""
        if after != before:
            self._save(after)
        if after.gone and self._remove(after.gone):
            self._save(replace(after, gone=()))

    def _save(self, manifest: Manifest) -> None:
        text = json.dumps({"format": FORMAT, **asdict(manifest)}, separators=(",", ":"))
        write_atomic(self.directory / "manifest.json", text)
        _sync(self.directory)

    def _remove(self, paths: Iterable[str]) -> bool:
        """Remove files, and days that are empty then; False while somebody reads."""
        with _lock(self.directory, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if not alone:
                return False
            for path in paths:
                (self.directory / path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    (self.directory / path).parent.rmdir()
        return True

    def _remove_strays(self, manifest: Manifest) -> None:
        """Remove what a killed program left: files that never counted."""
        found = {str(path.relative_to(self.directory)) for path in self.directory.glob("day=*/*")}
        found |= {str(path.relative_to(self.directory)) for path in self.directory.glob(".manif*")}
        self._remove(sorted(found - manifest.files() - {*manifest.gone}))

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._db.execute(query).fetchone()
        assert row is not None
        return row


class Reader:
    """Queries over a span of days: a view ``events`` of what counted when it was opened."""

    def __init__(
        self,
        directory: Path,
        since: float,
        until: float,
        *,
        memory: int = 2000,
        threads: int | None = None,
    ) -> None:
        self.directory = directory
        self.since = since
        self.until = until
        self._stack = contextlib.ExitStack()
        if not directory.is_dir():
            raise TelemetryError(
                f"{directory}: no such directory",
                remedy="give the directory of the Parquet store with --data",
            )
        # while it is held, files that no longer count stay
        self._stack.enter_context(_lock(directory, fcntl.LOCK_SH))
        self._manifest = read_manifest(directory)
        self._viewed = False
        self._db = connect(directory, memory=memory, threads=threads or os.cpu_count() or 1)
        self._stack.callback(self._db.close)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query over ``events``; TelemetryError where files cannot be read."""
        import duckdb

        for attempt in range(1, TRIES + 1):
            try:
                if not self._viewed:
                    self._view()
                return self._db.execute(query, parameters).fetchall()
            except duckdb.Error as error:
                # a file went away: on a share without locks that is one which no longer counts
                self._manifest, self._viewed = read_manifest(self.directory), False
                if attempt == TRIES or not isinstance(error, duckdb.IOException):
                    raise TelemetryError(
                        f"{self.directory}: {error}", remedy="see that its files can be read"
                    ) from None
        raise AssertionError("unreachable")

    def _view(self) -> None:
        # an event belongs to the day of its start, so other days have none of the span
        days = {
            name: day
            for name, day in self._manifest.days.items()
            if _begin(name) < self.until and _begin(name) + DAY > self.since
        }
        once = {name: day for name, day in days.items() if not day.repeats}
        sources = [_source(self.directory, name, day) for name, day in days.items() if day.repeats]
        paths = [self.directory / f"day={n}" / p.name for n, day in once.items() for p in day.parts]
        if paths:
            sources.append(_files(paths))
        columns = ", ".join(f"NULL::{kind} AS {_quoted(n)}" for n, kind in COLUMNS.items())
        sources.append(f"(SELECT {columns} WHERE false)")
        union = " UNION ALL BY NAME ".join(f"SELECT * FROM {source}" for source in sources)
        self._db.execute(
            f"CREATE OR REPLACE TEMP VIEW events AS SELECT * FROM ({union})"
            f" WHERE start >= {self.since!r} AND start < {self.until!r}"
        )
        self._viewed = True


def open_store(options: Options) -> ParquetStore:
    """The store that a configuration's table ``[parquet]`` describes."""
    directory = options.path("directory", options.config.state / "parquet")
    return ParquetStore(directory, memory=options.whole("memory_mb", 256, least=64))


def day_of(start: float) -> str:
    """The day (UTC) of a time in Unix seconds, as 2026-11-21."""
    return datetime.fromtimestamp(start, UTC).date().isoformat()


def _day(event: Event) -> str:
    return day_of(event.start)


def _by_day(events: Iterable[Event]) -> list[Event]:
    """Events with those of a day together; those of one id stay in their order."""
    return sorted(events, key=lambda event: event.start // DAY)


def _begin(name: str) -> float:
    """The time at which a day begins (Unix seconds)."""
    return datetime.combine(date.fromisoformat(name), datetime.min.time(), UTC).timestamp()


def _source(directory: Path, name: str, day: Day) -> str:
    """SQL of the events of a day; where an id may come twice, that of the newest file."""
    files = _files(directory / f"day={name}" / part.name for part in day.parts)
    if not day.repeats:
        return files
    return (
        f"(SELECT * EXCLUDE (filename) FROM {files[:-1]}, filename=true)"
        " QUALIFY row_number() OVER (PARTITION BY id ORDER BY filename DESC) = 1)"
    )


def _files(paths: Iterable[Path]) -> str:
    listed = ", ".join(_text(path) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning=false)"


def _text(value: object) -> str:
    """A text or path as SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    """A column as SQL; ``user`` and ``end`` are words of SQL."""
    return f'"{name}"'


@contextlib.contextmanager
def _lock(directory: Path, kind: int) -> Iterator[bool]:
    """A lock on a directory; whether it was had. Where there are no locks, it never is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, kind)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """See that a file, or the names in a directory, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
