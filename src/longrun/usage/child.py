"""The only place of telemetry that starts processes: a user's command, and work done as a user."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import select
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

NOBODY = 65534
"""The user who owns nothing, where the system names no other."""

CPU_SECONDS = 20
PATIENCE = 5.0
"""Seconds to wait for the end of a child that was killed."""

_left: list[int] = []
"""Children that did not even end when killed: they wait for a file server that is dead."""


def attach(argv: Sequence[str], *, env: Mapping[str, str], stdout: int | None = None) -> int:
    """Run a program on the user's terminal; its exit status, as a shell tells it."""
    with subprocess.Popen(argv, env=env, stdout=stdout) as popen:
        while True:
            try:
                status = popen.wait()
            except KeyboardInterrupt:
                continue  # the terminal has told the program, too; it is to say how it ends
            return status if status >= 0 else 128 - status


def nobody() -> int:
    """The number of the user who owns nothing."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return NOBODY


def answer(
    work: Callable[[], Iterable[bytes]], *, uid: int | None, seconds: float, most: int
) -> bytes:
    """What some work gives when a user does it: all that came in time and is not too much.

    A fork does it, without any file that the agent has open, and gives up the agent's rights
    first. Nobody but root can look into it or stop it: a process that changed its user is closed
    to that user's debuggers. ``uid`` is None for the user that the agent is.
    """
    _reap()
    identity = None if uid is None else _identity(uid)
    reader, writer = os.pipe()
    try:
        pid = _fork()
        if pid == 0:
            _be_child(work, writer, identity)
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        return _read(reader, time.monotonic() + seconds, most)
    finally:
        os.close(reader)
        _end(pid)


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads in this process, none of which it needs
        return os.fork()


def _identity(uid: int) -> tuple[int, int, list[int]]:
    """User, group and further groups; asked before the fork, as it may ask a server."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return uid, NOBODY, []
    return uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


def _be_child(
    work: Callable[[], Iterable[bytes]], writer: int, identity: tuple[int, int, list[int]] | None
) -> None:
    """Do the work and end, whatever happens: nothing of the agent's may run here."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(writer, 0)
        os.closerange(1, os.sysconf("SC_OPEN_MAX"))
        if identity is not None:
            uid, gid, groups = identity
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        os.chdir("/")
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        for line in work():
            os.write(0, line)
    finally:
        os._exit(0)


def _read(descriptor: int, deadline: float, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size <= most and (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _end(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.001)
    _left.append(pid)


def _reap() -> None:
    """Take leave of children that came to their end after all."""
    for pid in list(_left):
        with contextlib.suppress(ChildProcessError):
            if not os.waitpid(pid, os.WNOHANG)[0]:
                continue
        _left.remove(pid)
