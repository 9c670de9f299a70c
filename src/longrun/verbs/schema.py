"""``schema``: the JSON schemas that editors use for spec files."""

from __future__ import annotations

import argparse
from pathlib import Path

from longrun.errors import SpecError
from longrun.fs import write_atomic
from longrun.schema import schemas


def schema(root: Path, arguments: argparse.Namespace) -> int:
    """Write ``specs/schema/*.json`` from the model."""
    for name, text in schemas().items():
        path = root / "specs" / "schema" / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments.check:
            raise SpecError(
                f"specs/schema/{name}: not what the model says", remedy="./build.py schema"
            )
        write_atomic(path, text)
        print(f"wrote specs/schema/{name}")
    return 0
