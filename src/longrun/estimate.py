"""How long steps take: from the store's own history, else from one measured build."""

from __future__ import annotations

from collections.abc import Iterable

from longrun.plan import Step
from longrun.store import Store

MEASURED = {
    "library/openssl": 90.0,
    "interpreter/cpython-3.13": 240.0,
    "interpreter/cpython-3.11": 240.0,
}
"""Seconds on two cores, of the few steps that take long."""

TYPICAL = {
    "source": 1.0,
    "toolchain": 15.0,
    "library": 15.0,
    "interpreter": 240.0,
    "prefix": 25.0,
    "archive": 20.0,
}
"""Seconds by kind, for everything else."""


def weights(store: Store, steps: Iterable[Step]) -> dict[str, float]:
    """Seconds by step id."""
    return {step.id: _seconds(store, step) for step in steps}


def _seconds(store: Store, step: Step) -> float:
    entry = store.get(step.key) or store.predecessor(step)
    if entry is not None:
        return float(entry.record["seconds"])
    return MEASURED.get(step.id, TYPICAL[step.kind])
