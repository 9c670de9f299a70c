"""ophyd's devices against a caproto IOC: motor records, signals, a detector, slits.

A motor that is moved, refused at its limits, timed out, stopped, and that fails at a limit switch
and in alarm; slits whose gap and centre are two motors; signals with limits, units, enum strings,
arrays and puts that wait for the work; what a device reads, describes, is configured with and is
staged to; a PV that is nowhere; the IOC killed while a motor moves, and started again.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

from scene import child, epics, expect, itself, repeater, step, wait_for

PREFIX = "check:"


def ioc(highest: str) -> None:
    """The server: two motors, a detector, and settings; the motors go as far as is said."""
    import asyncio

    from caproto import ChannelAlarm, ChannelType
    from caproto.ioc_examples.fake_motor_record import motor_record_simulator
    from caproto.server import PVGroup, SubGroup, pvproperty, run

    class Motor(PVGroup):
        motor = pvproperty(
            name="",
            value=0.0,
            record="motor",
            precision=3,
            units="mm",
            lower_ctrl_limit=-50.0,
            upper_ctrl_limit=float(highest),
        )

        @motor.startup
        async def motor(self, instance, async_lib):
            limits = (instance.lower_ctrl_limit, instance.upper_ctrl_limit)
            speed = {"velocity": 20.0, "acceleration": 0.1, "user_limits": limits}
            await instance.field_inst.engineering_units.write("mm")
            await instance.field_inst.user_readback_value.write_metadata(units="mm")
            # one of its own, or any write to another field of the record clears it
            instance.field_inst.user_readback_value.alarm = ChannelAlarm()
            await motor_record_simulator(
                instance, async_lib, {**speed, "precision": 3, "resolution": 1e-3}, 50
            )

        @motor.fields.user_high_limit.putter
        async def motor(fields, instance, value):
            await fields.parent.write_metadata(upper_ctrl_limit=value)

    class Bench(PVGroup):
        left = SubGroup(Motor, prefix="left")
        right = SubGroup(Motor, prefix="right")
        fault = pvproperty(value=0)
        exposure = pvproperty(
            value=0.1, precision=2, units="s", lower_ctrl_limit=0.01, upper_ctrl_limit=10.0
        )
        acquire = pvproperty(value=0)
        counts = pvproperty(value=0.0, units="cts", read_only=True)
        image = pvproperty(value=[0] * 12, max_length=12, read_only=True)
        mode = pvproperty(value="single", enum_strings=["single", "burst"], dtype=ChannelType.ENUM)
        shutter = pvproperty(value=0)

        @fault.putter
        async def fault(self, instance, value):
            # 0 whole, 1 at the end switch, 2 an alarm below -2.5
            fields = self.left.motor.field_inst
            await fields.user_high_limit_switch.write(int(value == 1))
            await fields.direction_of_travel.write(1)
            low, high = (-2.5, 100.0) if value == 2 else (0.0, 0.0)
            await fields.user_readback_value.write_metadata(
                lower_alarm_limit=low,
                lower_warning_limit=low,
                upper_warning_limit=high,
                upper_alarm_limit=high,
            )

        @acquire.putter
        async def acquire(self, instance, value):
            if value:
                await asyncio.sleep(self.exposure.value)
                seen = self.left.motor.field_inst.user_readback_value.value
                await self.counts.write(100 - seen**2)
                await self.image.write([round(seen)] * 12)
            return 0

    async def ready(async_lib):
        print("ready", flush=True)

    run(Bench(prefix=PREFIX).pvdb, interfaces=["127.0.0.1"], startup_hook=ready)


def serve(highest: float = 50.0):
    """The server as a child."""
    return child(*itself("ioc", str(highest)))


def bench():
    """The detector with its settings, two motors, and slits made of them."""
    from ophyd import (
        Component,
        Device,
        EpicsMotor,
        EpicsSignal,
        EpicsSignalRO,
        Kind,
        PseudoPositioner,
        PseudoSingle,
    )
    from ophyd.pseudopos import pseudo_position_argument, real_position_argument

    class Detector(Device):
        acquire = Component(EpicsSignal, "acquire", kind=Kind.omitted, put_complete=True)
        counts = Component(EpicsSignalRO, "counts", kind=Kind.hinted)
        image = Component(EpicsSignalRO, "image", kind=Kind.normal)
        exposure = Component(EpicsSignal, "exposure", kind=Kind.config, limits=True)
        mode = Component(EpicsSignal, "mode", kind=Kind.config, string=True)
        shutter = Component(EpicsSignal, "shutter", kind=Kind.omitted)
        fault = Component(EpicsSignal, "fault", kind=Kind.omitted, put_complete=True)

        def trigger(self):
            return self.acquire.set(1)

    class Slits(PseudoPositioner):
        gap = Component(PseudoSingle, limits=(0, 20))
        centre = Component(PseudoSingle)
        left = Component(EpicsMotor, "left")
        right = Component(EpicsMotor, "right")

        @pseudo_position_argument
        def forward(self, wanted):
            half = wanted.gap / 2
            return self.RealPosition(left=wanted.centre - half, right=wanted.centre + half)

        @real_position_argument
        def inverse(self, at):
            return self.PseudoPosition(gap=at.right - at.left, centre=(at.right + at.left) / 2)

    made = Detector(PREFIX, name="detector"), Slits(PREFIX, name="slits")
    for device in made:
        device.wait_for_connection(timeout=20)
    return made


def raised(call: Callable[..., object], *arguments: object, **options: object) -> str:
    """The class of the exception that a call ends with; AssertionError where it has none."""
    try:
        call(*arguments, **options)
    except Exception as error:
        return type(error).__name__
    raise AssertionError(f"{call} {arguments} did not fail")


def motor(axis, detector) -> None:
    """A motor record, to its good and bad ends."""
    from ophyd.utils.epics_pvs import AlarmSeverity, AlarmStatus

    expect("limits come from the record", axis.limits, (-50.0, 50.0))
    expect("units and precision", (axis.egu, axis.precision), ("mm", 3))
    told: list[float] = []
    done: list[float] = []
    axis.subscribe(lambda value, **_: told.append(value), run=False)
    axis.subscribe(lambda **_: done.append(axis.position), event_type=axis.SUB_DONE, run=False)
    status = axis.set(5.0)
    expect("a move takes its time", status.done, False)
    status.wait(15)
    expect("and comes to its end", (axis.position, status.success), (5.0, True))
    expect("the readback is told along the way", told == sorted(told) and len(told) > 4, True)
    wait_for("end of the move", lambda: done == [5.0])
    expect("over the limit", raised(axis.set, 50.1), "LimitError")
    axis.set_lim(-50, 20)
    wait_for("limits that changed", lambda: axis.limits == (-50.0, 20.0))
    expect("are kept", raised(axis.check_value, 20.1), "LimitError")
    expect("nothing moved", axis.user_setpoint.get(use_monitor=False), 5.0)
    axis.set_lim(-50, 50)
    wait_for("limits set back", lambda: axis.limits == (-50.0, 50.0))

    slow = axis.move(-40, wait=False, timeout=0.3)
    expect("a move out of time", raised(slow.wait, 15), "StatusTimeoutError")
    wait_for("it is stopped", lambda: not axis.moving)
    expect("on its way", -35 < axis.position < 5, True)
    stopped(axis)
    for number, what in ((1, "at the end switch"), (2, "in alarm")):
        detector.fault.set(number).wait(10)
        expect(f"a move {what} fails", raised(axis.set(-1.0 - number).wait, 15), FAILED)
    alarm = (axis.user_readback.alarm_status, axis.user_readback.alarm_severity)
    expect("status and severity", alarm, (AlarmStatus.LOLO, AlarmSeverity.MAJOR))
    detector.fault.set(0).wait(10)
    axis.set(0.0).wait(15)
    step("and works again")


FAILED = "UnknownStatusFailure"


def stopped(axis) -> None:
    """A motor stopped on its way.

    The move counts as a success unless a limit or an alarm says otherwise (``Device.stop`` does not
    call ``PositionerBase.stop``): where the motor is, is what a caller has to look at.
    """
    status = axis.set(45.0)
    wait_for("on its way", lambda: axis.moving)
    axis.stop()
    wait_for("a stop ends the status", lambda: status.done)
    expect("a stopped motor is not where it was sent", -50 < axis.position < 40, True)


def slits(made) -> None:
    """Two motors as one positioner."""
    made.move(6.0, 1.0, timeout=20)
    at = tuple(round(value, 6) for value in (made.left.position, made.right.position))
    expect("gap and centre are two motors", at, (-2.0, 4.0))
    made.gap.set(2.0).wait(20)
    at = tuple(round(value, 6) for value in made.position)
    expect("one of them keeps the other", at, (2.0, 1.0))
    expect("limits of the gap", raised(made.gap.set, 21), "ValueError")
    expect("limits of the motors", raised(made.centre.set, 51), "ValueError")
    keys = made.describe()
    expect("what it describes", keys["slits_left"]["units"], "mm")
    expect("hints", set(made.hints["fields"]) >= {"slits_left", "slits_gap"}, True)


def signals(detector) -> None:
    """Single signals."""
    exposure, mode = detector.exposure, detector.mode
    expect("limits of a signal", (exposure.limits, exposure.metadata["units"]), ((0.01, 10), "s"))
    expect("over them", raised(exposure.put, 11), "LimitError")
    exposure.set(0.25).wait(10)
    start = time.monotonic()
    detector.trigger().wait(15)
    expect("a put waits for the work", time.monotonic() - start > 0.24, True)
    expect("what it did", detector.counts.get(use_monitor=False), 100.0)
    late = detector.acquire.set(1, timeout=0.05)
    expect("a put out of time", raised(late.wait, 10), "StatusTimeoutError")
    expect("enum strings", (mode.get(), mode.enum_strs), ("single", ("single", "burst")))
    mode.set("burst").wait(10)
    expect("enum by name", mode.get(use_monitor=False), "burst")
    expect("not among them", raised(mode.put, "sometimes"), "ValueError")
    expect("read only", raised(detector.counts.put, 1), "ReadOnlyError")
    expect("an array", list(detector.image.get(use_monitor=False)), [0] * 12)


def documents(detector) -> None:
    """What scans ask a device for."""
    keys = detector.describe()
    expect("what is read", list(detector.read()), ["detector_counts", "detector_image"])
    image = keys["detector_image"]
    expect("an array's key", (image["dtype"], list(image["shape"])), ("array", [12]))
    source = keys["detector_counts"]["source"]
    expect("the source of a key", source, f"PV:{PREFIX}counts")
    wanted = {"detector_exposure": 0.25, "detector_mode": "burst"}
    found = {key: entry["value"] for key, entry in detector.read_configuration().items()}
    expect("configuration", found, wanted)
    old, new = detector.configure({"exposure": 0.1})
    changed = (old["detector_exposure"]["value"], new["detector_exposure"]["value"])
    expect("configured", changed, (0.25, 0.1))
    stamp = detector.read()["detector_counts"]["timestamp"]
    expect("time stamp of the server", abs(stamp - time.time()) < 30, True)

    detector.stage_sigs = {"exposure": 0.5, "shutter": 1}
    detector.stage()
    at = (detector.exposure.get(use_monitor=False), detector.shutter.get(use_monitor=False))
    expect("staged", at, (0.5, 1))
    expect("staged twice", raised(detector.stage), "RedundantStaging")
    detector.unstage()
    at = (detector.exposure.get(use_monitor=False), detector.shutter.get(use_monitor=False))
    expect("set back", at, (0.1, 0))
    detector.stage_sigs = {"shutter": 1, "exposure": 99}
    expect("staging to what is refused", raised(detector.stage), "LimitError")
    expect("sets back what it had done", detector.shutter.get(use_monitor=False), 0)
    detector.stage_sigs = {}


def nowhere() -> None:
    """A PV that no server has."""
    from ophyd import EpicsMotor, EpicsSignal

    lost = EpicsSignal("nowhere:pv", name="lost")
    start = time.monotonic()
    expect("no PV", raised(lost.wait_for_connection, timeout=0.5), "TimeoutError")
    expect("ends in time", time.monotonic() - start < 5, True)
    axis = EpicsMotor("nowhere:m", name="lost_motor")
    expect("no motor", raised(axis.wait_for_connection, timeout=0.5), "TimeoutError")
    expect("does not move", raised(axis.set, 1), "DisconnectedError")
    lost.destroy()
    axis.destroy()


def main() -> None:
    epics()
    with repeater():
        with serve() as server:
            wait_for("IOC", lambda: server.says("ready"))
            detector, made = bench()
            axis = made.left
            motor(axis, detector)
            slits(made)
            axis.set(0.0).wait(15)
            signals(detector)
            documents(detector)
            nowhere()
            told: list[bool] = []
            meta = axis.user_readback.SUB_META
            axis.user_readback.subscribe(lambda connected, **_: told.append(connected), meta)
            moving = axis.set(40.0)
            wait_for("on its way", lambda: axis.moving)
            server.end(signal.SIGKILL)
            wait_for("disconnect is told", lambda: told[-1:] == [False])
            wait_for("all are gone", lambda: not (made.connected or detector.connected))
            expect("no end of its move", moving.done, False)
            expect("no other move", raised(axis.set, 1), "DisconnectedError")
        with serve(highest=30.0) as server:
            wait_for("IOC again", lambda: server.says("ready"))
            wait_for("all are back", lambda: made.connected and detector.connected, 40)
            wait_for("reconnect is told", lambda: told[-1:] == [True])
            wait_for("limits of the new server", lambda: axis.limits == (-50.0, 30.0))
            seen: list[float] = []
            axis.subscribe(lambda value, **_: seen.append(value), run=False)
            axis.set(3.0).wait(20)
            expect("a move after the restart", (axis.position, seen[-1]), (3.0, 3.0))
            detector.trigger().wait(15)
            wait_for("and a reading", lambda: round(detector.counts.get(), 6) == 91)
    step("all of ophyd")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ioc"]:
        ioc(sys.argv[2])
    else:
        main()
