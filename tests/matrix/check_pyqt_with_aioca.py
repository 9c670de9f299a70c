"""A panel of PyQt with an event loop of asyncio in a thread, where aioca lives; p4p beside it.

Monitors of aioca reach a label by a Qt signal in the window's thread, in order; a button's click
asks the loop to write, and the answer comes back as a signal; p4p's monitor comes from a thread of
its own. The IOC is killed and comes back, the window shows both; Ctrl-C ends the program with all
of it running. On PyQt5 and PyQt6, a process each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
from typing import Any

import qt_scene
from scene import HERE, Child, child, epics, expect, itself, step, wait_for

NAME = "CHECK:TURNS"


class Loop(threading.Thread):
    """The event loop, with aioca's monitor in it."""

    def __init__(self, told: Any) -> None:
        super().__init__(daemon=True)
        self.loop = asyncio.new_event_loop()
        self.told = told

    def run(self) -> None:
        """Monitor until the loop is stopped, then close aioca's channels in it."""
        import aioca

        async def begin() -> None:
            aioca.camonitor(NAME, self.tell, notify_disconnect=True, all_updates=True)

        self.loop.run_until_complete(begin())
        self.loop.run_forever()
        aioca.purge_channel_caches()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def tell(self, value: Any) -> None:
        """Hand a value to the window's thread."""
        self.told.emit("ca", f"{int(value)}" if value.ok else "lost")

    def write(self, value: int, done: Any) -> None:
        """Write from another thread; a signal tells of the end."""
        import aioca

        async def put() -> None:
            await aioca.caput(NAME, value, wait=True, timeout=10)
            done.emit("put", f"{value}")

        asyncio.run_coroutine_threadsafe(put(), self.loop)

    def end(self) -> None:
        """Stop the loop and wait for its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join(10)


def panel(name: str) -> int:
    """The program."""
    with qt_scene.offscreen():
        qt = qt_scene.binding(name)
        from p4p.client.thread import Context

        app = qt.Widgets.QApplication([name])
        main_thread = threading.get_ident()
        label, button = qt.Widgets.QLabel("-"), qt.Widgets.QPushButton("Apply")
        seen: dict[str, list[str]] = {"ca": [], "pva": [], "put": []}
        threads: set[int] = set()

        class Bridge(qt.Core.QObject):  # type: ignore[misc]
            told = qt.Signal(str, str)

            @qt.Slot(str, str)
            def take(self, what: str, text: str) -> None:
                threads.add(threading.get_ident())
                seen[what].append(text)
                if what == "ca":
                    label.setText(text)

        bridge = Bridge()
        bridge.told.connect(bridge.take)
        loop = Loop(bridge.told)
        loop.start()

        def by_pva(value: Any) -> None:
            bridge.told.emit("pva", "lost" if isinstance(value, Exception) else f"{int(value)}")

        with Context("pva") as context:
            told = context.monitor(NAME, by_pva, notify_disconnect=True)
            label.show()
            button.show()

            def shows(text: str) -> bool:
                both = {what: texts[-1:] for what, texts in seen.items() if what != "put"}
                return label.text() == text and both == {"ca": [text], "pva": [text]}

            qt_scene.turn(qt, "the first value", lambda: shows("7"))
            clicks = iter(range(100, 160))
            button.clicked.connect(lambda *_: loop.write(next(clicks), bridge.told))
            for number in range(100, 160):
                qt.Test.QTest.mouseClick(button, qt.Core.Qt.MouseButton.LeftButton)
                qt_scene.turn(qt, "an answer", lambda n=number: seen["put"][-1:] == [f"{n}"])
            qt_scene.turn(qt, "the last value", lambda: shows("159"))
            wanted = [f"{n}" for n in range(100, 160)]
            expect("each click is answered", seen["put"], wanted)
            expect("each value is shown, in order", seen["ca"][-60:], wanted)
            expect("all in the window's thread", threads, {main_thread})
            if name == "PyQt6":  # it takes the clients a while, and is no matter of the binding
                print("restart", flush=True)
                qt_scene.turn(qt, "the loss", lambda: shows("lost"), 30)
                qt_scene.turn(qt, "the new IOC", lambda: shows("7"), 30)
                step("the window shows that the IOC is lost, and the new one")
            status = interrupted(qt, app)
            told.close()
            loop.end()
    return status


def interrupted(qt: Any, app: Any) -> int:
    """The status with which Ctrl-C ends the idle event loop."""
    kept = qt_scene.interruptible(qt, app)
    # told by the loop: before it runs, there is none to end
    qt.Core.QTimer.singleShot(0, lambda: print("waits", flush=True))
    status = app.exec()
    signal.set_wakeup_fd(-1)
    del kept
    return int(status)


def ends(name: str, program: Child) -> None:
    """A panel that has done all is ended by Ctrl-C."""
    wait_for("all of it", lambda: program.says("waits"), 60)
    expect(f"{name}: Ctrl-C ends it", program.end(signal.SIGINT), 7)


def main() -> int:
    """Each binding in a process of its own."""
    epics()
    os.environ.pop("QT_API", None)
    with tempfile.TemporaryDirectory(prefix="check-") as directory:
        ioc = (sys.executable, HERE / "check_softioc.py", "ioc", directory)
        with child(*ioc) as server:
            wait_for("IOC", lambda: server.says("ready"))
            with child(*itself("panel", "PyQt5")) as program:
                ends("PyQt5", program)
        with child(*ioc) as server, child(*itself("panel", "PyQt6")) as program:
            wait_for("work", lambda: program.says("restart"), 40)
            server.end(signal.SIGKILL)
            with child(*ioc):
                ends("PyQt6", program)
    return 0


if __name__ == "__main__":
    sys.exit(panel(sys.argv[2]) if sys.argv[1:2] == ["panel"] else main())
