"""``audit``: the gate that every prefix passes, on any prefix."""

from __future__ import annotations

import argparse
from pathlib import Path

from longrun.verbs.context import Context


def audit(root: Path, arguments: argparse.Namespace) -> int:
    """placeholder"""
    raise NotImplementedError
