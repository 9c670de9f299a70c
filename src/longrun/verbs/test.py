"""``test`` and ``selftest``: Longrun's own tests, and CPython's on a built prefix."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from longrun.run import attach
from longrun.setup import TEST_TOOLS, require
from longrun.verbs.build import publish, realise
from longrun.verbs.context import Context

NOTHING_COLLECTED = 5
"""pytest's exit status where a selection is empty."""


def test(root: Path, arguments: argparse.Namespace) -> int:
    """Run the unit tests, then build every interpreter and run the integration tests on it."""
    if not arguments.unit:
        require(TEST_TOOLS, install=arguments.setup)
    extra = arguments.pytest
    status = _pytest(root, "tests/unit", *extra)
    if status not in (0, NOTHING_COLLECTED) or arguments.unit:
        return status
    context = Context(root)
    arguments.release, arguments.python = None, []
    plan = context.plan(arguments, every=True)
    outcome = realise(context, plan, plan.targets, arguments)
    if outcome.failed:
        return next(iter(outcome.failed.values())).exit_code
    publish(context, plan)
    slow = _pytest(root, "tests/integration", *extra)
    return 0 if {status, slow} == {0, NOTHING_COLLECTED} else slow


def _pytest(root: Path, *arguments: str) -> int:
    python = Path(os.environ["LONGRUN_ENVIRONMENT"]) / "bin" / "python"
    return attach([str(python), "-m", "pytest", *arguments], cwd=root)
