"""caproto alone: its sync, threading and asyncio clients and its repeater against its own IOC.

Read and write with notification, what a channel says of itself (limits, units, enum strings, alarm,
time stamp), subscriptions with a mask, a refused write, records with fields, a waveform, a PV that
is nowhere, and an IOC that is killed and comes back, with each client.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import sys
import time

from scene import child, epics, expect, itself, repeater, step, wait_for

PREFIX = "check:"
HIHI = (3, 2)  # status and severity as they are on the wire


def ioc() -> None:
    """The server."""
    from caproto import ChannelType
    from caproto.server import PVGroup, SubGroup, pvproperty, run

    class Axis(PVGroup):
        target = pvproperty(value=0.0, record="ao", precision=2, units="mm")
        readback = pvproperty(
            value=0.0,
            read_only=True,
            lower_alarm_limit=-90.0,
            lower_warning_limit=-80.0,
            upper_warning_limit=80.0,
            upper_alarm_limit=90.0,
            alarm_group="readback",
        )

        @target.putter
        async def target(self, instance, value):
            if abs(value) > 100:
                raise ValueError("beyond the end switch")
            await self.readback.write(value)
            return value

    class Bench(PVGroup):
        x = SubGroup(Axis)
        y = SubGroup(Axis)
        beat = pvproperty(value=0)
        mode = pvproperty(value="off", enum_strings=["off", "on"], dtype=ChannelType.ENUM)
        wave = pvproperty(value=[0.0] * 10, max_length=10_000)
        name = pvproperty(value="bench", dtype=ChannelType.STRING)
        limited = pvproperty(value=5, lower_ctrl_limit=-10, upper_ctrl_limit=10, units="µA")

        @beat.scan(period=0.1)
        async def beat(self, instance, async_lib):
            await instance.write(instance.value + 1)

    async def ready(async_lib):
        print("ready", flush=True)

    run(Bench(prefix=PREFIX).pvdb, interfaces=["127.0.0.1"], startup_hook=ready)


def sync() -> None:
    """The client without threads: each call searches and connects anew."""
    import numpy
    from caproto import CaprotoTimeoutError, ChannelType, ErrorResponseReceived
    from caproto.sync.client import block, read, subscribe, write

    expect("sync read", list(read(PREFIX + "x:target").data), [0.0])
    write(PREFIX + "x:target", 12.5, notify=True)
    answer = read(PREFIX + "x:readback", data_type="time")
    expect("sync write reaches the readback", list(answer.data), [12.5])
    expect("time stamp is of today", abs(answer.metadata.timestamp - time.time()) < 30, True)
    write(PREFIX + "x:target", 95, notify=True)
    metadata = read(PREFIX + "x:readback", data_type="time").metadata
    expect("alarm", (metadata.status, metadata.severity), HIHI)
    try:
        write(PREFIX + "x:target", 101, notify=True)
    except ErrorResponseReceived:
        step("refused write is an error")
    else:
        raise AssertionError("a refused write is taken")
    expect("and leaves the value", list(read(PREFIX + "x:readback").data), [95.0])
    write(PREFIX + "x:target", 0, notify=True)

    metadata = read(PREFIX + "limited", data_type="control").metadata
    limits = (metadata.lower_ctrl_limit, metadata.upper_ctrl_limit, metadata.units)
    # text is Latin-1 on the wire unless the server is told otherwise
    expect("limits and units", limits, (-10, 10, b"\xb5A"))
    expect("field of a record", list(read(PREFIX + "x:target.PREC").data), [2])
    expect("record type", list(read(PREFIX + "x:target.RTYP").data), [b"ao"])

    mode = read(PREFIX + "mode", data_type=ChannelType.CTRL_ENUM)
    expect("enum strings", tuple(mode.metadata.enum_strings), (b"off", b"on"))
    write(PREFIX + "mode", "on", notify=True)
    expect("enum", list(read(PREFIX + "mode", force_int_enums=True).data), [1])
    expect(
        "enum as it reads", list(read(PREFIX + "mode", data_type=ChannelType.STRING).data), [b"on"]
    )
    expect("string", list(read(PREFIX + "name").data), [b"bench"])

    wanted = numpy.linspace(0, 1, 10_000)
    write(PREFIX + "wave", wanted, notify=True)
    got = read(PREFIX + "wave").data
    expect("waveform", (type(got), numpy.array_equal(got, wanted)), (numpy.ndarray, True))

    beats: list[int] = []
    subscription = subscribe(PREFIX + "beat")

    def note(_: object, response) -> None:
        beats.append(int(response.data[0]))
        if len(beats) == 4:
            # Ctrl-C is how a blocking subscription of this client ends
            signal.raise_signal(signal.SIGINT)

    subscription.add_callback(note)
    block(subscription, duration=20)
    expect("sync monitor, ended by Ctrl-C", [b - beats[0] for b in beats], [0, 1, 2, 3])

    start = time.monotonic()
    try:
        read("nowhere:pv", timeout=0.7)
    except CaprotoTimeoutError:
        expect("no PV ends in time", time.monotonic() - start < 5, True)
    else:
        raise AssertionError("a PV that is nowhere is read")


def threaded(serve) -> None:
    """The client with threads, over a restart of the server."""
    from caproto import CaprotoTimeoutError
    from caproto.threading.client import Batch, Context

    states: list[str] = []
    updates: queue.Queue = queue.Queue()

    def changed(_: object, state: str) -> None:
        # a function with a name: the client holds callbacks weakly
        states.append(state)

    def note(_: object, response) -> None:
        updates.put((float(response.data[0]), response.metadata.severity))

    def until(wanted: tuple[float, int], seconds: float = 20) -> bool:
        end = time.monotonic() + seconds
        while True:
            if updates.get(timeout=max(0.01, end - time.monotonic())) == wanted:
                return True

    with Context() as context:
        with child(*serve) as server:
            wait_for("IOC", lambda: server.says("ready"))
            x, y, back = context.get_pvs(
                *(PREFIX + name for name in ("x:target", "y:target", "x:readback")),
                connection_state_callback=changed,
            )
            for pv in (x, y, back):
                pv.wait_for_connection(timeout=15)
            subscription = back.subscribe(data_type="time")
            subscription.add_callback(note)
            expect("first monitor", updates.get(timeout=10), (0.0, 0))
            x.write(3.0, wait=True, timeout=10)
            expect("monitor", updates.get(timeout=10), (3.0, 0))
            x.write(91.0, wait=True, timeout=10)
            expect("monitor with alarm", until((91.0, 2)), True)
            got: dict[str, float] = {}
            with Batch() as batch:
                for pv in (x, y):
                    batch.read(pv, lambda answer, n=pv.name: got.update({n: answer.data[0]}))
            wait_for("batch", lambda: len(got) == 2)
            expect("batch", got, {PREFIX + "x:target": 91.0, PREFIX + "y:target": 0.0})
            (nowhere,) = context.get_pvs("nowhere:pv")
            try:
                nowhere.read(timeout=0.5)
            except CaprotoTimeoutError:
                step("no PV is a time-out")
            states.clear()
            server.end(signal.SIGKILL)
            wait_for("disconnect is told", lambda: "disconnected" in states)
            wait_for("all are gone", lambda: not (x.connected or y.connected or back.connected))
        with child(*serve) as server:
            wait_for("IOC again", lambda: server.says("ready"))
            wait_for("reconnect is told", lambda: states[-1:] == ["connected"], 40)
            wait_for("all are back", lambda: x.connected and y.connected and back.connected)
            x.write(4.0, wait=True, timeout=10)
            expect("subscription lives on after the restart", until((4.0, 0)), True)
            expect("read after the restart", list(x.read(timeout=10).data), [4.0])
            subscription.clear()
            x.write(5.0, wait=True, timeout=10)
            time.sleep(0.3)
            expect("a cleared subscription is silent", updates.empty(), True)


async def asynchronous(serve) -> None:
    """The asyncio client, over a restart of the server."""
    from caproto.asyncio.client import Context

    context = Context()
    try:
        seen: list[float] = []

        async def note(_: object, response) -> None:
            seen.append(float(response.data[0]))

        async def until(what: str, condition, seconds: float = 40) -> None:
            end = time.monotonic() + seconds
            while not condition():
                if time.monotonic() > end:
                    raise AssertionError(f"{what}: not within {seconds:g} s")
                await asyncio.sleep(0.05)
            step(what)

        with child(*serve) as server:
            wait_for("IOC", lambda: server.says("ready"))
            target, back = await context.get_pvs(PREFIX + "x:target", PREFIX + "x:readback")
            await target.wait_for_connection(timeout=15)
            await back.wait_for_connection(timeout=15)
            subscription = back.subscribe(data_type="time")
            subscription.add_callback(note)
            await until("asyncio monitor", lambda: seen == [0.0])
            await target.write([7.0], wait=True, timeout=10)
            await until("asyncio update", lambda: seen == [0.0, 7.0])
            expect("asyncio read", list((await target.read(timeout=10)).data), [7.0])
            server.end(signal.SIGKILL)
            await until("asyncio disconnect", lambda: not back.connected)
        with child(*serve) as server:
            wait_for("IOC again", lambda: server.says("ready"))
            await until("asyncio reconnect", lambda: back.connected and target.connected)
            await target.write([8.0], wait=True, timeout=10)
            await until("asyncio update after the restart", lambda: seen[-1] == 8.0)
    finally:
        await context.disconnect()


def main() -> None:
    epics()
    serve = itself("ioc")
    with repeater():
        with child(*serve) as server:
            wait_for("IOC", lambda: server.says("ready"))
            sync()
            expect("Ctrl-C ends the IOC", server.end(signal.SIGINT, 10), 0)
        threaded(serve)
        asyncio.run(asynchronous(serve))
    step("all of caproto")


if __name__ == "__main__":
    {"ioc": ioc}.get("".join(sys.argv[1:]), main)()
