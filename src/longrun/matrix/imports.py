"""How long libraries take to import, with the prefix's files in memory and without.

Each figure is a whole process, measured from outside: ``python -I -c "import X"`` to its end, less
a bare start of the same prefix. It tells of one machine, its disk and what else ran: compare ratios
within one matrix, not seconds between machines.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from longrun import fs
from longrun.errors import BuildError
from longrun.matrix.needs import realised
from longrun.matrix.report import ImportTime, StartTime
from longrun.model import Interpreter, Package, Release
from longrun.plan import make_plan
from longrun.run import outcome
from longrun.specs import Specs
from longrun.stack import load_stack
from longrun.store import Store

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


def survey(
    specs: Specs,
    release: Release,
    interpreters: tuple[Interpreter, ...],
    store: Store,
    say: Callable[[str], None],
) -> tuple[tuple[ImportTime, ...], tuple[StartTime, ...]]:
    """The first of the modules that each package names, in its own layer; and bare starts.

    One after another, on a machine that has nothing else to do. ``say`` hears what is measured.
    StoreError where a layer has not been built, BuildError where a module cannot be imported.
    """
    trees = _trees(specs, release, interpreters, store)
    imports: list[ImportTime] = []
    starts = []
    with tempfile.TemporaryDirectory(prefix="longrun-imports.") as place:
        home = Path(place)
        for interpreter in interpreters:
            tag, executable = interpreter.tag, _executable(interpreter)
            say(f"{tag}: start")
            start, _ = measure(trees[f"prefix/{interpreter.name}"], executable, {}, home, say)
            starts.append(StartTime(tag=tag, warm=start.warm, cold=start.cold))
            packages = load_stack(specs, release, interpreter).packages
            for layer in release.layers:
                modules = _modules(packages, layer)
                tree = trees[f"layer/{layer}-{tag}"]
                _, found = measure(tree, executable, modules, home, partial(_say, say, tag))
                imports += (
                    _row(tag, layer, name, modules[name], times) for name, times in found.items()
                )
    return tuple(imports), tuple(starts)


def _trees(
    specs: Specs, release: Release, interpreters: tuple[Interpreter, ...], store: Store
) -> dict[str, Path]:
    """All prefixes, bare and of layers, by the ids of their steps; StoreError before any run."""
    plan = make_plan(specs, release, interpreters, layers=tuple(release.layers))
    steps = {step.id: step for step in plan.steps}
    return {
        name: realised(store, steps[name], interpreter).tree
        for interpreter in interpreters
        for name in (
            f"prefix/{interpreter.name}",
            *(f"layer/{layer}-{interpreter.tag}" for layer in release.layers),
        )
    }


def _say(say: Callable[[str], None], tag: str, module: str) -> None:
    say(f"{tag}: import {module}")


def _row(tag: str, layer: str, name: str, module: str, times: Times) -> ImportTime:
    return ImportTime(
        tag=tag, name=name, module=module, layer=layer, warm=times.warm, cold=times.cold
    )


def _executable(interpreter: Interpreter) -> str:
    return f"python{interpreter.name.removeprefix('cpython-')}"


def _modules(packages: Mapping[str, Package], layer: str) -> dict[str, str]:
    """The module that stands for each package of a layer, by the package's name."""
    own = (package for package in packages.values() if package.layer == layer)
    return {package.name: package.imports[0] for package in own if package.imports}


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
