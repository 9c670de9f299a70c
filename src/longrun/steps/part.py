"""One layer of an image, above its base: files of the store, the same bytes on every builder."""

from __future__ import annotations

from collections.abc import Iterator

from longrun import fs
from longrun.model import Part
from longrun.oci.layer import Member, tree_members, write_layer
from longrun.steps.blob import BLOB, compressor, write
from longrun.steps.job import Job

LEVEL = 6
"""zlib's own choice: a layer is read by every job that starts on a new runner."""


def build(job: Job) -> None:
    """Write the layer of the job's inputs, and what is known of it."""
    spec = job.spec
    assert isinstance(spec, Part)
    blob = write_layer(
        members(job, spec),
        job.out / BLOB,
        title=spec.title,
        epoch=job.epoch,
        compress=compressor(job, spec.compressor),
        level=LEVEL,
    )
    write(job.out, blob)
    job.known[BLOB] = blob.digest.removeprefix("sha256:")


def members(job: Job, spec: Part) -> Iterator[Member]:
    """What the layer holds: files of the steps that it is of, links, texts."""
    found: dict[str, Member] = {}
    for step in spec.of:
        records = tuple(
            record
            for record in job.files(step)
            if record.path not in spec.without and (not spec.only or record.path in spec.only)
        )
        for member in tree_members(job.inputs[step], records, spec.top):
            found.setdefault(member.path, member)  # wheels share directories
    yield from found.values()
    for path, target in spec.links.items():
        yield Member(path=path, kind=fs.LINK, mode=0o777, target=target)
    for path, text in spec.texts.items():
        yield Member(
            path=path, mode=0o755 if text.startswith("#!") else 0o644, content=text.encode()
        )
