"""uvloop under the clients of asyncio: aioca, caproto and PyTango in one loop, by libuv.

Callbacks of libca and of Tango come from threads and wake the loop by its descriptor; caproto has
sockets of its own in it, UDP too. All three talk to their servers at once while the loop's timers
stay in time; a second loop, asyncio's own, uses aioca in another thread; SIGTERM ends the program
by a handler of the loop, and the interpreter ends with status 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

from scene import HERE, child, epics, expect, free_port, itself, repeater, step, wait_for

PREFIX = "check:"
DEVICE = "check/supply/1"
COUNT = 60


def device(port: int) -> list[object]:
    """The command of the device server."""
    words = ["Supply", "check", "-nodb", "-dlist", DEVICE]
    end = ["-ORBendPoint", f"giop:tcp:127.0.0.1:{port}"]
    return [sys.executable, HERE / "check_pytango.py", "serve", *words, *end]


async def by_aioca() -> list[int]:
    """Values of a monitor of aioca, in order."""
    import aioca

    seen: list[int] = []
    name = PREFIX + "turns"
    monitor = aioca.camonitor(name, lambda value: seen.append(int(value)), all_updates=True)
    await until(lambda: seen)
    for number in range(100, 100 + COUNT):
        await aioca.caput(name, number, wait=True, timeout=10)
    await until(lambda: seen[-1] == 99 + COUNT)
    monitor.close()
    return seen[1:]


async def by_caproto() -> list[int]:
    """What caproto reads of what it writes, to another PV of the same IOC."""
    from caproto.asyncio.client import Context

    context = Context()
    (pv,) = await context.get_pvs(PREFIX + "moved")
    await pv.wait_for_connection(timeout=10)
    seen: list[int] = []
    for number in range(COUNT):
        await pv.write([number], wait=True, timeout=10)
        seen.append(int((await pv.read(timeout=10)).data[0]))
    await context.disconnect()
    return seen


async def by_tango(name: str) -> list[float]:
    """What a device answers."""
    import tango.asyncio

    proxy = await tango.asyncio.DeviceProxy(name)
    return [await proxy.total([number, 0.5]) for number in range(COUNT)]


async def until(condition: Any) -> None:
    """Wait within the loop."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.02)


async def program(name: str) -> int:
    """All three at once, another loop, and the end."""
    import aioca
    import uvloop

    loop = asyncio.get_running_loop()
    expect("the loop is uvloop's", isinstance(loop, uvloop.Loop), True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(by_aioca(), by_caproto(), by_tango(name))
    expect("aioca hears all, in order", found[0], list(range(100, 100 + COUNT)))
    expect("caproto reads what it writes", found[1], list(range(COUNT)))
    expect("Tango answers", found[2], [number + 0.5 for number in range(COUNT)])
    expect("timers run meanwhile", len(ticks) > 20, True)
    ticking.cancel()

    other: list[object] = []
    thread = threading.Thread(target=plain, args=(other,))
    thread.start()
    await asyncio.to_thread(thread.join)
    expect("asyncio's own loop beside it", other, ["_UnixSelectorEventLoop", 99 + COUNT])

    try:
        await aioca.caget("nowhere:pv", timeout=0.5)
    except aioca.CANothing:
        step("what is nowhere is told in time")
    print("waits", flush=True)
    await ended.wait()
    print("told to end", flush=True)
    aioca.purge_channel_caches()
    return 7


def plain(found: list[object]) -> None:
    """aioca in a loop of asyncio, in a thread."""
    import aioca

    async def read() -> None:
        found.append(type(asyncio.get_running_loop()).__name__)
        found.append(int(await aioca.caget(PREFIX + "turns", timeout=10)))

    asyncio.run(read())


def main() -> None:
    """The servers, and the program."""
    epics()
    os.environ.update(TANGO_HOST="127.0.0.1:1")
    port = free_port()
    name = f"tango://127.0.0.1:{port}/{DEVICE}#dbase=no"
    ioc = (sys.executable, HERE / "check_pyepics.py", "ioc")
    with repeater(), child(*device(port)) as tango, child(*ioc) as server:
        wait_for("device server", lambda: tango.says("Ready to accept request"))
        wait_for("IOC", lambda: server.says("ready"))
        with child(*itself("program", name)) as started:
            wait_for("all of it", lambda: started.says("waits"), 60)
            expect("SIGTERM ends it in order", started.end(signal.SIGTERM), 7)
            expect("by the loop's handler", "told to end" in started.text(), True)
    step("all of uvloop with aioca, caproto and PyTango")


if __name__ == "__main__":
    if sys.argv[1:2] == ["program"]:
        import uvloop

        sys.exit(uvloop.run(program(sys.argv[2])))
    main()
