"""PyTango with a database: pytango-db on SQLite, and a device that remembers.

The database in a process of its own on loopback; a device is registered, found by its name, by
its alias and by its class; properties of device and of class, written, read, with a default and
taken over by Init; a memorized attribute keeps its value over a server killed and started again;
settings of an attribute are kept; events by name; the database killed and started again on its
file; a name that is not known.
"""

import os
import sys
import tempfile
from pathlib import Path

import scene
import tango
from tango.server import Device, attribute, class_property, device_property, run

NAME = "check/supply/1"


class Supply(Device):
    """A power supply with a memory."""

    gain = device_property(dtype=float, default_value=2.0)
    cells = device_property(dtype=(int,), default_value=[1])
    host = device_property(dtype=str, mandatory=True)
    maker = class_property(dtype=str, default_value="nobody")
    current = attribute(
        dtype=float,
        access=tango.AttrWriteType.READ_WRITE,
        memorized=True,
        hw_memorized=True,
        polling_period=100,
        abs_change=0.1,
    )
    facts = attribute(dtype=str)

    def init_device(self):
        """Begin with what the properties say."""
        super().init_device()
        self._current = -1.0
        self.set_state(tango.DevState.ON)

    def read_current(self):
        """Give it."""
        return self._current

    def write_current(self, value):
        """Keep it."""
        self._current = value

    def read_facts(self):
        """Tell the properties."""
        return f"{self.gain:g} {list(self.cells)} {self.host} {self.maker}"


def program():
    """The database's program: next to the interpreter."""
    found = Path(sys.prefix, "bin", "PyDatabaseds")
    if not found.exists():
        raise AssertionError("no PyDatabaseds in this layer")
    return found


def database(directory, port):
    """The database as a child."""
    words = ["--port", str(port), "--host", "127.0.0.1", "2"]
    name = str(Path(directory, "tango.db"))
    # its script may begin with another place than where it is run from
    return scene.child(sys.executable, program(), *words, env={"PYTANGO_DATABASE_NAME": name})


def device():
    """The device's server as a child."""
    return scene.child(
        *scene.itself("serve", "Supply", "check", "-ORBendPoint", "giop:tcp:127.0.0.1:")
    )


def works(call):
    """Whether a call does not fail."""
    try:
        call()
    except tango.DevFailed:
        return False
    return True


def reason(call, *arguments):
    """The reasons of a failure."""
    try:
        call(*arguments)
    except tango.DevFailed as failed:
        return {error.reason for error in failed.args}
    raise AssertionError(f"{call} {arguments} did not fail")


def register(port):
    """Tell the database of the device."""
    base = scene.wait_for("database", lambda: connected(port), 30)
    scene.expect("a device not known", bool(reason(tango.DeviceProxy, "no/such/device")), True)
    info = tango.DbDevInfo()
    info.server, info._class, info.name = "Supply/check", "Supply", NAME
    base.add_device(info)
    base.put_device_property(NAME, {"gain": 3.5, "cells": [4, 7, 12], "host": "box"})
    base.put_class_property("Supply", {"maker": "check"})
    base.put_device_alias(NAME, "PS1")
    scene.expect("registered", list(base.get_device_name("Supply/check", "Supply")), [NAME])
    scene.expect("not exported yet", list(base.get_device_exported("check/*")), [])
    found = base.get_device_property(NAME, ["cells", "none"])
    scene.expect("properties", (list(found["cells"]), list(found["none"])), (["4", "7", "12"], []))
    scene.expect("an alias", base.get_device_from_alias("PS1"), NAME)
    return base


def connected(port):
    """The database, once it answers."""
    try:
        base = tango.Database("127.0.0.1", port)
        base.get_info()
    except tango.DevFailed:
        return None
    return base


def main():
    """A database; a server, its next; the database's next."""
    port = scene.free_port()
    os.environ["TANGO_HOST"] = f"127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory(prefix="check-tango-") as directory,
        database(directory, port) as served,
    ):
        base = register(port)
        with device() as server:
            scene.wait_for("server", lambda: server.says("Ready to accept request"), 30)
            proxy = tango.DeviceProxy("PS1")
            scene.expect("found by its alias", proxy.dev_name(), NAME)
            scene.expect("exported", list(base.get_device_exported("check/*")), [NAME])
            scene.expect("what the properties say", proxy.facts, "3.5 [4, 7, 12] box check")
            proxy.put_property({"gain": 5})
            scene.expect("a property waits for Init", proxy.facts.split()[0], "3.5")
            proxy.Init()
            scene.expect("and is taken over by it", proxy.facts.split()[0], "5")
            base.delete_device_property(NAME, "cells")
            proxy.Init()
            scene.expect("without it the default", proxy.facts, "5 [1] box check")
            heard = []
            kind = tango.EventType.CHANGE_EVENT
            number = proxy.subscribe_event("current", kind, heard.append)
            proxy.current = 6.25
            scene.wait_for(
                "event", lambda: [e for e in heard if not e.err and e.attr_value.value == 6.25]
            )
            scene.step("an event by name")
            proxy.unsubscribe_event(number)
            config = proxy.get_attribute_config("current")
            config.label, config.max_value = "Strom", "12"
            proxy.set_attribute_config(config)
            kept = base.get_device_attribute_property(NAME, ["current"])["current"]
            scene.expect("the database has the value", list(kept["__value"]), ["6.25"])
            server.end(9)
        scene.expect("without the server it fails", works(proxy.ping), False)
        with device() as server:
            scene.wait_for("server", lambda: server.says("Ready to accept request"), 30)
            scene.wait_for("proxy", lambda: works(proxy.ping))
            read = proxy.read_attribute("current", extract_as=tango.ExtractAs.Numpy)
            proxy.set_source(tango.DevSource.DEV)
            read = proxy.read_attribute("current")
            scene.expect("a memorized value", (read.value, read.w_value), (6.25, 6.25))
            config = proxy.get_attribute_config("current")
            scene.expect(
                "settings of an attribute", (config.label, config.max_value), ("Strom", "12")
            )
            why = reason(proxy.write_attribute, "current", 13.0)
            scene.expect("and its limit", "API_WAttrOutsideLimit" in why, True)
            served.end(9)
            scene.expect(
                "it lives without the database", proxy.read_attribute("current").value, 6.25
            )
            with database(directory, port) as served:
                scene.wait_for("database", lambda: connected(port), 30)
                scene.wait_for("again", lambda: works(lambda: base.get_info()))
                scene.expect(
                    "the database's next knows all",
                    list(base.get_device_name("*", "Supply")),
                    [NAME],
                )
                proxy.current = 7.5
                kept = base.get_device_attribute_property(NAME, ["current"])["current"]
                scene.expect("and memorizes", list(kept["__value"]), ["7.5"])
                server.end()
                base.delete_device(NAME)
                why = reason(tango.DeviceProxy, NAME)
                scene.expect("deleted", "DB_DeviceNotDefined" in why, True)
    scene.step("all of pytango-db")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        # PyTango writes that it is ready to a buffer, and does not flush it
        sys.stdout.reconfigure(line_buffering=True)
        run([Supply], args=sys.argv[2:])
    else:
        main()
