"""What the checks share: servers on loopback that end with the check, waiting, and steps told.

A check is one file that any interpreter of a layer runs alone: ``python3.13 pyepics.py``.
It ends with status 0 only if everything held. It needs no network but loopback, no home and no
rights, and leaves no process and no file behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HERE = Path(__file__).resolve().parent


def step(text: str) -> None:
    """Tell of something that held; a log shows how far a check came."""
    print(f"ok  {text}", flush=True)


def expect(what: str, found: object, wanted: object) -> None:
    """Hold a value against what it has to be, and tell."""
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")
    step(what)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Callable[[], T], seconds: float = 20.0) -> T:
    """The first true value of a condition; AssertionError where it does not come in time."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def epics() -> None:
    """Confine EPICS to loopback and free ports, for this process and the servers it starts."""

    def free() -> str:
        # servers listen on the same number with UDP
        while True:
            port = free_port()
            with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
                probe.bind(("127.0.0.1", port))
                return str(port)

    beacons = free()
    for key in [key for key in os.environ if key.startswith("EPICS_")]:
        del os.environ[key]
    os.environ.update(
        EPICS_CA_ADDR_LIST="127.0.0.1",
        EPICS_CA_AUTO_ADDR_LIST="NO",
        EPICS_CA_SERVER_PORT=free(),
        EPICS_CA_REPEATER_PORT=beacons,
        EPICS_CAS_BEACON_PORT=beacons,
        EPICS_CAS_INTF_ADDR_LIST="127.0.0.1",
        EPICS_CAS_BEACON_ADDR_LIST="127.0.0.1",
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_PVA_ADDR_LIST="127.0.0.1",
        EPICS_PVA_AUTO_ADDR_LIST="NO",
        EPICS_PVA_SERVER_PORT=free(),
        EPICS_PVA_BROADCAST_PORT=free(),
        EPICS_PVAS_INTF_ADDR_LIST="127.0.0.1",
        EPICS_PVAS_BEACON_ADDR_LIST="127.0.0.1",
        EPICS_PVAS_AUTO_BEACON_ADDR_LIST="NO",
    )


def listening(port: int) -> bool:
    """Whether something accepts connections on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def child(*argv: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A program that runs while the check needs it; killed with all its children afterwards."""
    with tempfile.TemporaryFile("w+") as output:
        popen = subprocess.Popen(
            [str(word) for word in argv],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started = Child(popen, output)
        try:
            yield started
        except BaseException:
            print(f"--- output of {argv[:3]}\n{started.text()}---", file=sys.stderr)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


class Child:
    """A running program and what it has printed so far."""

    def __init__(self, popen: subprocess.Popen[bytes], output: object) -> None:
        self.popen = popen
        self._output = output

    def text(self) -> str:
        """All that it has printed."""
        descriptor = self._output.fileno()  # type: ignore[attr-defined]
        return os.pread(descriptor, 1 << 20, 0).decode("utf-8", "replace")

    def says(self, words: str) -> bool:
        """Whether it has printed some words; AssertionError where it ended without them."""
        if words in self.text():
            return True
        if self.popen.poll() is not None:
            raise AssertionError(f"ended with {self.popen.returncode} before {words!r}")
        return False

    def end(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Send a signal and give the exit status; AssertionError where it does not end."""
        self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"signal {number} does not end it in {seconds:g} s") from None


@contextlib.contextmanager
def repeater() -> Iterator[None]:
    """A repeater of Channel Access beacons.

    Without one, clients of libca look for ``caRepeater`` on the path and those of caproto start
    their own, and either would outlive the check.
    """
    with child(sys.executable, "-m", "caproto.commandline.repeater") as started:
        wait_for("repeater", lambda: started.says("Repeater is listening"))
        yield


def itself(*arguments: str) -> list[str]:
    """The command that runs the check's own file again, as a server."""
    return [sys.executable, os.path.abspath(sys.argv[0]), *arguments]
