"""One layer of an image, above its base: files of the store, the same bytes on every builder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from longrun import fs
from longrun.model import Part
from longrun.oci.layer import Compressor, Member, tree_members, write_layer
from longrun.oci.model import LAYER, LayerBlob
from longrun.steps.job import Job

RESULT = "layer.json"
BLOB = "layer.tar.gz"

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
        records = job.files(step)
        if spec.only:
            records = tuple(record for record in records if record.path in spec.only)
        for member in tree_members(job.inputs[step], records, spec.top):
            found.setdefault(member.path, member)  # wheels share directories
    yield from found.values()
    for path, target in spec.links.items():
        yield Member(path=path, kind=fs.LINK, mode=0o777, target=target)
    for path, text in spec.texts.items():
        yield Member(
            path=path, mode=0o755 if text.startswith("#!") else 0o644, content=text.encode()
        )


def compressor(job: Job, interpreter: str) -> Compressor:
    """Runs an interpreter of ours, whose zlib and tarfile are pinned.

    It stands in the store, and root could write bytecode there: ``-B``.
    """
    (python,) = (job.inputs[interpreter] / "bin").glob("python3.[0-9][0-9]")
    return lambda arguments: job.run([str(python), "-I", "-S", "-B", *arguments])


def write(out: Path, blob: LayerBlob) -> None:
    """Put what is known of the layer where ``read`` finds it."""
    document = {name: getattr(blob, name) for name in ("digest", "size", "diff_id", "title")}
    (out / RESULT).write_text(json.dumps(document, indent=1) + "\n")


def read(tree: Path) -> LayerBlob:
    """The layer of an entry."""
    document = json.loads((tree / RESULT).read_bytes())
    return LayerBlob(media_type=LAYER, path=tree / BLOB, **document)
