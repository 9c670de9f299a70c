"""JPype: Java compiled here and called in this process, and called back from its threads.

Overloads, strings beyond ASCII, arrays shared with numpy both ways, exceptions in both directions
with their kind, a callback from a Java thread into Python while Python waits and while it works,
collections, Python threads in Java, Ctrl-C while Python sleeps and while Java calls back (the JVM
runs with -Xrs), and an exit that a Java daemon thread does not hold. Needs a JDK.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jpype
import numpy as np
import scene

SOURCE = r"""
package check;

import java.util.*;
import java.util.function.*;

public class Ring {
    public interface Listener { void changed(String name, double value); }

    public static class Quench extends Exception {
        public final int cell;
        public Quench(int cell) { super("cell " + cell); this.cell = cell; }
    }

    private final List<Listener> listeners = new ArrayList<>();
    public double current = 1.5;

    public String say(int value) { return "int " + value; }
    public String say(double value) { return "double " + value; }
    public String say(String value) { return "String " + value; }
    public double[] scale(double[] values, double factor) {
        double[] result = new double[values.length];
        for (int i = 0; i < values.length; i++) result[i] = values[i] * factor;
        return result;
    }
    public int[][] table(int rows, int columns) {
        int[][] result = new int[rows][columns];
        for (int r = 0; r < rows; r++) for (int c = 0; c < columns; c++) result[r][c] = r * 100 + c;
        return result;
    }
    public void add(double[] values) { for (int i = 0; i < values.length; i++) values[i] += 1; }
    public void fail(int cell) throws Quench { throw new Quench(cell); }
    public void listen(Listener listener) { listeners.add(listener); }
    public Thread start(int count) {
        Thread thread = new Thread(() -> {
            for (int i = 0; i < count; i++)
                for (Listener l : listeners) l.changed("bpm" + i, i / 2.0);
        }, "ring");
        thread.start();
        return thread;
    }
    public String shield(Runnable task) {
        try { task.run(); return "nothing"; }
        catch (Throwable t) { return t.getClass().getName() + ": " + t.getMessage(); }
    }
    public double sum(Function<Double, Double> f, int n) {
        double result = 0;
        for (int i = 0; i < n; i++) result += f.apply((double) i);
        return result;
    }
    public void forever() {
        Thread thread = new Thread(() -> {
            while (true) { try { Thread.sleep(20); } catch (Exception e) { } }
        });
        thread.setDaemon(true);
        thread.start();
    }
}
"""


def start(directory, name="check.Ring"):
    """Compile the class and begin the JVM."""
    source = Path(directory, "check", "Ring.java")
    source.parent.mkdir()
    source.write_text(SOURCE)
    # the compiler writes to /tmp/hsperfdata otherwise
    javac = shutil.which("javac")
    if not javac:
        raise AssertionError("no javac in this system")
    words = [javac, "-J-XX:-UsePerfData", "-encoding", "UTF-8", "-d", directory, str(source)]
    subprocess.run(words, check=True, timeout=120)
    jpype.startJVM("-Xrs", "-XX:-UsePerfData", "-Xmx256m", classpath=[directory])
    return jpype.JClass(name)


def values(ring):
    """Calls, strings and arrays."""
    scene.expect(
        "overloads", [str(ring.say(v)) for v in (3, 2.5, "x")], ["int 3", "double 2.5", "String x"]
    )
    scene.expect(
        "a string beyond ASCII", str(ring.say("Strom µA \U0001f52c")), "String Strom µA \U0001f52c"
    )
    ring.current = 7.25
    scene.expect("a field", ring.current, 7.25)
    wave = np.sin(np.linspace(0, 9, 100_000))
    begin = time.monotonic()
    found = np.asarray(ring.scale(wave, 2.0))
    scene.expect("an array to Java and back", np.array_equal(found, wave * 2), True)
    scene.expect("without a detour", time.monotonic() - begin < 5, True)
    table = np.array(ring.table(20, 30))
    scene.expect(
        "a table", (table.shape, table.dtype.kind, int(table[19, 29])), ((20, 30), "i", 1929)
    )
    array = jpype.JArray(jpype.JDouble)(wave[:10])
    ring.add(array)
    scene.expect("an array changed in Java", np.allclose(array, wave[:10] + 1), True)
    array[2:4] = [8.0, 9.0]
    scene.expect("and by Python", list(array[1:5:1])[1:3], [8.0, 9.0])
    try:
        ring.say(object())
    except TypeError:
        scene.step("no overload fits")
    else:
        raise AssertionError("an object of Python taken for a value of Java")
    try:
        ring.table(2**40, 1)
    except (OverflowError, TypeError):
        scene.step("an integer too big is refused")
    else:
        raise AssertionError("2**40 taken for an int")
    names = jpype.java.util.HashMap()
    names["x"] = jpype.JInt(4)
    scene.expect(
        "a map of Java",
        ({str(k): int(v) for k, v in names.items()}, "y" in names),
        ({"x": 4}, False),
    )


def errors(ring):
    """Exceptions in both directions."""
    quench = jpype.JClass("check.Ring$Quench")
    try:
        ring.fail(14)
    except quench as error:
        scene.expect(
            "an exception of Java by its class",
            (error.cell, str(error.getMessage())),
            (14, "cell 14"),
        )
        scene.expect("with the trace of Java", "Ring.fail" in error.stacktrace(), True)
    else:
        raise AssertionError("no exception of Java")
    try:
        jpype.java.lang.Integer.parseInt("x")
    except jpype.JException as error:
        scene.expect(
            "one of Java's own", isinstance(error, jpype.java.lang.NumberFormatException), True
        )

    class Broken(Exception):
        """What Python raises below Java."""

    def fail():
        raise Broken("door open")

    proxy = jpype.JProxy("java.lang.Runnable", dict={"run": fail})
    said = str(ring.shield(proxy))
    scene.expect(
        "an exception of Python caught in Java", said.split(":")[0], "org.jpype.PyExceptionProxy"
    )
    try:
        ring.sum(lambda x: 1 // 0, 3)
    except ZeroDivisionError:
        scene.step("an exception of Python through Java to Python")
    else:
        raise AssertionError("no exception through Java")
    scene.expect("a function of Python in Java", ring.sum(lambda x: x * 2, 1000), 999000.0)


def callbacks(ring):
    """Callbacks from a thread of Java, and threads of Python in Java."""
    heard, names = [], set()

    @jpype.JImplements("check.Ring$Listener")
    class Listener:
        """Keep what is told."""

        @jpype.JOverride
        def changed(self, name, value):
            """Keep it, with the thread."""
            names.add(threading.get_ident())
            heard.append((str(name), float(value)))

    ring.listen(Listener())
    thread = ring.start(2000)
    # Python works meanwhile: both want the lock of the interpreter
    total = sum(n * n for n in range(300_000))
    thread.join()
    scene.expect(
        "2000 callbacks from a thread of Java", heard, [(f"bpm{n}", n / 2) for n in range(2000)]
    )
    scene.expect("in a thread of its own", threading.get_ident() in names, False)
    scene.expect("Python worked meanwhile", total, 8999955000050000)
    results = []

    def work():
        results.append(ring.sum(lambda x: x, 500))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scene.expect("eight threads of Python in Java", results, [124750.0] * 8)


def interrupts(ring):
    """Ctrl-C is Python's."""

    def kill():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    for what, wait in (
        ("Ctrl-C while Python sleeps", lambda: time.sleep(20)),
        ("Ctrl-C while Java calls Python", lambda: ring.sum(lambda x: time.sleep(0.01) or x, 2000)),
    ):
        begin = time.monotonic()
        threading.Thread(target=kill, daemon=True).start()
        try:
            wait()
        except KeyboardInterrupt:
            scene.expect(what, time.monotonic() - begin < 10, True)
        else:
            raise AssertionError(f"{what}: not interrupted")
    scene.expect("and Java is of use", str(ring.say(1)), "int 1")


def main():
    """One JVM; a second process ends by SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="check-jpype-") as directory:
        ring = start(directory)()
        if sys.argv[1:] == ["wait"]:
            ring.forever()
            print("waiting", flush=True)
            time.sleep(60)
        values(ring)
        errors(ring)
        callbacks(ring)
        interrupts(ring)
        ring.forever()
    scene.step("all of JPype but the end")


def ends():
    """Signals of the system end a process with a JVM as they end any other."""
    with (
        tempfile.TemporaryDirectory(prefix="check-jpype-") as directory,
        # the child is killed and can't remove its directory
        scene.child(*scene.itself("wait"), env={"TMPDIR": directory}) as child,
    ):
        scene.wait_for("JVM", lambda: child.says("waiting"), 40)
        scene.expect("SIGTERM ends Python with a JVM", child.end(), -signal.SIGTERM)


if __name__ == "__main__":
    if not sys.argv[1:]:
        ends()
    main()
