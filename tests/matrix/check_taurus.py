"""taurus: models, and widgets drawn offscreen, against a Tango device without database.

Evaluated attributes without any device; values with units, limits, quality; polling and events to
a listener; labels, a line edit that writes, a LED and a label's colour that follow the device; a
form; a device killed and started again; an exit with status 0. No display and no database.
"""

import os
import sys
import tempfile
import time

import scene

os.environ["QT_QPA_PLATFORM"] = "offscreen"
# nobody's database, neither of the system nor of a home
os.environ["TANGO_HOST"] = "127.0.0.1:1"

NAME = "check/supply/1"


def serve(words):
    """Be a power supply."""
    import tango
    from tango.server import Device, attribute, command, run

    class Supply(Device):
        """A power supply."""

        current = attribute(
            dtype=float,
            access=tango.AttrWriteType.READ_WRITE,
            unit="mA",
            format="%6.2f",
            label="Strom",
            min_value=-10.0,
            max_value=10.0,
            max_alarm=8.0,
            abs_change=0.01,
            polling_period=100,
        )

        def init_device(self):
            """Begin on."""
            super().init_device()
            self._current = 1.25
            self.set_state(tango.DevState.ON)

        def read_current(self):
            """Give it."""
            return self._current

        def write_current(self, value):
            """Keep it."""
            self._current = value

        @command(dtype_in=float, dtype_out=float)
        def double(self, value):
            """Twice."""
            return value * 2

    run([Supply], args=words)


def device(port):
    """The command of the device on a port of loopback."""
    end = f"giop:tcp:127.0.0.1:{port}"
    return scene.itself("serve", "Supply", "check", "-nodb", "-dlist", NAME, "-ORBendPoint", end)


def models(taurus, url):
    """Models without a window."""
    from taurus.core import AttrQuality, TaurusEventType
    from taurus.core.units import Quantity

    scene.expect(
        "an evaluated value", taurus.Attribute("eval:3*Q(2,'mm')").rvalue, Quantity(6, "mm")
    )
    current = taurus.Attribute(f"{url}/current")
    read = current.read(cache=False)
    scene.expect("a value with its unit", read.rvalue, Quantity(1.25, "mA"))
    scene.expect("its quality", read.quality, AttrQuality.ATTR_VALID)
    scene.expect("its limits", current.range, [Quantity(-10, "mA"), Quantity(10, "mA")])
    scene.expect("its label", current.label, "Strom")
    current.write(Quantity(0.002, "A"))
    wanted = Quantity(2, "mA")
    # the server reads a polled attribute every tenth of a second
    scene.wait_for("poll", lambda: current.read(cache=False).rvalue == wanted)
    scene.expect("a write in another unit", current.read(cache=False).wvalue, wanted)
    heard = []

    def listen(_source, kind, value):
        if kind in (TaurusEventType.Change, TaurusEventType.Periodic) and value is not None:
            heard.append(value.rvalue)

    current.addListener(listen)
    current.write(Quantity(3.5, "mA"))
    scene.wait_for("event", lambda: Quantity(3.5, "mA") in heard)
    scene.step("a listener hears of a change")
    current.removeListener(listen)
    supply = taurus.Device(f"{url}")
    scene.expect("the state of the device", supply.stateObj.read(cache=False).rvalue.name, "ON")
    scene.expect("a command of the device", supply.double(4.0), 8.0)
    why = False
    try:
        current.write(Quantity(11, "mA"))
    except Exception as error:
        why = "API_WAttrOutsideLimit" in str(error) or "limit" in str(error).lower()
    scene.expect("a value over the limit is refused", why, True)
    return current


def widgets(app, current, url):
    """Widgets that follow the device."""
    from taurus.core.units import Quantity
    from taurus.external.qt import Qt
    from taurus.qt.qtgui.display import TaurusLabel, TaurusLed
    from taurus.qt.qtgui.input import TaurusValueLineEdit
    from taurus.qt.qtgui.panel import TaurusForm

    def until(what, condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds:g} s")
            app.processEvents()
            time.sleep(0.01)
        scene.step(what)

    model = f"{url}/current"
    window = Qt.QWidget()
    layout = Qt.QVBoxLayout(window)
    label, sum_label, state = TaurusLabel(), TaurusLabel(), TaurusLabel()
    edit, led = TaurusValueLineEdit(), TaurusLed()
    for widget in (label, sum_label, state, edit, led):
        layout.addWidget(widget)
    window.show()
    sum_label.setModel("eval:40+2")
    until("a label shows an evaluated value", lambda: sum_label.text().strip().startswith("42"))
    label.setModel(model)
    until("a label shows the device's value", lambda: label.text().split() == ["3.50", "mA"])
    current.write(Quantity(4.5, "mA"))
    until("it follows a change", lambda: label.text().split() == ["4.50", "mA"])

    def colour():
        image = label.grab().toImage()
        return image.pixelColor(image.width() - 4, 4).name()

    quiet = colour()
    current.write(Quantity(9, "mA"))
    until(
        "its colour follows an alarm",
        lambda: label.text().split()[0] == "9.00" and colour() != quiet,
    )
    current.write(Quantity(4.5, "mA"))
    until("and its end", lambda: colour() == quiet)
    edit.setModel(model)
    until("a line edit shows the set point", lambda: edit.text().strip().startswith("4.5"))
    edit.setText("5.75 mA")
    edit.writeValue()
    until("what is typed is written", lambda: label.text().split() == ["5.75", "mA"])
    state.setModel(f"{url}/state")
    until("a label shows the state", lambda: state.text() == "ON")
    led.fgRole = "quality"
    led.setModel(model)
    until("a LED shows the quality", lambda: (led.ledColor, led.ledStatus) == ("green", True))
    form = TaurusForm()
    form.setModel([model, "eval:1"])
    form.show()
    until("a form has its rows", lambda: len(form.getItems()) == 2)
    return label, until, window, form


def main():
    """One device, then its next."""
    import taurus
    from taurus.qt.qtgui.application import TaurusApplication

    app = TaurusApplication([sys.argv[0]], cmd_line_parser=None, app_name="check")
    taurus.setLogLevel(taurus.Critical)
    port = scene.free_port()
    url = f"tango-nodb://127.0.0.1:{port}/{NAME}"
    with scene.child(*device(port)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        current = models(taurus, url)
        label, until, window, form = widgets(app, current, url)
        server.end(9)

        def lost():
            try:
                current.read(cache=False)
            except Exception:
                return True
            return False

        until("the loss is told", lost)
    with scene.child(*device(port)) as server:
        scene.wait_for("server", lambda: server.says("Ready to accept request"))
        # Tango looks after subscriptions every ten seconds
        until("the label comes back by itself", lambda: label.text().split() == ["1.25", "mA"], 40)
        for widget in (form, window):
            widget.close()
        label.setModel(None)
        form.setModel(None)
        app.processEvents()
    scene.step("all of taurus")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        # PyTango writes that it is ready to a buffer, and does not flush it
        sys.stdout.reconfigure(line_buffering=True)
        serve(sys.argv[2:])
    else:
        # taurus keeps settings in the home and Qt what runs in a shared directory
        with tempfile.TemporaryDirectory(prefix="check-taurus-") as directory:
            os.environ["HOME"] = os.environ["XDG_RUNTIME_DIR"] = directory
            os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_CACHE_HOME"] = directory
            main()
