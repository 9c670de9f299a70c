"""The agent's rounds: what becomes an event, what waits, and what a kill or a full disk leaves."""

from __future__ import annotations

import errno
import os
import pwd
import re
import time
from dataclasses import replace

import pytest
from usage_maker import NOW, Desk, end, record_id, start

from longrun.errors import StoreAway, TelemetryError
from longrun.usage import agent as agents
from longrun.usage import collect as collecting
from longrun.usage.agent import Patience, run
from longrun.usage.config import DAY
from longrun.usage.event import Event
from longrun.usage.machine import boot_id, boot_of, is_over
from longrun.usage.state import State, locked
from longrun.usage.status import metrics, read_status

GONE = 4_000_000
"""A process number that Linux does not give by default."""


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_start_and_end_become_one_event(desk):
    changes = {"prefix": "/home/me/venv", "ci": "gitlab", "forbidden": ["PYTHONPATH"], "flags": "I"}
    (event,) = desk.round(start(1, **changes), end(1, exit="exception", exc="ValueError", code=1))
    assert event == Event(
        id=f"console7-{boot_id()}-{record_id(1)}",
        host="console7",
        boot=boot_id(),
        uid=os.getuid(),
        user=pwd.getpwuid(os.getuid()).pw_name,
        start=NOW,
        end=NOW + 2.5,
        seconds=2.5,
        python="3.13.5",
        release="2026.1",
        layer="controls",
        prefix="/home/me/venv",
        base="/opt/longrun/cp313",
        how="module",
        name="orbit",
        ci="gitlab",
        forbidden=("PYTHONPATH",),
        flags="I",
        exit="exception",
        code=1,
        exc="ValueError",
        packages={},
        venv=True,
    )


def test_start_and_end_meet_across_rounds_and_agents(desk):
    assert desk.round(start(1)) == []
    (event,) = desk.again().round(end(1))
    assert (event.name, event.exit) == ("orbit", "ok")
    assert sum(map(len, desk.store.puts)) == 1


def test_an_end_whose_start_is_read_later_is_paired_too(desk):
    assert desk.round(end(1)) == []
    (event,) = desk.round(start(1))
    assert (event.name, event.exit) == ("orbit", "ok")


def test_an_end_whose_start_was_lost_is_told_of_after_an_hour(desk, monkeypatch):
    assert desk.round(end(1)) == []
    monkeypatch.setattr(agents, "HOUR", -1.0)
    (event,) = desk.round()
    assert (event.start, event.seconds, event.exit, event.python) == (NOW, 2.5, "ok", "")


def test_a_program_that_was_killed_has_no_end(desk):
    assert desk.round(start(1, of=GONE)) == []
    (event,) = desk.round()
    assert (event.exit, event.end, event.seconds) == ("none", None, None)


def test_a_program_that_just_ended_is_not_taken_for_one_that_was_killed(desk):
    """It was gone before the spool was read, so its end is in there."""
    desk.round(start(1, of=GONE))
    desk.round(end(1, of=GONE))
    assert [[event.exit for event in put] for put in desk.store.puts] == [["ok"]]


def test_no_program_is_taken_for_killed_while_not_all_is_read(desk, monkeypatch):
    desk.round(start(1, of=GONE))
    desk.write(end(1, of=GONE))
    monkeypatch.setattr(agents, "collect", lambda *_: False)
    assert desk.round() == []
    monkeypatch.undo()
    assert [event.exit for event in desk.round()] == ["ok"]


def test_a_program_of_an_earlier_boot_has_no_end(desk):
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    earlier = booted - 1000
    (event,) = desk.round(start(2, moment=earlier)) or desk.round()
    assert event.exit == "none"
    assert event.boot == "0" * 8


def test_a_program_that_runs_for_long_is_told_of_and_completed_by_its_end(tmp_path):
    desk = Desk(tmp_path, hold_hours=0)
    (event,) = desk.round(start(1))
    assert (event.exit, event.name) == ("none", "orbit")
    assert desk.round() == [event]
    (event,) = desk.again().round(end(1))
    assert (event.exit, event.name, event.seconds) == ("ok", "orbit", 2.5)
    assert [[e.exit for e in put] for put in desk.store.puts] == [["none"], ["ok"]]


def test_what_waits_twice_is_put_once_with_what_is_known_last(tmp_path):
    desk = Desk(tmp_path, hold_hours=0)
    desk.agent._patience.failed()
    desk.round(start(1))
    desk.round(end(1))
    assert desk.store.puts == []
    desk.again().round()
    assert [[event.exit for event in put] for put in desk.store.puts] == [["ok"]]


def test_a_store_that_is_away_loses_nothing_and_is_left_alone_for_a_while(desk):
    desk.store.away = StoreAway("it is Sunday", remedy="wait")
    with pytest.raises(StoreAway, match=r"it is Sunday; asked again in \d+ s"):
        desk.round(start(1), end(1))
    desk.round(start(2), end(2))
    assert len(desk.store.puts) == 1
    status = read_status(desk.config, desk.state)
    assert (status.error, status.waiting) == ("it is Sunday", 2)
    desk.store.away = None
    assert len(desk.again().round()) == 2
    assert read_status(desk.config, desk.state).error == ""


def test_a_batch_that_was_begun_comes_again_as_it_was(desk, monkeypatch):
    monkeypatch.setattr(agents, "BATCH", 2)
    desk.store.away = StoreAway("away")
    with pytest.raises(StoreAway):
        desk.round(*(start(n) + end(n) for n in range(5)))
    monkeypatch.setattr(agents, "BATCH", 4)
    desk.store.away = None
    desk.again().round()
    first, again, *_ = desk.store.puts
    assert first == again
    assert len(desk.stored) == 5


def test_an_agent_killed_between_store_and_state_puts_the_same_again(desk, monkeypatch):
    def die(self: State, count: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "stored", die)
        with pytest.raises(KeyboardInterrupt):
            desk.round(start(1), end(1))
    desk.again().round()
    assert desk.store.puts[0] == desk.store.puts[1]
    assert len(desk.stored) == 1


@pytest.mark.parametrize("at", range(6))
def test_an_agent_killed_while_it_reads_goes_on_where_it_was(desk, monkeypatch, at):
    monkeypatch.setattr(collecting, "PART", 3000)
    real, count = State.keep, 0

    def die(self: State, chunk: object) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        real(self, chunk)
        if count == at + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "keep", die)
        with pytest.raises(KeyboardInterrupt):
            desk.round(*(start(n) + end(n) for n in range(50)))
    desk.again().round()
    assert len(desk.stored) == 50
    assert desk.refused == {}


def test_a_full_disk_takes_nothing_by_halves(desk):
    """What was claimed stays, and goes on when there is room."""
    (pages,) = desk.state._db.execute("PRAGMA page_count").fetchone()
    desk.state._db.execute(f"PRAGMA max_page_count = {pages + 8}")
    lines = [start(n) + end(n) for n in range(300)]
    with pytest.raises(TelemetryError, match="full") as caught:
        desk.round(*lines)
    assert "has room" in caught.value.remedy
    assert desk.stored == []
    desk.again().round(start(301), end(301))
    assert len(desk.stored) == 301
    assert desk.refused == {}


def test_what_another_version_left_does_not_stop_the_agent(desk):
    desk.agent._patience.failed()
    desk.round(start(1), start(2), start(3), end(3))
    desk.state._db.execute("UPDATE invocations SET first = x'78' WHERE id = ?", (record_id(1),))
    desk.state._db.execute("""INSERT INTO outbox (event) VALUES ('{"v": 9}')""")
    events = desk.again().round(end(1), end(2))
    assert [event.python for event in events] == ["", "3.13.5", "3.13.5"]
    desk.write(start(4))
    desk.round()
    desk.state._db.execute("UPDATE invocations SET first = x'78' WHERE id = ?", (record_id(4),))
    desk.agent.config = replace(desk.config, hold=-1.0)
    desk.round()
    assert len(desk.stored) == 3
    assert desk.refused == {"of another version": 2}


def test_a_database_that_is_none_is_an_error_with_a_remedy(desk):
    desk.state.close()
    desk.state.file.write_bytes(b"not a database" * 1000)
    with pytest.raises(TelemetryError, match="not a database") as caught:
        State(desk.config.state)
    assert "move" in caught.value.remedy


def test_a_full_buffer_leaves_records_in_the_spool(tmp_path):
    desk = Desk(tmp_path, buffer_mb=1)
    desk.store.away = StoreAway("away")
    with pytest.raises(StoreAway):
        desk.round(*(start(n) + end(n) for n in range(3000)))
    desk.round(start(4000), end(4000))
    assert desk.own.exists()
    assert read_status(desk.config, desk.state).full
    desk.store.away = None
    desk.again().round()
    desk.round()
    assert len(desk.stored) == 3001
    assert not read_status(desk.config, desk.state).full


def test_two_agents_never_run_on_one_state(desk):
    with (
        locked(desk.config.state),
        pytest.raises(TelemetryError, match="another agent"),
        locked(desk.config.state),
    ):
        pass
    with locked(desk.config.state):
        pass


def test_users_become_pseudonyms_after_a_time_and_events_go_after_another(tmp_path):
    desk = Desk(tmp_path, pseudonymise_after_days=10, retention_days=100)
    for number, age in enumerate((99, 11, 9)):
        moment = NOW - age * DAY
        desk.write(start(number, moment), end(number, moment))
    (_, older, newer) = desk.round()
    assert re.fullmatch(r"u-[0-9a-f]{12}", older.user)
    assert (older.uid, newer.uid) == (None, os.getuid())
    assert newer.user == pwd.getpwuid(os.getuid()).pw_name
    desk.state.write_note("kept", "0")
    desk.agent.config = replace(desk.config, pseudonymise_after=8, retention=98)
    desk.round()
    assert [event.user for event in desk.stored] == [older.user, older.user]
    assert desk.stored[-1].uid is None


def test_a_store_that_cannot_rename_gets_no_names(tmp_path):
    desk = Desk(tmp_path)
    kept: list[Event] = []

    class Simple:
        def put(self, events):
            kept.extend(events)

    desk.agent.store = Simple()
    desk.round(start(1), end(1))
    assert kept[0].user.startswith("u-")
    assert kept[0].uid is None


def test_pseudonyms_at_once_where_a_site_wants_it(tmp_path):
    desk = Desk(tmp_path, pseudonymise_after_days=0)
    desk.round(start(1), end(1))
    ahead = NOW + 3600  # a clock that was set back
    desk.round(start(2, ahead), end(2, ahead))
    assert [event.user[:2] for event in desk.stored] == ["u-", "u-"]


def test_a_record_older_than_the_retention_is_not_kept(tmp_path):
    desk = Desk(tmp_path, retention_days=10)
    assert desk.round(start(1, NOW - 11 * DAY), end(1, NOW - 11 * DAY)) == []
    assert desk.refused == {"impossible time": 2}


def test_the_loop_ends_when_told_and_outlives_what_goes_wrong(desk, capsys, tmp_path):
    desk.store.away = StoreAway("it is Sunday")
    desk.write(start(1), end(1))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            desk.spool.rename(tmp_path / "elsewhere")
        if len(waits) == 2:
            (tmp_path / "elsewhere").rename(desk.spool)
            desk.store.away = None
            desk.agent._patience.succeeded()

    file = tmp_path / "usage.prom"
    run(desk.agent, lambda: len(waits) == 4, wait, file)
    told = capsys.readouterr().err
    assert told.count("it is Sunday") == 1
    assert "No such file" in told
    assert told.count("all is well again") == 1
    assert len(desk.stored) == 1
    assert "longrun_usage_events_total 1\n" in file.read_text()


def test_what_the_system_refuses_is_told_and_nothing_is_lost(desk, monkeypatch, tmp_path):
    def refuse() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        with pytest.raises(TelemetryError, match="Resource temporarily unavailable") as caught:
            desk.round(start(1), end(1, use={"/opt": ["numpy"]}))
        assert caught.value.remedy
    assert len(desk.again().round()) == 1
    (tmp_path / "file").touch()
    with pytest.raises(TelemetryError, match="file"):
        agents.write_metrics(desk.agent, tmp_path / "file" / "usage.prom")


def test_waits_grow_and_differ():
    patience = Patience()
    waits = [patience.failed() for _ in range(30)]
    assert waits[0] <= 5
    assert max(waits) <= 900
    assert min(waits[10:]) >= 450
    assert len(set(waits)) == 30
    assert not patience.asks
    patience.succeeded()
    assert patience.asks
    assert patience.failed() <= 5


def test_a_round_that_is_told_to_end_ends_between_transactions(desk):
    desk.write(start(1), end(1))
    desk.agent.round(lambda: True)
    assert desk.stored == []
    assert len(desk.round()) == 1


def test_metrics_have_the_form_that_prometheus_reads(desk):
    desk.round(b"garbage\n", start(1), end(1))
    kind = r"# TYPE longrun_usage_\w+ (gauge|counter)"
    value = r'longrun_usage_\w+(\{reason="[^"\\]+"\})? [0-9.e+]+'
    for line in metrics(read_status(desk.config, desk.state)).splitlines():
        assert re.fullmatch(f"{kind}|{value}", line)


def test_boots_are_told_apart_by_time():
    boots = [(1000.0, "aaaaaaaa"), (5000.0, "bbbbbbbb")]
    assert boot_of(10, boots) == "0" * 8
    assert boot_of(3000, boots) == "aaaaaaaa"
    assert boot_of(5000 - 1, boots) == "bbbbbbbb"


def test_a_process_number_that_is_used_again_is_another_process(tmp_path):
    proc = tmp_path / "42"
    proc.mkdir()
    ticks = 500 * os.sysconf("SC_CLK_TCK")
    (proc / "stat").write_text(f"42 (a) b) S {' '.join(['0'] * 18)} {ticks} 0\n")
    booted = 1_000_000.0

    def over(moment: float) -> bool:
        return is_over(f"42-{int(moment * 1e9):x}", booted, tmp_path)

    assert not over(booted + 501)
    assert over(booted + 100)
    assert over(booted - 100)
    (proc / "stat").unlink()
    assert over(booted + 501)


def test_what_is_done_is_forgotten_after_a_while(desk, monkeypatch):
    desk.round(start(1), end(1))
    monkeypatch.setattr(agents, "REMEMBER", -1.0)
    desk.state.write_note("kept", "0")
    desk.round()
    desk.write(start(1), end(1))
    desk.round()
    assert len(desk.store.puts) == 2


def test_what_has_no_end_is_forgotten_unless_it_runs(tmp_path, monkeypatch):
    desk = Desk(tmp_path, hold_hours=0)
    desk.round(start(1), start(2, of=GONE))
    assert desk.state.open() == 2
    monkeypatch.setattr(agents, "LATE", -1.0)
    desk.state.write_note("kept", "0")
    desk.round()
    assert desk.state.open() == 1
    desk.round(end(1))
    assert {event.exit for event in desk.stored} == {"ok", "none"}
