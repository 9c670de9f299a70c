"""bluesky's RunEngine with ophyd devices of a caproto IOC: scans that end well, and that do not.

The documents of scans, validated against event_model's schemas and for how they belong together
(grids, hints, units, configuration, order, a second stream, a stream of monitors); suspended by a
signal; paused and resumed; Ctrl-C once, twice and at rest; abort, stop and halt; a device that
fails, a move over the limits; the IOC killed in the middle of a scan, and started again.
"""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from scene import child, epics, expect, itself, repeater, step, wait_for

PREFIX = "check:"


def ioc() -> None:
    """The server: an axis that takes its time and a detector that sees a parabola of it."""
    from caproto.server import PVGroup, pvproperty, run

    class Bench(PVGroup):
        target = pvproperty(
            value=0.0, units="mm", precision=3, lower_ctrl_limit=-50.0, upper_ctrl_limit=50.0
        )
        readback = pvproperty(value=0.0, units="mm", precision=3, read_only=True)
        done = pvproperty(value=1)
        stop = pvproperty(value=0)
        acquire = pvproperty(value=0)
        counts = pvproperty(value=0.0, units="cts", read_only=True)
        exposure = pvproperty(value=0.02, units="s")
        image = pvproperty(value=[0] * 12, max_length=12)
        current = pvproperty(value=200.0, units="mA")

        @target.putter
        async def target(self, instance, value):
            # a putter that takes its time would keep the same client's stop waiting
            await self.done.write(0)
            await self.stop.write(0)
            self.moving = asyncio.ensure_future(self.move(value))
            return value

        async def move(self, value):
            start = self.readback.value
            for part in range(1, 6):
                # beyond 40 it is slow
                for _ in range(1 if abs(value) < 40 else 50):
                    await asyncio.sleep(0.02)
                    if self.stop.value:
                        await self.done.write(1)
                        return
                await self.readback.write(start + (value - start) * part / 5)
            await self.done.write(1)

        @acquire.putter
        async def acquire(self, instance, value):
            if value:
                await asyncio.sleep(self.exposure.value)
                await self.counts.write(100 - self.readback.value**2)
                await self.image.write([int(self.readback.value)] * 12)
            return 0

    async def ready(async_lib):
        print("ready", flush=True)

    run(Bench(prefix=PREFIX).pvdb, interfaces=["127.0.0.1"], startup_hook=ready)


def devices():
    """An axis, a detector, and the current of the ring."""
    from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, Kind, PVPositioner

    class Axis(PVPositioner):
        setpoint = Component(EpicsSignal, "target", limits=True)
        readback = Component(EpicsSignalRO, "readback", kind=Kind.hinted)
        done = Component(EpicsSignalRO, "done", kind=Kind.omitted)
        stop_signal = Component(EpicsSignal, "stop", kind=Kind.omitted)
        done_value = 1
        stop_value = 1

    class Detector(Device):
        acquire = Component(EpicsSignal, "acquire", kind=Kind.omitted, put_complete=True)
        counts = Component(EpicsSignalRO, "counts", kind=Kind.hinted)
        image = Component(EpicsSignalRO, "image", kind=Kind.normal)
        exposure = Component(EpicsSignal, "exposure", kind=Kind.config)

        def trigger(self):
            return self.acquire.set(1)

    ring = EpicsSignal(PREFIX + "current", name="ring_current")
    made = Axis(PREFIX, name="axis"), Detector(PREFIX, name="detector"), ring
    for device in made:
        device.wait_for_connection(timeout=20)
    return made


class Notebook:
    """Documents as they come, each held against its schema."""

    def __init__(self) -> None:
        self.documents: list[tuple[str, dict]] = []

    def __call__(self, name: str, document: dict) -> None:
        from event_model import DocumentNames, schema_validators

        schema_validators[DocumentNames[name]].validate(document)
        self.documents.append((name, document))

    def of(self, name: str) -> list[dict]:
        """The documents of a kind."""
        return [document for kind, document in self.documents if kind == name]

    def last(self) -> tuple[object, object]:
        """How the last run ended, and with how many events."""
        stop = self.of("stop")[-1]
        return stop["exit_status"], stop["num_events"]

    def clear(self) -> None:
        """Begin a page."""
        self.documents.clear()


def belongs(documents: list[tuple[str, dict]]) -> bool:
    """Whether the documents of a run refer to each other as event_model says."""
    run, streams, numbers = "", {}, collections.defaultdict(list)
    for name, document in documents:
        if name == "start":
            run = document["uid"]
        elif name == "descriptor":
            streams[document["uid"]] = document
        elif name == "event":
            stream = streams[document["descriptor"]]
            numbers[stream["name"]].append(document["seq_num"])
            assert set(document["data"]) == set(stream["data_keys"])
        elif name == "stop":
            assert document["run_start"] == run
            assert document["num_events"] == {name: len(each) for name, each in numbers.items()}
    for name, each in numbers.items():
        # put and monitor are told in threads of their own, and may overtake each other
        told = sorted(each) if name.endswith("_monitor") else each
        assert told == list(range(1, len(each) + 1)), (name, each)
    return all(stream["run_start"] == run for stream in streams.values())


def interrupted(call: Callable[..., object], *arguments: object) -> bool:
    """Whether a run is interrupted."""
    from bluesky import RunEngineInterrupted

    try:
        call(*arguments)
    except RunEngineInterrupted:
        return True
    return False


def scan(engine, book, axis, detector) -> None:
    """A scan to its good end."""
    from bluesky import plans as bp

    (uid,) = engine(bp.scan([detector], axis, -2, 2, 5, md={"sample": "µ-metal"}))
    kinds = [name for name, _ in book.documents]
    expect("order of documents", kinds, ["start", "descriptor", *["event"] * 5, "stop"])
    expect("they belong together", belongs(book.documents), True)
    start, descriptor = book.of("start")[0], book.of("descriptor")[0]
    expect("start", (start["uid"], start["plan_name"], start["sample"]), (uid, "scan", "µ-metal"))
    expect("metadata of the engine", (start["beamline"], start["scan_id"]), ("check", 1))
    hints = (start["hints"]["dimensions"], descriptor["hints"]["detector"]["fields"])
    expect("hints", hints, ([(["axis_readback"], "primary")], ["detector_counts"]))
    exposure = descriptor["configuration"]["detector"]["data"]["detector_exposure"]
    expect("configuration", exposure, 0.02)
    keys = descriptor["data_keys"]
    expect("units and precision", [keys["axis_readback"][k] for k in ("units", "precision")], UNITS)
    events = book.of("event")
    at = [round(event["data"]["axis_readback"], 6) for event in events]
    expect("positions", at, [-2, -1, 0, 1, 2])
    counts = [round(event["data"]["detector_counts"], 6) for event in events]
    expect("values", counts, [96, 99, 100, 99, 96])
    expect("arrays", [int(event["data"]["detector_image"][3]) for event in events], at)
    stamps = [event["timestamps"]["detector_counts"] for event in events]
    expect("time stamps of the server go on", stamps == sorted(set(stamps)), True)
    expect("stop", book.last(), ("success", {"primary": 5}))


UNITS = ["mm", 3]


def streams(engine, book, axis, detector, ring) -> None:
    """A snaked grid, a baseline, and a signal that is recorded whenever it changes."""
    from bluesky import plan_stubs as bps
    from bluesky import plans as bp
    from bluesky import preprocessors as bpp
    from ophyd.sim import SynAxis

    book.clear()
    other = SynAxis(name="other")
    plan = bp.grid_scan([detector], other, 0, 1, 2, axis, -1, 1, 3, snake_axes=True)
    engine(bpp.baseline_wrapper(plan, [ring, axis]))
    expect("a grid and its baseline", book.last(), ("success", {"baseline": 2, "primary": 6}))
    expect("all streams belong together", belongs(book.documents), True)
    events = [e for e in book.of("event") if "other" in e["data"]]
    path = [(e["data"]["other"], round(e["data"]["axis_readback"])) for e in events]
    expect("the way through it", path, [(0, -1), (0, 0), (0, 1), (1, 1), (1, 0), (1, -1)])

    book.clear()

    @bpp.monitor_during_decorator([ring])
    @bpp.run_decorator()
    def drift() -> Iterator[object]:
        for current in (199.0, 198.0):
            yield from bps.abs_set(ring, current, wait=True)
            yield from bps.trigger_and_read([detector])
            yield from bps.sleep(0.2)

    engine(drift())
    seen = [e["data"]["ring_current"] for e in book.of("event") if "ring_current" in e["data"]]
    # a value may be recorded more than once, for put and monitor are both told; and the first one
    # is what the ring has when the dispatcher's thread comes to it
    changes = [value for value in dict.fromkeys(seen) if value != 200.0]
    expect("changes in a stream of their own", changes, [199.0, 198.0])
    expect("beside the events", belongs(book.documents), True)


def pauses(engine, book, axis, detector) -> None:
    """A plan that pauses: resumed, aborted, stopped, halted."""
    from bluesky import plan_stubs as bps
    from bluesky import preprocessors as bpp

    paused: list[int] = []
    tidy: list[str] = []

    @bpp.finalize_decorator(lambda: note("finally"))
    @bpp.run_decorator()
    def plan() -> Iterator[object]:
        for position in (1, 2, 3):
            yield from bps.checkpoint()
            yield from bps.mv(axis, position)
            if position == 2 and not paused:
                paused.append(position)
                yield from bps.pause()
            yield from bps.trigger_and_read([axis, detector])

    def note(word: str) -> Iterator[object]:
        tidy.append(word)
        yield from bps.null()

    ends = {
        "resume": ("success", {"primary": 3}),
        "abort": ("abort", {"primary": 1}),
        "stop": ("success", {"primary": 1}),
        "halt": ("abort", {"primary": 1}),
    }
    for how, wanted in ends.items():
        for page in (book, paused, tidy):
            page.clear()
        expect(f"paused before {how}", (interrupted(engine, plan()), engine.state), PAUSED)
        getattr(engine, how)()
        expect(f"ended by {how}", (engine.state, book.last()), ("idle", wanted))
        expect(f"cleaned up by {how}", tidy, [] if how == "halt" else ["finally"])


PAUSED = (True, "paused")


def keys(engine, book, axis, detector) -> None:
    """Ctrl-C: twice ends the move and pauses at once, once pauses at the next checkpoint."""
    from bluesky import plans as bp

    def press(times: int) -> threading.Thread:
        def interrupt() -> None:
            wait_for("on its way", lambda: axis.done.get(use_monitor=False) == 0)
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)

        thread = threading.Thread(target=interrupt)
        thread.start()
        return thread

    book.clear()
    thread = press(2)
    plan = bp.scan([detector], axis, 44, 45, 2)
    expect("Ctrl-C twice", (interrupted(engine, plan), engine.state), PAUSED)
    thread.join()
    wait_for("the axis is stopped", lambda: axis.done.get(use_monitor=False) == 1)
    expect("on its way", axis.readback.get(use_monitor=False) < 44, True)
    engine.abort()
    expect("nothing was read", book.last(), ("abort", {}))

    book.clear()
    thread = press(1)
    plan = bp.scan([detector], axis, 0, 3, 4)
    expect("Ctrl-C once", (interrupted(engine, plan), engine.state), PAUSED)
    thread.join()
    engine.resume()
    expect("every point is read once", book.last(), ("success", {"primary": 4}))
    at = [round(event["data"]["axis_readback"]) for event in book.of("event")]
    expect("in order", at, [0, 1, 2, 3])
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        step("Ctrl-C at rest is Python's own")
    else:
        raise AssertionError("Ctrl-C at rest is lost")


def suspends(engine, book, axis, detector, ring) -> None:
    """A scan waits while there is no beam."""
    from bluesky import plans as bp
    from bluesky.suspenders import SuspendFloor

    book.clear()
    guard = SuspendFloor(ring, 100, resume_thresh=150)
    engine.install_suspender(guard)
    seen: list[int] = []

    def beam() -> None:
        seen.append(len(book.of("event")))
        ring.put(200.0)

    def dump(name: str, document: dict) -> None:
        if name == "event" and document["seq_num"] == 2:
            ring.put(10.0, wait=True)
            wait_for("the beam is seen lost", lambda: guard.tripped)
            threading.Timer(1.0, beam).start()

    token = engine.subscribe(dump)
    engine(bp.scan([detector], axis, 0, 5, 6))
    engine.unsubscribe(token)
    engine.remove_suspender(guard)
    expect("waits without beam", seen[0] < 4, True)
    expect("and goes on with it", book.last(), ("success", {"primary": 6}))


def fails(engine, book, axis, detector) -> None:
    """Devices that fail."""
    from bluesky import plans as bp
    from bluesky.utils import FailedStatus
    from ophyd import DeviceStatus

    def broken() -> DeviceStatus:
        status = DeviceStatus(detector)
        status.set_exception(RuntimeError("no trigger"))
        return status

    for what, errors, plan in (
        ("a move over the limits", (ValueError,), lambda: bp.scan([detector], axis, 49, 51, 2)),
        ("a detector that fails", (FailedStatus, RuntimeError), lambda: bp.count([detector])),
    ):
        book.clear()
        if "detector" in what:
            detector.trigger, kept = broken, detector.trigger
        else:
            axis.move(0, timeout=20)
        try:
            engine(plan())
        except errors:
            expect(what + " fails the run", book.last()[0], "fail")
        else:
            raise AssertionError(f"{what} is not told")
    detector.trigger = kept
    book.clear()
    engine(bp.count([detector], num=3, delay=0.05))
    expect("and the next run works", book.last(), ("success", {"primary": 3}))


def killed(engine, book, axis, detector, server) -> None:
    """The server is killed in the middle of a scan: the run fails, its documents are whole."""
    from bluesky import plans as bp

    book.clear()

    def kill(name: str, document: dict) -> None:
        if name == "event" and document["seq_num"] == 2:
            server.end(signal.SIGKILL)
            wait_for("disconnect is told", lambda: not axis.connected and not detector.connected)

    token = engine.subscribe(kill)
    try:
        engine(bp.scan([detector], axis, 0, 5, 6))
    except Exception as error:
        step(f"a server that is gone: {type(error).__name__}")
    else:
        raise AssertionError("a server that is gone is not told")
    engine.unsubscribe(token)
    expect("the run has an end", (engine.state, book.last()), ("idle", ("fail", {"primary": 2})))
    expect("and is whole", belongs(book.documents), True)


def main() -> None:
    epics()
    from bluesky import RunEngine
    from bluesky import plans as bp

    with repeater():
        with child(*itself("ioc")) as server:
            wait_for("IOC", lambda: server.says("ready"))
            axis, detector, ring = devices()
            engine, book = RunEngine({"beamline": "check"}), Notebook()
            engine.subscribe(book)
            scan(engine, book, axis, detector)
            streams(engine, book, axis, detector, ring)
            pauses(engine, book, axis, detector)
            keys(engine, book, axis, detector)
            suspends(engine, book, axis, detector, ring)
            fails(engine, book, axis, detector)
            killed(engine, book, axis, detector, server)
        with child(*itself("ioc")) as server:
            wait_for("IOC again", lambda: server.says("ready"))
            wait_for("reconnect", lambda: axis.connected and detector.connected, 40)
            # connected is told before the first value of the new server comes
            wait_for("its readback", lambda: axis.position == 0)
            book.clear()
            engine(bp.rel_scan([detector], axis, -1, 1, 3))
            expect("a scan after the restart", book.last(), ("success", {"primary": 3}))
            expect("the axis is set back", round(axis.position, 6), 0.0)
    step("all of bluesky")


if __name__ == "__main__":
    {"ioc": ioc}.get("".join(sys.argv[1:]), main)()
