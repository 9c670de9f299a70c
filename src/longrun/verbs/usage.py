"""``usage`` and ``usage-program``: telemetry's own program, run from here or made into one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from longrun import fs
from longrun.term import paint, size
from longrun.usage import cli
from longrun.usage.program import program
from longrun.verbs.build import add_sums
from longrun.verbs.export import nearby


def usage(root: Path, arguments: argparse.Namespace) -> int:
    """Do what ``longrun-usage`` does with the same arguments."""
    return cli.main(arguments.arguments)


def make_program(root: Path, arguments: argparse.Namespace) -> int:
    """Write the program's file, in ``dist/`` with its sha256 among the others."""
    dist = root / "dist"
    target = (arguments.out or dist / "longrun-usage").absolute()
    content = program(root / "src" / "longrun")
    fs.write_atomic(target, content, mode=0o755)
    digest = fs.sha256_file(target)
    if target.parent == dist:
        add_sums(dist, {target.name: digest})
    print(f"{paint('green', '✔')} {nearby(target)}  {size(len(content))}\n  sha256 {digest}")
    return 0
