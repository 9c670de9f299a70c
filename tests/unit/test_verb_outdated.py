"""``outdated`` against a real index on loopback: what is newer, and what holds it back."""

from __future__ import annotations

import pytest
from shelf import NATIVE, NEWER


@pytest.fixture
def small(desk):
    """`app` asks for `lib` below 2; both at 1.0."""
    desk.shelf.put("lib", "1.0")
    desk.shelf.put("app", "1.0", requires=["lib<2"])
    desk.package("app", 'constraint = "<3"\nbrings = ["lib"]\n')
    desk.run("lock")
    return desk


def rows(desk, *argv: str):
    return {row["name"]: row for row in desk.json("outdated", *argv)["outdated"]}


def test_nothing_is_newer(small):
    assert small.run("outdated") == "everything is the newest that the index has\n"
    assert rows(small) == {}


def test_nothing_holds_it_back(small):
    small.shelf.put("app", "2.0", requires=["lib<2"])
    row = rows(small)["app"]
    assert (row["locked"], row["upgrade"], row["newest"]) == ("1.0", "2.0", "2.0")
    assert row["held"] == []
    assert row["tags"] == ["cp313", "cp311"]
    assert "app  1.0  -> 2.0  ./build.py lock --upgrade app" in small.run("outdated")
    small.run("lock", "--upgrade", "app")
    assert rows(small) == {}


def test_another_distribution_holds_it_back(small):
    small.shelf.put("lib", "1.5")
    small.shelf.put("lib", "2.0")
    row = rows(small)["lib"]
    assert (row["upgrade"], row["newest"]) == ("1.5", "2.0")
    assert row["held"] == ["app asks for <2"]


def test_a_spec_holds_it_back(small):
    small.shelf.put("app", "3.0", requires=["lib<2"])
    assert rows(small)["app"]["held"] == ["specs/packages/app.toml asks for <3"]
    assert "specs/packages/app.toml asks for <3" in small.run("outdated")


def test_its_own_needs_hold_it_back(small):
    small.shelf.put("other", requires=["lib<1.2"])
    small.package("other")
    small.run("lock")
    small.shelf.put("lib", "1.3")
    small.shelf.put("app", "2.0", requires=["lib>=1.3"])
    assert rows(small)["app"]["held"] == ["asks for lib>=1.3, and the stack can have 1.0"]
    assert rows(small)["lib"]["held"] == ["other asks for <1.2"]


@pytest.mark.parametrize(
    ("put", "words"),
    [
        ({"tag": NEWER.format(tag="cp313")}, "only for manylinux_2_34_x86_64, above the floor"),
        ({"python": ">=3.14"}, "needs Python >=3.14"),
        ({"yanked": "broken"}, "is yanked (broken)"),
        ({"tag": "cp39-cp39-manylinux_2_28_x86_64"}, "has wheels only for cp39"),
    ],
)
def test_there_is_no_file_for_it(small, put, words):
    small.shelf.put("app", "2.0", requires=["lib<2"], **put)
    row = rows(small, "--python", "3.13")["app"]
    assert row["upgrade"] == ""
    assert any(words in reason for reason in row["held"]), row


def test_only_a_pre_release_is_newer(small):
    small.shelf.put("app", "2.0rc1", requires=["lib<2"])
    assert rows(small)["app"]["held"] == ["is a pre-release"]


def test_the_interpreters_differ(small):
    small.shelf.put("app", "2.0", requires=["lib<2"], tag=NATIVE.format(tag="cp313"))
    found = small.json("outdated")["outdated"]
    assert [(row["tags"], row["upgrade"]) for row in found] == [(["cp311"], ""), (["cp313"], "2.0")]
    assert "has wheels only for cp313" in found[0]["held"][0]


def test_without_a_lock(small):
    (small.checkout.root / "specs/locks/2026.1/cp311.lock.toml").unlink()
    assert "no such lock yet" in small.run("outdated", status=3)
    small.run("outdated", "--python", "3.13")
