"""Text for people: colours where a terminal shows them, durations and sizes in fitting units."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable

CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}

STYLE = re.compile(r"\x1b\[\d+m")
"""What ``paint`` adds, and a terminal shows in no column."""


def terminal() -> bool:
    """Whether standard output is read by a person, and not by another program or a file."""
    return sys.stdout.isatty()


def paint(style: str, text: str) -> str:
    """A text in a style where standard output is a terminal and NO_COLOR is not set."""
    if not text or not terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{CODES[style]}m{text}\x1b[0m"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use: ``0.4 s``, ``12 s``, ``3 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in the unit a person would use (1 MB is a million bytes)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":  # what rounds to 1000 is in the next unit
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def clip(text: str, room: int) -> str:
    """A text cut to so many columns, with a sign where something is left out."""
    return text if len(text) <= room else f"{text[: max(0, room - 1)].rstrip()}…"


def fold(text: str, *, indent: int = 0) -> list[str]:
    """A text in lines as wide as the terminal behind an indent; one line for everything else."""
    if not terminal():
        return [text]
    room = max(20, width() - indent)
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and len(STYLE.sub("", longer)) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def print_rows(rows: Iterable[tuple[str, str]], *, label_width: int = 10) -> None:
    """Values behind their labels; a label that comes again, or is empty, is printed once."""
    previous = ""
    for label, value in rows:
        for line in fold(value, indent=label_width + 3):
            shown = "" if label == previous else label
            print(f"  {paint('dim', f'{shown:<{label_width}}')} {line}".rstrip())
            previous = label or previous
