"""A layer in the store, whatever is in it: how it is compressed, and what is kept beside it."""

from __future__ import annotations

import json
from pathlib import Path

from longrun.oci.layer import Compressor
from longrun.oci.model import LAYER, LayerBlob
from longrun.steps.job import Job

RESULT = "layer.json"
BLOB = "layer.tar.gz"


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
