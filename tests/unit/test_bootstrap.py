"""Longrun's own environment: made once, from hashes, and never half-made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from longrun.bootstrap import cache_directory, environment_path
from longrun.config import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LONGRUN_CACHE": "/somewhere/cache"},
        {"XDG_CACHE_HOME": "/xdg"},
        {"XDG_CACHE_HOME": "relative"},
        {"LONGRUN_CONFIG": "{config}"},
    ],
)
def test_it_finds_the_cache_where_the_configuration_says(environ, monkeypatch, tmp_path):
    for name in ("LONGRUN_CACHE", "LONGRUN_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "config.toml"
    config.write_text('cache = "/from/config"\n')
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(config=config))
    assert cache_directory() == load_config(os.environ).cache


def test_another_lock_is_another_environment(tmp_path):
    (tmp_path / "requirements.lock").write_text("a==1")
    one = environment_path(tmp_path, tmp_path)
    (tmp_path / "requirements.lock").write_text("a==2")
    assert environment_path(tmp_path, tmp_path) != one


def test_every_requirement_has_a_hash_and_no_index_is_named():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "index" not in text
    requirements = [line for line in text.splitlines() if line[:1].isalnum()]
    assert len(requirements) > 10
    assert text.count("--hash=sha256:") >= len(requirements)


def fresh(tmp_path: Path, lock: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Start build.py in a checkout with this lock, with an empty cache and no index."""
    checkout = tmp_path / "checkout"
    checkout.mkdir(exist_ok=True)
    for name in ("build.py", "src", "specs", "patches"):
        if not (checkout / name).exists():
            (checkout / name).symlink_to(ROOT / name)
    (checkout / "requirements.lock").write_text(lock)
    # build.py follows links to find its checkout, so it is told by a copy
    (checkout / "build.py").unlink()
    (checkout / "build.py").write_text((ROOT / "build.py").read_text())
    env = {**os.environ, "LONGRUN_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1", **environ}
    argv = [sys.executable, str(checkout / "build.py"), "--version"]
    return subprocess.run(argv, env=env, capture_output=True, text=True)


def test_an_environment_that_cannot_be_made_says_why_and_is_made_anew_next_time(tmp_path):
    failed = fresh(tmp_path, "no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    assert failed.returncode == 8
    assert "no-such-package" in failed.stderr
    assert "remedy:" in failed.stderr
    assert "Traceback" not in failed.stderr
    again = fresh(tmp_path, "no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    assert again.returncode == 8, "a half-made environment was taken for a whole one"


def test_it_is_made_once_and_says_so(tmp_path):
    first = fresh(tmp_path, "")
    assert first.returncode == 0, first.stderr
    assert "preparing Longrun's own environment, once" in first.stderr
    second = fresh(tmp_path, "")
    assert second.returncode == 0
    assert second.stderr == ""
    assert second.stdout.startswith("longrun ")


def test_a_users_pythonpath_does_not_come_in(tmp_path):
    fresh(tmp_path, "")
    (tmp_path / "argparse.py").write_text("raise SystemExit('surprise')")
    done = fresh(tmp_path, "", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_ctrl_c_while_it_is_made_is_told_and_leaves_nothing_that_counts(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "src").symlink_to(ROOT / "src")
    (checkout / "build.py").write_text((ROOT / "build.py").read_text())
    (checkout / "requirements.lock").write_text((ROOT / "requirements.lock").read_text())
    env = {**os.environ, "LONGRUN_CACHE": str(tmp_path / "cache")}
    argv = ["env", "--default-signal=INT", sys.executable, str(checkout / "build.py"), "plan"]
    with subprocess.Popen(
        argv, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        assert program.stderr is not None
        assert "preparing" in program.stderr.readline()
        os.killpg(program.pid, signal.SIGINT)
        complaint = program.stderr.read()
    assert program.returncode == 130
    assert "interrupted" in complaint
    assert "Traceback" not in complaint
    assert not list((tmp_path / "cache").rglob(".ready"))
