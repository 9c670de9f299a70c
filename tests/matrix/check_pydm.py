"""PyDM widgets on Channel Access: a caproto IOC in a child, PyDM drawn offscreen.

A label shows a value with its unit and precision and follows it; its border has the alarm's
colour as pixels, with the severities of the IOC; a line edit and a spin box put values that the
IOC gets; an enumeration shows its names; a killed IOC shows as disconnected, and a new one is
found again. Here on PyQt5; on PySide6, the other Qt that PyDM supports, by a check of its own.
"""

import asyncio
import os
import signal
import sys

import qt_scene
import scene

PREFIX = "check:pydm:"
# qtpy's name of a Qt, and its package
BINDINGS = {"pyqt5": "PyQt5", "pyside6": "PySide6"}
# The colours of PyDM's own style sheet, by EPICS severity; 4 is PyDM's for "disconnected".
COLOURS = {1: "#ebeb00", 2: "#ff0000", 3: "#eb00eb", 4: "#ffffff"}


def ioc() -> None:
    """The server: a supply whose readback follows its set point and has alarm limits."""
    from caproto import ChannelType
    from caproto.server import PVGroup, pvproperty, run

    class Supply(PVGroup):
        # With limits the IOC makes the alarm of each value itself; in a group of its own, for all
        # of one group share an alarm, and the set point's write would clear it.
        current = pvproperty(
            value=1.25,
            precision=2,
            units="A",
            alarm_group="readback",
            lower_alarm_limit=-9.0,
            lower_warning_limit=-8.0,
            upper_warning_limit=8.0,
            upper_alarm_limit=9.0,
        )
        wanted = pvproperty(
            value=1.25,
            precision=2,
            units="A",
            lower_ctrl_limit=-20.0,
            upper_ctrl_limit=20.0,
        )
        mode = pvproperty(value="off", enum_strings=["off", "on"], dtype=ChannelType.ENUM)

        @wanted.putter
        async def wanted(self, instance, value):  # type: ignore[no-untyped-def]
            await self.current.write(value)
            return value

        @current.startup
        async def current(self, instance, async_lib):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0)
            print("ready", flush=True)

    run(Supply(prefix=PREFIX).pvdb, interfaces=["127.0.0.1"])


def border(widget) -> set[str]:  # type: ignore[no-untyped-def]
    """Which of the alarm colours the outermost pixels of a widget have."""
    image = widget.grab().toImage()
    right, bottom = image.width() - 1, image.height() - 1
    found = {image.pixelColor(x, y).name() for x in range(right + 1) for y in (0, bottom)}
    found |= {image.pixelColor(x, y).name() for y in range(bottom + 1) for x in (0, right)}
    return found & set(COLOURS.values())


def one(api: str) -> int:
    """All of it on one Qt."""
    os.environ["QT_API"] = api
    os.environ["PYDM_EPICS_LIB"] = "PYEPICS"
    os.environ.pop("PYDM_STYLESHEET", None)
    scene.epics()
    with qt_scene.offscreen(), scene.repeater():
        import qtpy
        from pydm import PyDMApplication
        from pydm.utilities.stylesheet import apply_stylesheet
        from pydm.widgets import PyDMEnumComboBox, PyDMLabel, PyDMLineEdit, PyDMSpinbox

        scene.expect("PyDM uses the Qt it is told to", qtpy.API_NAME, BINDINGS[api])
        qt = qt_scene.binding(BINDINGS[api])
        app = PyDMApplication(use_main_window=False)
        window = qt.Widgets.QWidget()
        layout = qt.Widgets.QVBoxLayout(window)
        label = PyDMLabel(init_channel=f"ca://{PREFIX}current")
        label.showUnits = True
        edit = PyDMLineEdit(init_channel=f"ca://{PREFIX}wanted")
        spin = PyDMSpinbox(init_channel=f"ca://{PREFIX}wanted")
        mode = PyDMEnumComboBox(init_channel=f"ca://{PREFIX}mode")
        shown = PyDMLabel(init_channel=f"ca://{PREFIX}mode")
        for widget in (label, edit, spin, mode, shown):
            layout.addWidget(widget)
        apply_stylesheet(widget=window)
        window.resize(300, 250)
        window.show()

        def comes(what: str, condition) -> None:  # type: ignore[no-untyped-def]
            qt_scene.turn(qt, what, condition, 25)
            scene.step(what)

        def state(severity: int, text: str):  # type: ignore[no-untyped-def]
            wanted = COLOURS[severity]
            return lambda: label.text() == text and border(label) == {wanted}

        comes("no server: the border of a label says so", lambda: border(label) == {COLOURS[4]})
        scene.expect("and what it controls is disabled", edit.isEnabled(), False)
        with scene.child(*scene.itself("ioc")) as server:
            scene.wait_for("IOC", lambda: server.says("ready"))
            comes("a label has value, precision and unit", lambda: label.text() == "1.25 A")
            comes("no alarm, no border", lambda: not border(label))
            comes(
                "a set point can be edited now", lambda: edit.isEnabled() and "1.25" in edit.text()
            )

            def value_of(spin: object) -> float:
                # PyDM hides the method under an attribute of the same name.
                return float(qt.Widgets.QDoubleSpinBox.value(spin))

            def put(text: str) -> None:
                edit.setFocus()
                edit.setText(text)
                qt.Test.QTest.keyClick(edit, qt.Core.Qt.Key.Key_Return)

            put("8.5")
            comes("minor alarm: yellow", state(1, "8.50 A"))
            put("-9.75")
            comes("major alarm: red", state(2, "-9.75 A"))
            comes("another widget follows", lambda: value_of(spin) == -9.75)
            spin.setValue(3.5)
            spin.send_value()
            comes("a spin box puts", lambda: label.text() == "3.50 A")
            comes("no alarm any more", lambda: not border(label))
            limits = (spin.minimum(), spin.maximum())
            scene.expect("a spin box has the limits of the IOC", limits, (-20.0, 20.0))

            comes("the names of an enumeration", lambda: mode.count() == 2)
            mode.setCurrentIndex(1)
            mode.activated[int].emit(1)
            comes("a choice is put", lambda: shown.text() == "on")
            server.end(signal.SIGKILL)
        comes("a killed IOC: disconnected", lambda: border(label) == {COLOURS[4]})
        comes("and nothing can be put", lambda: not edit.isEnabled())
        with scene.child(*scene.itself("ioc")) as server:
            scene.wait_for("IOC", lambda: server.says("ready"))
            comes("a new IOC is found", lambda: label.text() == "1.25 A" and edit.isEnabled())
            put("2")
            comes("and it gets what is put", lambda: label.text() == "2.00 A")
            qt.Core.QTimer.singleShot(0, window.close)
            guard = qt.Core.QTimer()
            guard.timeout.connect(lambda: app.exit(9))
            guard.start(15_000)
            scene.expect("the loop ends with its window", app.exec_(), 0)
    return 0


def main(api: str) -> int:
    """The check, or its IOC."""
    if sys.argv[1:] == ["ioc"]:
        ioc()
        return 0
    return one(api)


if __name__ == "__main__":
    sys.exit(main("pyqt5"))
