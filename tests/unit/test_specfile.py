"""Package specs, written and edited: comments and order stay."""

from __future__ import annotations

import tomllib

import pytest

from longrun.lock.specfile import new_spec, with_brings
from longrun.model import FromSdist, Package
from longrun.specs import parse_spec

FULL = Package(
    name="tool",
    layer="base",
    why='It says "so".',
    owner="physics",
    constraint=">=1,<2",
    interpreters=("cp313",),
    extras=("fast",),
    imports=("tool", "tool.sub"),
    brings=tuple(f"distribution-{n}" for n in range(9)),
    build=FromSdist(requires=("setuptools>=61", "wheel")),
)


def test_a_new_spec_is_read_back_as_it_was_meant():
    text = new_spec(FULL)
    assert parse_spec(text, Package, "x") == FULL
    assert text.startswith("#:schema ../schema/package.schema.json\nname = ")
    assert '\n    "distribution-0",\n    "distribution-1",\n' in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_small_spec_has_no_empty_keys():
    small = Package(name="a", layer="base", why="w", owner="o", imports=("a",))
    assert new_spec(small) == (
        "#:schema ../schema/package.schema.json\n"
        'name = "a"\nlayer = "base"\nwhy = "w"\nowner = "o"\nimports = ["a"]\n'
    )


BARE = '# first\nname = "a"  # its name\nimports = ["a"]\n'
BUILD = '\n# how\n[build]\nrequires = ["x"]  # for now\n'


@pytest.mark.parametrize("after", ["", BUILD], ids=["plain", "with a table"])
def test_names_are_put_in_and_taken_out(after):
    one = with_brings(BARE + after, ("lib",))
    assert one == f'{BARE}brings = ["lib"]\n{after}'
    two = with_brings(one, ("lib", "more"))
    assert two == f'{BARE}brings = ["lib", "more"]\n{after}'
    assert with_brings(two, ("lib",)) == one
    assert with_brings(one, ()) == BARE + after


def test_many_names_have_a_line_each():
    names = tuple(f"distribution-{n}" for n in range(9))
    text = with_brings(BARE + BUILD, names)
    assert '    "distribution-3",\n' in text
    fewer = with_brings(text, (*names[:3], *names[4:]))
    gone = set(text.splitlines()) - set(fewer.splitlines())
    assert gone == {'    "distribution-3",'}


def test_comments_between_names_stay():
    text = 'brings = [\n    # numbers\n    "b",\n    "d",  # last\n]\n'
    edited = with_brings(text, ("a", "b", "c", "d"))
    for part in ("    # numbers\n", '    "d",  # last\n', '"a"', '"c"'):
        assert part in edited
    assert tuple(tomllib.loads(edited)["brings"]) == ("a", "b", "c", "d")
    assert "# numbers" in with_brings(edited, ("d",))
