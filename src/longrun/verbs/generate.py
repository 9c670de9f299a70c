"""``generate``: the files of the checkout that are made from the program itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from longrun.errors import SpecError
from longrun.fs import write_atomic
from longrun.reference import pages
from longrun.schema import schemas


def generated() -> dict[str, str]:
    """Path in the checkout to text: schemas of spec files, and the reference pages."""
    return {f"specs/schema/{name}": text for name, text in schemas().items()} | {
        f"docs/reference/{name}": text for name, text in pages().items()
    }


def generate(root: Path, arguments: argparse.Namespace) -> int:
    """Write what is not as it should be, or with --check only tell."""
    for name, text in generated().items():
        path = root / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments.check:
            raise SpecError(f"{name}: not what the program says", remedy="./build.py generate")
        write_atomic(path, text)
        print(f"wrote {name}")
    return 0
