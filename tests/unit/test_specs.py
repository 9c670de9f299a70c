"""What a maintainer who makes a mistake in a spec file reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from longrun.errors import SpecError
from longrun.specs import load_specs
from longrun.verbs.generate import generated

ROOT = Path(__file__).resolve().parents[2]
ZLIB = "specs/libraries/z.toml"


def refused(checkout) -> str:
    with pytest.raises(SpecError) as caught:
        checkout.specs()
    return f"{caught.value.message} | {caught.value.remedy}"


def test_a_healthy_checkout_loads(checkout):
    specs = checkout.specs()
    assert specs.libraries["ssl"].inputs == ("z",)
    assert specs.releases["2026.1"].floor.tag == "manylinux_2_28_x86_64"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('version = "1.0"', "version = 3", f"{ZLIB}: version: expected a string, found 3"),
        ("size = 10", 'size = "10"', f"{ZLIB}: source.size: expected a whole number, found '10'"),
        ("size = 10", "size = true", f"{ZLIB}: source.size: expected a whole number, found True"),
        ('licence = "Zlib"', "", f"{ZLIB}: licence: expected a string, found nothing"),
        ('licence = "Zlib"', 'license = "Zlib"', "unknown key (did you mean 'licence'?)"),
        ("size = 10", "size = 10\nmd5 = 'x'", f"{ZLIB}: source.md5: unknown key"),
        ('[["make"]]', '["make"]', f"{ZLIB}: build.commands[0]: expected a list, each a string"),
        (
            '[["make"]]',
            '[["make", 1]]',
            f"{ZLIB}: build.commands[0][1]: expected a string, found 1",
        ),
        ("aaaa", "AAAA", f"{ZLIB}: source.sha256: expected 64 lower-case hexadecimal digits"),
        ('name = "z"', 'name = "zz"', f"{ZLIB}: name: expected 'z' (the file's name), found 'zz'"),
        ("inputs = []", 'inputs = ["sl"]', "inputs[0]: expected the name of a spec, found 'sl'"),
        ("inputs = []", 'inputs = ["sl"]', "did you mean 'ssl'?"),
        ("inputs = []", 'inputs = ["ssl"]', "goes round in a circle: "),
        ('file = "z-1.0.tar.gz"', 'file = "../z"', "source.file: expected a file name"),
        ("urls = [", "pool = []\nurls = [] #", "expected `urls`, `pool` or `index`, found none"),
        ("[build]", "[[build]]", f"{ZLIB}: build: expected a table, found"),
        ("[build]", "[build", f"{ZLIB}: not TOML: "),
    ],
)
def test_a_mistake_is_named_by_file_and_key(checkout, old, new, expected):
    checkout.replace(ZLIB, old, new)
    assert expected in refused(checkout)


def test_a_patch_that_is_not_there_suggests_the_near_one(checkout):
    checkout.replace("specs/libraries/ssl.toml", "0001-fix.patch", "0001-fixx.patch")
    message = refused(checkout)
    assert "specs/libraries/ssl.toml: build.patches[0]" in message
    assert "did you mean '0001-fix.patch'?" in message


def test_an_unknown_interpreter_of_a_release_is_named(checkout):
    checkout.replace("specs/releases/2026.1.toml", "cpython-3.11", "cpython-3.1")
    assert "interpreters[1]: expected the name of a spec, found 'cpython-3.1'" in refused(checkout)


def test_the_projects_own_specs_load():
    specs = load_specs(ROOT)
    assert {"cpython-3.13", "cpython-3.11"} <= specs.interpreters.keys()


def test_schemas_and_reference_pages_in_the_checkout_are_those_of_the_program():
    for name, text in generated().items():
        assert (ROOT / name).read_text() == text, f"{name} is old: ./build.py generate"


def test_the_schemas_accept_the_projects_specs_and_refuse_an_unknown_key():
    import tomllib

    seen = 0
    for path in (ROOT / "specs").glob("*/*.toml"):
        first = path.read_text().split("\n", 1)[0]
        match = re.fullmatch(r"#:schema \.\./schema/(\w+)\.schema\.json", first)
        if match is None:
            continue
        seen += 1
        schema = json.loads((ROOT / "specs/schema" / f"{match[1]}.schema.json").read_text())
        table = tomllib.loads(path.read_text())
        jsonschema.validate(table, schema)
        with pytest.raises(jsonschema.ValidationError, match="surprise"):
            jsonschema.validate(table | {"surprise": 1}, schema)
    assert seen > 5, "spec files name their schema in the first line"
