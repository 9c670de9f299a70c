"""The store of lines: what a shipper follows."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from test_usage_event import EVENT

from longrun.errors import StoreAway
from longrun.usage.stores import Keeper
from longrun.usage.stores.lines import Lines

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC).timestamp()


def events(*moments: float):
    return [replace(EVENT, id=f"console7-0-{n}", start=m) for n, m in enumerate(moments)]


@pytest.fixture
def store(tmp_path):
    return Lines(directory=tmp_path / "lines")


def ids(store: Lines, day: str = "2026-11-21") -> list[str]:
    lines = (store.directory / f"{day}.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_each_day_has_its_file(store):
    store.put(events(MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 1))
    assert ids(store, "2026-11-20") == ["console7-0-0"]
    assert ids(store) == ["console7-0-1", "console7-0-2"]
    assert stat.S_IMODE((store.directory / "2026-11-21.jsonl").stat().st_mode) == 0o640


def test_the_same_events_again_change_nothing(store):
    batch = events(MIDNIGHT, MIDNIGHT + 1)
    store.put(events(MIDNIGHT - 5, MIDNIGHT + 7)[1:])
    store.put(batch)
    before = (store.directory / "2026-11-21.jsonl").read_bytes()
    store.put(batch)
    assert (store.directory / "2026-11-21.jsonl").read_bytes() == before


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_batch_that_was_written_in_part_is_completed(store, kept):
    store.put(events(MIDNIGHT + 9))
    batch = [replace(event, id=f"b{event.id}") for event in events(*[MIDNIGHT] * 10)]
    file = store.directory / "2026-11-21.jsonl"
    before = file.stat().st_size
    store.put(batch)
    whole = file.read_bytes()
    os.truncate(file, before + int((len(whole) - before) * kept))
    store.put(batch)
    assert file.read_bytes() == whole


def test_an_event_that_knows_more_is_a_further_line(store):
    (event,) = events(MIDNIGHT)
    store.put([replace(event, exit="none")])
    store.put([event])
    lines = (store.directory / "2026-11-21.jsonl").read_text().splitlines()
    assert [json.loads(line)["exit"] for line in lines] == ["none", "exception"]


def test_days_go_with_the_retention_and_nothing_else(store):
    store.put(events(MIDNIGHT - 1, MIDNIGHT))
    (store.directory / "notes.txt").write_text("mine")
    assert store.prune(MIDNIGHT + 3600) == 1
    assert sorted(os.listdir(store.directory)) == ["2026-11-21.jsonl", "notes.txt"]
    assert isinstance(store, Keeper)


def test_a_disk_that_does_not_take_lines_is_a_store_that_is_away(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAway, match="file") as caught:
        Lines(directory=tmp_path / "file" / "lines").put(events(MIDNIGHT))
    assert caught.value.remedy


def test_no_link_is_followed(store, tmp_path):
    store.directory.mkdir()
    (store.directory / "2026-11-21.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreAway):
        store.put(events(MIDNIGHT))
    assert not (tmp_path / "elsewhere").exists()
