"""pyepics and aioca in one process, a panel and an asyncio service on one libca.

pyepics brings a libca of its own and aioca one of epicscorelibs. Where both are imported before
either is used, in either order, they share epicscorelibs' one: main thread and loop then read,
write and monitor the same IOC, also after a restart. What a program has to do in other orders is
shown as well: ``epicscorelibs.path.pyepics``, and pyepics first where both use one thread. Each
order is a process of its own, whose end counts.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from scene import HERE, Child, child, epics, expect, itself, repeater, step, wait_for

IOC = (sys.executable, HERE / "check_pyepics.py", "ioc")
PREFIX = "check:"


def libraries() -> set[str]:
    """The Channel Access libraries that the process has loaded, by the package they are of."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "/libca.so" in line}
    return {path.split("site-packages/")[-1].split("/")[0] for path in paths}


class Loop:
    """An event loop in a thread of its own, as a service beside a panel has it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine in the loop's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def end(self) -> None:
        """Close aioca's channels, then the loop: their callbacks ask for it."""
        import aioca

        async def purge() -> None:
            aioca.purge_channel_caches()

        self.run(purge())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def traffic(pyepics: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    """Both read what the other one writes."""
    import aioca

    pv = pyepics.PV(PREFIX + "current")
    expect("pyepics connects", pv.wait_for_connection(10), True)
    expect("pyepics writes", pv.put(2.5, wait=True, timeout=10), 1)
    expect("aioca reads it", float(run(aioca.caget(PREFIX + "current", timeout=10))), 2.5)
    run(aioca.caput(PREFIX + "current", 3.5, wait=True, timeout=10))
    expect("pyepics reads what aioca writes", pv.get(use_monitor=False), 3.5)


def together(pyepics: Any, loop: Loop, *, restart: bool) -> None:
    """Monitors of both at once, written to by both, also after a restart of the IOC."""
    import aioca

    seen: list[float] = []
    heard: list[float] = []
    turns = pyepics.PV(
        PREFIX + "turns", auto_monitor=True, callback=lambda value, **_: seen.append(value)
    )
    expect("pyepics connects the second", turns.wait_for_connection(10), True)

    async def listen() -> Any:
        return aioca.camonitor(PREFIX + "turns", lambda v: heard.append(int(v)), all_updates=True)

    loop.run(listen())
    first = [turns.get()]
    wait_for("first of both", lambda: (seen[-1:], heard[-1:]) == (first, first))
    for number in range(100, 200, 2):
        turns.put(number, wait=True, timeout=10)
        loop.run(aioca.caput(PREFIX + "turns", number + 1, wait=True, timeout=10))
    wanted = [*first, *range(100, 200)]
    wait_for("last of both", lambda: (seen[-1:], heard[-1:]) == ([199], [199]))
    expect("100 values to pyepics, all and in order", seen, wanted)
    expect("and to aioca", heard, wanted)

    if not restart:
        return
    print("restart", flush=True)
    wait_for("both connect again", lambda: (seen[-1:], heard[-1:]) == ([7], [7]), 30)
    turns.put(12, wait=True, timeout=10)
    wait_for("both go on after a restart", lambda: (seen[-1:], heard[-1:]) == ([12], [12]))
    step("both monitors go on after a restart of the IOC")


def threads(first: str) -> None:
    """The usual way: pyepics in the main thread, aioca in a loop's, imported in some order."""
    importlib.import_module(first)
    import aioca
    import epics as pyepics

    assert aioca  # only loaded here
    loop = Loop()
    traffic(pyepics, loop.run)
    together(pyepics, loop, restart=first == "aioca")
    expect("one libca", libraries(), {"epicscorelibs"})
    loop.end()


def early() -> None:
    """pyepics used before aioca is imported, as a panel may: told which libca."""
    import epicscorelibs.path.pyepics  # noqa: F401, I001
    import epics as pyepics

    pv = pyepics.PV(PREFIX + "current")
    expect("pyepics alone", pv.wait_for_connection(10), True)
    loop = Loop()
    traffic(pyepics, loop.run)
    expect("one libca", libraries(), {"epicscorelibs"})
    loop.end()


def one_thread() -> None:
    """One thread, one context: it is pyepics' that is to be the first, and is the last to end."""
    import aioca  # noqa: F401
    import epics as pyepics

    pyepics.ca.initialize_libca()
    with asyncio.Runner() as runner:
        traffic(pyepics, runner.run)
    expect("one libca", libraries(), {"epicscorelibs"})


def ends(client: Child, seconds: float = 40) -> None:
    """A program comes to its end by itself, and in order."""
    wait_for("the end", lambda: client.popen.poll() is not None, seconds)
    expect("ends in order", client.popen.returncode, 0)


def main() -> None:
    """Each order in a process of its own."""
    epics()
    with repeater(), child(*IOC) as server:
        wait_for("IOC", lambda: server.says("ready"))
        for arguments in (("threads", "epics"), ("early",), ("one_thread",)):
            with child(*itself(*arguments)) as client:
                ends(client)
            step(f"{' '.join(arguments)}: both work, and end")
        with child(*itself("threads", "aioca")) as client:
            wait_for("work before the restart", lambda: client.says("restart"), 30)
            server.end(signal.SIGKILL)
            with child(*IOC):
                ends(client)
        step("threads aioca: both work, also after a restart, and end")
    step("all of pyepics with aioca")


if __name__ == "__main__":
    if sys.argv[1:2] == ["threads"]:
        threads(sys.argv[2])
    else:
        {"early": early, "one_thread": one_thread}.get("".join(sys.argv[1:]), main)()
