"""The step ``source``: one file from outside, as its spec pins it."""

from __future__ import annotations

from longrun.model import Source
from longrun.steps.job import Job


def build(job: Job) -> None:
    """Put the file into the entry, fetching it where it is not here yet; raises SourceError."""
    source = job.spec
    assert isinstance(source, Source)

    def progress(done: int, total: int) -> None:
        job.say(f"{done / 1e6:.1f} of {total / 1e6:.1f} MB")

    job.fetch(source, job.out / source.file, progress)
