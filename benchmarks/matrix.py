#!/usr/bin/env python3
"""What the matrix costs beside its checks: a cage, and a run with nothing to do.

    ./benchmarks/matrix.py [--runs 10]

First a check that does nothing, with a layer's own interpreter: plain, and in each kind of cage.
Then `matrix` with every cell in the store, against a bare start of the Python that runs Longrun; it
needs a `./build.py matrix` before. All in turn: read the ratios, the milliseconds are of this
machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build.py"
sys.path.insert(0, str(ROOT / "src"))

from longrun.cage import NAMESPACES, SESSION, Cage, namespaces  # noqa: E402


def step(*argv: str) -> Path:
    """The tree of a step that is built."""
    command = [str(BUILD), "build", "--layer", "all", *argv]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(done.stdout.split()[-1])


def cages(scratch: Path) -> dict[str, list[str]]:
    """The commands that run a check that does nothing: plain, in a session, in namespaces."""
    prefix = step("--python", "3.13", "--step", "layer/base-cp313")
    programs, out = scratch / "checks", scratch / "out"
    programs.mkdir()
    out.mkdir()
    out.chmod(0o777)
    scratch.chmod(0o755)
    (programs / "check_nothing.py").write_text("pass\n")
    cage = Cage(root=None, prefix=prefix, stem="prefix", programs=programs, out=out)
    plain = [str(prefix / "bin" / "python3.13"), str(programs / "check_nothing.py")]
    kinds = [SESSION, NAMESPACES] if namespaces() else [SESSION]
    commands = {"check, plain": plain}
    for kind in kinds:
        commands[f"check in {kind}"] = cage.command(kind, "python3.13", "check_nothing.py", 60)
    return commands


def measure(commands: dict[str, list[str]], runs: int) -> None:
    """Run them in turn; print medians, and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for argv in commands.values():
        seconds(argv)
    for _ in range(runs):
        for name, argv in commands.items():
            times[name].append(seconds(argv))
    first = statistics.median(next(iter(times.values())))
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:<28} {middle * 1e3:>7.0f} ms {middle / first:>6.1f}x")


def seconds(argv: list[str]) -> float:
    """Elapsed time of a program that must succeed."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="longrun-benchmark-") as scratch:
        measure(cages(Path(scratch)), runs)
    bare = [sys.executable, "-c", "pass"]
    warm = [str(BUILD), "matrix", "--offline"]
    print()
    measure({"bare start": bare, "matrix, nothing to do": warm}, max(3, runs // 3))


if __name__ == "__main__":
    main()
