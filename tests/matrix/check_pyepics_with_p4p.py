"""pyepics and p4p in one process: one IOC read by Channel Access and by PV Access at once.

softioc serves the same records by both. What one client writes the other one's monitor hears, in
order, while a server of p4p in this process passes on what the callbacks of libca tell; the IOC is
killed and comes back for both; Ctrl-C ends a program that waits with both. In both import orders.
"""

from __future__ import annotations

import importlib
import signal
import sys
import tempfile
import threading
from typing import Any

from scene import HERE, Child, child, epics, expect, itself, step, wait_for

DEVICE = "CHECK"


def ioc(directory: str) -> list[object]:
    """The command of the IOC."""
    return [sys.executable, HERE / "check_softioc.py", "ioc", directory]


def clients(first: str) -> None:
    """The program with both."""
    importlib.import_module(first)
    import epics as pyepics
    from p4p.client.thread import Context
    from p4p.nt import NTScalar
    from p4p.server import Server
    from p4p.server.thread import SharedPV

    name = f"{DEVICE}:TURNS"
    by_ca: list[int] = []
    by_pva: list[object] = []
    passed: list[int] = []
    gateway = SharedPV(nt=NTScalar("i"), initial=0)

    def heard(value: int, **_: object) -> None:
        # a thread of libca that calls into p4p
        by_ca.append(value)
        gateway.post(value)

    with Server(providers=[{"check:gateway": gateway}]), Context("pva") as context:
        pv = pyepics.PV(name, auto_monitor=True, callback=heard)
        expect("Channel Access connects", pv.wait_for_connection(10), True)
        now = int(context.get(name, timeout=10))
        expect("both read the same", pv.get(), now)
        told = context.monitor(name, by_pva.append, notify_disconnect=True)
        further = context.monitor("check:gateway", lambda value: passed.append(int(value)))
        wait_for("first of both", lambda: by_ca[-1:] == by_pva[-1:] == passed[-1:] == [now])
        for number in range(100, 160, 2):
            pv.put(number, wait=True, timeout=10)
            context.put(name, number + 1, wait=True, timeout=10)
        wait_for("last", lambda: by_ca[-1:] == by_pva[-1:] == passed[-1:] == [159])
        # under load values that are overtaken may be left out, but never come out of order
        for what, values in (("CA", by_ca), ("PVA", numbers(by_pva)), ("gateway", passed)):
            expect(f"{what} in order", values[1:], sorted(values[1:]))
        step("what one writes the other hears")
        if first == "p4p":
            restart(pv, by_ca, by_pva, passed)
        told.close()
        further.close()
        print("waits", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    sys.exit(7)


def restart(pv: Any, by_ca: list[int], by_pva: list[object], passed: list[int]) -> None:
    """The IOC is killed, and comes back for both."""
    print("restart", flush=True)
    wait_for("both lose it", lambda: not pv.connected and "Disconnected" in kinds(by_pva))
    wait_for("both have it again", lambda: by_ca[-1] == by_pva[-1] == passed[-1] == 7, 30)
    pv.put(12, wait=True, timeout=10)
    wait_for("both go on", lambda: by_ca[-1] == by_pva[-1] == passed[-1] == 12)
    step("monitors of both, and a server that passes them on, go on after a restart")


def numbers(values: list[object]) -> list[int]:
    """The values among what a monitor told."""
    return [int(value) for value in values if not isinstance(value, Exception)]  # type: ignore


def kinds(values: list[object]) -> set[str]:
    """The kinds of what a monitor told."""
    return {type(value).__name__ for value in values}


def ends(client: Child) -> None:
    """A client that has done all is ended by Ctrl-C."""
    wait_for("all of it", lambda: client.says("waits"), 40)
    expect("Ctrl-C ends it", client.end(signal.SIGINT), 7)
    expect("as an interrupt", "interrupted" in client.text(), True)


def main() -> None:
    """Both import orders, a process each."""
    epics()
    directory = tempfile.TemporaryDirectory(prefix="check-")
    with directory as path, child(*ioc(path)) as server:
        wait_for("IOC", lambda: server.says("ready"))
        with child(*itself("clients", "epics")) as client:
            ends(client)
        step("pyepics imported first")
        with child(*itself("clients", "p4p")) as client:
            wait_for("work before the restart", lambda: client.says("restart"), 30)
            server.end(signal.SIGKILL)
            with child(*ioc(path)):
                ends(client)
        step("p4p imported first, also after a restart")
    step("all of pyepics with p4p")


if __name__ == "__main__":
    clients(sys.argv[2]) if sys.argv[1:2] == ["clients"] else main()
