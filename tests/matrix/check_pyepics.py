"""pyepics (its own libca) against a caproto IOC in a child process, on loopback.

Get and put with wait, a put that takes time and one with a callback, monitors with their time
stamps, alarm status and severity, limits, units and precision, enum strings, waveform as numpy and
a long string, several PVs at once, a refused put, a PV that is nowhere, a server that is killed and
comes back, and Ctrl-C in a client that waits.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time

from scene import child, epics, expect, itself, repeater, step, wait_for

PREFIX = "check:"


def ioc() -> None:
    """The server: a magnet supply as far as a client can tell."""
    from caproto import AlarmSeverity, AlarmStatus, ChannelType
    from caproto.server import PVGroup, pvproperty, run

    class Supply(PVGroup):
        current = pvproperty(
            value=1.5,
            precision=3,
            units="A",
            lower_disp_limit=-20.0,
            upper_disp_limit=20.0,
            lower_ctrl_limit=-10.0,
            upper_ctrl_limit=10.0,
            lower_alarm_limit=-9.0,
            lower_warning_limit=-8.0,
            upper_warning_limit=8.0,
            upper_alarm_limit=9.0,
        )
        turns = pvproperty(value=7)
        mode = pvproperty(
            value="off", enum_strings=["off", "standby", "on"], dtype=ChannelType.ENUM
        )
        wave = pvproperty(value=[float(i) for i in range(100)], max_length=4000)
        name = pvproperty(value="quadrupole", dtype=ChannelType.STRING)
        path = pvproperty(value="", dtype=ChannelType.CHAR, max_length=300)
        slow = pvproperty(value=0)
        moved = pvproperty(value=0)
        reading = pvproperty(value=42.0, read_only=True)

        @current.putter
        async def current(self, instance, value):
            if value > 8:
                await instance.alarm.write(
                    status=AlarmStatus.HIGH, severity=AlarmSeverity.MINOR_ALARM
                )
            else:
                await instance.alarm.write(
                    status=AlarmStatus.NO_ALARM, severity=AlarmSeverity.NO_ALARM
                )
            return value

        @slow.putter
        async def slow(self, instance, value):
            # only a put that waits sees this done
            await asyncio.sleep(1.5)
            await self.moved.write(value)
            return value

    async def ready(async_lib):
        print("ready", flush=True)

    run(Supply(prefix=PREFIX).pvdb, interfaces=["127.0.0.1"], startup_hook=ready)


def waiting_client() -> None:
    """A client that only waits, for Ctrl-C to end."""
    import epics as pyepics

    pv = pyepics.PV(PREFIX + "turns")
    assert pv.wait_for_connection(10)
    print("waits", flush=True)
    try:
        while True:
            pyepics.poll(evt=0.01, iot=1.0)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(7)


def main() -> None:
    epics()
    import epics as pyepics
    import numpy

    def pv(name: str, **options: object) -> pyepics.PV:
        made = pyepics.PV(PREFIX + name, **options)
        if not made.wait_for_connection(15):
            raise AssertionError(f"{name} does not connect")
        return made

    with repeater(), child(*itself("ioc")) as server:
        wait_for("IOC", lambda: server.says("ready"))

        current = pv("current", form="ctrl")
        expect("get", current.get(), 1.5)
        expect("put with wait", current.put(2.25, wait=True, timeout=10), 1)
        # the monitor that a plain get() reads from may come after the answer to the put
        expect("get from the server", current.get(use_monitor=False), 2.25)
        current.get_ctrlvars(timeout=10)
        expect("units and precision", (current.units, current.precision), ("A", 3))
        limits = [
            *(current.lower_disp_limit, current.lower_ctrl_limit, current.lower_alarm_limit),
            *(current.lower_warning_limit, current.upper_warning_limit),
            *(current.upper_alarm_limit, current.upper_ctrl_limit, current.upper_disp_limit),
        ]
        expect("limits", limits, [-20, -10, -9, -8, 8, 9, 10, 20])

        # alarms come through a monitor, with the value they belong to
        seen: list[tuple[float, int, int]] = []
        stamps: list[float] = []

        def note(value: float, status: int, severity: int, timestamp: float, **_: object) -> None:
            seen.append((value, status, severity))
            stamps.append(timestamp)

        watched = pv("current", form="time", auto_monitor=True, callback=note)
        wait_for("first monitor", lambda: (2.25, 0, 0) in seen)
        current.put(8.5, wait=True, timeout=10)
        wait_for("MINOR on the high side", lambda: (8.5, pyepics.NO_ALARM + 4, 1) in seen)
        current.put(3.0, wait=True, timeout=10)
        wait_for("alarm gone", lambda: seen[-1] == (3.0, 0, 0))
        if abs(stamps[-1] - time.time()) > 30:
            raise AssertionError(f"time stamp {stamps[-1]} is not of today")
        step("monitor with alarm status, severity and time stamp")

        # the server refuses what is over its limit; a refused put must not look like a good one
        current.put(11.0, wait=True, timeout=10)
        expect("refused put leaves the value", current.get(use_monitor=False), 3.0)
        fresh = pyepics.caget(PREFIX + "current", use_monitor=False, timeout=10)
        expect("caget agrees", fresh, 3.0)
        watched.clear_callbacks()
        before = len(seen)
        current.put(4.0, wait=True, timeout=10)
        wait_for("value without callback", lambda: watched.value == 4.0)
        expect("a removed callback is not called", len(seen), before)

        reading = pv("reading")
        expect("read-only is known", (reading.read_access, reading.write_access), (True, False))

        # put completion: the server is done when the client goes on
        slow, moved = pv("slow"), pv("moved")
        start = time.monotonic()
        slow.put(5, wait=True, timeout=10)
        took = time.monotonic() - start
        expect("slow put is waited for", (took > 1.4, moved.get(use_monitor=False)), (True, 5))
        done = threading.Event()
        slow.put(6, callback=lambda **_: done.set())
        expect("put with a callback does not wait", done.is_set(), False)
        wait_for("put callback", done.is_set)
        expect("put callback comes after the work", moved.get(use_monitor=False), 6)
        # two clients of one record: the time limit of a wait is kept
        outcome = slow.put(7, wait=True, timeout=0.2)
        expect("time limit of put", (outcome, moved.get(use_monitor=False)), (-1, 6))
        wait_for("late put is done nevertheless", lambda: moved.get(use_monitor=False) == 7)

        mode = pv("mode")
        expect("enum", (mode.get(), mode.get(as_string=True)), (0, "off"))
        expect("enum strings", tuple(mode.enum_strs), ("off", "standby", "on"))
        mode.put("on", wait=True, timeout=10)
        expect("enum put by name", mode.get(use_monitor=False), 2)

        wave = pv("wave")
        got = wave.get()
        expect("waveform is numpy", (type(got), got.dtype), (numpy.ndarray, numpy.dtype("f8")))
        expect("waveform", (len(got), wave.nelm, got.sum()), (100, 4000, 4950.0))
        wanted = numpy.linspace(-1, 1, 4000)
        wave.put(wanted, wait=True, timeout=10)
        # until the monitor tells of the new length, pyepics cuts every answer to the old one
        wait_for("monitor of the waveform", lambda: len(wave.get()) == 4000)
        got = wave.get(use_monitor=False)
        expect("waveform there and back", (len(got), numpy.array_equal(got, wanted)), (4000, True))
        expect("part of a waveform", list(wave.get(count=3, use_monitor=False)), list(wanted[:3]))

        name, path = pv("name"), pv("path")
        expect("string", name.get(), "quadrupole")
        name.put("µ-metal", wait=True, timeout=10)
        expect("string beyond ASCII", name.get(use_monitor=False), "µ-metal")
        long = "/".join(f"part{i:03}" for i in range(30))
        path.put(long, wait=True, timeout=10)
        expect("long string", path.get(as_string=True, use_monitor=False), long)

        many = pyepics.caget_many([PREFIX + "turns", PREFIX + "name", PREFIX + "mode"], timeout=10)
        expect("several at once", many, [7, "µ-metal", 2])

        # what is nowhere
        start = time.monotonic()
        expect("get of no PV", pyepics.caget("nowhere:pv", timeout=1, connection_timeout=1), None)
        outcome = pyepics.caput("nowhere:pv", 1, wait=True, timeout=1, connection_timeout=1)
        expect("put to no PV", (outcome, time.monotonic() - start < 6), (None, True))

        with child(*itself("client")) as client:
            wait_for("waiting client", lambda: client.says("waits"))
            expect("Ctrl-C ends a waiting client", client.end(signal.SIGINT, 5), 7)
            expect("Ctrl-C is a KeyboardInterrupt", "interrupted" in client.text(), True)

        changes: list[bool] = []
        values: list[int] = []
        turns = pv(
            "turns",
            auto_monitor=True,
            callback=lambda value, **_: values.append(value),
            connection_callback=lambda conn, **_: changes.append(conn),
        )
        wait_for("monitor before the restart", lambda: values == [7])
        server.end(signal.SIGKILL)
        wait_for("disconnect is told", lambda: changes[-1:] == [False])
        expect("no value without server", (turns.connected, turns.get(timeout=0.5)), (False, None))

    with repeater(), child(*itself("ioc")) as server:
        wait_for("IOC again", lambda: server.says("ready"))
        wait_for("reconnect is told", lambda: changes[-1:] == [True], 30)
        turns.put(8, wait=True, timeout=10)
        wait_for("monitor goes on after the restart", lambda: values[-1] == 8)
        expect("same PV works after the restart", turns.get(use_monitor=False), 8)
        again = pv("current")
        expect("server began anew", again.get(use_monitor=False), 1.5)
    step("all of pyepics")


if __name__ == "__main__":
    {"ioc": ioc, "client": waiting_client}.get("".join(sys.argv[1:]), main)()
