#!/usr/bin/env python3
"""Longrun's one entry: prepares its own environment once, then hands over to ``longrun.cli``.

Needs Python 3.11 or later and nothing but the standard library.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        f"build.py: Python 3.11 or later is needed, this is {sys.version.split()[0]} "
        f"({sys.executable})\n  remedy: run it as `python3.11 build.py ...`"
    )

sys.path.insert(0, str(ROOT / "src"))

from longrun.bootstrap import enter_environment  # noqa: E402

enter_environment(ROOT, sys.argv[1:])

from longrun.cli import main  # noqa: E402

sys.exit(main(ROOT, sys.argv[1:]))
