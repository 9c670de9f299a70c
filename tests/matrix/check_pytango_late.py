"""PyTango: a process that listens to events first and becomes a server later must end in order.

The same as ``check_pytango_both`` in the other order: the client subscribes to events of a server
in another process; then a device server begins and ends in this process; then the interpreter
ends, with status 0.
"""

import os
import sys

import scene
import tango
from tango.server import Device, attribute, run
from tango.test_context import DeviceTestContext

NAME = "check/source/1"


class Source(Device):
    """A number."""

    value = attribute(dtype=float, polling_period=100, abs_change=0.5)

    def read_value(self):
        """Give it."""
        return 4.5


def main():
    """Listen, serve, end."""
    port = scene.free_port()
    end = f"giop:tcp:127.0.0.1:{port}"
    words = ["Source", "check", "-nodb", "-dlist", NAME, "-ORBendPoint", end]
    os.environ["TANGO_HOST"] = "127.0.0.1:1"
    with scene.child(*scene.itself("serve", *words)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        source = tango.DeviceProxy(f"tango://127.0.0.1:{port}/{NAME}#dbase=no")
        heard = []
        number = source.subscribe_event("value", tango.EventType.CHANGE_EVENT, heard.append)
        scene.wait_for("event", lambda: heard)
        source.unsubscribe_event(number)
        scene.step("an event heard, and unsubscribed")
        with DeviceTestContext(Source, process=False) as proxy:
            scene.expect("a server within this process", proxy.value, 4.5)
        scene.step("the server within this process has ended")
    scene.step("all but the end of the interpreter")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        # PyTango writes that it is ready to a buffer, and does not flush it
        sys.stdout.reconfigure(line_buffering=True)
        run([Source], args=sys.argv[2:])
    else:
        main()
