"""PyTango as client and as server in one process, as a device that listens to another one does.

A device server within this process subscribes to the change events of a server in another
process and passes on what it hears; then both end, and so must the interpreter, with status 0.
"""

import os
import sys

import scene
import tango
from tango.server import Device, attribute, run
from tango.test_context import DeviceTestContext

NAME = "check/source/1"


class Source(Device):
    """What is listened to."""

    value = attribute(
        dtype=float, access=tango.AttrWriteType.READ_WRITE, polling_period=100, abs_change=0.5
    )

    def init_device(self):
        """Begin at nought."""
        super().init_device()
        self._value = 0.0

    def read_value(self):
        """Give the value."""
        return self._value

    def write_value(self, value):
        """Keep the value."""
        self._value = value


class Listener(Device):
    """What listens."""

    heard = attribute(dtype=float)

    def init_device(self):
        """Subscribe."""
        super().init_device()
        self._heard = -1.0
        self._proxy = tango.DeviceProxy(os.environ["CHECK_SOURCE"])
        kind = tango.EventType.CHANGE_EVENT
        self._event = self._proxy.subscribe_event("value", kind, self.hear)

    def delete_device(self):
        """Unsubscribe, as a device has to."""
        self._proxy.unsubscribe_event(self._event)
        super().delete_device()

    def hear(self, event):
        """Keep what the other one tells."""
        if not event.err:
            self._heard = event.attr_value.value

    def read_heard(self):
        """Give what was heard."""
        return self._heard


def main():
    """Listen, end both, end the interpreter."""
    port = scene.free_port()
    end = f"giop:tcp:127.0.0.1:{port}"
    words = ["Source", "check", "-nodb", "-dlist", NAME, "-ORBendPoint", end]
    os.environ["TANGO_HOST"] = "127.0.0.1:1"
    os.environ["CHECK_SOURCE"] = f"tango://127.0.0.1:{port}/{NAME}#dbase=no"
    with scene.child(*scene.itself("serve", *words)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        source = tango.DeviceProxy(os.environ["CHECK_SOURCE"])
        with DeviceTestContext(Listener, process=False) as proxy:
            source.value = 4.5
            scene.wait_for("event", lambda: proxy.heard == 4.5)
            scene.step("a device hears of another one in another process")
        scene.step("the server within this process has ended")
    scene.step("all of PyTango as both")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        # PyTango writes that it is ready to a buffer, and does not flush it
        sys.stdout.reconfigure(line_buffering=True)
        run([Source], args=sys.argv[2:])
    else:
        main()
