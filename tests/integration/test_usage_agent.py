"""The agent as a process: killed under load, told to end, without room, and among squatters."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from usage_maker import end, start  # noqa: E402

UNIT = ROOT / "deploy" / "systemd" / "longrun-usage.service"
TMPFILES = ROOT / "deploy" / "tmpfiles.d" / "longrun-usage.conf"
AGENT = [sys.executable, "-m", "longrun.usage", "agent"]
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root has users to try it with")


def load_kill():
    """``benchmarks/usage_kill.py``, of which this is a short run."""
    spec = importlib.util.spec_from_file_location("usage_kill", ROOT / "benchmarks/usage_kill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["usage_kill"] = module
    spec.loader.exec_module(module)
    return module


kill = load_kill()


@pytest.fixture
def place():
    """A directory that other users can enter, as /var/spool is; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="usage-agent-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def config(place):
    return kill.configure(place, "lines")


def rights() -> list[str]:
    """Takes from root's rights what the unit takes, so that each test shows that enough is left."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        return []
    (granted,) = re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", UNIT.read_text())
    names = [f"+{name.removeprefix('CAP_').lower()}" for name in granted.split()]
    return ["setpriv", "--no-new-privs", "--bounding-set", ",".join(["-all", *names])]


def agent(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*rights(), *AGENT, "--config", config, *options],
        env=kill.environment(),
        check=False,
        capture_output=True,
        text=True,
    )


def write(place: Path, *lines: bytes) -> None:
    file = place / "spool" / f"{os.getuid()}.jsonl"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, b"".join(lines))
    os.close(descriptor)


def stored(place: Path) -> list[dict[str, object]]:
    files = sorted((place / "store").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("store", ["lines", "parquet"])
def test_an_agent_killed_under_load_loses_and_doubles_nothing(place, store):
    verdict = kill.run(place, kills=15, writers=6, store=store)
    assert verdict.begun > 100
    assert (verdict.lost, verdict.doubled, verdict.unpaired, verdict.foreign) == (0, 0, 0, 0)
    assert verdict.refused == {}


def test_the_kill_test_sees_what_is_lost_and_doubled(place, config):
    """An agent that forgot the lease, or that read files again, would not pass it."""
    (place / "ledgers" / "0").write_text("start 1-a\nend 1-a\nstart 1-b\nstart 1-c\n")
    (place / "store").mkdir()
    lines = [("1-a", "none"), ("1-b", "none"), ("1-b", "none"), ("1-d", "ok")]
    text = "".join(json.dumps({"id": f"c7-0-{i}", "exit": e}) + "\n" for i, e in lines)
    (place / "store" / "2026-11-21.jsonl").write_text(text)
    verdict = kill.judge(place, 0, "lines", {})
    assert (verdict.lost, verdict.doubled, verdict.unpaired, verdict.foreign) == (1, 1, 1, 1)
    assert not verdict.ok


def eventually(found, what: str) -> None:
    """Wait for what has to come; the limit is only there so that a broken agent ends the test."""
    deadline = time.monotonic() + 120
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def running(config) -> Iterator[subprocess.Popen[str]]:
    popen = subprocess.Popen(
        [*AGENT, "--config", config], env=kill.environment(), stderr=subprocess.PIPE, text=True
    )
    yield popen
    popen.kill()
    popen.wait()
    assert popen.stderr is not None
    popen.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_that_is_told_to_end_ends_well(place, running, number):
    write(place, start(1), end(1))
    eventually(lambda: stored(place), "nothing was stored")
    running.send_signal(number)
    _, told = running.communicate()
    assert running.returncode == 0
    assert told.count("\n") == 1, told
    assert "collecting" in told


def test_a_second_agent_is_refused(place, config, running):
    write(place, start(1), end(1))
    eventually(lambda: stored(place), "nothing was stored")
    done = agent(config, "--once")
    assert done.returncode == 10
    assert "another agent runs" in done.stderr
    assert "remedy" in done.stderr


@AS_ROOT
def test_a_state_without_room_loses_nothing(place, config):
    """A real full disk: what was not kept is still there when there is room again."""
    state = place / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", state], check=True)
    try:
        lines = [start(n) + end(n) for n in range(2000)]
        for at in range(0, len(lines), 5):
            write(place, *lines[at : at + 5])
        done = agent(config, "--once")
        assert done.returncode == 10, done.stdout
        assert "full" in done.stderr
        assert "has room" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", state], check=True)
        assert agent(config, "--once").returncode == 0
    finally:
        subprocess.run(["umount", state], check=True)
    ids = [event["id"] for event in stored(place)]
    assert len(ids) == len(set(ids)) == 2000


@AS_ROOT
def test_a_store_without_room_is_filled_when_there_is_some(place, config):
    store = place / "store"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", store], check=True)
    try:
        write(place, *(start(n) + end(n) for n in range(1000)))
        done = agent(config, "--once")
        assert done.returncode == 10
        assert "No space left on device" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", store], check=True)
        assert agent(config, "--once").returncode == 0
        ids = [event["id"] for event in stored(place)]
        assert len(ids) == len(set(ids)) == 1000
    finally:
        subprocess.run(["umount", store], check=True)


SQUAT = r"""
import os, sys
spool, uid, number = sys.argv[1], int(sys.argv[2]), 0
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
for victim in range(62000, 62050):
    path = f"{spool}/{victim}.jsonl"
    try:
        match victim % 5:
            case 0: os.mkfifo(path)
            case 1: os.symlink("/etc/shadow", path)
            case 2: os.makedirs(path + "/a/b")
            case 3: open(path, "w").write("garbage\n")
            case 4: os.link(f"{spool}/{uid}.jsonl", path)
    except OSError as error:
        sys.exit(f"{path}: {error}")
"""


@AS_ROOT
def test_squatters_are_cleared_away_and_nobody_else_loses_anything(place, config):
    """One user takes the places of fifty others; their records are heard from the next round on."""
    other = 61900
    file = place / "spool" / f"{other}.jsonl"
    file.write_bytes(start(1) + end(1))
    os.chown(file, other, other)
    file.chmod(0o600)
    subprocess.run([sys.executable, "-c", SQUAT, place / "spool", str(other)], check=True)
    assert agent(config, "--once").returncode == 0
    assert not list((place / "spool").iterdir())
    assert Path("/etc/shadow").exists()
    assert not stored(place)  # the squatter's own file had further names
    for victim in range(62000, 62050):
        file = place / "spool" / f"{victim}.jsonl"
        file.write_bytes(start(victim) + end(victim))
        os.chown(file, victim, victim)
        file.chmod(0o600)
    assert agent(config, "--once").returncode == 0
    assert len(stored(place)) == 50


@AS_ROOT
def test_a_users_own_environment_is_looked_at_with_the_users_rights(place, config):
    """The versions of an environment that only its user can read come into the event."""
    uid = 61901
    site = place / "home" / "lib" / "site-packages"
    info = site / "six-1.17.0.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("six.py,,\n")
    for path in (place / "home", *(place / "home").rglob("*")):
        os.chown(path, uid, uid)
        path.chmod(0o700)
    file = place / "spool" / f"{uid}.jsonl"
    file.write_bytes(start(1) + end(1, use={str(site): ["six"]}))
    os.chown(file, uid, uid)
    file.chmod(0o600)
    assert agent(config, "--once").returncode == 0
    (event,) = stored(place)
    assert event["packages"] == {"six": "1.17.0"}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_the_unit_is_one_that_systemd_takes(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/longrun-usage", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@AS_ROOT
@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="there is no systemd here")
def test_the_spool_that_tmpfiles_makes_is_one_that_the_agent_takes(place):
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={place}", TMPFILES], check=True)
    spool = place / "var/spool/longrun/usage"
    assert stat.S_IMODE(spool.stat().st_mode) == 0o1733
    file = place / "usage.toml"
    file.write_text(
        f'spool = "{spool}"\nstate = "{place}/state"\nstore = "lines"\n'
        f'[lines]\ndirectory = "{place}/store"\n'
    )
    script = f"umask 077; echo garbage > {spool}/61903.jsonl"
    subprocess.run(["sh", "-c", script], check=True, user=61903, group=61903, extra_groups=[])
    done = agent(file, "--once")
    assert done.returncode == 0, done.stderr
    assert "1 refused: not JSON" in done.stdout
