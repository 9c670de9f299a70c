#!/usr/bin/env python3
"""What the stack costs: time of the commands that change it, and disk of all its layers.

    ./benchmarks/stack.py [--package pymeasure] [--changed "paho-mqtt<2.2"]

Works on a clone of this checkout, with this machine's cache and package index; every layer has to
be built before (./build.py test does that). Times are of one run on this machine: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from longrun.config import load_config  # noqa: E402
from longrun.store import Store, disk_usage  # noqa: E402


def run(checkout: Path, *arguments: str) -> tuple[float, str]:
    """Seconds and output of a command of a checkout."""
    start = time.perf_counter()
    argv = [sys.executable, str(checkout / "build.py"), *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"build.py {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return time.perf_counter() - start, done.stdout + done.stderr


def change(checkout: Path, requirement: str) -> None:
    """Give a package another constraint, as a maintainer would, and lock it."""
    name, constraint = re.fullmatch(r"([\w-]+)(.+)", requirement).groups()  # type: ignore[union-attr]
    spec = checkout / "specs" / "packages" / f"{name}.toml"
    text = re.sub(r"(?m)^constraint = .*\n", "", spec.read_text())
    spec.write_text(text.replace("imports =", f'constraint = "{constraint}"\nimports =', 1))


def times(checkout: Path, package: str, changed: str) -> None:
    """Print how long the commands take, against a bare start of the same Python."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare = time.perf_counter() - start

    def row(what: str, seconds: float, more: str = "") -> None:
        print(f"{what:<50} {seconds:>7.2f} s {seconds / bare:>7.0f}x  {more}")

    row("bare start", bare)
    step = ("--step", "layer/controls-cp313")
    run(checkout, "build", "--layer", "controls", *step)
    row(
        "build --layer controls, nothing to do",
        run(checkout, "build", "--layer", "controls", *step)[0],
    )
    row("plan --layer all", run(checkout, "plan", "--layer", "all")[0])
    row("lock, nothing to do", run(checkout, "lock")[0])
    row(f"add {package}", run(checkout, "add", package, "--layer", "controls")[0])
    subprocess.run(["git", "checkout", "-q", "specs"], cwd=checkout, check=True)
    subprocess.run(["git", "clean", "-qfd", "specs"], cwd=checkout, check=True)
    change(checkout, changed)
    row(f"lock with {changed}", run(checkout, "lock")[0])
    seconds, output = run(checkout, "build", "--layer", "controls", *step)
    steps = ", ".join(re.findall(r"\] (\S+)", output))
    row("build --layer controls after that", seconds, steps)


def disk(checkout: Path) -> None:
    """Print what all layers take, against the sum of their sizes."""
    planned = json.loads(
        run(checkout, "plan", "--layer", "all", "--python", "3.13", "--python", "3.11", "--json")[1]
    )
    store = Store(load_config(os.environ).cache / "store")
    layers = [
        entry
        for step in planned["steps"]
        if step["id"].startswith("layer/") and (entry := store.get(step["key"]))
    ]
    for entry in layers:
        name, size, count = (entry.record[key] for key in ("id", "size", "count"))
        print(f"{name:<50} {size / 1e6:>7.0f} MB {count:>7} files")
    total, used = sum(entry.record["size"] for entry in layers), disk_usage(layers)
    print(f"{'sum of ' + str(len(layers)) + ' layers':<50} {total / 1e6:>7.0f} MB")
    print(f"{'on disk':<50} {used / 1e6:>7.0f} MB  {used / total:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", default="pymeasure")
    parser.add_argument("--changed", default="paho-mqtt<2.2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        checkout = Path(place) / "checkout"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
        disk(checkout)
        times(checkout, arguments.package, arguments.changed)


if __name__ == "__main__":
    main()
