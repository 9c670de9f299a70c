"""pyvisa with two backends: instruments of pyvisa-sim, and one behind a socket with pyvisa-py.

Simulated: queries, set points with limits, the error queue. Behind a socket: SCPI by lines, values
in text and in binary blocks as numpy, answers in pieces, a time-out after which the line is of
use, errors and status byte of the instrument, a trace of bytes that hold the line's end, clear;
the instrument killed and started again; lists of resources; a name that makes no sense.
"""

import logging
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyvisa
import scene
from pyvisa import constants, errors

SIMULATED = """
spec: "1.1"
devices:
  supply:
    eom:
      TCPIP INSTR: {q: "\\n", r: "\\n"}
      ASRL INSTR: {q: "\\r\\n", r: "\\n"}
    error: ERROR
    dialogues:
      - {q: "*IDN?", r: "CHECK,Supply,1,0"}
    properties:
      voltage:
        default: 1.0
        getter: {q: "VOLT?", r: "{:+.3f}"}
        setter: {q: "VOLT {:.3f}", r: OK, e: RANGE}
        specs: {min: 0, max: 6, type: float}
resources:
  TCPIP0::ps1.check::inst0::INSTR: {device: supply}
  ASRL7::INSTR: {device: supply}
"""


def block(values):
    """A binary block as IEEE 488.2 has it."""
    data = np.asarray(values, "<f4").tobytes()
    length = str(len(data))
    return f"#{len(length)}{length}".encode() + data


class Scope:
    """An oscilloscope."""

    def __init__(self):
        self.errors = []
        self.scale = 1.0
        self.wave = np.zeros(4, "<f4")

    def answer(self, line):
        """What it says to a line, in pieces; nothing for what is no question."""
        if line == b"*IDN?":
            return b"CHECK,Sc", b"ope,7,1.0\n"
        if line == b"SCAL?":
            return (f"{self.scale:.6E}\n".encode(),)
        if line.startswith(b"SCAL "):
            self.scale = float(line[5:])
        elif line == b"CURV:ASC?":
            return (b"1.5,-2.25,", b"3E2\n")
        elif line == b"CURV?":
            # the last two bytes come late; 10 is the end of a line and part of the data
            whole = block(np.arange(50_000)) + b"\n"
            return whole[:1000], whole[1000:-2], whole[-2:]
        elif line.startswith(b"DATA "):
            self.wave = np.frombuffer(line[line.index(b"#") + 2 + int(line[6:7]) :], "<f4")
        elif line == b"DATA:SUM?":
            return (f"{len(self.wave)} {self.wave.sum():g}\n".encode(),)
        elif line == b"SYST:ERR?":
            return ((self.errors.pop(0) if self.errors else b'0,"No error"') + b"\n",)
        elif line != b"MUTE?":
            self.errors.append(b'-113,"Undefined header"')
        return ()


def serve(port):
    """Be an oscilloscope on a port of loopback, for one client at a time."""
    scope = Scope()
    listener = socket.create_server(("127.0.0.1", port))
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pending = b""
        with connection:
            while data := connection.recv(65536):
                pending += data
                while b"\n" in pending:
                    end = pending.index(b"\n")
                    if pending.startswith(b"DATA #"):
                        digits = int(pending[6:7])
                        end = 7 + digits + int(pending[7 : 7 + digits])
                        if len(pending) <= end:
                            break
                        line = b"DATA #" + pending[6:end]
                    else:
                        line = pending[:end]
                    pending = pending[end + 1 :]
                    for piece in scope.answer(line):
                        connection.sendall(piece)
                        time.sleep(0.02)


def refused(call, *arguments):
    """The code of the error of VISA that a call raises."""
    try:
        call(*arguments)
    except errors.VisaIOError as error:
        return error.error_code
    raise AssertionError(f"{call} {arguments} did not fail")


def simulated():
    """Instruments of a file."""
    with tempfile.TemporaryDirectory(prefix="check-visa-") as directory:
        path = Path(directory, "bench.yaml")
        path.write_text(SIMULATED)
        manager = pyvisa.ResourceManager(f"{path}@sim")
        names = set(manager.list_resources("?*"))
        scene.expect("the bench", names, {"TCPIP0::ps1.check::inst0::INSTR", "ASRL7::INSTR"})
        supply = manager.open_resource(
            "TCPIP0::ps1.check::inst0::INSTR", read_termination="\n", write_termination="\n"
        )
        scene.expect("a simulated instrument", supply.query("*IDN?"), "CHECK,Supply,1,0")
        scene.expect(
            "a set point", (supply.query("VOLT 2.5"), float(supply.query("VOLT?"))), ("OK", 2.5)
        )
        scene.expect(
            "over its limit", (supply.query("VOLT 9.0"), supply.query("VOLT?")), ("RANGE", "+2.500")
        )
        scene.expect("no command", supply.query("FLY"), "ERROR")
        line = manager.open_resource(
            "ASRL7::INSTR", read_termination="\n", write_termination="\r\n"
        )
        scene.expect("on a serial line", line.query("*IDN?"), "CHECK,Supply,1,0")
        line.timeout = 300
        scene.expect("nothing to read", refused(line.read), constants.StatusCode.error_timeout)
        manager.close()
        try:
            supply.query("*IDN?")
        except errors.InvalidSession:
            scene.step("closed with its manager")
        else:
            raise AssertionError("of use after closing")


def talk(scope):
    """An instrument behind a socket."""
    scene.expect("an answer in pieces", scope.query("*IDN?"), "CHECK,Scope,7,1.0")
    scope.write("SCAL 2.5E-3")
    scene.expect("a set point there and back", float(scope.query("SCAL?")), 0.0025)
    scene.expect("values in text", scope.query_ascii_values("CURV:ASC?"), [1.5, -2.25, 300.0])
    wave = scope.query_binary_values("CURV?", datatype="f", container=np.array)
    scene.expect("a binary block as numpy", np.array_equal(wave, np.arange(50_000)), True)
    scope.write_binary_values("DATA ", np.arange(2000, dtype="f4"), datatype="f")
    scene.expect("a binary block to it", scope.query("DATA:SUM?").split()[0], "2000")
    scope.timeout = 400
    begin = time.monotonic()
    code = refused(scope.query, "MUTE?")
    scene.expect("no answer in time", code, constants.StatusCode.error_timeout)
    scene.expect("and the time was kept", 0.3 < time.monotonic() - begin < 8, True)
    scope.timeout = 10_000
    scene.expect("the line is of use", scope.query("*IDN?"), "CHECK,Scope,7,1.0")
    scope.write("FLY")
    found = [scope.query("SYST:ERR?") for _ in range(2)]
    scene.expect("errors of the instrument", found, ['-113,"Undefined header"', '0,"No error"'])
    scope.write("SCAL?")
    scene.expect("byte by byte", scope.read_bytes(4), b"2.50")
    scene.expect("and the rest", scope.read(), "0000E-03")


def main():
    """Simulated, then behind a socket, then without it, then with the next."""
    logging.disable(logging.CRITICAL)
    simulated()
    port = scene.free_port()
    name = f"TCPIP0::127.0.0.1::{port}::SOCKET"
    ends = {"read_termination": "\n", "write_termination": "\n"}
    manager = pyvisa.ResourceManager("@py")
    try:
        # pyvisa-py opens a socket that nobody listens on; the first question tells
        with manager.open_resource(name, open_timeout=1000, timeout=1000, **ends) as scope:
            scope.query("*IDN?")
    except (errors.VisaIOError, OSError):
        scene.step("nobody there is told")
    else:
        raise AssertionError("an answer of nobody")
    try:
        manager.open_resource("FLY::7")
    except (errors.VisaIOError, ValueError):
        scene.step("a name without sense is told")
    else:
        raise AssertionError("opened FLY::7")
    with scene.child(*scene.itself("serve", str(port))) as server:
        scene.wait_for("server", lambda: server.says("ready"))
        scope = manager.open_resource(name, timeout=10_000, **ends)
        talk(scope)
        server.end(9)
        scope.timeout = 500
        try:
            scope.query("*IDN?")
            scope.query("*IDN?")
        except (errors.VisaIOError, OSError):
            scene.step("the loss is told")
        else:
            raise AssertionError("an answer of nobody")
        scope.close()
    with scene.child(*scene.itself("serve", str(port))) as server:
        scene.wait_for("server", lambda: server.says("ready"))
        with manager.open_resource(name, timeout=10_000, **ends) as scope:
            scene.expect("opened again", float(scope.query("SCAL?")), 1.0)
    manager.close()
    scene.step("all of pyvisa")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
