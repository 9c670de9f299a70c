"""The only place that starts programs: clean environment, a log, no network, one job pool."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from longrun.errors import BuildError, SetupError

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def find_tool(name: str) -> str | None:
    """Where a program of the system is, or None; the caller's PATH does not count."""
    return shutil.which(name, path=SYSTEM_PATH)


def output(
    argv: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """What a short program prints; SetupError where it is missing, BuildError where it fails."""
    try:
        done = subprocess.run(
            argv,
            env=env,
            cwd=cwd,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise SetupError(f"{argv[0]}: not found") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{argv[0]} failed: {(error.stderr or error.stdout).strip()}") from error
    return done.stdout


def outcome(
    argv: list[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | None = None,
) -> tuple[int, str, str]:
    """Exit status, output and complaint of a program; SetupError where it is missing."""
    try:
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(
                argv,
                env=env,
                cwd=cwd,
                check=False,
                stdin=source,
                capture_output=True,
                text=True,
                errors="replace",
            )
    except FileNotFoundError as error:
        raise SetupError(f"{argv[0]}: not found") from error
    return done.returncode, done.stdout, done.stderr


def attach(
    argv: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a program on the user's terminal and give its exit status."""
    return subprocess.run(argv, env=env, cwd=cwd, check=False).returncode


def succeeds(argv: Sequence[str]) -> bool:
    """Whether a program is there and ends with exit status 0; its output is thrown away."""
    try:
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def stream(
    argv: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    line: Callable[[str], None],
) -> int:
    """Run a long program, giving each line of its output to ``line`` and to a log; exit status."""
    with (
        log.open("wb") as kept,
        _default_interrupt(),
        subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as popen,
    ):
        assert popen.stdout is not None
        try:
            for raw in popen.stdout:
                kept.write(raw)
                line(raw.decode("utf-8", "replace").rstrip())
        except BaseException:
            _kill(popen)
            raise
    return popen.returncode


@contextlib.contextmanager
def _default_interrupt() -> Iterator[None]:
    """Let children start with SIGINT's default action.

    A background shell (``nohup``, some CI runners) starts programs with SIGINT ignored, which every
    child inherits; tests of CPython's that interrupt themselves would then run for ever.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@cache
def without_network() -> tuple[str, ...]:
    """The command prefix that runs a program in an empty network namespace; () where not allowed.

    Root makes the namespace directly; a user needs a user namespace, which some sites switch off.
    """
    unshare = find_tool("unshare")
    if unshare is None:
        return ()
    for prefix in (
        (unshare, "--net"),
        (unshare, "--user", "--map-current-user", "--net"),
        (unshare, "--user", "--map-root-user", "--net"),
    ):
        if succeeds((*prefix, "true")):
            return prefix
    return ()


class JobServer:
    """GNU make's job server: one pool of ``jobs`` tokens for every step and every make below it.

    A step takes a token to run at all; its make, and the makes of other steps, share the rest, so
    that two steps in their single-threaded configure use two cores and a lone make uses both.
    Protocol: GNU make manual, "POSIX Jobserver Interaction"; pipe form, which make 3.78 and later
    understand.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._read, self._write = os.pipe()
        os.write(self._write, b"+" * jobs)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The pipe that children inherit."""
        return self._read, self._write

    @property
    def makeflags(self) -> str:
        """MAKEFLAGS for a child that inherits the pipe."""
        # --jobserver-auth since make 4.2; older ones ignore it and build with one job
        return f" -j{self.jobs} --jobserver-auth={self._read},{self._write}"

    def release_waiters(self) -> None:
        """Give every thread that waits for a token one, so that it can end: the build is over."""
        os.write(self._write, b"+" * self.jobs)

    @contextlib.contextmanager
    def token(self) -> Iterator[None]:
        """Hold one token, waiting for it."""
        token = self._take()
        try:
            yield
        finally:
            os.write(self._write, token)

    def _take(self) -> bytes:
        while True:
            select.select([self._read], [], [])
            # make 4.3 sets O_NONBLOCK on the pipe that it shares with us, and may be quicker
            with contextlib.suppress(BlockingIOError):
                return os.read(self._read, 1)


@dataclass
class Programs:
    """The programs running now, so that an interrupted build can stop them all."""

    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def start(self, popen: subprocess.Popen[bytes]) -> None:
        """Remember a program; one that starts after ``stop`` is killed at once."""
        with self._lock:
            self._running.add(popen)
            if self._stopped:
                _kill(popen)

    def end(self, popen: subprocess.Popen[bytes]) -> None:
        """Forget a program that ended."""
        with self._lock:
            self._running.discard(popen)

    def stop(self) -> None:
        """Kill every program with all its children."""
        with self._lock:
            self._stopped = True
            for popen in self._running:
                _kill(popen)


def _kill(popen: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs the programs of one step; see ``steps.job.Run``.

    ``private`` holds HOME and TMPDIR; ``held`` are descriptors that children inherit, so that a
    lock on the staging directory outlives a killed build for as long as its programs write there.
    """

    work: Path
    private: Path
    log: Path
    epoch: int
    jobserver: JobServer
    programs: Programs
    held: tuple[int, ...] = ()

    def __call__(
        self,
        argv: list[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Path | None = None,
        network: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Run ``argv``; its output goes to the log. BuildError where it is missing or fails.

        After ``timeout`` seconds it is killed with all its children, which is a failure.
        """
        prefix = () if network else without_network()
        # what has the network compiles nothing; mmdebstrap wants descriptors of one digit free
        shared = () if network else self.jobserver.descriptors
        with self.log.open("ab") as log, (stdin or Path(os.devnull)).open("rb") as source:
            log.write(f"$ {' '.join(argv)}\n".encode())
            log.flush()
            try:
                popen = subprocess.Popen(
                    [*prefix, *argv],
                    cwd=cwd or self.work,
                    env=self._environment(env or {}),
                    stdin=source,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(*shared, *self.held),
                )
            except FileNotFoundError as error:
                raise BuildError(
                    f"{argv[0]}: not found", remedy="./build.py doctor names what is missing"
                ) from error
            self.programs.start(popen)
            try:
                status = popen.wait(timeout)
            except subprocess.TimeoutExpired as error:
                _kill(popen)
                popen.wait()
                raise BuildError(f"{argv[0]}: killed after {timeout:g} s") from error
            finally:
                self.programs.end(popen)
        if status:
            raise BuildError(f"{argv[0]} ended with {_status(status)}: {' '.join(argv)[:300]}")

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        home, temporary = self.private / "home", self.private / "tmp"
        home.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(exist_ok=True)
        return {
            "PATH": SYSTEM_PATH,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "SOURCE_DATE_EPOCH": str(self.epoch),
            "MAKEFLAGS": self.jobserver.makeflags,
            **more,
        }


def _status(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
