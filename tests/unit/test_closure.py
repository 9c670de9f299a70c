"""Requirements followed by metadata, for a machine that is not this one."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from longrun.errors import SourceError
from longrun.lock.closure import Facts, Target, close, disagreements, read_facts
from longrun.model import Floor

TARGET = Target(tag="cp311", python="3.11.5", floor=Floor(arch="x86_64", glibc="2.28"))


def facts(*requires: str) -> Facts:
    return Facts(requires=tuple(map(Requirement, requires)))


def closure(roots, target=TARGET, **asks):
    known = {name.replace("_", "-"): facts(*requires) for name, requires in asks.items()}
    return close([Requirement(root) for root in roots], known, target)


def test_everything_that_is_reached_with_who_asks_for_it():
    found = closure(["a", "b"], a=["c>=1", "b<3"], b=["C.c[x]", "c!=2"], c=[])
    assert set(found.extras) == {"a", "b", "c", "c-c"}
    assert {who: str(at) for who, at in found.asks["c"].items()} == {"a": ">=1", "b": "!=2"}
    assert found.extras["c-c"] == {"x"}
    assert "a" not in found.asks


def test_what_one_asks_for_twice_must_hold_at_once():
    found = closure(["a"], a=["b>=1", "b<2"])
    assert str(found.asks["b"]["a"]) == "<2,>=1"


@pytest.mark.parametrize(
    ("marker", "applies"),
    [
        ("python_version < '3.12'", True),
        ("python_full_version >= '3.11.5'", True),
        ("python_version >= '3.12'", False),
        ("sys_platform == 'win32'", False),
        ("platform_machine == 'x86_64' and platform_system == 'Linux'", True),
        ("platform_python_implementation == 'PyPy'", False),
        ("implementation_name == 'cpython' and os_name == 'posix'", True),
        ("extra == 'x'", False),
    ],
)
def test_markers_are_those_of_the_target(marker, applies):
    assert ("b" in closure(["a"], a=[f"b; {marker}"]).extras) == applies


def test_extras_are_followed_to_the_end():
    """An extra that is asked for late, of what was reached before, counts as well."""
    found = closure(
        ["a", "b"],
        a=["c"],
        b=["d"],
        c=["deep; extra == 'more'", "self-made; extra == 'all'", "c[more]; extra == 'all'"],
        d=["c[all]"],
    )
    assert {"deep", "self-made"} <= set(found.extras)
    assert found.extras["c"] == {"all", "more"}
    assert set(found.asks["c"]) == {"a", "d"}, "nobody asks for itself"


def test_names_of_extras_are_normalised():
    found = closure(["a[Big_One]"], a=["b; extra == 'big-one'"])
    assert "b" in found.extras


def test_a_circle_ends():
    assert set(closure(["a"], a=["b"], b=["a"]).extras) == {"a", "b"}


def test_disagreements_are_named():
    found = closure(["a", "nothing"], a=["b>=2", "c"])
    assert disagreements(found, {"a": "1", "b": "1.0", "stray": "7"}) == [
        "c is missing, which a asks for",
        "nothing is missing, which a spec asks for",
        "nothing asks for stray 7",
        "a asks for b>=2, not 1.0",
    ]
    assert disagreements(closure(["a"], a=["b>1"]), {"a": "1", "b": "2.0rc1"}) == []


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        ("License-Expression: BSD-3-Clause\nLicense: whatever", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: MIT, see", "MIT License"),
        ("Classifier: License :: OSI Approved\nLicense: EPICS", "EPICS"),
        ("License: Copyright (c) 2020 Somebody\n        All rights reserved", None),
        ("License: UNKNOWN", ""),
        ("Name: x", ""),
        (f"License: {'word ' * 40}", f"{'word ' * 12}..."),
    ],
)
def test_the_licence_in_a_few_words(lines, licence):
    found = read_facts(f"Metadata-Version: 2.1\n{lines}\n\nText.\n", "x.whl").licence
    assert found == (licence if licence is not None else "Copyright (c) 2020 Somebody")


def test_a_summary_is_one_line_without_control_characters():
    found = read_facts("Summary: a\x1b[31m b\n  c\n", "x.whl")
    assert found.summary == "a [31m b c"


def test_a_requirement_that_is_none_names_the_file():
    with pytest.raises(SourceError, match=r"^x-1\.0\.whl: its metadata has no valid requirement"):
        read_facts("Requires-Dist: a b c\n", "x-1.0.whl")


def test_requires_python_of_the_target():
    assert TARGET.takes("")
    assert TARGET.takes(">=3.9,<4")
    assert not TARGET.takes(">=3.12")
    assert TARGET.takes("nonsense"), "as pip does with relics"
