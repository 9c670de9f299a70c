"""ophyd-async's devices over Channel Access (aioca) and PV Access (p4p), with bluesky's plans.

One softioc server serves the same records by both protocols. With each of them: what a device says
of itself, a move watched, refused, out of time and stopped, enums, arrays, an alarm, a scan with
its documents, PVs that are nowhere or of another type, and a server that is killed and comes back.
By PV Access a table; and the same device in mock mode, without a server.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from scene import child, epics, expect, itself, step, wait_for

DEVICE = "CHECK"


def ioc() -> None:
    """The server: an axis that takes its time, a detector, settings, a table."""
    import numpy
    from softioc import asyncio_dispatcher, builder, softioc

    builder.SetDeviceName(DEVICE)
    alarms = {"LOLO": -25, "LOW": -20, "HIGH": 20, "HIHI": 25}
    severities = {"LLSV": "MAJOR", "LSV": "MINOR", "HSV": "MINOR", "HHSV": "MAJOR"}
    readback = builder.aIn(
        "X:RBV", initial_value=0.0, EGU="mm", PREC=3, LOPR=-50, HOPR=50, **alarms, **severities
    )
    halted = []

    async def move(value: float) -> None:
        halted.clear()
        start = readback.get()
        for part in range(1, 6):
            # beyond 30 it is slow
            for _ in range(1 if abs(value) < 30 else 25):
                await asyncio.sleep(0.02)
                if halted:
                    return
            readback.set(start + (value - start) * part / 5)

    builder.aOut(
        *("X",),
        initial_value=0.0,
        on_update=move,
        blocking=True,
        always_update=True,
        EGU="mm",
        PREC=3,
        DRVL=-50,
        DRVH=50,
    )
    builder.boolOut("X:STOP", on_update=halted.append, always_update=True)
    builder.mbbOut("MODE", "single", "burst", "external", initial_value=0)
    builder.longOut("FRAMES", initial_value=1)
    builder.stringOut("FILE", initial_value="")
    counts = builder.aIn("COUNTS", initial_value=0.0, EGU="cts")
    image = builder.WaveformIn("IMAGE", initial_value=numpy.zeros(12, dtype="i4"))

    async def acquire(value: int) -> None:
        await asyncio.sleep(0.05)
        counts.set(100 - readback.get() ** 2)
        image.set(numpy.full(12, round(readback.get()), dtype="i4"))
        # a monitor may come after the end of the put that caused it, and plans read monitors
        await asyncio.sleep(0.2)

    builder.boolOut("ACQUIRE", on_update=acquire, blocking=True, always_update=True)
    table()
    builder.LoadDatabase()
    softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher())
    print("ready", flush=True)
    softioc.non_interactive_ioc()


def table() -> None:
    """Two waveforms as the columns of a table of PV Access."""
    import numpy
    from softioc import builder

    name = f"{DEVICE}:TABLE"
    for order, (column, kind) in enumerate((("position", "f8"), ("repeats", "i4"))):
        record = builder.WaveformOut(f"T:{column}", initial_value=numpy.zeros(4, dtype=kind))
        field = {"+type": "plain", "+channel": "VAL", "+putorder": order}
        group: dict[str, Any] = {f"value.{column}": field}
        if not order:
            group["+id"] = "epics:nt/NTTable:1.0"
        record.add_info("Q:group", {name: group})


def classes() -> tuple[type, type]:
    """The classes of an axis and of a detector."""
    import numpy
    from bluesky.protocols import Triggerable
    from ophyd_async.core import (
        Array1D,
        AsyncStatus,
        MovableLogic,
        SignalR,
        SignalRW,
        StandardMovable,
        StandardReadable,
        StrictEnum,
        TimeoutCalculator,
    )
    from ophyd_async.core import StandardReadableFormat as Format
    from ophyd_async.epics.core import EpicsDevice, PvSuffix

    class Mode(StrictEnum):
        SINGLE = "single"
        BURST = "burst"
        EXTERNAL = "external"

    @dataclass
    class Logic(MovableLogic[float]):
        halt: SignalRW[bool]

        async def stop(self) -> None:
            await self.halt.set(True)

        async def check_move(self, new_position: float) -> None:
            if abs(new_position) > 50:
                raise ValueError(f"{new_position} is beyond the end switch")

        async def move(self, new_position: float, timeout: TimeoutCalculator) -> None:
            await self.setpoint.set(new_position, timeout=timeout())

    class Axis(EpicsDevice, StandardReadable, StandardMovable[float]):
        readback: Annotated[SignalR[float], PvSuffix("X:RBV"), Format.HINTED_SIGNAL]
        setpoint: Annotated[SignalRW[float], PvSuffix("X")]
        halt: Annotated[SignalRW[bool], PvSuffix("X:STOP")]

        @cached_property
        def movable_logic(self) -> MovableLogic[float]:
            return Logic(setpoint=self.setpoint, readback=self.readback, halt=self.halt)

    class Detector(EpicsDevice, StandardReadable, Triggerable):
        acquire: Annotated[SignalRW[bool], PvSuffix("ACQUIRE")]
        counts: Annotated[SignalR[float], PvSuffix("COUNTS"), Format.HINTED_SIGNAL]
        image: Annotated[SignalR[Array1D[numpy.int32]], PvSuffix("IMAGE"), Format.CHILD]
        mode: Annotated[SignalRW[Mode], PvSuffix("MODE"), Format.CONFIG_SIGNAL]
        frames: Annotated[SignalRW[int], PvSuffix("FRAMES"), Format.CONFIG_SIGNAL]
        file: Annotated[SignalRW[str], PvSuffix("FILE")]

        @AsyncStatus.wrap
        async def trigger(self) -> None:
            await self.acquire.set(True)

    return Axis, Detector


def within(coroutine: Coroutine[Any, Any, Any], seconds: float = 20) -> Any:
    """What a coroutine gives, in the loop that devices and plans share."""
    from bluesky.run_engine import call_in_bluesky_event_loop

    return call_in_bluesky_event_loop(coroutine, seconds)


async def outcome(status: Any) -> str:
    """How a status ends: the class of its exception, or nothing."""
    try:
        await status
    except BaseException as error:
        return type(error).__name__
    return ""


async def moves(axis: Any) -> None:
    """An axis, to its good and bad ends."""
    expect(
        "described", {k: v for k, v in (await axis.describe())["axis"].items() if k in SAYS}, SAYS
    )
    seen: list[float] = []
    status = axis.set(5.0)
    status.watch(lambda **update: seen.append(round(update["current"], 6)))
    expect("a move takes its time", status.done, False)
    await status
    where = await axis.locate()
    expect("setpoint and readback", (where["setpoint"], where["readback"]), (5.0, 5.0))
    # the end of the move may come before the last position
    expect("watched on its way", seen[:5], [0.0, 1.0, 2.0, 3.0, 4.0])
    expect("refused by the device", await outcome(axis.set(51)), "ValueError")
    expect("out of time", await outcome(axis.set(40, timeout=0.2)), "TimeoutError")
    await axis.halt.set(True)
    for success, wanted in ((False, "RuntimeError"), (True, "")):
        status = axis.set(45.0)
        await asyncio.sleep(0.3)
        await axis.stop(success=success)
        expect(f"stopped, success={success}", await outcome(status), wanted)
        expect("on its way", await axis.readback.get_value() < 40, True)
    await axis.set(0.0)


SAYS = {"dtype": "number", "units": "mm", "precision": 3, "shape": []}


async def settings(detector: Any, scheme: str) -> None:
    """Enums, integers, arrays, text, and an alarm."""
    key = (await detector.describe_configuration())["detector-mode"]
    expect("choices of an enum", list(key["choices"]), ["single", "burst", "external"])
    kind = type(await detector.mode.get_value())
    await detector.mode.set(kind("burst"))
    await detector.frames.set(3)
    read = await detector.read_configuration()
    got = (kind(read["detector-mode"]["value"]), read["detector-frames"]["value"])
    expect("configuration", got, (kind("burst"), 3))
    expect("not among them", await outcome(detector.mode.set("sometimes")), "ValueError")
    await detector.file.set("µ-metal/scan-0001.h5")
    expect("text", await detector.file.get_value(), "µ-metal/scan-0001.h5")
    await detector.trigger()
    read = await detector.read()
    expect("a reading", read["detector-counts"]["value"], 100.0)
    stamp = read["detector-counts"]["timestamp"]
    expect("time stamp of the server", abs(stamp - time.time()) < 30, True)
    key = (await detector.describe())["detector-image"]
    expect("an array", (key["dtype"], list(key["shape"]), key["dtype_numpy"]), ARRAY)
    expect("where from", key["source"], f"{scheme}://{DEVICE}:IMAGE")
    await detector.mode.set(kind("single"))


ARRAY = ("array", [12], "<i4")


async def alarms(axis: Any) -> None:
    """The severity in a reading."""
    await axis.set(22.0)
    expect("MINOR by limit", (await axis.read())["axis"]["alarm_severity"], 1)
    await axis.set(26.0)
    expect("MAJOR by limit", (await axis.read())["axis"]["alarm_severity"], 2)
    await axis.set(0.0)
    expect("no alarm", (await axis.read())["axis"]["alarm_severity"], 0)


async def strangers(scheme: str) -> None:
    """PVs that are nowhere, or of another type than the device says."""
    from ophyd_async.core import NotConnectedError, StrictEnum
    from ophyd_async.epics.core import epics_signal_rw

    class Other(StrictEnum):
        SINGLE = "single"
        NEVER = "never"

    for datatype, pv, word in (
        (float, "nowhere:pv", "nowhere:pv"),
        (Other, f"{DEVICE}:MODE", "never"),
        (str, f"{DEVICE}:X", "float"),
    ):
        lost = epics_signal_rw(datatype, f"{scheme}://{pv}", name="lost")
        try:
            await lost.connect(timeout=1.0)
        except (NotConnectedError, TypeError) as error:
            expect(f"not connected: {word} of {pv}", word in str(error), True)
        else:
            raise AssertionError(f"{pv} is taken as {datatype}")


async def tables() -> None:
    """A table of PV Access."""
    import numpy
    from ophyd_async.core import Array1D, Table
    from ophyd_async.epics.core import epics_signal_rw

    class Path(Table):
        position: Array1D[numpy.float64]
        repeats: Array1D[numpy.int32]

    path = epics_signal_rw(Path, f"pva://{DEVICE}:TABLE", name="path")
    await path.connect(timeout=10)
    await path.set(Path(position=[1.5, 2.5, -1], repeats=[1, 2, 4]))
    got = await path.get_value()
    wanted = (3, [1.5, 2.5, -1.0], [1, 2, 4])
    expect("a table", (len(got), got.position.tolist(), got.repeats.tolist()), wanted)


def scan(
    engine: Any, documents: list[tuple[str, dict[str, Any]]], axis: Any, detector: Any
) -> None:
    """A scan and its documents."""
    from bluesky import plans as bp

    documents.clear()
    engine(bp.scan([detector], axis, -2, 2, 5))
    kinds = [name for name, _ in documents]
    expect("order of documents", kinds, ["start", "descriptor", *["event"] * 5, "stop"])
    events = [document["data"] for name, document in documents if name == "event"]
    expect("positions", [round(data["axis"], 6) for data in events], [-2, -1, 0, 1, 2])
    counts = [round(data["detector-counts"], 6) for data in events]
    expect("values", counts, [96, 99, 100, 99, 96])
    arrays = [int(data["detector-image"][0]) for data in events]
    expect("arrays", arrays, [-2, -1, 0, 1, 2])
    expect("stop", documents[-1][1]["exit_status"], "success")


def mock(made: Sequence[type]) -> None:
    """The same devices without a server."""
    from ophyd_async.core import init_devices, set_mock_value

    with init_devices(mock=True):
        axis, detector = made[0]("nowhere:", name="axis"), made[1]("nowhere:", name="detector")

    async def use() -> None:
        await axis.set(7.0)
        set_mock_value(detector.counts, 3.0)
        got = (await axis.readback.get_value(), (await detector.read())["detector-counts"]["value"])
        expect("in mock mode", got, (7.0, 3.0))

    within(use())


def protocol(scheme: str, made: Sequence[type], engine: Any, documents: list) -> None:
    """Everything by one protocol, over a restart of the server."""
    from bluesky import plans as bp
    from ophyd_async.core import init_devices, observe_value

    seen: list[float] = []

    async def watch() -> None:
        async for value in observe_value(axis.readback):
            seen.append(value)

    with child(*itself("ioc")) as server:
        wait_for("IOC", lambda: server.says("ready"))
        with init_devices():
            axis = made[0](f"{scheme}://{DEVICE}:", name="axis")
            detector = made[1](f"{scheme}://{DEVICE}:", name="detector")
        within(moves(axis))
        within(settings(detector, scheme))
        within(alarms(axis), 30)
        within(strangers(scheme))
        if scheme == "pva":
            within(tables())
        scan(engine, documents, axis, detector)
        watching = asyncio.run_coroutine_threadsafe(watch(), engine.loop)
        wait_for("watched", lambda: seen == [2.0])
        server.end(signal.SIGKILL)
        documents.clear()
        for _, part in axis.children():
            # 10 s without; a device of annotations has no other way to say it
            part._timeout = 1.5
        away(engine, bp.scan([detector], axis, 5, 6, 2), documents)
    with child(*itself("ioc")) as server:
        wait_for("IOC again", lambda: server.says("ready"))
        wait_for("the watch goes on", lambda: seen[-1] == 0.0, 40)
        scan(engine, documents, axis, detector)
        wait_for("to the end", lambda: seen[-1] == 2.0)
        watching.cancel()
        expect("the server ends", server.end(), 0)


def away(engine: Any, plan: Any, documents: list) -> None:
    """A scan while the server is away: it fails in time, and has an end."""
    start = time.monotonic()
    try:
        engine(plan)
    except Exception as error:
        step(f"without the server: {type(error).__name__} after {time.monotonic() - start:.0f} s")
    else:
        raise AssertionError("a server that is gone is not told")
    expect(
        "the run has its end", (engine.state, documents[-1][1].get("exit_status")), ("idle", "fail")
    )


def main() -> None:
    epics()
    from bluesky import RunEngine
    from event_model import DocumentNames, schema_validators

    documents: list[tuple[str, dict[str, Any]]] = []
    engine = RunEngine()

    def take(name: str, document: dict[str, Any]) -> None:
        schema_validators[DocumentNames[name]].validate(document)
        documents.append((name, document))

    engine.subscribe(take)
    made = classes()
    mock(made)
    for scheme in ("ca", "pva"):
        step(f"--- {scheme}")
        protocol(scheme, made, engine, documents)
    step("all of ophyd-async")


if __name__ == "__main__":
    {"ioc": ioc}.get("".join(sys.argv[1:]), main)()
