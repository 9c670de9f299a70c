"""A cage holds what a check may see, and what runs in it is ended with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from check_maker import make_prefix

from longrun import cage as cage_module
from longrun import inside
from longrun.cage import NAMESPACES, SESSION, Attempt, Cage, confinement, machine, namespaces
from longrun.errors import SetupError

KINDS = [SESSION, pytest.param(NAMESPACES, marks=pytest.mark.skipif(not namespaces(), reason="no"))]


def run(
    directory: Path, program: str, *, isolation: str = SESSION, seconds: int = 20
) -> tuple[Attempt, str]:
    """What came of a check's program, and its log."""
    programs, out = directory / "checks", directory / "out"
    programs.mkdir()
    out.mkdir()
    out.chmod(0o777)
    (programs / "check_it.py").write_text(program)
    cage = Cage(
        root=None,
        prefix=make_prefix(directory / "prefix"),
        stem="longrun-2026.1-cp313-base",
        programs=programs,
        out=out,
    )
    command = cage.command(isolation, "python3.13", "check_it.py", seconds)
    env = {**os.environ, "PYTHONPATH": "/nowhere", "HOME": str(directory)}
    subprocess.run(command, check=True, cwd=directory, env=env, timeout=60)
    result: dict[str, Any] = json.loads((out / "result.json").read_bytes())
    attempt = Attempt(**{**result, "orphans": tuple(result["orphans"])})
    return attempt, (out / "log.txt").read_text()


@pytest.mark.parametrize("isolation", KINDS)
def test_what_ends_well_passed_and_its_use_is_known(tmp_path, isolation):
    program = "block = b'x' * 60_000_000; print('fine'); import sys; print('too', file=sys.stderr)"
    attempt, log = run(tmp_path, program, isolation=isolation)
    assert attempt.passed
    assert sorted(log.split()) == ["fine", "too"]
    assert 60_000_000 < attempt.memory < 1_000_000_000
    assert attempt.cpu > 0
    assert attempt.seconds > 0


@pytest.mark.parametrize("isolation", KINDS)
def test_a_status_and_a_signal_after_good_words_count(tmp_path, isolation):
    status, _ = run(tmp_path / _made(tmp_path, "a"), "print('ok'); exit(3)", isolation=isolation)
    assert not status.passed
    assert status.status == 3
    program = "import os; print('ok', flush=True); os.abort()"
    killed, log = run(tmp_path / _made(tmp_path, "b"), program, isolation=isolation)
    assert not killed.passed
    assert killed.status == -signal.SIGABRT
    assert log == "ok\n"


def _made(directory: Path, name: str) -> str:
    (directory / name).mkdir()
    return name


@pytest.mark.parametrize("isolation", KINDS)
def test_what_hangs_after_good_words_is_killed(tmp_path, isolation):
    program = "import time; print('all ok', flush=True); time.sleep(600)"
    attempt, log = run(tmp_path, program, isolation=isolation, seconds=1)
    assert attempt.timed_out
    assert not attempt.passed
    assert log == "all ok\n"


ORPHAN = """
import subprocess, sys
words = [sys.executable, "-c", "import time; time.sleep(600)", "left-behind"]
subprocess.Popen(words, start_new_session=True)
"""


@pytest.mark.parametrize("isolation", KINDS)
def test_what_is_left_running_is_told_and_killed(tmp_path, isolation):
    attempt, _ = run(tmp_path, ORPHAN, isolation=isolation)
    assert attempt.status == 0
    assert not attempt.passed
    assert any("left-behind" in command for command in attempt.orphans)
    assert not _running("left-behind")


def _running(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in command and "time.sleep(600)" in command and "subprocess" not in command:
            found.append(command)
    return found


def test_a_child_that_ends_a_moment_later_is_no_orphan(tmp_path):
    program = "import subprocess; subprocess.Popen(['sleep', '0.3'], start_new_session=True)"
    attempt, _ = run(tmp_path, program)
    assert attempt.passed


@pytest.mark.parametrize("isolation", KINDS)
def test_the_environment_is_bare(tmp_path, isolation):
    _, log = run(tmp_path, "import os; print(*sorted(os.environ))", isolation=isolation)
    assert set(log.split()) <= {"LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "TZ"}


SEEN = """
import json, os, socket, sys
def attempt(what, *arguments):
    try:
        return repr(what(*arguments))
    except OSError as error:
        return type(error).__name__
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
print(json.dumps({
    "user": os.getuid(),
    "home": os.listdir("/root") + os.listdir("/home"),
    "tmp": os.listdir("/tmp"),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "outside": attempt(socket.create_connection, ("192.0.2.1", 80), 2),
    "pids": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "prefix": sys.argv[0],
    "write": attempt(open, os.path.dirname(sys.argv[0]) + "/x", "w"),
    "etc": attempt(open, "/etc/x", "w"),
    "name": socket.gethostbyname(socket.gethostname()),
    "own": attempt(open, "own", "w"),
}))
"""


@pytest.mark.skipif(not namespaces(), reason="bubblewrap may make no namespaces here")
def test_a_check_sees_nothing_but_its_cage(tmp_path):
    (tmp_path / "secret").write_text("of the user")
    attempt, log = run(tmp_path, SEEN, isolation=NAMESPACES)
    assert attempt.passed, log
    found = json.loads(log)
    assert found["user"] == 65534
    assert found["home"] == found["tmp"] == []
    assert found["interfaces"] == ["lo"]
    assert found["outside"] == "OSError", "there is no way out: network unreachable"
    assert found["pids"] <= 4
    assert found["prefix"] == "/opt/longrun/checks/check_it.py"
    assert found["write"] == found["etc"] == "OSError"
    assert found["name"] == "127.0.0.1"
    assert "TextIOWrapper" in found["own"]


def test_without_namespaces_only_the_machines_own_system_is_left(monkeypatch):
    monkeypatch.setattr(cage_module, "namespaces", lambda: False)
    assert confinement(own_system=True) == SESSION
    with pytest.raises(SetupError, match="bubblewrap") as caught:
        confinement(own_system=False)
    assert "--where host" in caught.value.remedy


def test_the_result_is_written_in_one_go(tmp_path):
    """A killed cage leaves no half result."""
    source = Path(inside.__file__)
    command = [sys.executable, "-I", "-S", str(source), str(tmp_path), "-", "20", "/bin/true"]
    subprocess.run(command, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_this_machine_is_known_by_the_c_library_that_it_runs():
    told = subprocess.run(["ldd", "--version"], check=True, capture_output=True, text=True).stdout
    title, glibc = machine()
    assert told.splitlines()[0].endswith(f" {glibc}")
    assert title
