"""pyserial on a pseudo-terminal, through a socket, and through RFC 2217.

Lines there and back with an instrument that speaks in pieces, time-outs of reading and writing,
bytes of every value, settings, a read cancelled, a threaded reader that is told of the hang-up,
exclusive opening; ``socket://`` and ``rfc2217://`` URLs, whose server sees the settings, and a
server that goes away and comes back.
"""

import contextlib
import os
import select
import socket
import sys
import threading
import time
import tty

import scene
import serial
import serial.rfc2217
import serial.threaded


def answer(line):
    """What the instrument says to a line."""
    if line == b"*IDN?":
        return b"CHECK,Gauge,1,0\r\n"
    if line.startswith(b"ECHO "):
        return line[5:] + b"\r\n"
    return b"" if line == b"MUTE" else b"ERROR\r\n"


@contextlib.contextmanager
def instrument():
    """A pseudo-terminal with an instrument behind it: its name, and a switch to unplug it."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    stop = threading.Event()

    def run():
        pending = b""
        while not stop.is_set():
            if not select.select([ours], [], [], 0.05)[0]:
                continue
            try:
                pending += os.read(ours, 4096)
            except OSError:
                return
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                said = answer(line.strip())
                # in two pieces, as a slow line delivers them
                os.write(ours, said[:3])
                time.sleep(0.02)
                os.write(ours, said[3:])

    thread = threading.Thread(target=run)
    thread.start()

    def unplug():
        if not stop.is_set():
            stop.set()
            thread.join()
            os.close(theirs)
            os.close(ours)

    try:
        yield name, unplug
    finally:
        unplug()


def terminal():
    """The pseudo-terminal."""
    with instrument() as (name, unplug):
        with serial.Serial(name, 115200, timeout=10, write_timeout=10, exclusive=True) as port:
            port.write(b"*IDN?\n")
            scene.expect("an answer in pieces", port.read_until(b"\r\n"), b"CHECK,Gauge,1,0\r\n")
            every = bytes(b for b in range(256) if b not in b"\n\r")
            port.write(b"ECHO x" + every + b"x\n")
            scene.expect("bytes of every value", port.read_until(b"\r\n"), b"x" + every + b"x\r\n")
            for rate in (9600, 115200, 921600):
                port.baudrate = rate
            port.apply_settings({"bytesize": 8, "parity": "N", "stopbits": 1})
            scene.expect("settings", (port.baudrate, port.get_settings()["parity"]), (921600, "N"))
            port.timeout = 0.3
            begin = time.monotonic()
            port.write(b"MUTE\n")
            scene.expect("no answer in time", port.readline(), b"")
            scene.expect("and the time was kept", 0.25 < time.monotonic() - begin < 5, True)
            port.write(b"ECHO abc\n")
            scene.wait_for("waiting", lambda: port.in_waiting == 5)
            port.reset_input_buffer()
            scene.expect("input thrown away", port.in_waiting, 0)
            port.timeout = 30
            timer = threading.Timer(0.2, port.cancel_read)
            timer.start()
            scene.expect("a read cancelled from a thread", port.read(10), b"")
            timer.join()
            try:
                serial.Serial(name, exclusive=True).close()
            except serial.SerialException:
                scene.step("opened a second time is refused")
            else:
                raise AssertionError("an exclusive port opened twice")

        heard, ends = [], []

        class Lines(serial.threaded.LineReader):
            """Keep what the reading thread tells."""

            def handle_line(self, line):
                """Keep a line."""
                heard.append(line)

            def connection_lost(self, exc):
                """Keep why it ended."""
                ends.append(exc)

        port = serial.Serial(name, 9600, timeout=1)
        with serial.threaded.ReaderThread(port, Lines) as protocol:
            for number in range(20):
                protocol.write_line(f"ECHO {number}")
            scene.wait_for("lines", lambda: len(heard) == 20)
            scene.expect("20 lines in a thread", heard, [str(number) for number in range(20)])
            unplug()
            scene.wait_for("unplugged", lambda: ends)
        scene.expect("unplugging is told", isinstance(ends[0], serial.SerialException), True)
    try:
        serial.Serial("/dev/no-such-port")
    except serial.SerialException as error:
        scene.expect("no such port", error.errno, 2)

    ours, theirs = os.openpty()
    with serial.Serial(os.ttyname(theirs), write_timeout=0.3) as port:
        try:
            port.write(b"x" * 1_000_000)
        except serial.SerialTimeoutException:
            scene.step("nobody reads: writing ends in time")
        else:
            raise AssertionError("1 MB written to nobody")
    os.close(ours)
    os.close(theirs)


def serve(kind, number):
    """Serve the instrument on TCP, raw or with RFC 2217, as a child."""
    listener = socket.create_server(("127.0.0.1", number))
    with instrument() as (name, _):
        port = Pseudo(name, timeout=0.01)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bridge(kind, connection, port)


class Pseudo(serial.Serial):
    """A pseudo-terminal as a port: it has no lines of a modem, which RFC 2217 asks for."""

    cts = dsr = cd = True
    ri = False

    def _update_rts_state(self):
        pass

    def _update_dtr_state(self):
        pass


class Out:
    """What the manager of RFC 2217 writes to."""

    def __init__(self, connection):
        self.connection = connection

    def write(self, data):
        """Send."""
        self.connection.sendall(data)


def bridge(kind, connection, port):
    """Carry bytes between a connection and a port until the connection ends."""
    manager = serial.rfc2217.PortManager(port, Out(connection)) if kind == "rfc2217" else None
    rate = port.baudrate
    with connection, contextlib.suppress(OSError):
        while True:
            ready = select.select([connection, port.fileno()], [], [], 0.05)[0]
            if connection in ready:
                data = connection.recv(4096)
                if not data:
                    return
                port.write(b"".join(manager.filter(data)) if manager else data)
            if data := port.read(port.in_waiting):
                connection.sendall(b"".join(manager.escape(data)) if manager else data)
            if port.baudrate != rate:
                rate = port.baudrate
                print(f"rate {rate}", flush=True)


def network(kind):
    """A port behind TCP; its server goes away and comes back."""
    number = scene.free_port()
    url = f"{kind}://127.0.0.1:{number}"
    try:
        serial.serial_for_url(url, timeout=1)
    except serial.SerialException:
        scene.step(f"{kind}: nobody there")
    else:
        raise AssertionError("opened without a server")
    with scene.child(*scene.itself("serve", kind, str(number))) as server:
        scene.wait_for("server", lambda: server.says("ready"))
        port = serial.serial_for_url(url, baudrate=19200, timeout=10)
        port.write(b"*IDN?\n")
        scene.expect(f"{kind}: an answer", port.read_until(b"\r\n"), b"CHECK,Gauge,1,0\r\n")
        # 255 begins a command of telnet and is doubled on the way
        port.write(b"ECHO \xff\xfe\xff\n")
        scene.expect(f"{kind}: bytes of telnet", port.read_until(b"\r\n"), b"\xff\xfe\xff\r\n")
        port.timeout = 0.3
        port.write(b"MUTE\n")
        scene.expect(f"{kind}: no answer in time", port.read(4), b"")
        if kind == "rfc2217":
            port.baudrate = 57600
            scene.wait_for("rate", lambda: server.says("rate 57600"))
            scene.step("rfc2217: the server sees the settings")
        server.end(9)

        def lost():
            try:
                port.write(b"*IDN?\n")
                port.read(1)
            except (serial.SerialException, OSError):
                return True
            return False

        scene.wait_for("loss", lost)
        scene.step(f"{kind}: the loss is told")
        port.close()
    with scene.child(*scene.itself("serve", kind, str(number))) as server:
        scene.wait_for("server", lambda: server.says("ready"))
        port.timeout = 10
        port.open()
        port.write(b"ECHO again\n")
        scene.expect(f"{kind}: opened again", port.read_until(b"\r\n"), b"again\r\n")
        port.close()


def main():
    """Terminal and network."""
    terminal()
    with serial.serial_for_url("loop://", timeout=1) as port:
        port.write(b"round")
        scene.expect("a loop", port.read(5), b"round")
    network("socket")
    network("rfc2217")
    scene.step("all of pyserial")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()
