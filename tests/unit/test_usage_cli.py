"""``longrun-usage`` as a person or a script meets it, from the checkout and as one file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from usage_maker import end, start

from longrun.cli import main as build
from longrun.usage.cli import main
from longrun.usage.program import SHARED, program

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "longrun"

HOOKED = r"""
import json, os, sys
uid, spool = os.getuid(), os.environ["LONGRUN_USAGE"]
file = os.open(f"{spool}/{uid}.jsonl", os.O_WRONLY | os.O_APPEND)  # as the hook, it makes none
assert os.fstat(file).st_mode & 0o777 == 0o600
os.write(file, bytes.fromhex(sys.argv[1]))
print("the command's own output")
sys.exit(int(sys.argv[2]))
"""


def hooked(*lines: bytes, status: int = 0) -> list[str]:
    """A command that leaves records, as one with the hook does."""
    return [sys.executable, "-c", HOOKED, b"".join(lines).hex(), str(status)]


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """A spool and a configuration that the environment names."""
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o1733)
    file = tmp_path / "usage.toml"
    file.write_text(
        f'spool = "{spool}"\nstate = "{tmp_path}/state"\nstore = "lines"\nhost = "console7"\n'
        f'[lines]\ndirectory = "{tmp_path}/lines"\n'
    )
    monkeypatch.setenv("LONGRUN_USAGE_CONFIG", str(file))
    return file


def spooled(tmp_path: Path, *lines: bytes) -> None:
    file = tmp_path / "spool" / f"{os.getuid()}.jsonl"
    file.write_bytes(b"".join(lines))
    file.chmod(0o600)


def test_show_prints_what_would_be_recorded_and_ends_as_the_command(capfd):
    lines = (start(1, forbidden=["PYTHONPATH"]), end(1, exit="exception", exc="ValueError"))
    assert main(["show", *hooked(*lines, status=7)]) == 7
    printed = capfd.readouterr().out
    assert printed.index("the command's own output") < printed.index("Would be recorded")
    for words in ("-m orbit", "3.13.5 of Longrun 2026.1, layer controls", "PYTHONPATH"):
        assert words in printed
    assert "an exception ended it (ValueError), after 2.5 s" in printed
    assert "Never recorded: arguments" in printed


def test_show_as_json_is_json_alone(capfd):
    assert main(["show", "--json", "--", *hooked(start(1), b"garbage\n", end(1))]) == 0
    told = capfd.readouterr()
    document = json.loads(told.out)
    assert "the command's own output" in told.err
    assert [json.loads(line)["k"] for line in (document["records"][0], document["records"][2])] == [
        "start",
        "end",
    ]
    assert document["refused"] == ["not JSON: b'garbage'"]
    (event,) = document["events"]
    assert (event["name"], event["host"], event["exit"]) == ("orbit", "console7", "ok")


def test_show_looks_up_the_versions(capfd, tmp_path):
    info = tmp_path / "site" / "six-1.17.0.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("six.py,,\n")
    lines = hooked(start(1), end(1, use={str(tmp_path / "site"): ["six"]}))
    main(["show", "--json", *lines])
    assert json.loads(capfd.readouterr().out)["events"][0]["packages"] == {"six": "1.17.0"}


def test_show_says_so_where_nothing_would_be_recorded(capfd):
    assert main(["show", "sh", "-c", "exit 3"]) == 3
    assert "Nothing would be recorded of sh" in capfd.readouterr().out


def test_show_tells_a_commands_signal_as_a_shell_does():
    assert main(["show", "sh", "-c", "kill -TERM $$"]) == 143


def test_show_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    main(["show", *hooked(start(1))])
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["show"], 2, "no command"),
        (["show", "no-such-program"], 2, "no-such-program: not found"),
        (["agent", "--once", "--config", "/nonexistent"], 3, "/nonexistent: not found"),
        (["status"], 10, "no agent has run here"),
    ],
)
def test_an_error_has_its_exit_code_a_cause_and_a_remedy(capsys, argv, status, words):
    assert main(argv) == status
    told = capsys.readouterr().err
    assert words in told
    assert "remedy: " in told


def test_once_collects_and_tells(tmp_path, capsys):
    spooled(tmp_path, start(1), b"garbage\n", end(1))
    assert main(["agent", "--once"]) == 0
    assert "1 events, 2 records, 1 refused: not JSON; 0 events wait" in capsys.readouterr().out
    spooled(tmp_path, start(2), end(2))
    assert main(["agent", "--once", "--json", "--metrics", str(tmp_path / "m.prom")]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == {"events": 1, "records": 2}
    assert "longrun_usage_events_total 2" in (tmp_path / "m.prom").read_text()


def test_status_tells_people_and_scripts(tmp_path, capsys):
    spooled(tmp_path, start(1), b"garbage\n", end(1))
    main(["agent", "--once"])
    spooled(tmp_path, start(2))
    capsys.readouterr()
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "1 not JSON" in printed
    assert "1 files" in printed
    assert main(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["refused"] == {"not JSON": 1}
    assert document["counters"]["events"] == 1
    assert document["last_stored"] > 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_status_for_others_is_an_error_with_a_remedy():
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    code += "import os, locale, longrun.usage.status; from longrun.usage.cli import main\n"
    code += "os.setresuid(61234, 61234, 61234); sys.exit(main(['status', '--config', sys.argv[1]]))"
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "state").mkdir(mode=0o700)
        config = Path(name) / "usage.toml"
        config.write_text(f'state = "{name}/state"\n')
        config.chmod(0o644)
        argv = [sys.executable, "-c", code, str(config)]
        done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 10
    assert "Permission denied" in done.stderr
    assert "run this as root" in done.stderr


def test_a_store_that_is_away_is_a_status_that_a_script_sees(tmp_path, capsys):
    spooled(tmp_path, start(1), end(1))
    (tmp_path / "lines").write_text("in the way")
    assert main(["agent", "--once"]) == 10
    assert "asked again in" in capsys.readouterr().err
    assert main(["status"]) == 10
    assert "1 events" in capsys.readouterr().out
    (tmp_path / "lines").unlink()
    assert main(["agent", "--once"]) == 0
    assert main(["status"]) == 0


# one file


@pytest.fixture
def file(tmp_path):
    target = tmp_path / "longrun-usage"
    target.write_bytes(program(PACKAGE))
    target.chmod(0o755)
    return target


def test_the_program_is_the_same_bytes_wherever_it_is_made(tmp_path):
    copy = tmp_path / "elsewhere"
    for name in (*SHARED, "usage"):
        subprocess.run(["cp", "-R", PACKAGE / name, _made(copy) / name], check=True)
    (copy / "usage" / "__pycache__" / "x.pyc").parent.mkdir(exist_ok=True)
    (copy / "usage" / "__pycache__" / "x.pyc").write_text("x")
    (copy / "usage" / ".swp").write_text("x")
    assert program(copy) == program(PACKAGE)
    with zipfile.ZipFile(io.BytesIO(program(PACKAGE))) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def _made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


def test_the_program_needs_the_standard_library_alone(file, tmp_path):
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in (PACKAGE / "usage").rglob("*.py")
        if path.name != "__main__.py"
    ]
    code = f"import sys; sys.path.insert(0, {str(file)!r}); import {', '.join(modules)}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path)


def test_the_program_collects(file, tmp_path):
    spooled(tmp_path, start(1), end(1))
    done = subprocess.run(
        [sys.executable, "-I", "-S", file, "agent", "--once", "--json"],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout)["new"] == {"events": 1, "records": 2}


def test_the_program_says_what_an_old_python_lacks(file):
    code = (
        "import runpy, sys; sys.version_info = (3, 6, 8); sys.version = '3.6.8 (default)';"
        f"runpy.run_path({str(file)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Python 3.11 or later is needed, this is 3.6.8" in done.stderr
    assert "remedy: " in done.stderr


def test_build_writes_the_program_with_its_sum_and_runs_its_verbs(tmp_path, capsys):
    source = tmp_path / "checkout"
    (source / "src").mkdir(parents=True)
    (source / "src" / "longrun").symlink_to(PACKAGE)
    assert build(source, ["usage-program"]) == 0
    target = source / "dist" / "longrun-usage"
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert f"{digest}  longrun-usage\n" in (source / "dist" / "SHA256SUMS").read_text()
    assert digest in capsys.readouterr().out
    assert os.access(target, os.X_OK)
    assert build(source, ["usage-program", "--out", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other").read_bytes() == target.read_bytes()
    assert build(source, ["usage", "status"]) == 10
