"""How long libraries take to import, with the prefix's files in memory and without.

Each figure is a whole process, measured from outside: ``python -I -c "import X"`` to its end, less
a bare start of the same prefix. It tells of one machine, its disk and what else ran: compare ratios
within one matrix, not seconds between machines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from longrun import fs
from longrun.errors import BuildError
from longrun.model import Imports, Interpreter
from longrun.run import outcome
from longrun.steps.job import Job

MOST = 3
"""Warm runs of one import; two where it is slow."""

ENOUGH = 0.5
"""Seconds of warm runs after which there are no more."""

LIMIT = 120
"""Seconds after which an import is killed."""

BARE_START = "pass"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of elapsed time; ``cold`` is after the prefix's files were dropped from memory."""

    warm: float
    cold: float

    def less(self, start: Times) -> Times:
        """What is beyond a bare start; never below 0, for the smallest are within the noise."""
        return Times(warm=max(0.0, self.warm - start.warm), cold=max(0.0, self.cold - start.cold))


def build(job: Job) -> None:
    """Measure the bare interpreter's start and each module's import, one after another.

    ``job.out`` gets ``imports.json``. BuildError where a module cannot be imported. Nothing else
    ought to run beside.
    """
    spec = job.spec
    assert isinstance(spec, Imports)
    tag, executable = spec.interpreter.tag, _executable(spec.interpreter)
    home = job.work
    job.say("start")
    bare = job.inputs[f"prefix/{spec.interpreter.name}"]
    start, _ = measure(bare, executable, {}, home, job.say)
    found = {}
    for layer, modules in spec.modules.items():
        tree = job.inputs[f"layer/{layer}-{tag}"]
        _, times = measure(tree, executable, modules, home, lambda name: job.say(f"import {name}"))
        found[layer] = {name: asdict(each) for name, each in times.items()}
    document = {"start": asdict(start), "imports": found}
    (job.out / "imports.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read(tree: Path) -> tuple[Times, dict[str, dict[str, Times]]]:
    """Of an entry: the bare start, and the imports by layer and package."""
    document = json.loads((tree / "imports.json").read_bytes())
    found = {
        layer: {name: Times(**each) for name, each in rows.items()}
        for layer, rows in document["imports"].items()
    }
    return Times(**document["start"]), found


def _executable(interpreter: Interpreter) -> str:
    return f"python{interpreter.name.removeprefix('cpython-')}"


def measure(
    prefix: Path,
    executable: str,
    modules: Mapping[str, str],
    home: Path,
    say: Callable[[str], None],
) -> tuple[Times, dict[str, Times]]:
    """A bare start of a prefix's interpreter, and the import of each module less that, by name.

    ``executable`` is its name in ``bin``; ``home`` is where libraries may write, such as matplotlib
    its list of fonts; ``say`` hears each module. BuildError where one cannot be imported.
    """
    files = [entry.path for _, entry in fs.walk(prefix) if entry.is_file(follow_symlinks=False)]
    os.sync()  # what was only just built is not on disk yet, and would stay in memory
    python = _Python(prefix / "bin" / executable, home, files)
    start = python.times(BARE_START)
    found = {}
    for name, module in modules.items():
        say(module)
        found[name] = python.times(f"import {module}").less(start)
    return start, found


@dataclass(frozen=True)
class _Python:
    """An interpreter, with a home for it and the files that it may read."""

    path: Path
    home: Path
    files: Iterable[str]

    def times(self, code: str) -> Times:
        # not cold at first: the first run may write into HOME, and no user waits twice for that
        warm = [self.seconds(code)]
        drop(self.files)
        cold = self.seconds(code)
        warm.append(self.seconds(code))
        while len(warm) < MOST and sum(warm) < ENOUGH:
            warm.append(self.seconds(code))
        return Times(warm=min(warm), cold=cold)

    def seconds(self, code: str) -> float:
        """Elapsed time of one process; BuildError where it does not succeed."""
        argv = ["timeout", "--signal=KILL", str(LIMIT), str(self.path), "-I", "-c", code]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        begin = perf_counter()
        status, printed, complaint = outcome(argv, env=env, cwd=self.home)
        seconds = perf_counter() - begin
        if status:
            raise self._failure(code, status, complaint or printed, seconds)
        return seconds

    def _failure(self, code: str, status: int, said: str, seconds: float) -> BuildError:
        lines = said.strip().splitlines()
        last = lines[-1] if lines else f"exit status {status}"
        reason = f"killed after {LIMIT} s" if seconds >= LIMIT else last
        return BuildError(
            f"{code} in {self.path.parents[1]}: {reason}",
            remedy="the specs of packages name the modules, under `imports`; "
            "./build.py verify shows whether files are damaged",
        )


def drop(files: Iterable[str]) -> None:
    """Let the system forget the content of files, so that the next one to read them waits.

    It keeps what a program has mapped now, what is not on disk yet and what a RAM disk holds; and
    always the names and inodes, and libraries that are not of the prefix. The disk and the host of
    a virtual machine have caches of their own. So the next run is as cold as one can have it
    without root's rights, and not as slow as the first after the machine's start.
    """
    for path in files:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
