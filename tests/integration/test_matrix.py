"""The matrix on really built layers: this machine's own system, and an older one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"passed", "flaky", "gap"}

ELSEWHERE = ("numerics", "softioc", "pytango-db", "pyqt5", "jpype")
"""Checks of this size that stand for compiled numbers, EPICS, Tango, Qt and Java."""


def matrix(*argv: str) -> dict[str, Any]:
    """The JSON of a matrix; the run's own log is shown where the test fails."""
    command = [ROOT / "build.py", "matrix", "--json", *argv]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == found["ok"]
    return found


def bad(found: dict[str, Any]) -> list[str]:
    """The cells that fail a run, with the reason."""
    return [
        f"{cell['check']} {cell['tag']} {cell['system']}: {cell['state']}: {cell['why']}"
        for cell in found["cells"]
        if cell["state"] not in GOOD
    ]


def test_every_check_holds_with_every_interpreter_on_this_machine():
    found = matrix("--where", "host")
    assert not bad(found)
    assert {cell["tag"] for cell in found["cells"]} == {"cp313", "cp311"}
    specs = {path.stem for path in (ROOT / "specs" / "checks").glob("*.toml")}
    assert {cell["check"] for cell in found["cells"]} == specs


def test_the_oldest_system_runs_the_same_prefixes(tmp_path):
    names = [word for name in ELSEWHERE for word in ("--check", name)]
    found = matrix("--where", "bullseye", *names, "--output", str(tmp_path))
    assert not bad(found)
    assert len(found["cells"]) == 2 * len(ELSEWHERE)
    assert {cell["isolation"] for cell in found["cells"]} <= {"namespaces", "engine"}
    page = (tmp_path / "longrun-2026.1-matrix.html").read_text()
    assert "Debian 11" in page


def test_a_check_can_be_run_by_hand_and_its_cage_looked_at():
    command = [sys.executable, str(ROOT / "build.py"), "check", "numerics", "--python", "3.13"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok  " in done.stdout, "its log as it comes"
    assert "passed" in done.stdout
    done = subprocess.run(
        [*command, "--shell"],
        input="id -u; ls /root /home; python3.13 -c 'import numpy; print(numpy.__name__)'\n",
        check=False,
        capture_output=True,
        text=True,
    )
    assert "65534" in done.stdout
    assert "numpy" in done.stdout
