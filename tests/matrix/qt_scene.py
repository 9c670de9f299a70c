"""What the checks of PyQt5, PyQt6 and PySide6 share: one panel, asked the same of each binding.

A process uses one binding only, so each has a check of its own that calls ``main`` here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import scene

BEAM = "#1f8a4c"
ALARM = "#d02a2a"


@contextlib.contextmanager
def offscreen() -> Iterator[Path]:
    """No display, and a private directory where Qt otherwise writes to a shared one."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    for name in ("QT_PLUGIN_PATH", "QT_STYLE_OVERRIDE", "QT_QPA_PLATFORMTHEME"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="check-qt-") as directory:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_CACHE_HOME"] = directory
        yield Path(directory)


def binding(name: str) -> SimpleNamespace:
    """The modules of a binding, with the two names in which they differ made the same."""
    modules = {
        part: importlib.import_module(f"{name}.Qt{part}")
        for part in ("Core", "Gui", "Widgets", "Test")
    }
    core = modules["Core"]
    signal_of = core.Signal if hasattr(core, "Signal") else core.pyqtSignal
    slot_of = core.Slot if hasattr(core, "Slot") else core.pyqtSlot
    return SimpleNamespace(**modules, Signal=signal_of, Slot=slot_of)


def colours(image: Any) -> dict[str, int]:
    """How many pixels of an image have which colour."""
    found: dict[str, int] = {}
    for y in range(image.height()):
        for x in range(image.width()):
            name = image.pixelColor(x, y).name()
            found[name] = found.get(name, 0) + 1
    return found


def turn(qt: SimpleNamespace, what: str, condition: Callable[[], Any], seconds: float = 20) -> None:
    """Run the event loop until a condition holds; AssertionError where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        qt.Core.QCoreApplication.processEvents(qt.Core.QEventLoop.ProcessEventsFlag.AllEvents, 50)
        time.sleep(0.005)


def interruptible(qt: SimpleNamespace, app: Any) -> list[Any]:
    """Let Ctrl-C end the event loop.

    Python runs its signal handlers between bytecodes only, and an idle event loop runs none: the
    descriptor that Python writes signals to wakes it. The result has to be kept alive.
    """
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    notifier = qt.Core.QSocketNotifier(reading.fileno(), qt.Core.QSocketNotifier.Type.Read)
    notifier.activated.connect(lambda *_: reading.recv(64))
    signal.signal(signal.SIGINT, lambda *_: app.exit(7))
    return [reading, writing, notifier]


def idle(qt: SimpleNamespace) -> int:
    """The child that is interrupted: a window on screen, no timer that would wake Python."""
    app = qt.Widgets.QApplication(["idle"])
    kept = interruptible(qt, app)
    window = qt.Widgets.QLabel("idle")
    window.show()
    window.repaint()
    print("loop runs", flush=True)
    status = app.exec()
    signal.set_wakeup_fd(-1)
    print(f"loop ended with {status}", flush=True)
    del kept
    return 0 if status == 7 else 1


def panel(qt: SimpleNamespace) -> SimpleNamespace:
    """A small control panel: a drawn state, a readback, a set point with limits, a button."""
    widgets, gui = qt.Widgets, qt.Gui

    class State(widgets.QWidget):  # type: ignore[misc]
        colour = BEAM

        def paintEvent(self, _event: object) -> None:
            painter = gui.QPainter(self)
            painter.fillRect(self.rect(), gui.QColor(self.colour))
            painter.end()

    window = widgets.QWidget()
    layout = widgets.QVBoxLayout(window)
    state, label = State(), widgets.QLabel("88888")
    state.setFixedSize(120, 40)
    label.setStyleSheet("color: #000000; background: #ffffff; font-size: 24px")
    setpoint, button = widgets.QLineEdit(), widgets.QPushButton("Apply")
    setpoint.setValidator(gui.QIntValidator(0, 200))
    for widget in (state, label, setpoint, button):
        layout.addWidget(widget)
    window.show()
    return SimpleNamespace(
        window=window, state=state, label=label, setpoint=setpoint, button=button
    )


def look(qt: SimpleNamespace, parts: SimpleNamespace, directory: Path) -> None:
    """The pixels of the panel, also after a change and by way of a file."""
    image = parts.window.grab().toImage()
    corner = parts.state.mapTo(parts.window, qt.Core.QPoint(0, 0))
    inside = image.pixelColor(corner.x() + 60, corner.y() + 20).name()
    scene.expect("a drawn widget has its colour in the picture of its window", inside, BEAM)
    scene.expect("all of its pixels have it", colours(image).get(BEAM), 120 * 40)

    full = colours(parts.label.grab().toImage())
    assert full.get("#ffffff", 0) > full.get("#000000", 0) > 50, full
    parts.label.setText("1")
    less = colours(parts.label.grab().toImage())
    assert 0 < less.get("#000000", 0) < full["#000000"] / 2, (less, full)
    scene.step("a label's text is there as pixels, and fewer of them for a shorter text")

    parts.state.colour = ALARM
    parts.state.update()
    changed = parts.window.grab().toImage()
    found = colours(changed)
    scene.expect("a repaint changes them all", (found.get(ALARM), found.get(BEAM)), (4800, None))
    for suffix in ("png", "jpg"):
        path = directory / f"panel.{suffix}"
        assert changed.save(str(path)), f"cannot write {suffix}"
        again = qt.Gui.QImage(str(path)).pixelColor(corner.x() + 60, corner.y() + 20)
        near = abs(again.red() - 0xD0) + abs(again.green() - 0x2A) + abs(again.blue() - 0x2A)
        assert near <= (0 if suffix == "png" else 24), f"{suffix}: {again.name()}"
    scene.step("the picture survives a PNG file exactly and a JPEG file nearly")


def operate(qt: SimpleNamespace, parts: SimpleNamespace) -> None:
    """Keys and a mouse button, as an operator would; a limit holds."""
    applied: list[str] = []
    parts.button.clicked.connect(lambda *_: applied.append(parts.setpoint.text()))
    left = qt.Core.Qt.MouseButton.LeftButton
    qt.Test.QTest.keyClicks(parts.setpoint, "1x5")
    qt.Test.QTest.mouseClick(parts.button, left)
    qt.Test.QTest.keyClicks(parts.setpoint, "00")
    scene.expect("no letter and no fourth digit can be typed", parts.setpoint.text(), "150")
    parts.setpoint.clear()
    qt.Test.QTest.keyClicks(parts.setpoint, "201")
    scene.expect("201 is over the limit of 200", parts.setpoint.hasAcceptableInput(), False)
    parts.setpoint.clear()
    qt.Test.QTest.keyClicks(parts.setpoint, "200")
    scene.expect("200 is at the limit", parts.setpoint.hasAcceptableInput(), True)
    parts.button.setEnabled(False)
    qt.Test.QTest.mouseClick(parts.button, left)
    scene.expect("a click applies what was typed, a disabled button nothing", applied, ["15"])


def threads(qt: SimpleNamespace) -> None:
    """Values from a QThread and from a Python thread arrive in the window's thread, in order."""
    core = qt.Core
    main_thread = threading.get_ident()

    class Source(core.QObject):  # type: ignore[misc]
        value = qt.Signal(int, object)
        done = qt.Signal()

        def run(self) -> None:
            for number in range(200):
                self.value.emit(number, {"thread": threading.get_ident(), "n": number})
            self.done.emit()

    class Sink(core.QObject):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, int, int, int]] = []

        @qt.Slot(int, object)
        def take(self, number: int, data: dict[str, int]) -> None:
            self.seen.append((number, data["n"], data["thread"], threading.get_ident()))

    def hold(what: str, seen: list[tuple[int, int, int, int]]) -> None:
        scene.expect(f"{what}: all values, in order", [s[:2] for s in seen], PAIRS)
        assert all(s[2] != main_thread for s in seen), "sent by the window's thread"
        assert all(s[3] == main_thread for s in seen), "a slot ran in the sender's thread"

    thread, source, sink = core.QThread(), Source(), Sink()
    source.moveToThread(thread)
    thread.started.connect(source.run)
    source.value.connect(sink.take)
    source.done.connect(thread.quit)
    thread.start()
    turn(qt, "values of a QThread", lambda: len(sink.seen) == 200 and thread.isFinished())
    hold("from a QThread", sink.seen)
    assert thread.wait(5000)

    # This is how CA and Tango callbacks come: from a thread that Qt knows nothing of.
    source, sink = Source(), Sink()
    source.value.connect(sink.take)
    plain = threading.Thread(target=source.run)
    plain.start()
    turn(qt, "values of a Python thread", lambda: len(sink.seen) == 200)
    plain.join()
    hold("from a Python thread", sink.seen)


PAIRS = [(number, number) for number in range(200)]


def timers(qt: SimpleNamespace) -> None:
    """A timer's period, a single shot, and a timer that was stopped."""
    core = qt.Core
    ticks: list[float] = []
    timer = core.QTimer()
    timer.setTimerType(core.Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    begin = time.monotonic()
    timer.start(20)
    turn(qt, "ten ticks", lambda: len(ticks) >= 10)
    timer.stop()
    count = len(ticks)
    assert ticks[-1] - begin >= 0.02 * count * 0.95, f"{count} ticks in {ticks[-1] - begin:.3f} s"
    fired: list[str] = []
    core.QTimer.singleShot(60, lambda: fired.append("shot"))
    turn(qt, "a single shot", lambda: fired)
    scene.expect("a timer ticks at its period and not after its stop", len(ticks), count)


def failing_slot(qt: SimpleNamespace, app: Any) -> None:
    """An exception in a slot is told and does not end the panel.

    In ``exec``, as a panel runs: out of ``processEvents`` PySide6 raises it, PyQt does not.
    """
    told: list[str] = []
    before, sys.excepthook = sys.excepthook, lambda kind, *_: told.append(kind.__name__)
    try:
        qt.Core.QTimer.singleShot(0, lambda: {}["gone"])
        qt.Core.QTimer.singleShot(100, lambda: app.exit(5))
        status = app.exec()
    finally:
        sys.excepthook = before
    scene.expect("an exception in a slot reaches sys.excepthook", told, ["KeyError"])
    scene.expect("and the loop goes on after it", status, 5)


def main(name: str) -> int:
    """All of it for one binding."""
    with offscreen() as directory:
        qt = binding(name)
        if sys.argv[1:] == ["idle"]:
            return idle(qt)
        app = qt.Widgets.QApplication([name])
        scene.expect("no display is used", app.platformName(), "offscreen")
        parts = panel(qt)
        look(qt, parts, directory)
        operate(qt, parts)
        threads(qt)
        timers(qt)
        failing_slot(qt, app)

        qt.Core.QTimer.singleShot(50, parts.window.close)
        guard = qt.Core.QTimer()
        guard.timeout.connect(lambda: app.exit(9))
        guard.start(20_000)
        scene.expect("the loop ends with its last window", app.exec(), 0)

        with scene.child(*scene.itself("idle")) as panel_child:
            scene.wait_for("the child's loop", lambda: panel_child.says("loop runs"))
            time.sleep(0.5)  # the loop is to be asleep in the kernel when the signal comes
            scene.expect("Ctrl-C ends an idle loop", panel_child.end(signal.SIGINT), 0)
            assert panel_child.says("loop ended with 7")
    others = {"PyQt5", "PyQt6", "PySide6"} - {name}
    scene.expect("one binding in the process", others & set(sys.modules), set())
    return 0
