"""p4p, client and server of PV Access, in one process and with a server in a child process.

Get, put and monitor of scalars with alarm, limits and units; a put that the server refuses; enum;
string arrays; RPC with arguments and with an error; NTTable and NTNDArray there and back, with
their structure; a server that is killed and comes back; the exit of an asyncio client; Ctrl-C in a
client that waits and in the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import sys
import time

from scene import child, epics, expect, itself, step, wait_for

PREFIX = "check:"
COLUMNS = [("device", "s"), ("position", "d"), ("turns", "i")]
ROWS = [
    {"device": "QF1", "position": 0.5, "turns": 12},
    {"device": "QD1", "position": 2.25, "turns": -7},
]


def provider():
    """The PVs of the server, in a process of its own or in the check's."""
    from p4p.nt import NTEnum, NTNDArray, NTScalar, NTTable
    from p4p.server import StaticProvider
    from p4p.server.thread import SharedPV

    current = SharedPV(
        nt=NTScalar("d", display=True, control=True, valueAlarm=True),
        initial={
            "value": 1.5,
            "display": {"limitLow": -20.0, "limitHigh": 20.0, "units": "A"},
            "control": {"limitLow": -10.0, "limitHigh": 10.0},
        },
    )

    @current.put
    def put(pv, operation):
        value = operation.value()
        if abs(value) > 10:
            return operation.done(error="over the limit")
        severity = 2 if abs(value) > 9 else 0
        alarm = {"severity": severity, "status": 0, "message": "HIHI" if severity else ""}
        pv.post({"value": value, "alarm": alarm}, timestamp=time.time())
        return operation.done()

    def plain(**options):
        made = SharedPV(**options)

        @made.put
        def put(pv, operation):
            pv.post(operation.value())
            operation.done()

        return made

    sums = SharedPV(nt=NTScalar("d"), initial=0.0)

    @sums.rpc
    def rpc(pv, operation):
        query = operation.value().query
        if query.by == 0:
            return operation.done(error="division by zero")
        return operation.done(NTScalar("d").wrap(query.what / query.by))

    provided = StaticProvider("check")
    for name, pv in {
        "current": current,
        "mode": plain(nt=NTEnum(), initial={"index": 0, "choices": ["off", "standby", "on"]}),
        "names": plain(nt=NTScalar("as"), initial=["QF1", "µ-metal"]),
        "wave": plain(nt=NTScalar("ad"), initial=[0.0]),
        "table": plain(nt=NTTable(COLUMNS), initial=ROWS),
        "image": plain(nt=NTNDArray(), initial=_picture(4, 3)),
        "sums": sums,
    }.items():
        provided.add(PREFIX + name, pv)
    return provided


def _picture(width: int, height: int):
    import numpy

    return numpy.arange(width * height, dtype="u2").reshape(height, width)


def serve() -> None:
    """A server in a process of its own, until it is killed or interrupted."""
    from p4p.server import Server

    with Server(providers=[provider()]), contextlib.suppress(KeyboardInterrupt):
        print("ready", flush=True)
        while True:
            time.sleep(100)
    print("closed", flush=True)


def waiting_client() -> None:
    """A client that waits for a PV that is nowhere, for Ctrl-C to end."""
    from p4p.client.thread import Context

    with Context("pva") as context:
        print("waits", flush=True)
        try:
            context.get("nowhere:pv", timeout=60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    sys.exit(7)


def exercise(context) -> None:
    """What holds for every server."""
    import numpy
    from p4p import Value
    from p4p.client.thread import RemoteError
    from p4p.nt import NTURI, NTTable

    got = context.get(PREFIX + "current")
    expect("get", (float(got), got.severity, got.raw.getID()), (1.5, 0, "epics:nt/NTScalar:1.0"))
    raw = got.raw
    expect("units and limits", (raw.display.units, raw.control.limitHigh), ("A", 10.0))

    updates: queue.Queue = queue.Queue()
    with context.monitor(PREFIX + "current", updates.put):
        first = updates.get(timeout=10)
        expect("first monitor", float(first), 1.5)
        context.put(PREFIX + "current", 9.5)
        second = updates.get(timeout=10)
        alarm = second.raw.alarm
        expect("alarm comes with its value", (float(second), second.severity), (9.5, 2))
        expect("alarm says why", alarm.message, "HIHI")
        expect("only what changed is marked", second.raw.changed("display.units"), False)
        expect("time stamp is of today", abs(second.timestamp - time.time()) < 30, True)
        try:
            context.put(PREFIX + "current", 11.0)
        except RemoteError as error:
            expect("refused put says why", str(error), "over the limit")
        else:
            raise AssertionError("put over the limit is taken")
        context.put(PREFIX + "current", 1.5)
        expect("no monitor of the refused put", float(updates.get(timeout=10)), 1.5)
    context.put(PREFIX + "current", 2.0)
    expect("get after put", float(context.get(PREFIX + "current")), 2.0)
    time.sleep(0.2)
    expect("a closed monitor is silent", updates.empty(), True)
    context.put(PREFIX + "current", 1.5)

    mode = context.get(PREFIX + "mode")
    expect("enum", (int(mode), mode.raw.value.choices), (0, ["off", "standby", "on"]))
    context.put(PREFIX + "mode", "on")
    expect("enum put by name", int(context.get(PREFIX + "mode")), 2)
    context.put(PREFIX + "mode", 0)

    expect("strings", list(context.get(PREFIX + "names")), ["QF1", "µ-metal"])
    wanted = numpy.linspace(-1, 1, 100_000)
    context.put(PREFIX + "wave", wanted)
    got = context.get(PREFIX + "wave")
    expect("waveform is numpy", (got.dtype, got.shape), (numpy.dtype("f8"), (100_000,)))
    expect("waveform is the same", numpy.array_equal(got, wanted), True)

    got = context.get([PREFIX + "current", PREFIX + "mode"])
    expect("several at once", [float(got[0]), int(got[1])], [1.5, 0])

    # tables are not unwrapped unless the client is told how
    table = context.get(PREFIX + "table")
    expect("table", NTTable.unwrap(table), ROWS)
    names = [name for name, _ in COLUMNS]
    expect("labels and columns", (table.labels, list(table.value)), (names, names))
    expect("column is numpy", table.value.position.dtype, numpy.dtype("f8"))
    more = [*ROWS, {"device": "BPM1", "position": 3.5, "turns": 2**31 - 1}]
    context.put(PREFIX + "table", NTTable(COLUMNS).wrap(more))
    expect("table there and back", NTTable.unwrap(context.get(PREFIX + "table")), more)
    context.put(PREFIX + "table", NTTable(COLUMNS).wrap(ROWS))

    image = context.get(PREFIX + "image")
    expect("image", (image.dtype, image.shape), (numpy.dtype("u2"), (3, 4)))
    expect("image is the same", numpy.array_equal(image, _picture(4, 3)), True)
    context.put(PREFIX + "image", _picture(640, 480))
    image = context.get(PREFIX + "image")
    expect("image there and back", numpy.array_equal(image, _picture(640, 480)), True)
    expect("image dimensions", [d.size for d in image.raw.dimension], [640, 480])
    context.put(PREFIX + "image", _picture(4, 3))

    uri = NTURI([("what", "d"), ("by", "d")])
    answer = context.rpc(PREFIX + "sums", uri.wrap(PREFIX + "sums", (1.0, 4.0)))
    expect("RPC", (float(answer), isinstance(answer.raw, Value)), (0.25, True))
    try:
        context.rpc(PREFIX + "sums", uri.wrap(PREFIX + "sums", (1.0, 0.0)))
    except RemoteError as error:
        expect("RPC error", str(error), "division by zero")
    else:
        raise AssertionError("RPC error is lost")

    start = time.monotonic()
    try:
        context.get("nowhere:pv", timeout=0.5)
    except TimeoutError:
        expect("get of no PV ends in time", time.monotonic() - start < 3, True)


async def exercise_asyncio() -> None:
    """The asyncio client: get, put and a monitor."""
    from p4p.client.asyncio import Context

    with Context("pva", nt=None) as context:
        expect("asyncio get", float(await context.get(PREFIX + "current")), 1.5)
        seen: asyncio.Queue = asyncio.Queue()
        monitor = context.monitor(PREFIX + "current", seen.put)
        expect("asyncio monitor", float(await asyncio.wait_for(seen.get(), 10)), 1.5)
        await context.put(PREFIX + "current", 3.0)
        expect("asyncio update", float(await asyncio.wait_for(seen.get(), 10)), 3.0)
        monitor.close()
        await monitor.wait_closed()


def main() -> None:
    epics()
    from p4p.client.thread import Context, Disconnected
    from p4p.server import Server

    # in one process: the server says itself how it is to be reached, on free ports
    with (
        Server(providers=[provider()], isolate=True) as server,
        Context("pva", conf=server.conf(), useenv=False) as context,
    ):
        exercise(context)
    step("server in this process")

    with Context("pva") as context:
        with child(*itself("serve")) as server:
            wait_for("server", lambda: server.says("ready"))
            exercise(context)
            events: list[object] = []
            monitor = context.monitor(PREFIX + "current", events.append, notify_disconnect=True)
            wait_for("monitor", lambda: events and not isinstance(events[-1], Exception))
            server.end(signal.SIGKILL)
            wait_for("disconnect is told", lambda: isinstance(events[-1], Disconnected))
        with child(*itself("serve")) as server:
            wait_for("server again", lambda: server.says("ready"))
            wait_for(
                "monitor goes on after the restart",
                lambda: not isinstance(events[-1], Exception) and float(events[-1]) == 1.5,
                40,
            )
            context.put(PREFIX + "current", 4.0)
            wait_for("update after the restart", lambda: float(events[-1]) == 4.0)
            monitor.close()
            context.put(PREFIX + "current", 1.5)
            asyncio.run(exercise_asyncio())
            with child(*itself("client")) as client:
                wait_for("waiting client", lambda: client.says("waits"))
                time.sleep(0.3)  # until it is in the call
                expect("Ctrl-C ends a waiting client", client.end(signal.SIGINT), 7)
                expect("Ctrl-C is a KeyboardInterrupt", client.says("interrupted"), True)
            expect("Ctrl-C ends the server", server.end(signal.SIGINT), 0)
            expect("in order", server.says("closed"), True)
    step("all of p4p")


if __name__ == "__main__":
    {"serve": serve, "client": waiting_client}.get("".join(sys.argv[1:]), main)()
