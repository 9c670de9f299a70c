"""What the kernel says: this boot, and whether a process is still there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

UNKNOWN_BOOT = "0" * 8
SLACK = 60.0
"""Seconds by which a clock that was set may make a process seem older than the boot."""


def boot_id(proc: Path = Path("/proc")) -> str:
    """The first 8 hex digits of this boot's id."""
    text = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii")
    return text.replace("-", "")[:8]


def boot_time() -> float:
    """When this boot was, by the clock as it is now (Unix seconds)."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_of(moment: float, boots: Sequence[tuple[float, str]]) -> str:
    """The boot during which a moment was, of those known (when, id; oldest first)."""
    found = UNKNOWN_BOOT
    for start, boot in boots:
        if start <= moment + SLACK:
            found = boot
    return found


def is_over(record_id: str, booted: float, proc: Path = Path("/proc")) -> bool:
    """Whether the process that wrote a start is gone, or never was of this boot.

    A record's id has the process number and the nanoseconds at its start. A number is used
    again, so a process that began later is another one. Within a container the numbers are others
    and a program may seem gone that is not: its end completes the event when it comes.
    """
    pid, _, moment = record_id.partition("-")
    began = int(moment, 16) / 1e9
    if began < booted - SLACK:
        return True
    try:
        text = (proc / pid / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    # the name of a program stands in parentheses, and may hold some
    fields = re.sub(r"(?s)^.*\)", "", text).split()
    ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return booted + ticks > began + SLACK
