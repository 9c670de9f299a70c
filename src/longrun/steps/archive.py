"""A prefix as one compressed tar with its manifest as the first entry."""

from __future__ import annotations

from longrun import fs, manifest
from longrun.model import Archive
from longrun.steps.job import Job

LEVEL, LAYER_LEVEL = 19, 12
"""zstd levels: an archive is made once and read by hundreds of consoles.

For a layer of 800 MB the higher one takes 14 times as long and makes a tenth less of it.
"""


def build(job: Job) -> None:
    """Write ``<stem>-<platform>.tar.zst``, the same bytes for the same prefix."""
    assert isinstance(job.spec, Archive)
    import zstandard  # not needed by any other verb

    ((step, tree),) = job.inputs.items()
    records = job.files(step)
    stem = f"{job.spec.stem}-{job.floor.tag}"
    document = manifest.archive_manifest(
        job.spec,
        platform=job.floor.tag,
        digest=fs.tree_digest(records),
        records=records,
    )
    # with more than one thread zstd cuts its input into jobs; a constant number: same bytes
    level = LAYER_LEVEL if job.spec.layer else LEVEL
    compressor = zstandard.ZstdCompressor(level=level, threads=2, write_checksum=True)
    with (job.out / f"{stem}.tar.zst").open("wb") as file, compressor.stream_writer(file) as output:
        fs.write_tar(
            tree,
            records,
            output,
            top=stem,
            epoch=job.epoch,
            first=[(manifest.NAME, document)],
        )
