"""Runs one program inside a cage and writes down what came of it.

A program of its own, run by the interpreter under test with the standard library alone:

    python3.13 -I -S inside.py OUT LOG SECONDS PROGRAM [ARGUMENT]...

OUT gets ``result.json`` once all is over. The program's output is added to the file LOG; ``-``
leaves it where this one's goes. Nothing outlives it: what the program leaves running is written
down and killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): orphans below become children of this process instead of the system's first."""

GRACE = 1.0
"""Seconds that children which were told to end have for it."""

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}
"""All that the program finds: no HOME, no PYTHONPATH, no LD_LIBRARY_PATH."""


class TimeIsUp(Exception):
    """The program ran longer than it may."""


def main(out: str, log: str, seconds: str, *program: str) -> int:
    """Run the program, see to what it left, write the result."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begin = time.monotonic()
    pid = start(program, log)
    status, timed_out, usage = wait(pid, float(seconds))
    elapsed = time.monotonic() - begin
    left = orphans(0.0 if timed_out else GRACE)
    result = {
        "status": status,
        "timed_out": timed_out,
        "seconds": round(elapsed, 3),
        "cpu": round(usage.ru_utime + usage.ru_stime, 3),
        "memory": usage.ru_maxrss * 1024,
        "orphans": [] if timed_out else left,
    }
    beside = os.path.join(out, "result.part")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.rename(beside, os.path.join(out, "result.json"))
    return 0


def start(program: tuple[str, ...], log: str) -> int:
    """Start the program in a session of its own, with its output in the log."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files: list[tuple[object, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    if log != "-":
        files.append((os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644))
    files.append((os.POSIX_SPAWN_DUP2, 1, 2))
    env = {**ENVIRONMENT, "TMPDIR": os.getcwd()}
    # a caller's shell may have left them ignored, which children inherit
    usual = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    return os.posix_spawn(
        program[0], program, env, file_actions=files, setsigdef=usual, setsid=True
    )


def wait(pid: int, seconds: float) -> tuple[int, bool, resource.struct_rusage]:
    """Exit status (negative for a signal), whether it had to be killed, and what it used."""

    def stop(_number: int, _frame: object) -> None:
        raise TimeIsUp

    timed_out = False
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        _, status, usage = os.wait4(pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeIsUp:
        timed_out = True
        # SIGABRT lets an interpreter with faulthandler tell where it stands
        kill_session(pid, signal.SIGABRT)
        time.sleep(0.5)
        kill_session(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), timed_out, usage


def kill_session(pid: int, number: int) -> None:
    """Send a signal to the program and all of its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def orphans(grace: float) -> list[str]:
    """The commands of what still runs below this process after the grace; all of it is killed."""
    end = time.monotonic() + grace
    while children() and time.monotonic() < end:
        time.sleep(0.02)
    found = []
    while running := children():
        for pid, command in running.items():
            found.append(command)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return sorted(set(found))


def children() -> dict[int, str]:
    """The children that still run, by pid, with their commands; those that ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return {}
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read(400).replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:
            continue
        if parent == os.getpid():
            found[int(name)] = command
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
