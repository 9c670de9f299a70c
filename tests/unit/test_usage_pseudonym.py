"""Pseudonyms: the same person, and nobody can tell who."""

from __future__ import annotations

import os
import re
import stat

import pytest

from longrun.errors import TelemetryError
from longrun.usage.config import DAY
from longrun.usage.pseudonym import open_pseudonyms


def test_a_user_has_one_pseudonym_which_stays_one(tmp_path):
    file = tmp_path / "key"
    first = open_pseudonyms(file, 100).name("operator")
    assert re.fullmatch(r"u-[0-9a-f]{12}", first)
    names = open_pseudonyms(file, 100)
    assert names.name("operator") == first
    assert names.name("shifter") != first
    assert names.name(first) == first


def test_another_machines_key_gives_other_pseudonyms(tmp_path):
    here, there = (open_pseudonyms(tmp_path / name, 100) for name in "ab")
    assert here.name("operator") != there.name("operator")


def test_the_key_is_the_agents_alone_and_goes_with_the_retention(tmp_path):
    file = tmp_path / "key"
    first = open_pseudonyms(file, 100, now=0.0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert open_pseudonyms(file, 100, now=99 * DAY).name("a") == first.name("a")
    assert open_pseudonyms(file, 100, now=101 * DAY).name("a") != first.name("a")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_sites_key_is_neither_made_nor_replaced(tmp_path):
    file = tmp_path / "key"
    with pytest.raises(TelemetryError, match="not found") as caught:
        open_pseudonyms(file, None)
    assert "copy" in caught.value.remedy
    first = open_pseudonyms(file, 100, now=0.0).name("operator")
    assert open_pseudonyms(file, None).name("operator") == first


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"made": 1, "key": "ab"}', '{"made": 1e999}'])
def test_a_key_that_is_none_is_an_error_and_not_a_weak_key(tmp_path, content):
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(TelemetryError) as caught:
        open_pseudonyms(file, 100)
    assert caught.value.remedy == f"remove {file}"


def test_a_key_that_others_can_read_is_not_used(tmp_path):
    file = tmp_path / "key"
    open_pseudonyms(file, 100)
    file.chmod(0o644)
    with pytest.raises(TelemetryError, match="others can read it"):
        open_pseudonyms(file, 100)
    file.unlink()
    os.symlink("/etc/passwd", file)
    with pytest.raises(TelemetryError):
        open_pseudonyms(file, 100)
