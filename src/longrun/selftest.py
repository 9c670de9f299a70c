"""CPython's own test suite, run on a sealed prefix.

The suite is not shipped: it is taken from the interpreter's entry in the store and put into a
scratch copy of the prefix, made of hard links where possible. Root gives up its rights first, for
the suite expects an ordinary user.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from longrun import fs
from longrun.errors import SetupError
from longrun.model import Interpreter
from longrun.run import find_tool, stream
from longrun.unpack import unpack

NOBODY = 65534

LISTS = re.compile(
    r"^\d+ tests? (?P<what>failed|skipped|omitted|OK)[^\n]*:\n(?P<names>(?:    .*\n)+)", re.M
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run of the suite said; ``surprises`` failed without being known to."""

    run: int
    failures: int
    skipped: int
    failed_files: tuple[str, ...]
    surprises: tuple[str, ...]
    known: Mapping[str, str] = field(default_factory=dict)
    status: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing failed but what is known to, and the suite came to its end."""
        return not self.surprises and (self.status == 0 or bool(self.failed_files))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"schema": 1, "ok": self.ok} | asdict(self)


def run_suite(
    interpreter: Interpreter,
    prefix: Path,
    built: Path,
    source: Path,
    tests: list[str],
    *,
    jobs: int,
    log: Path,
    line: Callable[[str], None],
) -> Verdict:
    """Run tests (all, without names) of the suite in ``built`` on ``prefix``.

    ``source`` is CPython's archive: 3.11's installation forgets a part of the suite.
    The output goes to ``log``, and line by line to ``line``.
    """
    minor = interpreter.name.removeprefix("cpython-")
    with scratch_copy(prefix, built, minor) as place:
        _add_forgotten(source, place, f"prefix/lib/python{minor}/test")
        argv = [
            *_unprivileged(),
            str(place / "prefix" / "bin" / f"python{minor}"),
            *("-m", "test", f"-j{jobs}", "--timeout", "900", "-W"),
            "-w",  # a file that fails is run again, alone: some tests race with their neighbours
            *(word for name in interpreter.ignored_tests for word in ("-i", name)),
            *("--junit-xml", str(place / "home" / "result.xml"), *tests),
        ]
        env = _environment(place / "home")
        status = stream(argv, cwd=place / "home", env=env, log=log, line=line)
        counts = read_counts(place / "home" / "result.xml")
    text = log.read_text(errors="replace")
    return read_verdict(text, interpreter.known_failures, status, counts)


@contextmanager
def scratch_copy(prefix: Path, built: Path, minor: str) -> Iterator[Path]:
    """``prefix`` with the suite of ``built`` in it, and an empty ``home`` beside."""
    place = Path(tempfile.mkdtemp(prefix="longrun-selftest."))
    try:
        place.chmod(0o755)
        (place / "home").mkdir()
        if os.geteuid() == 0:
            os.chown(place / "home", NOBODY, NOBODY)
        _link_tree(prefix, place / "prefix")
        library = f"lib/python{minor}"
        for path in sorted((built / library).rglob("*test*")):
            if path.is_dir() and path.name in ("test", "tests", "idle_test"):
                _link_tree(path, place / "prefix" / path.relative_to(built))
        for module in (built / library / "lib-dynload").iterdir():
            target = place / "prefix" / library / "lib-dynload" / module.name
            if not target.exists():
                _link(str(module), target)
        yield place
    finally:
        fs.remove_tree(place)


def _add_forgotten(archive: Path, place: Path, suite: str) -> None:
    """Test packages that the source has and ``make install`` did not install."""
    unpack(archive, place / "source")
    for path in sorted((place / "source" / "Lib" / "test").iterdir()):
        if path.is_dir() and not (place / suite / path.name).exists():
            path.rename(place / suite / path.name)


def _link_tree(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.mkdir(parents=True)
    for path, entry in fs.walk(source):
        if entry.is_dir(follow_symlinks=False):
            (target / path).mkdir()
        else:
            _link(entry.path, target / path)


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(source, target, follow_symlinks=False)


def _unprivileged() -> list[str]:
    if os.geteuid() != 0:
        return []
    setpriv = find_tool("setpriv")
    if setpriv is None:
        raise SetupError(
            "setpriv: not found; root would fail tests that expect an ordinary user",
            remedy="install util-linux, or run this as an ordinary user",
        )
    return [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
        "TERM": "linux",
    }


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many tests ran, failed (errors too) and were skipped."""

    run: int = 0
    failures: int = 0
    skipped: int = 0


def read_counts(path: Path) -> Counts:
    """The counts in a JUnit file of regrtest; zeros where the suite did not come to write it.

    Of a test that was run again, the last result counts.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return Counts()
    states = {case.get("name"): {child.tag for child in case} for case in root.iter("testcase")}
    return Counts(
        run=len(states),
        failures=sum(bool(state & {"failure", "error"}) for state in states.values()),
        skipped=sum("skipped" in state for state in states.values()),
    )


def read_verdict(text: str, known: Mapping[str, str], status: int, counts: Counts) -> Verdict:
    """The verdict from the names that regrtest prints at its end, and the counts."""
    # the last list: the first ones are from before what failed was run again
    failed = _names(text, "failed") if status else ()
    return Verdict(
        run=counts.run,
        failures=counts.failures,
        skipped=counts.skipped,
        failed_files=failed,
        surprises=tuple(name for name in failed if name not in known),
        known={name: known[name] for name in failed if name in known},
        status=status,
    )


def _names(text: str, what: str) -> tuple[str, ...]:
    found = [match["names"].split() for match in LISTS.finditer(text) if match["what"] == what]
    return tuple(found[-1]) if found else ()
