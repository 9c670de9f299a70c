"""aioca and pyepics one after the other in the main thread: the program has to come to an end.

In one thread there is one context of Channel Access. aioca made it and pyepics joins it, but it
is pyepics that destroys it first when the interpreter ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from check_pyepics_with_aioca import IOC, PREFIX
from scene import child, epics, expect, itself, repeater, step, wait_for


def client() -> None:
    """A script that asks by aioca, then by pyepics."""
    import aioca
    import epics as pyepics

    value = asyncio.run(aioca.caget(PREFIX + "current", timeout=10))
    expect("aioca reads", float(value), 1.5)
    pv = pyepics.PV(PREFIX + "turns")
    expect("pyepics reads", (pv.wait_for_connection(10), pv.get(timeout=10)), (True, 7))
    step("all is done but the end")


def main() -> None:
    """The script, whose end counts."""
    epics()
    with repeater(), child(*IOC) as server:
        wait_for("IOC", lambda: server.says("ready"))
        with child(*itself("client")) as program:
            wait_for("the work", lambda: program.says("all is done"))
            with contextlib.suppress(AssertionError):
                wait_for("the end", lambda: program.popen.poll() is not None, 15)
            # where it goes wrong it aborts, or faults, or hangs
            expect("it ends in order", program.popen.poll() == 0, True)
    step("all of pyepics with aioca in one thread")


if __name__ == "__main__":
    client() if sys.argv[1:] == ["client"] else main()
