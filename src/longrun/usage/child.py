"""The only place of telemetry that starts programs: as another user, with bounds."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

NOBODY = 65534
"""The user who owns nothing, where the system names no other."""

ROOT = str(Path(__file__).parents[2])
"""What an interpreter imports this program from: a directory, or the file of the program."""


def attach(argv: Sequence[str], *, env: Mapping[str, str], stdout: int | None = None) -> int:
    """Run a program on the user's terminal; its exit status, as a shell tells it."""
    with subprocess.Popen(argv, env=env, stdout=stdout) as popen:
        while True:
            try:
                status = popen.wait()
            except KeyboardInterrupt:
                continue  # the terminal has told the program, too; it is to say how it ends
            return status if status >= 0 else 128 - status


def answer(module: str, question: bytes, *, uid: int | None, seconds: float, most: int) -> bytes:
    """What ``main`` of a module of ours prints for a question, run as a user; all that came of it.

    The user may be hostile to it: so it has no time, memory or output without bounds, and
    nothing of the agent's but a question. ``uid`` is None for the user that the agent is.
    """
    program = f"import sys; sys.path.insert(0, sys.argv[1]); from {module} import main; main()"
    argv = [sys.executable, "-I", "-S", "-B", "-c", program, ROOT]
    with _in_memory(question) as stdin:
        try:
            popen = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"LONGRUN_USAGE": "off", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
                **_identity(uid),  # type: ignore[call-overload]
            )
        except (OSError, subprocess.SubprocessError):
            return b""
    try:
        return _read(popen, time.monotonic() + seconds, most)
    finally:
        _end(popen)


def _identity(uid: int | None) -> dict[str, object]:
    if uid is None:
        return {}
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return {"user": uid, "group": NOBODY, "extra_groups": []}
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return {"user": uid, "group": entry.pw_gid, "extra_groups": groups}


def nobody() -> int:
    """The number of the user who owns nothing."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return NOBODY


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[BinaryIO]:
    descriptor = os.memfd_create("question")
    with os.fdopen(descriptor, "w+b") as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield file


def _read(popen: subprocess.Popen[bytes], deadline: float, most: int) -> bytes:
    """The output as far as it came in time and is not too much."""
    assert popen.stdout is not None
    parts: list[bytes] = []
    size = 0
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([popen.stdout], [], [], left)[0]:
            break
        part = os.read(popen.stdout.fileno(), 1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > most:
            break
    return b"".join(parts)


def _end(popen: subprocess.Popen[bytes]) -> None:
    assert popen.stdout is not None
    popen.stdout.close()
    with contextlib.suppress(OSError):
        os.killpg(popen.pid, signal.SIGKILL)
    # what waits for a dead file server cannot even be killed: it is left alone
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(timeout=5)
