"""Starting programs: what they inherit, and what they do not."""

from __future__ import annotations

import signal
import subprocess

import pytest

from longrun.errors import BuildError, SetupError
from longrun.run import output, stream, succeeds


@pytest.fixture
def in_the_background():
    """SIGINT is ignored, as in what a background shell starts."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_long_program_can_be_interrupted_though_its_parent_cannot(in_the_background, tmp_path):
    lines: list[str] = []
    status = stream(
        ["sh", "-c", "kill -INT $$; echo still here"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        log=tmp_path / "log",
        line=lines.append,
    )
    assert status == -signal.SIGINT
    assert lines == []
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_long_programs_lines_come_one_by_one_and_into_the_log(tmp_path):
    lines: list[str] = []
    argv = ["sh", "-c", "echo one; echo two >&2; exit 3"]
    env = {"PATH": "/usr/bin:/bin"}
    assert stream(argv, cwd=tmp_path, env=env, log=tmp_path / "log", line=lines.append) == 3
    assert sorted(lines) == ["one", "two"]
    assert (tmp_path / "log").read_text().split() == lines


def test_a_long_program_ends_with_the_one_who_watches_it(tmp_path):
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    mark = tmp_path / "mark"
    argv = ["sh", "-c", f"echo go; sleep 1; touch {mark}"]
    env = {"PATH": "/usr/bin:/bin"}
    with pytest.raises(KeyboardInterrupt):
        stream(argv, cwd=tmp_path, env=env, log=tmp_path / "log", line=stop)
    subprocess.run(["sleep", "1.5"], check=True)
    assert not mark.exists()


def test_short_programs_say_what_went_wrong():
    assert output(["sh", "-c", "echo yes"]) == "yes\n"
    with pytest.raises(BuildError, match="sh failed: oh no"):
        output(["sh", "-c", "echo oh no >&2; exit 1"])
    with pytest.raises(SetupError, match="no-such-program: not found"):
        output(["no-such-program"])
    assert not succeeds(["no-such-program"])
