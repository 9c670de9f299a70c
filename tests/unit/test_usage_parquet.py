"""The Parquet store: nothing lost, nothing twice, whenever it is killed and whoever reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from usage_events import DAY, NOON, make_event, make_events

from longrun.errors import SpecError, StoreAway, TelemetryError
from longrun.usage.config import Options, make_config
from longrun.usage.event import Event, from_document
from longrun.usage.stores import Keeper, open_store, parquet
from longrun.usage.stores.parquet import COLUMNS, ParquetStore, Reader, read_manifest

EVER = (0.0, 1e11)
FAN = 3
FULL = make_event(
    7,
    layer=None,
    exe="/usr/bin/archiver",
    name=None,
    ci="gitlab",
    forbidden=("LD_LIBRARY_PATH", "PYTHONPATH"),
    flags="IE",
    exit="exception",
    code=1,
    exc="Größe'\"\\",
    packages={"numpy": "2.3.4", "x\n'y": "1"},
    venv=True,
    more=3,
    start=NOON + 0.123456789,
)


@pytest.fixture(autouse=True)
def few_files(monkeypatch):
    """A day is merged sooner, so that tests do with fewer files."""
    monkeypatch.setattr(parquet, "FAN", FAN)


@pytest.fixture
def store(tmp_path):
    store = ParquetStore(tmp_path / "data")
    yield store
    store.close()


def kept(directory: Path, columns: str = "*", span: tuple[float, float] = EVER) -> list[tuple]:
    with Reader(directory, *span, threads=1) as reader:
        return reader.rows(f"SELECT {columns} FROM events ORDER BY ALL")


def events_in(directory: Path) -> list[Event]:
    names = list(COLUMNS)
    rows = [dict(zip(names, row, strict=True)) for row in kept(directory)]
    events = [from_document({"v": 1, **row}) for row in rows]
    return sorted(events, key=lambda event: (event.start, event.id))


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.glob("day=*/*"))


def test_what_is_put_is_read_as_it_was(store):
    store.put([FULL, make_event(9)])
    assert events_in(store.directory) == [FULL, make_event(9)]


def test_putting_the_same_again_changes_nothing(store):
    events = make_events(5)
    store.put(events)
    before = files(store.directory), read_manifest(store.directory)
    store.put(events)
    store.put(events[3:])
    assert (files(store.directory), read_manifest(store.directory)) == before
    store.put([*events, *make_events(2, first=6), *events])
    assert events_in(store.directory) == make_events(7)


def test_an_event_that_ended_later_replaces_what_was_known_of_it(store):
    running = make_event(1, end=None, seconds=None, exit="none", packages={})
    store.put([running, make_event(2)])
    store.put([make_event(3)])
    store.put([make_event(1)])
    assert events_in(store.directory) == make_events(3)
    for number in range(4, 4 + FAN):
        store.put([make_event(number)])
    assert events_in(store.directory) == make_events(3 + FAN)
    day = read_manifest(store.directory).days["2025-11-21"]
    assert not day.repeats
    assert sum(part.events for part in day.parts) == 3 + FAN


def test_the_last_one_of_an_id_in_one_batch_counts(store):
    store.put([make_event(1, exit="none"), make_event(1)])
    assert events_in(store.directory) == [make_event(1)]


def test_events_are_in_the_directory_of_the_day_of_their_start(store):
    store.put([make_event(1), make_event(2, start=NOON + DAY), make_event(3, start=NOON)])
    assert files(store.directory) == [
        "day=2025-11-21/00000001.parquet",
        "day=2025-11-22/00000002.parquet",
    ]


def test_files_are_zstd_and_others_read_them_without_longrun(store):
    store.put(make_events(3))
    import duckdb

    pattern = str(store.directory / "day=*" / "*.parquet")
    found = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [pattern]).fetchone()
    assert found == (3,)
    meta = duckdb.execute("SELECT DISTINCT compression FROM parquet_metadata(?)", [pattern])
    assert meta.fetchall() == [("ZSTD",)]


def test_small_files_become_one_and_no_event_is_lost(store):
    for number in range(1, 3 * FAN * FAN):
        store.put([make_event(number)])
    assert len(files(store.directory)) < 3 * FAN
    assert events_in(store.directory) == make_events(3 * FAN * FAN - 1)


def test_compact_leaves_one_file_a_day(store):
    store.put([*make_events(3), make_event(4, start=NOON + DAY)])
    store.put(make_events(2, first=5))
    store.compact()
    assert len(files(store.directory)) == 2
    assert len(events_in(store.directory)) == 6


def test_old_days_are_dropped_as_a_whole(store):
    store.put([make_event(1), make_event(2, start=NOON + DAY), make_event(3, start=NOON + 2 * DAY)])
    assert store.prune(NOON + 2 * DAY) == 2
    assert files(store.directory) == ["day=2025-11-23/00000003.parquet"]
    assert [event.start for event in events_in(store.directory)] == [NOON + 2 * DAY]
    assert store.prune(NOON + 2 * DAY) == 0


def test_what_a_kill_left_is_removed_once_a_day_and_what_counts_is_not(store):
    store.put(make_events(3))
    day = store.directory / "day=2025-11-21"
    for stray in (day / "00000077.parquet", day / ".00000078.parquet.staged"):
        stray.write_bytes(b"half")
    (store.directory / ".manifest.json.abc").write_text("{")
    store.prune(0)
    assert files(store.directory) == ["day=2025-11-21/00000001.parquet"]
    assert not (store.directory / ".manifest.json.abc").exists()
    assert events_in(store.directory) == make_events(3)


def test_users_become_pseudonyms_once_their_time_is_over(store):
    def name(user: str) -> str:
        return user if user.startswith("u-") else f"u-{user}"

    store.put([make_event(n, user=f"user{n}", start=NOON + n * DAY / 4) for n in range(8)])
    store.put([make_event(9, user="u-known", uid=None)])
    assert store.pseudonymise(NOON + DAY, name) == 4
    found = kept(store.directory, 'start, "user", uid')
    assert [row[1:] for row in found] == [
        *[("u-user0", None), ("u-known", None)],
        *[(f"u-user{n}", None) for n in (1, 2, 3)],
        *[(f"user{n}", 1000) for n in (4, 5, 6, 7)],
    ]
    assert store.pseudonymise(NOON + DAY, name) == 0
    store.put([make_event(20, user="late", start=NOON + 5)])
    assert store.pseudonymise(NOON + 9 * DAY, name) == 5
    assert all(user.startswith("u-") for (user,) in kept(store.directory, '"user"'))


def test_pseudonyms_of_days_that_are_done_are_not_made_again(store):
    asked = []
    store.put(make_events(3))
    store.pseudonymise(NOON + 5 * DAY, lambda user: asked.append(user) or f"u-{user}")
    store.pseudonymise(NOON + 6 * DAY, lambda user: asked.append(user) or user)
    assert asked == ["operator"]


def test_the_agent_sees_that_it_keeps_and_prunes(store):
    assert isinstance(store, Keeper)


def test_only_days_of_the_span_are_read(store):
    store.put([make_event(1), make_event(2, start=NOON + DAY), make_event(3, start=NOON + 2 * DAY)])
    (store.directory / "day=2025-11-21/00000001.parquet").write_bytes(b"damaged")
    assert kept(store.directory, "id", (NOON + DAY / 2, NOON + DAY + 1)) == [(make_event(2).id,)]
    with pytest.raises(TelemetryError, match="00000001"):
        kept(store.directory)


def test_an_empty_store_has_no_events(store):
    store.directory.mkdir()
    assert events_in(store.directory) == []
    with pytest.raises(TelemetryError, match="no such directory"):
        Reader(store.directory / "nowhere", *EVER)


# killed at any point

BATCHES = [
    make_events(3),
    [*make_events(2, first=3), make_event(50, start=NOON + DAY)],
    [make_event(2, exit="status", code=3)],
    *[[make_event(number)] for number in range(60, 60 + FAN)],
]
WANTED = {event.id: event for batch in BATCHES for event in batch}

WATCHED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "fcntl.flock")


def put_all(directory: Path) -> None:
    """Everything that a store does with its files."""
    store = ParquetStore(directory)
    for batch in BATCHES:
        store.put(batch)
    store.compact()
    store.prune(0)
    store.close()


def die_at(directory: Path, moment: int) -> bool:
    """Put all in another process that is killed before it opens, renames or removes for the
    n-th time; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            left = [moment]

            def watch(event: str, _: tuple) -> None:
                if event in WATCHED:
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            put_all(directory)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_any_point_it_has_what_it_said_it_has_and_loses_and_doubles_nothing(tmp_path):
    moment, died = 1, True
    while died:
        directory = tmp_path / str(moment)
        died = die_at(directory, moment)
        if directory.exists():
            found = [event.id for event in events_in(directory)]
            assert len(found) == len(set(found))
            assert set(found) <= set(WANTED)
        put_all(directory)  # the agent puts again what it was not told is safe
        assert {event.id: event for event in events_in(directory)} == WANTED
        assert len(events_in(directory)) == len(WANTED)
        assert len(files(directory)) == 2, "what never counted is removed"
        moment += 13
    assert moment > 100


def test_readers_see_the_old_or_the_new(store):
    store.put(make_events(10))
    counts, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            counts.append(kept(store.directory, "count(*), count(DISTINCT id)")[0])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 3 * FAN):
        store.put(make_events(10, first=10 * number + 1))
    store.compact()
    stop.set()
    reader.join()
    assert all(total == distinct and total % 10 == 0 for total, distinct in counts)
    assert [total for total, _ in counts] == sorted(total for total, _ in counts)
    store.put([make_event(1)])
    store.put([make_event(9999)])
    assert kept(store.directory, "count(*)") == [(10 * 3 * FAN + 1,)]


def test_files_stay_while_a_report_reads_them(store):
    store.put(make_events(3))
    with Reader(store.directory, *EVER) as reader:
        store.put(make_events(3, first=4))
        store.compact()
        assert reader.rows("SELECT count(*) FROM events") == [(3,)]
    store.put([make_event(99)])
    assert len(files(store.directory)) == 2


def test_a_share_without_locks_is_read_anew_where_a_file_went_away(store, monkeypatch):
    store.put(make_events(3))
    with Reader(store.directory, *EVER) as reader:
        monkeypatch.setattr("longrun.usage.stores.parquet.fcntl.flock", lambda *_: None)
        store.put(make_events(3, first=4))
        store.compact()
        assert len(files(store.directory)) == 1
        assert reader.rows("SELECT count(*) FROM events") == [(6,)]


# what can go wrong


def test_a_full_disk_is_the_store_being_away_and_nothing_of_the_batch_is_there(store, monkeypatch):
    store.put(make_events(3))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("longrun.usage.stores.parquet._sync", full)
        with pytest.raises(StoreAway, match="No space left") as error:
            store.put(make_events(3, first=4))
    assert "full" in error.value.remedy
    assert events_in(store.directory) == make_events(3)
    store.put(make_events(3, first=4))
    assert events_in(store.directory) == make_events(6)


def test_a_manifest_that_cannot_be_read_is_named(store):
    store.put(make_events(1))
    path = store.directory / "manifest.json"
    for text in ("{", '{"format": 1}', '{"format": 1, "next": 1, "days": {"x": 1}, "gone": []}'):
        path.write_text(text)
        with pytest.raises(TelemetryError, match=r"manifest\.json: cannot be read") as error:
            store.put(make_events(1))
        assert "backup" in error.value.remedy
    path.write_text(json.dumps({"format": 99}))
    with pytest.raises(TelemetryError, match="format 99, this program knows 1"):
        kept(store.directory)


def test_without_duckdb_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(TelemetryError, match="no DuckDB") as error:
        ParquetStore(tmp_path)
    assert "pip install duckdb" in error.value.remedy


def test_the_configuration_says_where(tmp_path):
    table = {"directory": str(tmp_path / "elsewhere"), "memory_mb": 128}
    document = {"store": "parquet", "state": str(tmp_path / "state"), "parquet": table}
    config = make_config(Path("usage.toml"), document, {})
    store = open_store(config)
    store.put([FULL])
    assert events_in(tmp_path / "elsewhere") == [FULL]
    with pytest.raises(SpecError, match="memory_mb"):
        open_store(replace(config, tables={"parquet": {"memory_mb": 1}}))
    default = open_store(replace(config, tables={}))
    assert isinstance(default, ParquetStore)
    assert default.directory == tmp_path / "state/parquet"
    assert Options(config).config.store == "parquet"


def test_it_is_not_loaded_by_who_uses_another_store():
    code = "import sys, longrun.usage.stores.parquet; assert 'duckdb' not in sys.modules"
    path = str(Path(__file__).resolve().parents[2] / "src")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})
