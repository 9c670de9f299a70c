"""sardana: a pool and a macro server with dummy hardware, on a Tango database of its own.

The database and the server `Sardana` are children on loopback. Controllers, motors, a counter and a
measurement group are made; macros of sardana's and one of our own are run through a door: moves,
limits refused, a count, scans whose records and HDF5 file are read, a macro that raises, that does
not exist, that is paused, stopped and aborted while the motor moves; the environment, elements and
positions after the server is killed and started again.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import scene
import tango

POOL, MACROS, DOOR = "pool/check/1", "macroserver/check/1", "door/check/1"
MACRO = '''
from sardana.macroserver.macro import Macro, Type

class there_and_back(Macro):
    """Move a motor by a distance, and back."""

    param_def = [["axis", Type.Moveable, None, "what"], ["by", Type.Float, 1.0, "how far"]]
    result_def = [["at", Type.Float, None, "where it has been"]]

    def run(self, axis, by):
        before = axis.getPosition()
        self.mv(axis, before + by)
        at = axis.getPosition()
        self.mv(axis, before)
        self.output("there: %g" % at)
        return at

class broken(Macro):
    """Fail."""

    def run(self):
        raise ValueError("no such luck")
'''


def program(name: str) -> Path:
    """A program of the layer: next to the interpreter."""
    found = Path(sys.prefix, "bin", name)
    if not found.exists():
        raise AssertionError(f"no {name} in this layer")
    return found


def answers(name: str) -> bool:
    """Whether a device answers."""
    try:
        tango.DeviceProxy(name).ping()
    except tango.DevFailed:
        return False
    return True


def database(directory: str, port: int):
    """The Tango database as a child."""
    words = [program("PyDatabaseds"), "--port", str(port), "--host", "127.0.0.1", "2"]
    name = str(Path(directory, "tango.db"))
    return scene.child(sys.executable, *words, env={"PYTANGO_DATABASE_NAME": name})


def sardana(directory: str):
    """Pool, macro server and door in one server, as a child."""
    words = ["check", "-ORBendPoint", "giop:tcp:127.0.0.1:", "--log-level=warning"]
    # its log goes to the directory of temporary files
    return scene.child(
        sys.executable, program("Sardana"), *words, env={"TMPDIR": directory, "HOME": directory}
    )


def up() -> bool:
    """Whether all devices of the server answer."""
    return all(answers(name) for name in (POOL, MACROS, DOOR))


def connected(port: int) -> "tango.Database | None":
    """The database, once it answers."""
    try:
        base = tango.Database("127.0.0.1", port)
        base.get_info()
    except tango.DevFailed:
        return None
    return base


def register(port: int, directory: str) -> None:
    """Tell the database of the server's devices."""
    base = scene.wait_for("database", lambda: connected(port), 30)
    for kind, name in (("Pool", POOL), ("MacroServer", MACROS), ("Door", DOOR)):
        info = tango.DbDevInfo()
        info.server, info._class, info.name = "Sardana/check", kind, name
        base.add_device(info)
    Path(directory, "macros").mkdir()
    Path(directory, "macros", "mine.py").write_text(MACRO)
    own = {"EnvironmentDb": [f"{directory}/env"], "MacroPath": [f"{directory}/macros"]}
    base.put_device_property(MACROS, {"PoolNames": [POOL], **own})
    base.put_device_property(DOOR, {"MacroServerName": [MACROS]})


def elements() -> None:
    """Hardware that is none."""
    pool = tango.DeviceProxy(POOL)
    pool.set_timeout_millis(20_000)
    for kind, name in (("Motor", "DummyMotor"), ("CTExpChannel", "DummyCounterTimer")):
        controller = f"{kind.lower()}_ctrl"
        pool.CreateController([kind, f"{name}Controller.py", f"{name}Controller", controller])
    for kind, axis, name in (
        ("Motor", "1", "slow"),
        ("Motor", "2", "fast"),
        ("CTExpChannel", "1", "timer"),
        ("CTExpChannel", "2", "diode"),
    ):
        pool.CreateElement([kind, f"{kind.lower()}_ctrl", axis, name])
    pool.CreateMeasurementGroup(["group", "timer", "diode"])
    fast = tango.DeviceProxy("fast")
    fast.velocity, fast.acceleration, fast.deceleration = 1000.0, 0.01, 0.01
    slow = tango.DeviceProxy("slow")
    slow.velocity = 2.0
    why = reason(pool.CreateController, ["Motor", "No.py", "No", "no_ctrl"])
    scene.expect("no such controller", bool(why), True)


def reason(call: Callable[..., object], *arguments: object) -> str:
    """The text of a failure."""
    try:
        call(*arguments)
    except tango.DevFailed as failed:
        return failed.args[0].desc
    raise AssertionError(f"{call} {arguments} did not fail")


def contents(event: tango.EventData) -> list:
    """What an event with JSON says; nothing where it is an error, or of another form."""
    # a first event may be a pickle; a callback that raises takes all other subscriptions with it
    if event.err or "json" not in event.attr_value.value[0]:
        return []
    return [json.loads(event.attr_value.value[1])]


class Door:
    """A door: where macros are run, and what it tells of them."""

    def __init__(self) -> None:
        self.proxy = scene.wait_for("door", lambda: answers(DOOR) and tango.DeviceProxy(DOOR))
        self.records: list[dict] = []
        self.macros: dict[str, str] = {}
        self.lost = False
        self.results: list[tuple[str, ...]] = []
        for name, take in (
            ("RecordData", self.recorded),
            ("MacroStatus", self.told),
            ("Result", self.given),
        ):
            self.proxy.subscribe_event(name, tango.EventType.CHANGE_EVENT, take)

    def recorded(self, event: tango.EventData) -> None:
        """Keep a record of a scan."""
        self.records += contents(event)

    def told(self, event: tango.EventData) -> None:
        """Keep what a macro does, and whether the server is there."""
        self.lost = event.err
        for status in contents(event):
            self.macros.update({part["id"]: part["state"] for part in status})

    def given(self, event: tango.EventData) -> None:
        """Keep the result of a macro: only its event has it."""
        if not event.err and event.attr_value.value:
            self.results.append(tuple(event.attr_value.value))

    def begin(self, *words: str) -> str:
        """Start a macro; its number."""
        scene.wait_for("door at rest", lambda: self.state() != tango.DevState.RUNNING)
        # numbers begin again with the server
        self.macros.clear()
        (started,) = self.proxy.RunMacro(list(words))
        return ElementTree.fromstring(started).find("macro").get("id")

    def state(self) -> tango.DevState:
        """What it does."""
        return self.proxy.state()

    def end(self, number: str) -> str:
        """Wait for the end of a macro; how it ended."""
        ends = ("finish", "stop", "abort", "exception")
        scene.wait_for("end of a macro", lambda: self.macros.get(number) in ends, 40)
        scene.wait_for("door at rest", lambda: self.state() != tango.DevState.RUNNING)
        return self.macros[number]

    def listen(self) -> None:
        """Run macros until the end of one is told: what came before the subscription is not."""

        def told() -> bool:
            number = self.begin("lsenv")
            scene.wait_for("door at rest", lambda: self.state() != tango.DevState.RUNNING)
            time.sleep(0.5)
            return not self.lost and self.macros.get(number) == "finish"

        scene.wait_for("events", told, 60)

    def run(self, *words: str) -> list[str]:
        """Run a macro; what it put out."""
        self.end(self.begin(*words))
        return list(self.proxy.read_attribute("Output").value or ())

    def errors(self) -> str:
        """What went wrong."""
        found = [self.proxy.read_attribute(name).value or () for name in ("Error", "Critical")]
        return "\n".join(line for lines in found for line in lines)


def position(name: str) -> float:
    """Where a motor is, asked of its hardware."""
    proxy = tango.DeviceProxy(name)
    proxy.set_source(tango.DevSource.DEV)
    return round(proxy.position, 4)


def macros(door: Door) -> None:
    """Single macros, to their good and bad ends."""
    door.run("mv", "fast", "5", "slow", "0.5")
    scene.expect("two motors at once", (position("fast"), position("slow")), (5.0, 0.5))
    text = "\n".join(door.run("wm", "fast"))
    scene.expect("where is it", "5.0" in text and "fast" in text, True)
    count = "\n".join(door.run("ct", "0.2", "group"))
    scene.expect("a count", ("timer" in count, "0.2" in count), (True, True))
    text = "\n".join(door.run("there_and_back", "fast", "2.5"))
    scene.expect("a macro of our own", text, "there: 7.5")
    scene.wait_for("its result", lambda: door.results == [("7.5",)])
    scene.expect("and back", position("fast"), 5.0)
    scene.expect("unknown", "UnknownMacro" in reason(door.begin, "nonsense"), True)
    door.begin("mv", "nobody", "1")
    scene.wait_for("no such motor", lambda: "nobody does not exist" in door.errors())
    door.run("broken")
    scene.expect("a macro that raises", "no such luck" in door.errors(), True)
    scene.expect("ends in alarm", door.state(), tango.DevState.ALARM)
    door.run("set_lim", "fast", "-10", "10")
    door.run("mv", "fast", "11")
    scene.expect(
        "beyond the limits", ("OutsideLimit" in door.errors(), position("fast")), (True, 5.0)
    )
    door.run("mv", "fast", "9")
    scene.expect("and works again", (position("fast"), door.state()), (9.0, tango.DevState.ON))


def interrupts(door: Door) -> None:
    """A macro paused, stopped, aborted; its motor at rest after that."""
    slow = tango.DeviceProxy("slow")
    for what in ("StopMacro", "AbortMacro"):
        number = door.begin("mv", "slow", "100")
        goal = position("slow") + 0.1
        scene.wait_for("on its way", lambda goal=goal: position("slow") > goal)
        door.proxy.command_inout(what)
        scene.expect(what, door.end(number), what[:-5].lower())
        scene.wait_for("the motor stops", lambda: slow.state() != tango.DevState.MOVING)
        scene.expect("on its way", position("slow") < 90, True)
    door.run("mv", "fast", "0")
    number = door.begin("ascan", "fast", "0", "3", "3", "0.3")
    scene.wait_for("in the scan", lambda: door.macros.get(number) == "step")
    door.proxy.PauseMacro()
    scene.wait_for("paused", lambda: door.state() == tango.DevState.STANDBY)
    door.proxy.ResumeMacro()
    scene.expect("resumed to its end", door.end(number), "finish")
    scene.expect("at its end", (position("fast"), door.errors()), (3.0, ""))


def scans(door: Door, directory: str) -> None:
    """A scan: its records, and its file."""
    import h5py

    settings = {"ScanDir": directory, "ScanFile": "['scan.h5']", "JsonRecorder": "True"}
    for name, value in settings.items():
        door.run("senv", name, value)
    door.records.clear()
    door.run("ascan", "fast", "-1", "1", "4", "0.05")
    scene.expect("a scan without errors", door.errors(), "")
    told = scene.wait_for("records", lambda: rows(door))
    scene.expect("positions", [round(row["fast"], 4) for row in told], [-1, -0.5, 0, 0.5, 1])
    scene.expect("integration", {round(row["timer"], 3) for row in told}, {0.05})
    with h5py.File(Path(directory, "scan.h5")) as file:
        entry = next(iter(file.values()))
        measured = entry["measurement"]
        found = [round(float(value), 4) for value in measured["fast"][()]]
        scene.expect("the file's positions", found, [-1, -0.5, 0, 0.5, 1])
        scene.expect("and counters", len(measured["diode"][()]), 5)
        title = entry["title"][()]
        scene.expect("its title", title, b"ascan fast -1.0 1.0 4 0.05")
    door.run("mesh", "fast", "0", "1", "1", "slow", "5", "5.2", "1", "0.02", "True")
    scene.expect("a mesh without errors", door.errors(), "")


def rows(door: Door) -> list[dict]:
    """The rows of a scan, by the labels of their columns; none before its end is recorded."""
    told = {kind: [] for kind in ("data_desc", "record_data", "record_end")}
    for record in door.records:
        told[record["type"]].append(record["data"])
    if not told["record_end"]:
        return []
    labels = {column["name"]: column["label"] for column in told["data_desc"][0]["column_desc"]}
    return [{labels[key]: value for key, value in row.items()} for row in told["record_data"]]


def main() -> None:
    port = scene.free_port()
    os.environ["TANGO_HOST"] = f"127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory(prefix="check-sardana-") as directory,
        database(directory, port),
    ):
        register(port, directory)
        with sardana(directory) as server:
            scene.wait_for("server", up, 60)
            elements()
            door = Door()
            door.listen()
            door.run("senv", "ActiveMntGrp", "group")
            macros(door)
            interrupts(door)
            scans(door, directory)
            door.run("mv", "fast", "-2.5")
            server.end(9)
            scene.wait_for("the loss is told", lambda: door.lost, 60)
        with sardana(directory) as server:
            scene.wait_for("server again", up, 60)
            # Tango tries to subscribe again every ten seconds
            door.listen()
            # the macro server asks the pool for them, after it is up
            scene.wait_for("its motors", lambda: "fast" in "".join(door.run("lsm")))
            text = "\n".join(door.run("lsenv"))
            scene.expect("its environment", "scan.h5" in text, True)
            door.run("mv", "fast", "1.5")
            scene.expect("a move after the restart", position("fast"), 1.5)
            door.run("mv", "fast", "11")
            scene.expect(
                "its limits", ("OutsideLimit" in door.errors(), position("fast")), (True, 1.5)
            )
            scene.expect("and its group", "diode" in "\n".join(door.run("ct", "0.1")), True)
            scene.expect("the server ends", server.end(seconds=20) in (0, -15), True)
    scene.step("all of sardana")


if __name__ == "__main__":
    main()
