"""A Java VM in a program of Qt: panels on Java's clients, as with an archiver or an alarm tree.

A thread of Java calls back, and a Qt signal brings its values to a widget in the window's thread,
in order, until its pixels show the last; a slot calls Java; a timer of Qt ticks while Java
collects its garbage; an exception of Java in a slot is told and the loop goes on; the VM changes
no signal of Python's, and Ctrl-C ends the loop. On PyQt5, PyQt6 and PySide6, a process each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jpype
import qt_scene
import scene

BINDINGS = ("PyQt5", "PyQt6", "PySide6")
COUNT = 500

SOURCE = r"""
public class Alarms {
    public interface Listener { void changed(String name, int value); }

    public static class Lost extends RuntimeException {
        public Lost(String name) { super(name); }
    }

    public static Thread start(Listener listener, int count) {
        Thread thread = new Thread(() -> {
            for (int i = 0; i < count; i++) listener.changed("quench ä " + i, i);
        }, "alarms");
        thread.start();
        return thread;
    }
    public static int acknowledge(String name) {
        if (!name.startsWith("quench")) throw new Lost(name);
        return name.length();
    }
    public static int churn(int count) {
        java.util.List<byte[]> kept = new java.util.LinkedList<>();
        for (int i = 0; i < count; i++) {
            kept.add(new byte[1000]);
            if (kept.size() > 1000) kept.remove(0);
        }
        System.gc();
        return count;
    }
}
"""


def compiled(directory: str) -> None:
    """Compile the class; without a file of the compiler in the shared temporary directory."""
    source = Path(directory, "Alarms.java")
    source.write_text(SOURCE, encoding="utf-8")
    words = ["javac", "-J-XX:-UsePerfData", "-encoding", "UTF-8", "-d", directory, str(source)]
    subprocess.run(words, check=True, timeout=120)


def signals() -> None:
    """SIGINT is still Python's, and SIGPIPE nobody's, though the VM has a handler for it."""
    scene.expect(
        "the VM leaves SIGINT", signal.getsignal(signal.SIGINT), signal.default_int_handler
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        os.write(writing, b"x")
    except BrokenPipeError:
        scene.step("a broken pipe is an exception")
    else:
        raise AssertionError("a broken pipe was written to")
    finally:
        os.close(writing)


def panel(name: str, directory: str) -> int:
    """The program: one binding, one VM."""
    with qt_scene.offscreen():
        qt = qt_scene.binding(name)
        app = qt.Widgets.QApplication([name])
        jpype.startJVM("-Xrs", "-XX:-UsePerfData", "-Xmx256m", classpath=[directory])
        signals()
        alarms = jpype.JClass("Alarms")
        label = qt.Widgets.QLabel("no alarm")
        label.setStyleSheet("background: #ffffff; color: #000000; font-size: 20px")
        label.resize(300, 40)
        label.show()
        told(qt, alarms, label)
        slots(qt, app, alarms)
        return idle(qt, app)


def told(qt: Any, alarms: Any, label: Any) -> None:
    """Values from a thread of Java arrive in the window's thread, and are drawn."""
    main_thread = threading.get_ident()
    seen: list[tuple[str, int, int]] = []
    senders: set[int] = set()

    class Bridge(qt.Core.QObject):  # type: ignore[misc]
        changed = qt.Signal(str, int)

        @qt.Slot(str, int)
        def show(self, text: str, value: int) -> None:
            seen.append((text, value, threading.get_ident()))
            label.setText(text)

    bridge = Bridge()
    bridge.changed.connect(bridge.show)

    @jpype.JImplements("Alarms$Listener")
    class Listener:
        """What the thread of Java calls."""

        @jpype.JOverride
        def changed(self, text: object, value: int) -> None:
            """Hand it to the window's thread."""
            senders.add(threading.get_ident())
            bridge.changed.emit(str(text), int(value))

    empty = label.grab().toImage()
    thread = alarms.start(Listener(), COUNT)
    qt_scene.turn(qt, "values of a thread of Java", lambda: len(seen) == COUNT)
    thread.join()
    wanted = [(f"quench ä {n}", n, main_thread) for n in range(COUNT)]
    scene.expect("values of a thread of Java, in order, in the window's thread", seen, wanted)
    scene.expect("sent by another thread", main_thread in senders, False)
    scene.expect("and the label shows another text", label.grab().toImage() == empty, False)
    scene.expect("which is the last", label.text(), f"quench ä {COUNT - 1}")


def slots(qt: Any, app: Any, alarms: Any) -> None:
    """Slots call Java, also what throws; a thread makes Java work meanwhile."""
    ticks: list[float] = []
    timer = qt.Core.QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(10)
    work = threading.Thread(target=alarms.churn, args=(300_000,))
    work.start()
    qt_scene.turn(qt, "Java's work", lambda: not work.is_alive() and len(ticks) > 20)
    timer.stop()
    work.join()
    scene.step("a timer ticks while Java works and collects")

    answers: list[int] = []
    failures: list[str] = []
    previous, sys.excepthook = sys.excepthook, lambda kind, *_: failures.append(kind.__name__)
    try:
        qt.Core.QTimer.singleShot(0, lambda: answers.append(int(alarms.acknowledge("quench 1"))))
        qt.Core.QTimer.singleShot(0, lambda: answers.append(int(alarms.acknowledge("unknown"))))
        qt.Core.QTimer.singleShot(100, lambda: app.exit(5))
        status = app.exec()
    finally:
        sys.excepthook = previous
    scene.expect("a slot calls Java", answers, [8])
    scene.expect("an exception of Java in a slot is told", failures, ["Alarms.Lost"])
    scene.expect("and the loop goes on", status, 5)


def idle(qt: Any, app: Any) -> int:
    """Ctrl-C ends an idle loop, as without a VM."""
    kept = qt_scene.interruptible(qt, app)
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
    guard = qt.Core.QTimer()
    guard.timeout.connect(lambda: app.exit(9))
    guard.start(20_000)
    scene.expect("Ctrl-C ends an idle loop", app.exec(), 7)
    signal.set_wakeup_fd(-1)
    del kept
    return 0


def main() -> int:
    """Each binding in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="check-jpype-") as directory:
        compiled(directory)
        for name in BINDINGS:
            with scene.child(*scene.itself("panel", name, directory)) as program:
                scene.wait_for(
                    "the end", lambda program=program: program.popen.poll() is not None, 60
                )
                scene.expect(f"{name} with Java ends in order", program.popen.returncode, 0)
    return 0


if __name__ == "__main__":
    sys.exit(panel(*sys.argv[2:]) if sys.argv[1:2] == ["panel"] else main())
