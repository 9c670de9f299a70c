"""pyepics and aioca where ``PYEPICS_LIBCA`` names another libca than the one that aioca brings.

Many sites set that variable to the libca of their own EPICS base, and have two in the process
then. The one that aioca loads lays its symbols open, and the other one's are bound to them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from check_pyepics_with_aioca import IOC, PREFIX, Loop, ends, libraries
from scene import child, epics, expect, itself, repeater, step, wait_for

GOES_ON = "aioca goes on beside another libca"


def client() -> None:
    """aioca first, then pyepics, then aioca again."""
    import aioca
    import epics as pyepics

    loop = Loop()
    expect("aioca reads", float(loop.run(aioca.caget(PREFIX + "current", timeout=10))), 1.5)
    pv = pyepics.PV(PREFIX + "turns")
    expect("pyepics reads", (pv.wait_for_connection(10), pv.get(timeout=10)), (True, 7))
    expect("two libca", libraries(), {"epics", "epicscorelibs"})
    expect(GOES_ON, int(loop.run(aioca.caget(PREFIX + "turns", timeout=5))), 7)
    loop.end()


def main() -> None:
    """A program with both, whose end counts."""
    epics()
    found = importlib.util.find_spec("epics")
    assert found, "no pyepics"
    # any libca beside that of epicscorelibs does; this one is at hand
    os.environ["PYEPICS_LIBCA"] = str(Path(str(found.origin)).parent / "clibs/linux64/libca.so")
    with repeater(), child(*IOC) as server:
        wait_for("IOC", lambda: server.says("ready"))
        with child(*itself("client")) as program:
            with contextlib.suppress(AssertionError):
                wait_for("the end", lambda: program.says(GOES_ON), 15)
            # it may also hang, or be aborted for a heap that is damaged
            expect(GOES_ON, GOES_ON in program.text(), True)
            ends(program)
    step("all of pyepics with aioca and two libca")


if __name__ == "__main__":
    client() if sys.argv[1:] == ["client"] else main()
