"""How long steps take: from the store's own history, else from one measured build."""

from __future__ import annotations

from collections.abc import Iterable

from longrun.plan import Step
from longrun.store import Store

MEASURED = {
    "library/openssl": 130.0,
    "library/ncurses": 70.0,
    "library/libX11": 70.0,
    "library/libffi": 60.0,
    "library/libuuid": 60.0,
    "library/sqlite": 45.0,
    "library/tcl": 45.0,
    "library/tk": 35.0,
}
"""Seconds on two cores, of the libraries that take long."""

TYPICAL = {
    "source": 0.5,
    "toolchain": 6.0,
    "library": 10.0,
    "interpreter": 240.0,
    "prefix": 4.0,
    "wheel": 2.0,
    "layer": 8.0,
    "archive": 16.0,
    "system": 90.0,
    "check": 6.0,
    "imports": 70.0,
    "base": 60.0,
    "part": 3.0,
    "image": 1.0,
}
"""Seconds by kind, for everything else."""

ALONE = ("interpreter", "prefix", "layer", "archive")
"""Kinds that run when little else is left: more jobs do not make a build of them shorter."""


def share(step: Step, seconds: float, jobs: int) -> float:
    """What a step that takes so many seconds adds to the duration of a build with so many jobs."""
    return seconds if step.kind in ALONE else seconds / jobs


def weights(store: Store, steps: Iterable[Step]) -> dict[str, float]:
    """Seconds by step id."""
    return {step.id: _seconds(store, step) for step in steps}


def _seconds(store: Store, step: Step) -> float:
    entry = store.get(step.key) or store.predecessor(step)
    if entry is not None:
        return float(entry.record["seconds"])
    return MEASURED.get(step.id, TYPICAL[step.kind])
