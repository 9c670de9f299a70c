"""The step ``source``: one file from outside, as its spec pins it."""

from __future__ import annotations

from longrun.fetch import Fetcher
from longrun.model import Source
from longrun.steps.job import Job
from longrun.term import size


def build(job: Job, *, fetcher: Fetcher) -> None:
    """Put the file into the entry, fetching it where it is not here yet; raises SourceError."""
    assert isinstance(job.spec, Source)

    def progress(done: int, total: int) -> None:
        job.say(f"{size(done)} of {size(total)}")

    fetcher.put(job.spec, job.out / job.spec.file, progress=progress)
