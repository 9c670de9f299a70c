"""An event: one invocation of an interpreter, as stores keep it and reports count it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from longrun.errors import TelemetryError

VERSION = 1
"""The form of an event; the key ``v`` of its JSON."""

OK, STATUS, EXCEPTION, SIGNAL, UNKNOWN = "ok", "status", "exception", "signal", "unknown"
NONE = "none"
"""Kinds of exit. ``none``: no end was seen, since the program runs still or was killed."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One invocation of an interpreter.

    ``id`` is ``<host>-<boot>-<record id>``. ``boot`` is the first 8 hex digits of the boot's id,
    or zeros where the agent did not see that boot. ``user`` is a name or a pseudonym
    (``u-<12 hex>``), which has no ``uid``. ``start`` and ``end`` are Unix seconds. ``python``,
    ``release``, ``prefix``, ``base`` and ``how`` are empty where only the end was seen.
    ``exe`` is the program that embeds the interpreter. ``forbidden`` are names of variables
    that a control room does without. ``flags`` are letters of the interpreter's options.
    ``code`` is an exit status, ``exc`` the class of the exception that ended the program.
    ``packages`` are distributions and their versions; ``more`` names did not fit into a record.
    """

    id: str
    host: str
    boot: str
    uid: int | None = None
    user: str
    start: float
    end: float | None = None
    seconds: float | None = None
    python: str = ""
    release: str = ""
    layer: str | None = None
    prefix: str = ""
    base: str = ""
    exe: str | None = None
    how: str = ""
    name: str | None = None
    ci: str | None = None
    forbidden: tuple[str, ...] = ()
    flags: str = ""
    exit: str = NONE
    code: int | None = None
    exc: str | None = None
    packages: Mapping[str, str]
    venv: bool = False
    more: int = 0

    def document(self) -> dict[str, Any]:
        """The event as a JSON object, every key there, in the order of the fields."""
        values = {name: getattr(self, name) for name in FIELDS}
        values["forbidden"] = list(self.forbidden)
        values["packages"] = dict(self.packages)
        return {"v": VERSION, **values}

    def to_json(self) -> str:
        """The event as one line of JSON, without the line's end; the same event, the same text."""
        return json.dumps(self.document(), separators=(",", ":"), ensure_ascii=False)


FIELDS = tuple(field.name for field in fields(Event))

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "bool": (bool,),
    "tuple[str, ...]": (list,),
    "Mapping[str, str]": (dict,),
}
_EXPECTED = {field.name: _TYPES[str(field.type)] for field in fields(Event)}
_REQUIRED = ("id", "host", "boot", "user", "start", "packages")


def from_json(text: str | bytes) -> Event:
    """An event from its JSON; keys of later versions are left out; TelemetryError where wrong."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TelemetryError(f"an event is not JSON: {error}") from None
    return from_document(found)


def from_document(found: object) -> Event:
    """An event from what JSON gives; TelemetryError where it is none."""
    if not isinstance(found, dict) or found.get("v") != VERSION:
        raise TelemetryError(f"not an event of version {VERSION}: {str(found)[:200]}")
    values = {name: found[name] for name in FIELDS if name in found}
    for name in _REQUIRED:
        if name not in values:
            raise TelemetryError(f"an event has no {name}: {str(found)[:200]}")
    for name, value in values.items():
        expected = _EXPECTED[name]
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            raise TelemetryError(f"event {found.get('id')}: {name}: unexpected {value!r}")
    values["forbidden"] = tuple(map(str, values.get("forbidden", ())))
    values["packages"] = {str(name): str(text) for name, text in values["packages"].items()}
    return Event(**values)
