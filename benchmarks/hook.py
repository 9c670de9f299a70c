#!/usr/bin/env python3
"""What the start-up hook costs: time, instructions and system calls of a start, and its exit.

    ./benchmarks/hook.py PREFIX... [--unpatched PREFIX...] [--runs 500]

Each prefix is copied; in a second copy the hook's file is removed, and a third may be given that
was built without its patches. All are started in turn, in one run, so that what else the machine
does falls on all of them: read the differences, not the times. Instructions are counted by
valgrind, system calls by strace; where one of them is missing, so are its rows.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODULES = 1500
PACKAGES = 300
"""Of the modules, so many are packages of their own; the others are inside them."""

IMPORT_ALL = """
import marshal, posix, sys, time
sys.path.insert(0, {here!r})
for n in range({packages}):
    __import__(f"package_{{n:03}}")
    for m in range({inside}):
        __import__(f"package_{{n:03}}.module_{{m}}")
hook = {{"__name__": "measured"}}
exec(marshal.loads(open({bytecode!r}, "rb").read()[16:]), hook)
path = b"%b/%d.jsonl" % (posix.environ[b"LONGRUN_USAGE"], posix.geteuid())
end = hook["end"](path, hook["FLAGS"], "1-f", 0, posix.getpid(), 0)
next(end)
begin = time.perf_counter_ns()
end.close()
print(time.perf_counter_ns() - begin, len(sys.modules))
"""

PHASES = range(0, 2000, 400)
"""Objects that a program makes beside: a collection of garbage costs as much as the whole hook, and
which program comes to the next one is chance. So the mean over where it falls is taken as well."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A prefix to start, and the environment to do it in."""

    name: str
    python: str
    env: dict[str, str]

    def argv(self, *words: str) -> list[str]:
        return [self.python, *words]


def variants(prefix: Path, unpatched: Path | None, place: Path) -> list[Variant]:
    """Copies with the hook, without its file, and without its patches."""
    python = version(prefix)
    spool = place / "spool"
    spool.mkdir()
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(place), "PYTHONHASHSEED": "0"}
    found = []
    # names of one length, since paths are part of the work
    for name, source in (("with", prefix), ("none", prefix), ("bare", unpatched)):
        if source:
            copy = place / name
            shutil.copytree(source, copy, symlinks=True)
            for path in copy.rglob("*_longrun_usage.*"):
                if name != "with":
                    path.parent.chmod(0o755)
                    path.unlink()
            usage = {"LONGRUN_USAGE": str(spool)}
            found.append(
                Variant(name=name, python=str(copy / "bin" / python), env={**env, **usage})
            )
    return found


def version(prefix: Path) -> str:
    """Such as ``python3.13``."""
    (library,) = (prefix / "lib").glob("python3.*/os.py")
    return library.parent.name


def empty_spool(place: Path) -> Path:
    """The spool's file, with nothing in it: the hook makes none where a variable leads."""
    file = place / "spool" / f"{os.geteuid()}.jsonl"
    file.write_bytes(b"")
    file.chmod(0o600)
    return file


def starts(
    found: list[Variant], place: Path, runs: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each start, elapsed and of the processor; every round has each variant once.

    The second does not count the time in which other programs had the processor.
    """
    times: dict[str, list[float]] = {each.name: [] for each in found}
    used: dict[str, list[float]] = {each.name: [] for each in found}
    for round_ in range(runs + 20):
        empty_spool(place)
        for each in random.sample(found, len(found)):
            begin = time.perf_counter_ns()
            pid = os.posix_spawn(each.python, each.argv("-c", "pass"), each.env)
            _, _, usage = os.wait4(pid, 0)
            if round_ >= 20:  # the first ones read files from disk
                times[each.name].append((time.perf_counter_ns() - begin) / 1e6)
                used[each.name].append((usage.ru_utime + usage.ru_stime) * 1e3)
    return times, used


def difference(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Median of the paired differences, and its 95 % confidence interval by resampling."""
    paired = [a - b for a, b in zip(one, other, strict=True)]
    medians = sorted(statistics.median(random.choices(paired, k=len(paired))) for _ in range(2000))
    return statistics.median(paired), medians[50], medians[1949]


def instructions(each: Variant, code: str) -> int:
    """Instructions of one start, in the program itself."""
    argv = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*argv, *each.argv("-c", code)], env=each.env, capture_output=True, text=True, check=True
    )
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])  # type: ignore[index]


def system_calls(each: Variant, place: Path) -> dict[str, int]:
    """System calls of one start, by name."""
    log = place / "strace"
    argv = ["strace", "-o", str(log), *each.argv("-c", "pass")]
    subprocess.run(argv, env=each.env, check=True)
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        if found := re.match(r"(\w+)\(", line):
            counts[found[1]] = counts.get(found[1], 0) + 1
    return counts


def exit_cost(each: Variant, place: Path) -> tuple[list[float], str]:
    """Milliseconds of the end record, each in a process of its own, with many modules loaded."""
    python = Path(each.python)
    env = place / "env"
    subprocess.run([python, "-m", "venv", "--without-pip", env], env=each.env, check=True)
    packages = env / "lib" / version(python.parents[1]) / "site-packages"
    inside = MODULES // PACKAGES - 1
    for n in range(PACKAGES):
        directory = packages / f"package_{n:03}"
        directory.mkdir()
        for name in ("__init__", *(f"module_{m}" for m in range(inside))):
            (directory / f"{name}.py").write_text("value = 1\n")
    (bytecode,) = python.parents[1].glob("lib/python3.*/__pycache__/_longrun_usage.*.pyc")
    code = IMPORT_ALL.format(
        here=str(packages), packages=PACKAGES, inside=inside, bytecode=str(bytecode)
    )
    costs, said = [], ""
    for _ in range(21):
        empty_spool(place)
        argv = [env / "bin" / "python", "-c", code]
        out = subprocess.run(argv, env=each.env, check=True, capture_output=True, text=True).stdout
        said = out.split(maxsplit=1)[1].strip()
        costs.append(int(out.split()[0]) / 1e6)
    return costs[1:], said


def measure(prefix: Path, unpatched: Path | None, runs: int) -> None:
    """Print the table of one interpreter."""
    with tempfile.TemporaryDirectory(prefix="longrun-hook.") as directory:
        place = Path(directory)
        found = variants(prefix, unpatched, place)
        print(f"\n{version(prefix)}: {runs} starts of each, in turn, of `-c pass`")
        for what, measured in zip(
            ("elapsed", "processor"), starts(found, place, runs), strict=True
        ):
            print(f"  {what}")
            base = statistics.median(measured["none"])
            for each in found:
                middle = statistics.median(measured[each.name])
                delta, low, high = difference(measured[each.name], measured["none"])
                print(
                    f"    {NAMES[each.name]:<26} {middle:8.3f} ms   {delta * 1000:+7.1f} us "
                    f"[{low * 1000:+.1f}, {high * 1000:+.1f}]   {delta / base:+.2%}"
                )
        if shutil.which("valgrind"):
            compare_instructions(found, place, ["pass"], "instructions, `-c pass`")
            codes = [f"x = [[] for _ in range(int('{n:04}'))]" for n in PHASES]
            compare_instructions(found, place, codes, "instructions, wherever a collection falls")
        if shutil.which("strace"):
            empty_spool(place)
            calls = {each.name: system_calls(each, place) for each in found}
            for name, counts in calls.items():
                print(f"  {NAMES[name]:<28} {sum(counts.values()):8} system calls")
            more = {
                call: count - calls["none"].get(call, 0) for call, count in calls["with"].items()
            }
            added = ", ".join(f"{call} {n:+}" for call, n in sorted(more.items()) if n)
            print(f"  {'':<28} the hook's: {added}")
        costs, said = exit_cost(found[0], place)
        print(
            f"  end record, {said.split()[0]} modules loaded: median {statistics.median(costs):.3f}"
            f" ms, worst of {len(costs)}: {max(costs):.3f} ms"
        )


def compare_instructions(found: list[Variant], place: Path, codes: list[str], title: str) -> None:
    """Print the mean number of instructions over some programs."""
    print(f"  {title}")
    counted = {}
    for each in found:
        empty_spool(place)
        counted[each.name] = statistics.mean(instructions(each, code) for code in codes)
    for name, count in counted.items():
        more = count - counted["none"]
        print(
            f"    {NAMES[name]:<26} {count / 1e6:8.3f} M   {more / 1e3:+7.1f} k"
            f"   {more / counted['none']:+.2%}"
        )


NAMES = {"with": "with the hook", "none": "its file removed", "bare": "without its patches"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path, nargs="+")
    parser.add_argument("--unpatched", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=500)
    arguments = parser.parse_args()
    bare = {version(prefix): prefix for prefix in arguments.unpatched}
    for prefix in arguments.prefix:
        measure(prefix, bare.get(version(prefix)), arguments.runs)


if __name__ == "__main__":
    main()
