"""pyzmq and PyTango in one process: two libzmq, events of Tango beside sockets of one's own.

Each wheel has its own libzmq, and Tango's events come by it. A callback of Tango sends what it
hears through a socket of pyzmq to a thread that waits there; asyncio's sockets run meanwhile; both
contexts end, and so does the interpreter. In both import orders, and Ctrl-C while both wait.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
from typing import Any

from scene import HERE, child, expect, free_port, itself, step, wait_for

NAME = "check/supply/1"
COUNT = 100


def server(port: int) -> list[object]:
    """The command of the device server."""
    words = ["Supply", "check", "-nodb", "-dlist", NAME]
    end = ["-ORBendPoint", f"giop:tcp:127.0.0.1:{port}"]
    return [sys.executable, HERE / "check_pytango.py", "serve", *words, *end]


def libraries() -> set[str]:
    """The copies of libzmq that the process has loaded, by the package they are of."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "/libzmq" in line}
    return {path.split("site-packages/")[-1].split("/")[0] for path in paths}


def relay(tango: Any, zmq: Any, context: Any, proxy: Any) -> list[str]:
    """Events of Tango through sockets of pyzmq; what came at the far end."""
    found: list[str] = []
    ready = threading.Event()

    def collect() -> None:
        with context.socket(zmq.PULL) as pull:
            pull.bind("inproc://events")
            ready.set()
            while (text := pull.recv_string()) != "end":
                found.append(text)

    collector = threading.Thread(target=collect)
    collector.start()
    assert ready.wait(10), "the collector does not begin"
    push = context.socket(zmq.PUSH)
    push.connect("inproc://events")
    events: list[str] = []

    def heard(event: Any) -> None:
        # a thread of Tango that calls into the other libzmq
        if not event.err:
            events.append(event.attr_value.value)
            push.send_string(event.attr_value.value)

    number = proxy.subscribe_event("label", tango.EventType.CHANGE_EVENT, heard)
    wait_for("the first event", lambda: events)
    for count in range(COUNT):
        proxy.label = f"label {count}"
        asked = proxy.total([count, 1.0])
        assert asked == count + 1, asked
    wait_for("the last event", lambda: events[-1:] == [f"label {COUNT - 1}"])
    proxy.unsubscribe_event(number)
    push.send_string("end")
    collector.join()
    push.close()
    expect("all events passed on, in order", found, events)
    return found


async def requests(zmq: Any, port: int) -> int:
    """Requests by TCP in a loop; how many were answered well."""
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.REP) as answers,
        context.socket(zmq.REQ) as asks,
    ):
        answers.bind(f"tcp://127.0.0.1:{port}")
        asks.connect(f"tcp://127.0.0.1:{port}")

        async def serve() -> None:
            for _ in range(COUNT):
                await answers.send(b"<" + await answers.recv() + b">")

        serving = asyncio.create_task(serve())
        good = 0
        for count in range(COUNT):
            await asks.send(b"%d" % count)
            good += await asks.recv() == b"<%d>" % count
        await serving
    return good


def clients(first: str, name: str) -> None:
    """The program with both."""
    importlib.import_module(first)
    import tango
    import zmq
    import zmq.asyncio

    answered: list[int] = []
    loop = threading.Thread(target=lambda: answered.append(asyncio.run(requests(zmq, free_port()))))
    with zmq.Context() as context:
        proxy = tango.DeviceProxy(name)
        loop.start()
        found = relay(tango, zmq, context, proxy)
        loop.join(30)
        expect("events by Tango's", found[1:], [f"label {count}" for count in range(COUNT)])
        expect("requests by pyzmq's meanwhile", answered, [COUNT])
        expect("two libzmq", libraries(), {"pytango.libs", "pyzmq.libs"})
        with context.socket(zmq.PULL) as idle:
            idle.bind("inproc://idle")
            proxy.subscribe_event("label", tango.EventType.CHANGE_EVENT, lambda _: None)
            print("waits", flush=True)
            try:
                idle.recv()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
    sys.exit(7)


def main() -> None:
    """Both import orders, a process each."""
    # a file of the system or of a home names a database otherwise
    os.environ.update(TANGO_HOST="127.0.0.1:1")
    port = free_port()
    name = f"tango://127.0.0.1:{port}/{NAME}#dbase=no"
    with child(*server(port)) as device:
        wait_for("server", lambda: device.says("Ready to accept request"))
        for first in ("zmq", "tango"):
            with child(*itself("clients", first, name)) as client:
                wait_for("all of it", lambda client=client: client.says("waits"), 40)
                expect("Ctrl-C ends both", client.end(signal.SIGINT), 7)
                expect("as an interrupt", "interrupted" in client.text(), True)
            step(f"{first} imported first")
    step("all of pyzmq with PyTango")


if __name__ == "__main__":
    clients(*sys.argv[2:]) if sys.argv[1:2] == ["clients"] else main()
