"""A wheel from an sdist: without network, against the floor."""

from __future__ import annotations

from pathlib import Path

from longrun.errors import BuildError
from longrun.model import Wheel
from longrun.steps.job import Job


def build_wheel(job: Job, spec: Wheel, file: Path) -> Path:
    raise BuildError("not yet")
