"""The start-up hook of every prefix: its source, and what is filled in for each prefix.

The module itself, ``_longrun_usage``, is shipped and never imported here.
"""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).with_name("_longrun_usage.py")
"""Its file in a prefix has the same name, in the directory of the standard library."""

_FILLED = r'(?m)^({}) = "[^"\\]*"$'


def fill(source: str, *, release: str | None = None, layer: str | None = None) -> str:
    """The hook's source for one prefix: with its release, its layer, or both."""
    for name, value in (("RELEASE", release), ("LAYER", layer)):
        if value is not None:
            source = re.sub(_FILLED.format(name), rf'\1 = "{value}"', source)
    return source


def blank(text: str) -> str:
    """The source that a prefix's hook was made of."""
    return fill(text, release="", layer="")
