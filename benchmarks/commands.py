#!/usr/bin/env python3
"""How long the commands that people type all day take, against a bare start of the same Python.

    ./benchmarks/commands.py [--runs 15]

Commands and the bare start run in turn, so that a machine that gets slower does so for all; read
the ratios, the milliseconds are of this machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build.py"
COMMANDS = {
    "bare start": ["-c", "pass"],
    "build.py --help": [str(BUILD), "--help"],
    "build.py plan": [str(BUILD), "plan"],
    "build.py plan --json": [str(BUILD), "plan", "--json"],
    "build.py why openssl": [str(BUILD), "why", "openssl"],
    "build.py build (no-op)": [str(BUILD), "build", "--offline"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    bare = statistics.median(times["bare start"])
    print(f"{'command':<24} {'median':>9} {'min':>9} {'ratio':>7}")
    for name, found in times.items():
        middle, least = statistics.median(found), min(found)
        print(f"{name:<24} {middle * 1e3:>6.0f} ms {least * 1e3:>6.0f} ms {middle / bare:>6.1f}x")


if __name__ == "__main__":
    main()
