"""py4j: a Java program behind a socket, called, calling back, killed and started again.

Java compiled here; calls, collections, bytes of numpy, exceptions with their trace, callbacks from
a Java thread into Python and what is raised in them, calls from several Python threads, a password
that is wrong, the program killed and started again, and a gateway shut down in order from here.
Needs a JDK.
"""

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import py4j
import scene
from py4j.java_gateway import (
    CallbackServerParameters,
    GatewayParameters,
    JavaGateway,
    is_instance_of,
)
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

SOURCE = r"""
import java.net.InetAddress;
import java.nio.*;
import java.util.*;
import py4j.*;

public class Ring {
    public interface Listener { String changed(String name, double value); }
    private final List<Listener> listeners = new ArrayList<>();

    public String say(String text) { return "heard " + text; }
    public double[] table(int n) {
        double[] t = new double[n];
        Arrays.setAll(t, i -> i / 2.0);
        return t;
    }
    public byte[] twice(byte[] data) {
        DoubleBuffer in = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).asDoubleBuffer();
        ByteBuffer out = ByteBuffer.allocate(data.length).order(ByteOrder.LITTLE_ENDIAN);
        while (in.hasRemaining()) out.putDouble(in.get() * 2);
        return out.array();
    }
    public void fail(int cell) { throw new IllegalStateException("cell " + cell); }
    public void listen(Listener listener) { listeners.add(listener); }
    public List<String> start(int count) throws Exception {
        List<String> said = Collections.synchronizedList(new ArrayList<>());
        Thread thread = new Thread(() -> {
            for (int i = 0; i < count; i++)
                for (Listener l : listeners) {
                    try { said.add(l.changed("bpm" + i, i / 2.0)); }
                    catch (Throwable t) { said.add("failed: " + t.getMessage()); }
                }
        });
        thread.start();
        thread.join();
        return said;
    }
    public static void main(String[] words) throws Exception {
        InetAddress here = InetAddress.getByName("127.0.0.1");
        GatewayServer server = new GatewayServer.GatewayServerBuilder(new Ring())
            .javaPort(0).javaAddress(here).authToken(words[0])
            .callbackClient(Integer.parseInt(words[1]), here, words[0]).build();
        server.start(true);
        System.out.println("port " + server.getListeningPort() + ".");
        System.out.flush();
    }
}
"""


def library():
    """The part of py4j that is Java; wheels put it below the prefix."""
    places = [Path(sys.prefix, "share/py4j"), Path(py4j.__file__).parents[1] / "share/py4j"]
    places.append(Path(py4j.__file__).parents[4] / "share/py4j")
    for place in places:
        for found in sorted(place.glob("py4j*.jar")):
            return found
    raise AssertionError(f"no jar of py4j in {places}")


class Listener:
    """What Java calls."""

    def __init__(self):
        self.heard = []
        self.threads = set()

    def changed(self, name, value):
        """Keep it, or fail."""
        self.threads.add(threading.get_ident())
        if name == "bpm3":
            raise ValueError("door open")
        self.heard.append((name, value))
        return f"{name}={value:g} µm"

    class Java:
        """What it is for Java."""

        implements = ["Ring$Listener"]  # noqa: RUF012


@contextlib.contextmanager
def program(directory, token, callback):
    """The Java program and its port."""
    java = shutil.which("java")
    path = f"{directory}:{library()}"
    words = [java, "-XX:-UsePerfData", "-Xmx256m", "-cp", path, "Ring", token, str(callback)]
    with scene.child(*words) as child:
        scene.wait_for("Java", lambda: child.says("."), 40)
        yield child, int(child.text().split("port ")[1].split(".")[0])


def connect(port, token, callback=None):
    """A gateway to it; with a port also for callbacks."""
    back = callback and CallbackServerParameters(
        address="127.0.0.1", port=callback, auth_token=token, daemonize=True
    )
    return JavaGateway(
        gateway_parameters=GatewayParameters(
            address="127.0.0.1", port=port, auth_token=token, auto_convert=True
        ),
        callback_server_parameters=back or None,
    )


def values(gateway):
    """Calls, collections, arrays and errors."""
    ring = gateway.entry_point
    scene.expect("a string beyond ASCII", ring.say("Strom µA"), "heard Strom µA")
    scene.expect("an array of Java", list(ring.table(5)), [0.0, 0.5, 1.0, 1.5, 2.0])
    wave = np.sin(np.linspace(0, 9, 50_000))
    found = np.frombuffer(ring.twice(wave.tobytes()))
    scene.expect("400 kB of numpy to Java and back", np.array_equal(found, wave * 2), True)
    array = gateway.new_array(gateway.jvm.int, 3, 2)
    array[2][1] = 7
    scene.expect("an array made here", (len(array), array[2][1], array[0][0]), (3, 7, 0))
    names = gateway.jvm.java.util.ArrayList()
    names.extend(["c", "a", "b"])
    gateway.jvm.java.util.Collections.sort(names)
    scene.expect("a list of Java", (list(names), names[-1], len(names)), (["a", "b", "c"], "c", 3))
    scene.expect(
        "a list of Python is converted", gateway.jvm.java.util.Collections.max([3, 9, 4]), 9
    )
    scene.expect("its class", is_instance_of(gateway, names, "java.util.List"), True)
    scene.expect("a big integer", gateway.jvm.java.lang.Math.abs(-(2**40)), 2**40)
    try:
        ring.fail(14)
    except Py4JJavaError as error:
        kind = error.java_exception.getClass().getName()
        found = kind, error.java_exception.getMessage()
        scene.expect("an exception of Java", found, ("java.lang.IllegalStateException", "cell 14"))
        scene.expect("with its trace", "Ring.fail" in str(error), True)
    else:
        raise AssertionError("no exception of Java")
    try:
        ring.nothing()
    except Py4JError as error:
        scene.expect("a method that is not there", "nothing" in str(error), True)
    else:
        raise AssertionError("a method that is not there was called")
    failures = []

    def work(number):
        failures.extend(n for n in range(100) if ring.say(f"{number} {n}") != f"heard {number} {n}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scene.expect("six threads of Python", failures, [])


def callbacks(gateway):
    """Java calls Python from a thread of its own."""
    listener = Listener()
    gateway.entry_point.listen(listener)
    said = list(gateway.entry_point.start(200))
    scene.expect(
        "199 callbacks", listener.heard, [(f"bpm{n}", n / 2) for n in range(200) if n != 3]
    )
    scene.expect("what Python answers", said[199], "bpm199=99.5 µm")
    scene.expect("what Python raises fails in Java", said[3].startswith("failed: "), True)
    scene.expect("with its words", "door open" in said[3], True)
    scene.expect("in another thread", threading.get_ident() in listener.threads, False)


def main():
    """One program, then none, then the next."""
    javac = shutil.which("javac")
    if not javac:
        raise AssertionError("no javac in this system")
    token, callback = secrets.token_hex(16), scene.free_port()
    with tempfile.TemporaryDirectory(prefix="check-py4j-") as directory:
        source = Path(directory, "Ring.java")
        source.write_text(SOURCE)
        words = [javac, "-J-XX:-UsePerfData", "-encoding", "UTF-8", "-cp", str(library())]
        subprocess.run([*words, "-d", directory, str(source)], check=True, timeout=120)
        with program(directory, token, callback) as (java, port):
            gateway = connect(port, token, callback)
            values(gateway)
            callbacks(gateway)
            stranger = connect(port, "wrong")
            try:
                stranger.entry_point.say("x")
            except (Py4JError, OSError):
                scene.step("a wrong password is refused")
            else:
                raise AssertionError("a wrong password was taken")
            stranger.close()
            java.end(9)
            try:
                gateway.entry_point.say("x")
            except (Py4JNetworkError, Py4JError, OSError):
                scene.step("the loss is told")
            else:
                raise AssertionError("Java answers after its death")
            gateway.close()
            gateway.shutdown_callback_server()
        with program(directory, token, callback) as (java, port):
            gateway = connect(port, token)
            scene.expect("connected again", gateway.entry_point.say("again"), "heard again")
            gateway.shutdown()
            scene.expect("shut down from here", java.popen.wait(20), 0)
    scene.wait_for("threads to end", lambda: threading.active_count() == 1)
    scene.step("all of py4j")


if __name__ == "__main__":
    main()
