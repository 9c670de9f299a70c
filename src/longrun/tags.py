"""Which wheels fit: tags (PEP 425, PEP 600) of an interpreter on a release's oldest platform."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from longrun.model import Floor

LEGACY = {"2_17": "manylinux2014", "2_12": "manylinux2010", "2_5": "manylinux1"}
"""Names that some versions of glibc had before PEP 600."""

OLDEST_GLIBC = {"x86_64": 5}
"""Minor version of the oldest glibc that wheels are tagged for; 2.17 for all other processors."""


@cache
def supported(interpreter: str, floor: Floor) -> Mapping[Tag, int]:
    """The tags that an interpreter (``cp313``) takes on a floor; the lower number is the better.

    The machine at hand does not count, and neither does a bare ``linux`` platform.
    """
    version = (3, int(interpreter.removeprefix("cp3")))
    platforms = _platforms(floor)
    found = [
        *cpython_tags(version, platforms=platforms),
        *compatible_tags(version, interpreter, platforms=platforms),
    ]
    return {tag: rank for rank, tag in enumerate(found)}


def _platforms(floor: Floor) -> list[str]:
    oldest = OLDEST_GLIBC.get(floor.arch, 17)
    names = []
    for minor in range(int(floor.glibc.partition(".")[2]), oldest - 1, -1):
        names.append(f"manylinux_2_{minor}_{floor.arch}")
        if legacy := LEGACY.get(f"2_{minor}"):
            names.append(f"{legacy}_{floor.arch}")
    return names


def best_tag(file: str, interpreter: str, floor: Floor) -> tuple[int, str] | None:
    """Rank and text of a wheel's best tag, or None where the wheel does not fit."""
    ranks = supported(interpreter, floor)
    fitting = [(ranks[tag], str(tag)) for tag in tags_of(file) if tag in ranks]
    return min(fitting, default=None)


def tags_of(file: str) -> frozenset[Tag]:
    """The tags in a wheel's file name; none where it is not the name of a wheel."""
    try:
        return parse_wheel_filename(file)[3]
    except InvalidWheelFilename:
        return frozenset()
