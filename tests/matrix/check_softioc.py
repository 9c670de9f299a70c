"""softioc in a child process, read by aioca (Channel Access) and by p4p (QSRV, PV Access).

caget, caput with wait (the record's own work is done), camonitor with alarm and time stamp, limits,
units, enum and long strings, a waveform as numpy, alarms by limit and from the program, a refused
value, DRVH, records processed by a link, autosave over a restart, and a client whose server is
killed and comes back.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scene import child, epics, expect, itself, repeater, step, wait_for

DEVICE = "CHECK"


def ioc(directory: str) -> None:
    """The server; its autosave goes to a directory."""
    import numpy
    from softioc import alarm, asyncio_dispatcher, autosave, builder, softioc

    autosave.configure(directory, DEVICE, save_period=0.5, timestamped_backups=False)
    dispatcher = asyncio_dispatcher.AsyncioDispatcher()
    builder.SetDeviceName(DEVICE)
    readback = builder.aIn(
        *("CURRENT:RBV",),
        initial_value=1.5,
        EGU="A",
        PREC=3,
        LOPR=-20,
        HOPR=20,
        LOLO=-9,
        LOW=-8,
        HIGH=8,
        HIHI=9,
        LLSV="MAJOR",
        LSV="MINOR",
        HSV="MINOR",
        HHSV="MAJOR",
    )

    async def apply(value: float) -> None:
        # only a put that waits sees this done
        await asyncio.sleep(0.7)
        readback.set(value)

    builder.aOut(
        *("CURRENT",),
        initial_value=1.5,
        on_update=apply,
        blocking=True,
        always_update=True,
        DRVL=-10,
        DRVH=10,
        autosave=True,
    )
    builder.longOut("TURNS", initial_value=7, validate=lambda record, value: value != 13)
    builder.mbbOut("MODE", "off", "standby", ("fault", "MAJOR"), initial_value=0)
    builder.WaveformOut("WAVE", initial_value=numpy.zeros(5000), on_update=lambda value: None)
    builder.longStringOut("PATH", length=400, initial_value="")
    builder.stringOut("NAME", initial_value="µ-metal")
    broken = builder.aIn("SENSOR", initial_value=4.0)
    builder.boolOut(
        *("BREAK", "whole", "broken"),
        initial_value=0,
        on_update=lambda value: broken.set(
            4.0,
            severity=alarm.INVALID_ALARM if value else alarm.NO_ALARM,
            alarm=alarm.READ_ALARM if value else alarm.NO_ALARM,
        ),
    )
    # a record that EPICS itself works out, from the readback whenever it changes
    builder.records.calc("DOUBLE", CALC="A*2", INPA=builder.CP(readback))
    builder.LoadDatabase()
    softioc.iocInit(dispatcher)
    print("ready", flush=True)
    # ends with a signal, and with the exit handlers of EPICS and of autosave
    softioc.non_interactive_ioc()


async def until(what: str, condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait within the loop."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        await asyncio.sleep(0.05)
    step(what)


async def channel_access() -> None:
    """Everything aioca does with a server that stays."""
    import numpy
    from aioca import (
        FORMAT_CTRL,
        FORMAT_TIME,
        CANothing,
        caget,
        cainfo,
        camonitor,
        caput,
        connect,
    )

    pv = f"{DEVICE}:{{}}".format
    await connect([pv("CURRENT"), pv("WAVE"), pv("MODE")], timeout=15)
    expect("caget", float(await caget(pv("CURRENT:RBV"))), 1.5)
    got = await caget(pv("CURRENT:RBV"), format=FORMAT_CTRL)
    expect("units and precision", (got.units, got.precision), ("A", 3))
    limits = [
        *(got.lower_disp_limit, got.lower_alarm_limit, got.lower_warning_limit),
        *(got.upper_warning_limit, got.upper_alarm_limit, got.upper_disp_limit),
    ]
    expect("limits", limits, [-20, -9, -8, 8, 9, 20])
    info = await cainfo(pv("WAVE"))
    expect(
        "cainfo",
        (info.count, info.write, info.state_strings[info.state]),
        (5000, True, "connected"),
    )

    seen: list[tuple[float, int]] = []
    stamps: list[float] = []

    def note(value) -> None:
        seen.append((float(value), value.severity))
        stamps.append(value.timestamp)

    monitor = camonitor(pv("CURRENT:RBV"), note, format=FORMAT_TIME)
    await until("first monitor", lambda: seen == [(1.5, 0)])
    start = time.monotonic()
    await caput(pv("CURRENT"), 3.0, wait=True, timeout=10)
    took = time.monotonic() - start
    now = float(await caget(pv("CURRENT:RBV")))
    expect("caput waits for the work", (took > 0.65, now), (True, 3.0))
    expect("calculated record", float(await caget(pv("DOUBLE"))), 6.0)
    await caput(pv("CURRENT"), 8.5)
    expect("caput without wait does not", seen[-1], (3.0, 0))
    await until("MINOR by limit", lambda: seen[-1] == (8.5, 1))
    await caput(pv("CURRENT"), 40, wait=True, timeout=10)
    await until("drive limit holds, MAJOR by limit", lambda: seen[-1] == (10.0, 2))
    await caput(pv("CURRENT"), 2.25, wait=True, timeout=10)
    await until("alarm gone", lambda: seen[-1] == (2.25, 0))
    expect("time stamp is of today", abs(stamps[-1] - time.time()) < 30, True)
    try:
        await caput(pv("CURRENT"), 2.25, wait=True, timeout=0.1)
    except CANothing as nothing:
        expect("time limit of caput", (bool(nothing), nothing.name), (False, pv("CURRENT")))
    else:
        raise AssertionError("caput waited less than the record works")
    monitor.close()
    await asyncio.sleep(0.6)
    count = len(seen)
    await caput(pv("CURRENT"), 2.5, wait=True, timeout=10)
    await asyncio.sleep(0.2)
    expect("a closed monitor is silent", len(seen), count)

    await caput(pv("TURNS"), 13, wait=True, timeout=10)
    expect("refused value", int(await caget(pv("TURNS"))), 7)
    await caput(pv("BREAK"), "broken", wait=True, timeout=10)
    got = await caget(pv("SENSOR"), format=FORMAT_TIME)
    expect("alarm of the program", (float(got), got.severity, got.status), (4.0, 3, 1))
    mode = await caget(pv("MODE"), format=FORMAT_CTRL)
    expect("enum strings", list(mode.enums), ["off", "standby", "fault"])
    await caput(pv("MODE"), "fault", wait=True, timeout=10)
    mode = await caget(pv("MODE"), format=FORMAT_TIME)
    expect("enum put by name, alarm of a state", (int(mode), mode.severity), (2, 2))
    expect("enum as string", str(await caget(pv("MODE"), datatype=str)), "fault")

    wanted = numpy.linspace(-1, 1, 5000)
    await caput(pv("WAVE"), wanted, wait=True, timeout=10)
    got = await caget(pv("WAVE"))
    expect("waveform", (got.dtype, numpy.array_equal(got, wanted)), (numpy.dtype("f8"), True))
    expect("part of a waveform", list(await caget(pv("WAVE"), count=2)), list(wanted[:2]))
    long = "/".join(f"part{i:03}" for i in range(40))
    await caput(pv("PATH"), long, datatype=999, wait=True, timeout=10)
    expect("long string", str(await caget(pv("PATH"), datatype=999)), long)
    expect("string beyond ASCII", str(await caget(pv("NAME"))), "µ-metal")
    got = await caget([pv("TURNS"), "nowhere:pv"], timeout=1, throw=False)
    expect("one of two is nowhere", (int(got[0]), got[0].ok, got[1].ok), (7, True, False))
    start = time.monotonic()
    try:
        await caput("nowhere:pv", 1, wait=True, timeout=0.5)
    except CANothing:
        expect("caput to no PV ends in time", time.monotonic() - start < 3, True)
    else:
        raise AssertionError("caput to no PV is taken")


def pv_access() -> None:
    """What QSRV shows of the same records."""
    import numpy
    from p4p.client.thread import Context

    pv = f"{DEVICE}:{{}}".format
    with Context("pva") as context:
        got = context.get(pv("CURRENT:RBV"))
        expect("QSRV get", float(got), 2.5)
        shown = (
            got.raw.display.units,
            got.raw.display.limitHigh,
            got.raw.valueAlarm.highAlarmLimit,
        )
        expect("QSRV units and limits", shown, ("A", 20.0, 9.0))
        context.put(pv("CURRENT"), 9.5, wait=True)
        wait_for("QSRV put", lambda: float(context.get(pv("CURRENT:RBV"))) == 9.5)
        expect("QSRV alarm", context.get(pv("CURRENT:RBV")).severity, 2)
        mode = context.get(pv("MODE"))
        expect("QSRV enum", (int(mode), mode.raw.value.choices[2]), (2, "fault"))
        wave = context.get(pv("WAVE"))
        expect("QSRV waveform", numpy.array_equal(wave, numpy.linspace(-1, 1, 5000)), True)
        seen: list[float] = []
        with context.monitor(pv("TURNS"), lambda value: seen.append(int(value))):
            wait_for("QSRV monitor", lambda: seen == [7])
            context.put(pv("TURNS"), 8)
            wait_for("QSRV update", lambda: seen == [7, 8])
        step("QSRV put and monitor")


async def check(directory: str) -> None:
    """All of it in one loop, for aioca's channels belong to the loop that opened them."""
    from aioca import caget, camonitor, caput

    pv = f"{DEVICE}:{{}}".format
    connected: list[bool] = []
    with child(*itself("ioc", directory)) as server:
        wait_for("IOC", lambda: server.says("ready"))
        await channel_access()
        await asyncio.to_thread(pv_access)

        monitor = camonitor(
            pv("CURRENT:RBV"), lambda value: connected.append(value.ok), notify_disconnect=True
        )
        await until("connected", lambda: connected[-1:] == [True])
        await caput(pv("CURRENT"), 6.25, wait=True, timeout=10)
        saved = Path(directory, f"{DEVICE}.softsav")
        await until("saved", lambda: "6.25" in saved.read_text())
        server.end(signal.SIGKILL)
        await until("disconnect is told", lambda: connected[-1] is False)
    with child(*itself("ioc", directory)) as server:
        wait_for("IOC again", lambda: server.says("ready"))
        await until("monitor goes on after the restart", lambda: connected[-1] is True, 30)
        expect("autosave", float(await caget(pv("CURRENT"))), 6.25)
        await caput(pv("CURRENT"), 1.0, wait=True, timeout=10)
        expect("put after the restart", float(await caget(pv("CURRENT:RBV"))), 1.0)
        monitor.close()
        expect("the IOC ends when told", server.end(signal.SIGTERM), 0)
        expect("and saves at its end", "1.0" in saved.read_text(), True)


def main() -> None:
    epics()
    with repeater(), tempfile.TemporaryDirectory(prefix="check-") as directory:
        asyncio.run(check(directory))
    step("all of softioc and aioca")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ioc"]:
        ioc(sys.argv[2])
    else:
        main()
