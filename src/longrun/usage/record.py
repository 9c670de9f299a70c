"""Records: the lines that programs leave in the spool, read as the hostile input that they are.

Whoever runs a program can write any bytes into a file of their own. What is accepted has known
keys, known types and bounded sizes; whatever else a line says is not kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from longrun.usage.event import EXCEPTION, OK, SIGNAL, STATUS, UNKNOWN

MAX_LINE = 4096
"""Bytes of a line; the hook writes at most 3,900."""

MAX_TEXT = 1024
"""Characters of a path; of all other texts a quarter."""

_ID = re.compile(r"[0-9]{1,10}-[0-9a-f]{1,20}", re.ASCII)
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,31}", re.ASCII)
_FLAGS = re.compile(r"[A-Za-z]{0,32}", re.ASCII)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


T = TypeVar("T")


class BadRecord(ValueError):
    """A line is no record; the text says why in words that can be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A program's start; fields as in ``Event``."""

    id: str
    t: float
    pid: int
    ppid: int
    python: str
    release: str
    layer: str | None
    prefix: str
    base: str
    exe: str | None
    how: str
    name: str | None
    ci: str | None
    forbidden: tuple[str, ...]
    flags: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A program's end: ``use`` are the top-level names imported from each site directory."""

    id: str
    t: float
    seconds: float | None
    exit: str
    code: int | None
    exc: str | None
    use: Mapping[str, tuple[str, ...]]
    more: int


Record = Start | End


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The times that are believed (Unix seconds): an agent has no events of the year 1970."""

    earliest: float = 0.0
    latest: float = 1e11


def parse(line: bytes, bounds: Bounds) -> Record:
    """The record of a line, without its end; BadRecord where it is none."""
    if len(line) > MAX_LINE:
        raise BadRecord("too long")
    try:
        found = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise BadRecord("not JSON") from None
    if not isinstance(found, dict) or found.get("v") != 1 or isinstance(found["v"], bool):
        raise BadRecord("not version 1")
    kind = found.get("k")
    if kind not in ("start", "end"):
        raise BadRecord("unknown kind")
    record: Record = _start(found) if kind == "start" else _end(found)
    if not bounds.earliest <= record.t <= bounds.latest:
        raise BadRecord("impossible time")
    return record


def rescue(line: bytes) -> bytes | None:
    """What stands behind a torn record on the same line, if that may be a whole one.

    A full disk can cut a record short; the next program's then follows without a line's end.
    """
    at = line.rfind(b'{"v":')
    return line[at:] if at > 0 else None


def _start(found: Mapping[str, Any]) -> Start:
    return Start(
        id=_match(found, "id", _ID),
        t=_number(found, "t"),
        pid=_whole(found, "pid"),
        ppid=_whole(found, "ppid"),
        python=_text(found, "py"),
        release=_text(found, "release"),
        layer=_maybe(found, "layer", _text),
        prefix=_text(found, "prefix", MAX_TEXT),
        base=_text(found, "base", MAX_TEXT),
        exe=_maybe(found, "exe", _path),
        how=_match(found, "how", _WORD),
        name=_maybe(found, "name", _text),
        ci=_maybe(found, "ci", _word),
        forbidden=_variables(found.get("forbidden")),
        flags=_match(found, "flags", _FLAGS, ""),
    )


def _end(found: Mapping[str, Any]) -> End:
    kind = found.get("exit")
    return End(
        id=_match(found, "id", _ID),
        t=_number(found, "t"),
        seconds=_maybe(found, "s", _number),
        exit=kind if kind in (OK, STATUS, EXCEPTION, SIGNAL) else UNKNOWN,
        code=_maybe(found, "code", _signed),
        exc=_maybe(found, "exc", _text),
        use=_use(found.get("use")),
        more=_maybe(found, "more", _whole) or 0,
    )


def _text(found: Mapping[str, Any], key: str, most: int = MAX_TEXT // 4) -> str:
    value = found.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise BadRecord(f"wrong {key}")
    # no name is to move a terminal's cursor, or to be what no file can hold
    return value if value.isprintable() else _CONTROL.sub("\ufffd", value)


def _path(found: Mapping[str, Any], key: str) -> str:
    return _text(found, key, MAX_TEXT)


def _match(
    found: Mapping[str, Any], key: str, pattern: re.Pattern[str], default: str | None = None
) -> str:
    value = found.get(key, default)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadRecord(f"wrong {key}")
    return value


def _word(found: Mapping[str, Any], key: str) -> str:
    return _match(found, key, _WORD)


def _number(found: Mapping[str, Any], key: str) -> float:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord(f"wrong {key}")
    if not (abs(value) < 1e12 and math.isfinite(value)):
        raise BadRecord(f"wrong {key}")
    return float(value)


def _signed(found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise BadRecord(f"wrong {key}")
    return value


def _whole(found: Mapping[str, Any], key: str) -> int:
    value = _signed(found, key)
    if not 0 <= value < 1 << 31:
        raise BadRecord(f"wrong {key}")
    return value


def _maybe(found: Mapping[str, Any], key: str, read: Callable[..., T]) -> T | None:
    return None if found.get(key) is None else read(found, key)


def _variables(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 64:
        raise BadRecord("wrong forbidden")
    if not all(isinstance(name, str) and _VARIABLE.fullmatch(name) for name in value):
        raise BadRecord("wrong forbidden")
    return tuple(sorted(set(value)))


def _use(value: object) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 64:
        raise BadRecord("wrong use")
    return {place: _names(names) for place, names in value.items() if _usable(place)}


def _usable(place: str) -> bool:
    """Whether a site directory is one to look at; the others' names are left out."""
    return place.startswith("/") and len(place) <= MAX_TEXT and place.isprintable()


def _names(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRecord("wrong use")
    return tuple(dict.fromkeys(n for n in names if 0 < len(n) < 128 and n.isprintable()))
