"""PyTango: a device server without database, its client, and what happens when the server dies.

Scalar, spectrum, image and enum attributes, limits, warnings and alarms with the state that
follows, commands and DevFailed with its reason, polling, change, alarm, data-ready and pushed
events, a time-out, the asyncio client, a server killed and started again (proxy and subscription
come back), Ctrl-C in a client that waits for events and in the server, and a device server within
the process of its client.
"""

import asyncio
import enum
import os
import signal
import sys
import threading
import time

import numpy as np
import scene
import tango
import tango.asyncio
from tango.server import Device, attribute, command, run
from tango.test_context import DeviceTestContext

NAME = "check/supply/1"


class Mode(enum.IntEnum):
    """The modes of the power supply."""

    OFF = 0
    RAMP = 1


class Supply(Device):
    """A power supply of the check."""

    current = attribute(
        dtype=float,
        access=tango.AttrWriteType.READ_WRITE,
        unit="A",
        format="%6.3f",
        min_value=-10.0,
        max_value=10.0,
        max_warning=6.0,
        max_alarm=8.0,
        abs_change=0.5,
        polling_period=100,
    )
    wave = attribute(
        dtype=(float,), max_dim_x=4096, access=tango.AttrWriteType.READ_WRITE, fisallowed="is_on"
    )
    picture = attribute(dtype=((np.uint16,),), max_dim_x=640, max_dim_y=480)
    mode = attribute(dtype=Mode, access=tango.AttrWriteType.READ_WRITE)
    label = attribute(dtype=str, access=tango.AttrWriteType.READ_WRITE)
    broken = attribute(dtype=float)

    def init_device(self):
        """Begin with a quiet supply."""
        super().init_device()
        self._current, self._wave, self._mode, self._label = 0.0, np.arange(4.0), Mode.OFF, "µA"
        self.set_change_event("label", True, False)
        self.set_data_ready_event("picture", True)
        self.set_state(tango.DevState.ON)

    def delete_device(self):
        """Tell that the server took its leave."""
        print("device deleted", flush=True)

    def is_on(self, _request):
        """Whether the wave may be used."""
        return self.get_state() != tango.DevState.OFF

    def read_current(self):
        """Give the set point back."""
        return self._current

    def write_current(self, value):
        """Keep the set point."""
        self._current = value

    def read_wave(self):
        """Give the wave."""
        return self._wave

    def write_wave(self, value):
        """Keep the wave."""
        self._wave = value

    def read_picture(self):
        """Give a picture whose pixels tell where they are."""
        return np.arange(480 * 640, dtype=np.uint32).reshape(480, 640).astype(np.uint16)

    def read_mode(self):
        """Give the mode."""
        return self._mode

    def write_mode(self, value):
        """Keep the mode."""
        self._mode = Mode(value)

    def read_label(self):
        """Give the label."""
        return self._label

    def write_label(self, value):
        """Keep the label and push it."""
        self._label = value
        self.push_change_event("label", value)

    def read_broken(self):
        """Fail with a reason of its own."""
        tango.Except.throw_exception("CHECK_Interlock", "door open", "Supply.read_broken")

    @command(dtype_in=(float,), dtype_out=float)
    def total(self, values):
        """Sum."""
        return float(np.sum(values))

    @command(dtype_in=float)
    def sleep(self, seconds):
        """Take time."""
        time.sleep(seconds)

    @command
    def divide(self):
        """Fail as Python does."""
        _ = 1 // 0

    @command
    def ready(self):
        """Tell that a picture can be fetched."""
        self.push_data_ready_event("picture", 7)

    @command
    def off(self):
        """Switch off."""
        self.set_state(tango.DevState.OFF)

    @command
    def on(self):
        """Switch on."""
        self.set_state(tango.DevState.ON)


def serve(port):
    """The command that serves the device on a port of loopback."""
    end = f"giop:tcp:127.0.0.1:{port}"
    words = ["Supply", "check", "-nodb", "-dlist", NAME, "-ORBendPoint", end]
    return scene.itself("serve", *words)


def reason(call, *arguments):
    """The reason of the DevFailed that a call raises."""
    try:
        call(*arguments)
    except tango.DevFailed as failed:
        return failed.args[0].reason
    raise AssertionError(f"{call} {arguments} did not fail")


def reasons(call, *arguments):
    """All reasons of a failure: what the network says comes before what Tango makes of it."""
    try:
        call(*arguments)
    except tango.DevFailed as failed:
        return {error.reason for error in failed.args}
    raise AssertionError(f"{call} {arguments} did not fail")


def answers(proxy):
    """Whether the device answers."""
    try:
        proxy.ping()
    except tango.DevFailed:
        return False
    return True


def attributes(proxy):
    """Values there and back, limits and alarms."""
    # a polled attribute is read from the server's cache otherwise
    proxy.set_source(tango.DevSource.DEV)
    proxy.current = 1.25
    read = proxy.read_attribute("current")
    scene.expect("a scalar there and back", (read.value, read.w_value), (1.25, 1.25))
    scene.expect("its quality", read.quality, tango.AttrQuality.ATTR_VALID)
    scene.expect("its time is now", abs(read.time.totime() - time.time()) < 30, True)
    why = reason(proxy.write_attribute, "current", 10.5)
    scene.expect("a value over the limit is refused", why, "API_WAttrOutsideLimit")
    why = reason(proxy.write_attribute, "current", float("nan"))
    scene.expect("NaN is refused where there are limits", why, "API_WAttrOutsideLimit")
    scene.expect("and the last one stays", proxy.read_attribute("current").w_value, 1.25)

    for value, quality, state in (
        (7.0, tango.AttrQuality.ATTR_WARNING, tango.DevState.ALARM),
        (9.0, tango.AttrQuality.ATTR_ALARM, tango.DevState.ALARM),
        (2.0, tango.AttrQuality.ATTR_VALID, tango.DevState.ON),
    ):
        proxy.current = value
        found = proxy.read_attribute("current").quality
        scene.expect(
            f"{value:g} A has its quality and state", (found, proxy.state()), (quality, state)
        )

    config = proxy.get_attribute_config("current")
    scene.expect("unit and format", (config.unit, config.format), ("A", "%6.3f"))
    config.max_value = "3"
    config.alarms.max_warning = config.alarms.max_alarm = "2.9"
    proxy.set_attribute_config(config)
    why = reason(proxy.write_attribute, "current", 5.0)
    scene.expect("a limit changed while it runs", why, "API_WAttrOutsideLimit")

    wave = np.sin(np.linspace(0, 7, 4096))
    proxy.wave = wave
    found = proxy.wave
    scene.expect("a spectrum is an array", (type(found), found.dtype), (np.ndarray, wave.dtype))
    scene.expect("a spectrum there and back", np.array_equal(found, wave), True)
    why = reason(proxy.write_attribute, "wave", np.zeros(4097))
    scene.expect("a spectrum too long is refused", why, "API_WAttrOutsideLimit")
    proxy.wave = []
    scene.expect("an empty spectrum", len(proxy.wave), 0)
    picture = proxy.picture
    scene.expect("an image", (picture.shape, picture.dtype), ((480, 640), np.dtype("uint16")))
    scene.expect("and its pixels", int(picture[400, 17]), (400 * 640 + 17) % 65536)
    proxy.mode = "RAMP"
    scene.expect("an enum by its label", (proxy.mode.name, int(proxy.mode)), ("RAMP", 1))
    proxy.label = "Strom µA"
    scene.expect("a string beyond ASCII", proxy.label, "Strom µA")
    several = proxy.read_attributes(["current", "broken", "label"])
    scene.expect("several at once, one of them failing", [r.has_failed for r in several], [0, 1, 0])


def commands(proxy):
    """Commands and what fails."""
    scene.expect("a command with an array", proxy.total(np.arange(1000.0)), 499500.0)
    scene.expect(
        "a failure with its reason", reason(proxy.read_attribute, "broken"), "CHECK_Interlock"
    )
    scene.expect("an exception of Python", reason(proxy.divide), "PyDs_PythonError")
    scene.expect("a command unknown", reason(proxy.command_inout, "Fly"), "API_CommandNotFound")
    scene.expect("an attribute unknown", reason(proxy.read_attribute, "x"), "API_AttrNotFound")
    proxy.off()
    why = reason(proxy.read_attribute, "wave")
    scene.expect("an attribute not allowed in this state", why, "API_AttrNotAllowed")
    proxy.on()
    proxy.set_timeout_millis(300)
    scene.expect("a time-out", "API_DeviceTimedOut" in reasons(proxy.sleep, 1.5), True)
    proxy.set_timeout_millis(5000)
    scene.expect(
        "and the device answers afterwards", scene.wait_for("ping", lambda: answers(proxy)), True
    )


def events(proxy):
    """Subscribe to everything; gives what tells of the current."""
    current, alarms, label, ready, lock = [], [], [], [], threading.Lock()

    def keep(found):
        def heard(event):
            with lock:
                found.append(event)

        return heard

    main = threading.get_ident()
    threads = set()
    kind = tango.EventType.CHANGE_EVENT
    proxy.subscribe_event("current", kind, keep(current))
    proxy.subscribe_event("current", tango.EventType.ALARM_EVENT, keep(alarms))
    of_label = proxy.subscribe_event("label", kind, keep(label))
    proxy.subscribe_event("picture", tango.EventType.DATA_READY_EVENT, keep(ready))
    proxy.subscribe_event(
        "mode", tango.EventType.ATTR_CONF_EVENT, lambda _: threads.add(threading.get_ident())
    )
    scene.expect(
        "the first event comes at once", bool(scene.wait_for("event", lambda: current)), True
    )

    def told(value):
        return any(not e.err and e.attr_value.value == value for e in current)

    proxy.current = 0.1
    scene.wait_for("change", lambda: told(0.1))
    proxy.current = 0.2
    time.sleep(0.4)
    proxy.current = 1.5
    scene.wait_for("change", lambda: told(1.5))
    scene.step("a change of the polled attribute beyond the threshold is told")
    scene.expect("a change within the threshold is not", told(0.2), False)
    proxy.label = "pushed"
    scene.wait_for("a pushed event", lambda: [e for e in label if e.attr_value.value == "pushed"])
    scene.step("an event pushed by the device")
    proxy.ready()
    scene.wait_for("data ready", lambda: [e for e in ready if not e.err and e.ctr == 7])
    scene.step("data ready with its counter")
    scene.expect(
        "callbacks run in a thread of Tango", bool(threads - {main}) or len(threads) == 1, True
    )
    proxy.current = 2.95
    alarm = tango.AttrQuality.ATTR_ALARM
    scene.wait_for("alarm", lambda: [e for e in alarms if e.attr_value.quality == alarm])
    proxy.current = 1.5
    good = tango.AttrQuality.ATTR_VALID
    scene.wait_for("end", lambda: alarms[-1].attr_value.quality == good)
    scene.step("an alarm of the polled attribute, and its end")
    proxy.unsubscribe_event(of_label)
    count = len(label)
    proxy.label = "not heard"
    time.sleep(0.3)
    scene.expect("nothing after unsubscribe", len(label), count)
    history = proxy.attribute_history("current", 3)
    scene.expect("history of the polled attribute", len(history), 3)
    return current


async def together(name):
    """The asyncio client: it waits without holding the loop."""
    proxy = await tango.asyncio.DeviceProxy(name)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.02)

    ticking = asyncio.create_task(tick())
    await proxy.sleep(0.6)
    ticking.cancel()
    scene.expect("the loop runs while a command does", ticks >= 5, True)
    values = await asyncio.gather(*(proxy.read_attribute("current") for _ in range(5)))
    scene.expect("five reads at once", {v.value for v in values}, {1.5})
    try:
        await proxy.read_attribute("broken")
    except tango.DevFailed as failed:
        scene.expect("a failure awaited", failed.args[0].reason, "CHECK_Interlock")
    else:
        raise AssertionError("a failure awaited: none")


def listen(name):
    """A client that waits for events, for Ctrl-C to end."""
    proxy = tango.DeviceProxy(name)
    number = proxy.subscribe_event("current", tango.EventType.CHANGE_EVENT, lambda _: None)
    print("waits", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        proxy.unsubscribe_event(number)
        print("interrupted", flush=True)
    sys.exit(7)


def inner():
    """A device server within this process."""
    with DeviceTestContext(Supply, process=False) as proxy:
        proxy.wave = [1.0, 2.0]
        scene.expect("a server within this process", proxy.wave.tolist(), [1.0, 2.0])
        scene.expect("and its commands", proxy.total([1.0, 2.5]), 3.5)
    print("inner held", flush=True)


def main():
    """Everything with one server, then without it, then with the next."""
    # a file of the system or of a home names a database otherwise
    os.environ.update(TANGO_HOST="127.0.0.1:1")
    port = scene.free_port()
    name = f"tango://127.0.0.1:{port}/{NAME}#dbase=no"
    with scene.child(*serve(port)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        proxy = tango.DeviceProxy(name)
        attributes(proxy)
        commands(proxy)
        current = events(proxy)
        asyncio.run(together(name))
        server.end(signal.SIGKILL)
    scene.expect("without the server it fails", answers(proxy), False)
    why = reasons(proxy.read_attribute, "current")
    scene.expect(
        "with a reason", why & {"API_CantConnectToDevice", "API_CorbaException"} != set(), True
    )

    with scene.child(*serve(port)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        scene.wait_for("the proxy connects again", lambda: answers(proxy))
        scene.expect(
            "the same proxy reads the new server", proxy.read_attribute("label").value, "µA"
        )
        proxy.current = 4.5

        def back():
            return [e for e in current if not e.err and e.attr_value.value == 4.5]

        # the client looks after its subscriptions every ten seconds
        scene.wait_for("the subscription comes back", back, 35)
        scene.step("the subscription comes back by itself")
        scene.expect("and told of the loss", any(e.err for e in current), True)
        with scene.child(*scene.itself("listen", name)) as client:
            scene.wait_for("waiting client", lambda: client.says("waits"))
            scene.expect("Ctrl-C ends a client that listens", client.end(signal.SIGINT), 7)
            scene.expect("as a KeyboardInterrupt", client.says("interrupted"), True)
        server.end(signal.SIGTERM)
        scene.expect("SIGTERM ends the server in order", "device deleted" in server.text(), True)

    with scene.child(*serve(port)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        server.end(signal.SIGINT)
        scene.expect("Ctrl-C too", "device deleted" in server.text(), True)

    # a process of its own: check_pytango_both has client and server in one
    with scene.child(*scene.itself("inner")) as alone:
        scene.expect("a server with its client alone ends with", alone.popen.wait(30), 0)
        scene.expect("and did its work", "inner held" in alone.text(), True)
    scene.step("all of PyTango")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        # PyTango writes that it is ready to a buffer, and does not flush it
        sys.stdout.reconfigure(line_buffering=True)
        run([Supply], args=sys.argv[2:])
    elif sys.argv[1:2] == ["inner"]:
        inner()
    elif sys.argv[1:2] == ["listen"]:
        listen(sys.argv[2])
    else:
        main()
