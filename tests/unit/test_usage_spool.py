"""The spool: what is taken, what is refused, and that no program's record goes with its file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from usage_maker import Desk, end, start

from longrun.errors import TelemetryError
from longrun.usage import collect as collecting
from longrun.usage.spool import Claim, Spool

ROOT = os.getuid() == 0


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_what_programs_wrote_is_stored_and_the_file_is_gone(desk):
    (event,) = desk.round(start(1), end(1))
    assert (event.user, event.exit, event.seconds) == (desk.agent._user(os.getuid()), "ok", 2.5)
    assert not list(desk.spool.iterdir())
    assert not list(desk.claimed())


def squat_fifo(path: Path) -> None:
    os.mkfifo(path)


def squat_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def squat_dangling(path: Path) -> None:
    path.symlink_to("/nonexistent")


def squat_directory(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").write_text("x")
    (path / "link").symlink_to("/etc")


def squat_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


SQUATTERS = [squat_fifo, squat_link, squat_dangling, squat_directory, squat_socket]


@pytest.mark.parametrize("squat", SQUATTERS)
def test_what_is_no_file_in_a_users_place_goes_and_the_user_is_heard_again(desk, squat):
    squat(desk.own)
    assert desk.round() == []
    assert desk.refused == {"not a regular file": 1}
    assert len(desk.round(start(1), end(1))) == 1
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("squat", SQUATTERS)
@pytest.mark.parametrize(
    "name", ["x", "007.jsonl", "-1.jsonl", "1.jsonl.swp", ".1.jsonl", "٣.jsonl"]
)
def test_what_has_no_users_name_goes(desk, squat, name):
    squat(desk.spool / name)
    desk.round(start(1), end(1))
    assert desk.refused == {"not a user's name": 1}
    assert len(desk.stored) == 1
    assert not list(desk.spool.iterdir())
    assert not list(desk.claimed())


def test_a_file_with_a_further_name_is_refused_and_that_name_stays(desk, tmp_path):
    desk.write(start(1), end(1))
    os.link(desk.own, tmp_path / "mine")
    assert desk.round() == []
    assert desk.refused == {"has further names": 1}
    assert (tmp_path / "mine").read_bytes()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_refused(desk, mode):
    desk.write(start(1), end(1))
    desk.own.chmod(mode)
    assert desk.round() == []
    assert desk.refused == {"others can write to it": 1}


@pytest.mark.skipif(not ROOT, reason="only root makes files of others")
def test_a_squatter_cannot_speak_for_another_user(desk):
    forged = desk.spool / "1001.jsonl"
    forged.write_bytes(start(1) + end(1))
    os.chown(forged, 1002, 1002)
    forged.chmod(0o600)
    assert desk.round() == []
    assert desk.refused == {"another user's": 1}
    forged.write_bytes(start(2) + end(2))
    os.chown(forged, 1001, 1001)
    forged.chmod(0o600)
    assert [event.uid for event in desk.round()] == [1001]


def test_a_program_that_has_the_file_open_is_waited_for(desk):
    desk.write(start(1))
    descriptor = os.open(desk.own, os.O_WRONLY | os.O_APPEND)
    assert desk.round() == []
    assert len(list(desk.claimed())) == 1
    os.write(descriptor, end(1))
    os.close(descriptor)
    (event,) = desk.round()
    assert event.exit == "ok"
    assert not list(desk.claimed())


def test_who_comes_to_open_the_file_only_now_is_turned_away_not_lost(tmp_path):
    """The kernel's part: no writer comes in below a lease; and the agent's: it looks again."""
    with _claimed(tmp_path) as (spool, claim, late), spool.reading(claim) as file:
        assert file.lease()
        with pytest.raises(BlockingIOError):
            os.open(late, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        assert not file.leased()


def test_no_lease_while_somebody_writes(tmp_path):
    with _claimed(tmp_path) as (spool, claim, late), spool.reading(claim) as file:
        descriptor = os.open(late, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        assert not file.lease()
        os.close(descriptor)
        assert file.lease()
        assert file.leased()


@contextlib.contextmanager
def _claimed(place: Path) -> Iterator[tuple[Spool, Claim, Path]]:
    """A claimed file, and a path by which a test can still reach it."""
    directory = place / "spool"
    directory.mkdir()
    directory.chmod(0o1733)
    (directory / f"{os.getuid()}.jsonl").touch(mode=0o600)
    with Spool(directory, place / "claimed") as spool:
        spool.claim()
        (claim,) = spool.claims()
        yield spool, claim, place / "claimed" / claim.name


def test_a_file_that_is_held_open_for_too_long_is_given_up(desk, monkeypatch):
    desk.write(start(1), end(1))
    descriptor = os.open(desk.own, os.O_WRONLY | os.O_APPEND)
    assert len(desk.round()) == 1
    monkeypatch.setattr(collecting, "HELD", -1.0)
    desk.round()
    assert not list(desk.claimed())
    assert desk.refused == {"held open": 1}
    os.close(descriptor)


def test_a_file_system_without_leases_is_an_error_with_a_remedy(desk, monkeypatch):
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, command, argument)

    desk.write(start(1), end(1))
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(TelemetryError, match="grants no lease") as caught:
        desk.round()
    assert "local file system" in caught.value.remedy
    monkeypatch.undo()
    assert len(desk.round()) == 1


def test_a_spool_that_is_not_there_or_not_roots_is_an_error_with_a_remedy(desk):
    desk.spool.rmdir()
    with pytest.raises(TelemetryError, match="No such file") as caught:
        desk.round()
    assert "tmpfiles" in caught.value.remedy
    desk.spool.symlink_to("/tmp")
    with pytest.raises(TelemetryError, match=r"Not a directory|Too many levels"):
        desk.round()
    desk.spool.unlink()
    desk.spool.mkdir()
    desk.spool.chmod(0o777)
    with pytest.raises(TelemetryError, match="mode 777") as caught:
        desk.round()
    assert "chmod 1733" in caught.value.remedy
    if ROOT:
        desk.spool.chmod(0o1733)
        os.chown(desk.spool, 1000, 1000)
        with pytest.raises(TelemetryError, match="belongs to uid 1000"):
            desk.round()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no other file system")
def test_claims_on_another_file_system_are_an_error_and_the_records_stay(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        desk = Desk(tmp_path, claimed=f"{elsewhere}/claimed")
        desk.write(start(1), end(1))
        with pytest.raises(TelemetryError, match="another file system") as caught:
            desk.round()
        assert "set claimed" in caught.value.remedy
        assert desk.own.read_bytes() == start(1) + end(1)


def test_the_agents_own_directory_is_its_own(desk):
    desk.config.claimed.mkdir(mode=0o755)
    with pytest.raises(TelemetryError, match="not the agent's alone"):
        desk.round()
    desk.config.claimed.rmdir()
    desk.round()
    assert stat.S_IMODE(desk.config.claimed.stat().st_mode) == 0o700


def test_lines_that_are_none_are_counted_and_the_others_kept(desk):
    torn = start(9)[:100]
    lines = [b"garbage\n", b"\n\n", start(1), b"\0" * 5000 + b"\n", torn + start(2), end(1)]
    desk.round(*lines, end(2))
    assert [event.exit for event in desk.stored] == ["ok", "ok"]
    assert desk.refused == {"not JSON": 2, "too long": 1}


def test_a_torn_last_line_is_refused_once_its_writer_is_gone(desk):
    desk.write(start(1), end(1), start(2)[:50])
    descriptor = os.open(desk.own, os.O_WRONLY | os.O_APPEND)
    assert len(desk.round()) == 1
    assert desk.refused == {}
    os.close(descriptor)
    desk.round()
    assert desk.refused == {"not JSON": 1}
    assert not list(desk.claimed())


def test_a_last_line_that_lacks_only_its_end_is_kept(desk):
    assert len(desk.round(start(1), end(1).strip())) == 1


def test_a_file_is_read_in_parts_and_no_line_is_cut(desk, monkeypatch):
    monkeypatch.setattr(collecting, "PART", 1000)
    desk.round(*(start(n) + end(n) for n in range(50)))
    assert len(desk.stored) == 50
    assert desk.refused == {}


def test_a_huge_file_is_refused_behind_a_bound(desk, monkeypatch):
    monkeypatch.setattr(collecting, "MOST", 3 * collecting.PART)
    desk.write(start(1), end(1))
    os.truncate(desk.own, 1 << 40)
    assert len(desk.round()) == 1
    assert desk.refused["file too large"] == 1
    assert not list(desk.claimed())


def test_a_record_that_comes_twice_is_kept_once(desk):
    desk.round(start(1), start(1), end(1))
    desk.round(end(1), start(1, name="other"))
    assert [event.name for event in desk.stored] == ["orbit"]
    assert desk.refused == {"came twice": 3}
    assert len(desk.store.puts) == 1


def test_a_refused_thing_that_a_killed_agent_left_goes(desk):
    desk.round()
    (desk.config.claimed / "refused-17").mkdir()
    (desk.config.claimed / "junk").write_text("x")
    desk.round()
    assert not list(desk.claimed())
