"""A check, and a prefix for it whose interpreter is the system's: a cage hides people's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from longrun.model import Cell, Check, Gap, Interpreter, Lifecycle, Source

INTERPRETER = Interpreter(
    name="cpython-3.13",
    version="3.13.5",
    licence="PSF-2.0",
    lifecycle=Lifecycle(released="2024-10-07", end_of_life="2029-10-31"),
    source=Source(file="Python.tar.xz", sha256="a" * 64, size=1, urls=("https://example.org/",)),
    libraries=(),
    modules=(),
)


def make_gap(shows: str = "known words", **where: tuple[str, ...]) -> Gap:
    """A known gap, everywhere unless it says where."""
    return Gap(
        since="orbits 1.0, 2026-11-02",
        why="orbits loses its way",
        link="https://example.org/issues/1",
        shows=shows,
        **where,
    )


def make_cell(
    name: str = "orbit", *, gaps: tuple[Gap, ...] = (), attempts: int = 1, timeout: int = 20
) -> Cell:
    """A cell of a check in the layer ``base`` on this machine."""
    check = Check(
        name=name,
        title="an orbit there and back",
        group="Physics",
        layer="base",
        proves=("orbits",),
        timeout=timeout,
        attempts=attempts,
        gaps=gaps,
    )
    return Cell(
        check=check,
        release="2026.1",
        interpreter=INTERPRETER,
        system="host",
        content="Linux",
        versions={"orbits": "1.0"},
    )


def make_prefix(directory: Path) -> Path:
    """A prefix with nothing but ``bin/python3.13``."""
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "python3.13").symlink_to(shutil.which("python3", path="/usr/bin:/bin"))
    return directory
