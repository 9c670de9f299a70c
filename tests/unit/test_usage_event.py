"""Events: what stores keep is what comes back."""

from __future__ import annotations

import json

import pytest

from longrun.errors import TelemetryError
from longrun.usage.event import Event, from_json

EVENT = Event(
    id="console7-0123abcd-77-18ea",
    host="console7",
    boot="0123abcd",
    uid=1000,
    user="operator",
    start=1.5,
    end=3.0,
    seconds=1.5,
    python="3.13.5",
    name="orbit ü",
    forbidden=("PYTHONPATH",),
    exit="exception",
    exc="ValueError",
    packages={"numpy": "2.3.4"},
    venv=True,
)


def test_an_event_survives_its_json():
    assert from_json(EVENT.to_json()) == EVENT


def test_the_json_is_one_line_with_every_key_of_the_interface():
    text = EVENT.to_json()
    assert "\n" not in text
    keys = (
        "v id host boot uid user start end seconds python release layer prefix base exe how name "
        "ci forbidden flags exit code exc packages venv more"
    )
    assert " ".join(json.loads(text)) == keys


def test_keys_of_a_later_version_are_left_out():
    document = json.loads(EVENT.to_json()) | {"planet": "Mars"}
    assert from_json(json.dumps(document)) == EVENT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": 2}, "not an event of version 1"),
        ({"start": "yesterday"}, "start: unexpected 'yesterday'"),
        ({"uid": True}, "uid: unexpected True"),
        ({"packages": None}, "packages: unexpected None"),
        ({"id": None}, "id: unexpected None"),
    ],
)
def test_what_is_no_event_is_refused_by_name(change, words):
    with pytest.raises(TelemetryError, match=words):
        from_json(json.dumps(json.loads(EVENT.to_json()) | change))


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"v":1}'])
def test_garbage_is_an_error_with_a_cause(text):
    with pytest.raises(TelemetryError):
        from_json(text)
