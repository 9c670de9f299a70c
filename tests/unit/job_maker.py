"""A job for builders that need no compiler: empty directories, and programs started plainly."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from longrun.errors import BuildError
from longrun.model import Floor, Spec
from longrun.steps.job import Job


def make_job(directory: Path, spec: Spec, inputs: Mapping[str, Path]) -> Job:
    """A job below ``directory`` for the usual floor."""
    for name in ("out", "work", "cache"):
        (directory / name).mkdir(parents=True)
    return Job(
        spec=spec,
        floor=Floor(arch="x86_64", glibc="2.28"),
        epoch=0,
        inputs=inputs,
        patches=(),
        data={},
        out=directory / "out",
        work=directory / "work",
        cache=directory / "cache",
        jobs=1,
        run=run,
        log=directory / "log",
        say=lambda line: None,
        files=lambda name: (),
    )


def run(
    argv: list[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    network: bool = False,
    timeout: float | None = None,
) -> None:
    """Start a program as a job does; BuildError where it fails."""
    with (stdin or Path("/dev/null")).open("rb") as source:
        done = subprocess.run(argv, cwd=cwd, env=env, stdin=source, check=False, timeout=timeout)
    if done.returncode:
        raise BuildError(f"{argv[0]} ended with exit status {done.returncode}")
