"""A Java VM, PyTango, and pyepics in one process: threads and signals of three runtimes.

A thread of Java calls into Python, which writes to a Tango device and to a PV; the change comes
back as an event of Tango and as a monitor of libca, whose threads call into Java. Meanwhile Java
throws away its objects and trips over null pointers, which it notices by SIGSEGV. A polled
attribute, Ctrl-C while Java works, and the interpreter's end are Python's. With the VM started
before and after the others.
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
from scene import HERE, child, epics, expect, free_port, itself, repeater, step, wait_for

DEVICE = "check/supply/1"
PV = "check:turns"
COUNT = 50


SOURCE = r"""
public class Load {
    public interface Listener { void changed(String name, int value); }

    int[] data;

    public static Thread start(Listener listener, int count) {
        Thread thread = new Thread(() -> {
            for (int i = 0; i < count; i++) listener.changed("bpm" + i, i);
        });
        thread.start();
        return thread;
    }
    public static void repeat(Runnable task, int count) {
        for (int i = 0; i < count; i++) task.run();
    }
    public static void forever() {
        Thread thread = new Thread(() -> {
            while (true) { try { Thread.sleep(20); } catch (Exception e) { } }
        });
        thread.setDaemon(true);
        thread.start();
    }
    public static int nulls(int count) {
        int caught = 0;
        Load none = count < 0 ? new Load() : null;
        for (int i = 0; i < count; i++)
            try { caught += none.data[i]; } catch (NullPointerException e) { caught++; }
        return caught;
    }
    public static int churn(int count) {
        java.util.Map<Integer, byte[]> kept = new java.util.HashMap<>();
        int made = 0;
        for (int i = 0; i < count; i++) { kept.put(i % 100, new byte[2000]); made++; }
        System.gc();
        return made;
    }
}
"""


def compiled(directory: str) -> None:
    """Compile the class; without a file of the compiler in the shared temporary directory."""
    Path(directory, "Load.java").write_text(SOURCE, encoding="utf-8")
    words = ["javac", "-J-XX:-UsePerfData", "-d", directory, str(Path(directory, "Load.java"))]
    subprocess.run(words, check=True, timeout=120)


def java(directory: str) -> Any:
    """Start the VM, which leaves SIGINT and its like to Python; the class."""
    jpype.startJVM("-Xrs", "-XX:-UsePerfData", "-Xmx256m", classpath=[directory])
    return jpype.JClass("Load")


def device(port: int) -> list[object]:
    """The command of the device server."""
    words = ["Supply", "check", "-nodb", "-dlist", DEVICE]
    end = ["-ORBendPoint", f"giop:tcp:127.0.0.1:{port}"]
    return [sys.executable, HERE / "check_pytango.py", "serve", *words, *end]


def program(first: str, name: str, directory: str) -> None:
    """The program with all three."""
    if first == "java":
        load = java(directory)
    import epics as pyepics
    import tango

    proxy = tango.DeviceProxy(name)
    pv = pyepics.PV(PV)
    expect("both connect", (pv.wait_for_connection(10), proxy.ping() > 0), (True, True))
    if first != "java":
        load = java(directory)
    round_trip(load, proxy, pv, tango)
    expect("null pointers, which come as SIGSEGV", int(load.nulls(20_000)), 20_000)
    expect("and objects of Java for its collector", int(load.churn(200_000)), 200_000)
    interrupt(load, proxy)
    # a thread that never ends must not hold the interpreter
    load.forever()
    step("all but the end")


def round_trip(load: Any, proxy: Any, pv: Any, tango: Any) -> None:
    """From a thread of Java to the servers, and from threads of theirs back to Java."""
    import epics as pyepics

    proxy.label = "before"
    pv.put(999, wait=True, timeout=10)
    queue = jpype.java.util.concurrent.LinkedBlockingQueue()
    threads: set[str] = set()

    @jpype.JImplements("Load$Listener")
    class Listener:
        """What a thread of Java calls."""

        @jpype.JOverride
        def changed(self, name: object, value: int) -> None:
            """Write to both."""
            pyepics.ca.use_initial_context()
            proxy.label = f"{name}"
            pv.put(int(value), wait=True, timeout=10)

    def by_tango(event: Any) -> None:
        threads.add("tango" if threading.current_thread() is not main_thread else "main")
        if not event.err:
            queue.put(f"tango {event.attr_value.value}")

    def by_epics(value: int, **_: object) -> None:
        threads.add("epics" if threading.current_thread() is not main_thread else "main")
        queue.put(f"epics {value}")

    main_thread = threading.current_thread()
    number = proxy.subscribe_event("label", tango.EventType.CHANGE_EVENT, by_tango)
    pv.add_callback(by_epics, run_now=True)
    pv.auto_monitor = True
    found: list[str] = []

    def collected(*wanted: str) -> bool:
        while (text := queue.poll()) is not None:
            found.append(str(text))
        return set(wanted) <= set(found)

    wait_for("first of both", lambda: collected("tango before", "epics 999"))
    threads.clear()
    thread = load.start(Listener(), COUNT)
    last = COUNT - 1
    wait_for("last of both", lambda: collected(f"tango bpm{last}", f"epics {last}"), 30)
    thread.join()
    for what, value in (("tango", "bpm{}"), ("epics", "{}")):
        came = [text for text in found if text.startswith(what)][-COUNT:]
        expect(f"{what}: in order", came, [f"{what} " + value.format(n) for n in range(COUNT)])
    expect("called from threads of their own", threads, {"tango", "epics"})
    proxy.unsubscribe_event(number)
    pv.clear_callbacks()


def interrupt(load: Any, proxy: Any) -> None:
    """Ctrl-C while Java calls Python and Tango polls."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        load.repeat(lambda: time.sleep(proxy.total([0.005, 0.005])), 2000)
    except KeyboardInterrupt:
        expect("Ctrl-C, and Java goes on", int(load.churn(5)), 5)
    else:
        raise AssertionError("not interrupted")


def main() -> None:
    """Both orders, a process each."""
    epics()
    os.environ.update(TANGO_HOST="127.0.0.1:1")
    port = free_port()
    name = f"tango://127.0.0.1:{port}/{DEVICE}#dbase=no"
    ioc = (sys.executable, HERE / "check_pyepics.py", "ioc")
    scratch = tempfile.TemporaryDirectory(prefix="check-")
    with scratch as directory, repeater(), child(*device(port)) as tango, child(*ioc) as server:
        wait_for("device server", lambda: tango.says("Ready to accept request"))
        wait_for("IOC", lambda: server.says("ready"))
        compiled(directory)
        for first in ("java", "others"):
            with child(*itself("program", first, name, directory)) as started:
                wait_for("the end", lambda started=started: started.popen.poll() is not None, 60)
                expect("it ends in order", started.popen.returncode, 0)
            step(f"{first} first")
    step("all of JPype with PyTango and pyepics")


if __name__ == "__main__":
    program(*sys.argv[2:]) if sys.argv[1:2] == ["program"] else main()
