"""Where a check runs: no network but loopback, no home, no rights, nothing writable but its own.

A cage is made of kernel namespaces by bubblewrap, in the machine's own system or in another root;
or by a container engine (see ``engine``) in another root. Where the kernel or a container forbids
both, the machine's own system still gives a session.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from longrun import inside
from longrun.errors import SetupError
from longrun.run import find_tool, succeeds

ENGINE, NAMESPACES, SESSION = "engine", "namespaces", "session"
"""How a check is confined: by a container engine, by bubblewrap's kernel namespaces, or only in a
session of its own."""

NOBODY = "65534"
"""The user and group of a check, by the number that every Linux calls nobody."""

PLACE = Path("/opt/longrun")
"""Where the prefix, the check and the outcome are inside."""

SCRATCH = "/tmp"  # noqa: S108 - the cage's own, in memory
"""Where a check may write."""

HIDDEN = (SCRATCH, "/var/tmp", "/run", "/home", "/root", "/opt", "/srv", "/mnt", "/media")  # noqa: S108
"""Directories of a system that hold what people and services put there; empty inside."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One run of a check.

    ``status`` is the exit status, negative for a signal; ``seconds`` is elapsed time, ``cpu`` that
    of the processors, ``memory`` in bytes that of the largest process; ``orphans`` are the commands
    of the processes that it left behind.
    """

    status: int
    timed_out: bool
    seconds: float
    cpu: float
    memory: int
    orphans: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it came to a good end, and left nothing running."""
        return self.status == 0 and not self.timed_out and not self.orphans


@dataclass(frozen=True)
class Inner:
    """Where things are for what runs inside."""

    prefix: Path
    programs: Path
    inside: Path
    out: Path


@dataclass(frozen=True, kw_only=True)
class Cage:
    """One check's surroundings: ``root`` of a system (None for the machine's own), the prefix, the
    directory of the check's programs, and the directory ``out`` for what comes of it."""

    root: Path | None
    prefix: Path
    stem: str
    programs: Path
    out: Path

    def command(
        self, isolation: str, python: str, program: str, seconds: int, *, live: bool = False
    ) -> list[str]:
        """The command that runs a check and writes the outcome; its log too, unless ``live``."""
        inner = self._inner(isolation)
        executable = str(inner.prefix / "bin" / python)
        return [
            *self._before(isolation),
            *(executable, "-I", "-S", str(inner.inside), str(inner.out)),
            *("-" if live else str(inner.out / "log.txt"), str(seconds)),
            *(executable, str(inner.programs / program)),
        ]

    def shell(self, program: str) -> list[str]:
        """The command that opens a shell where a check would run."""
        inner = self._inner(NAMESPACES)
        python = inner.prefix / "bin"
        # a person's shell wants the terminal, which a new session has not got
        words = [word for word in self._before(NAMESPACES) if word != "--new-session"]
        return [
            *words,
            *("/usr/bin/env", "-i", f"PATH={python}:{inside.ENVIRONMENT['PATH']}"),
            *(f"TERM={os.environ.get('TERM', 'dumb')}", "LC_ALL=C.UTF-8", "TZ=UTC"),
            *(f"CHECK={inner.programs / program}", "PS1=cage$ ", "/bin/bash", "--norc", "-i"),
        ]

    def _inner(self, isolation: str) -> Inner:
        if isolation == SESSION:
            here = Path(inside.__file__)
            return Inner(self.prefix, self.programs, here, self.out)
        return Inner(PLACE / self.stem, PLACE / "checks", PLACE / "inside.py", PLACE / "out")

    def _before(self, isolation: str) -> list[str]:
        return [*self.walls(), "--chdir", SCRATCH, "--"] if isolation == NAMESPACES else []

    def walls(self) -> list[str]:
        """bubblewrap and its options."""
        bwrap = find_tool("bwrap")
        assert bwrap, "see confinement()"
        return [
            *(bwrap, "--unshare-all", "--die-with-parent", "--new-session"),
            *("--uid", NOBODY, "--gid", NOBODY),
            # a name that every system resolves, without asking a network
            *("--hostname", "localhost"),
            *("--ro-bind", str(self.root or "/"), "/"),
            *("--proc", "/proc", "--dev", "/dev"),
            *(word for path in self.hidden() for word in ("--tmpfs", path)),
            *(
                word
                for target, source in self.mounts().items()
                for word in ("--bind" if source == self.out else "--ro-bind", str(source), target)
            ),
        ]

    def mounts(self) -> dict[str, Path]:
        """What is where inside; ``out`` may be written, the others not."""
        return {
            str(PLACE / self.stem): self.prefix,
            str(PLACE / "checks"): self.programs,
            str(PLACE / "inside.py"): Path(inside.__file__),
            str(PLACE / "out"): self.out,
        }

    def hidden(self) -> list[str]:
        """The directories of the system that are empty inside."""
        root = self.root or Path("/")
        return [path for path in HIDDEN if (root / path[1:]).is_dir()]


def confinement(*, own_system: bool) -> str:
    """The best that this machine can do; SetupError where no other root can be entered."""
    if namespaces():
        return NAMESPACES
    if own_system:
        return SESSION
    raise SetupError(
        "no cage for another system's root: bubblewrap is missing, or may make no namespaces here",
        remedy="apt-get install bubblewrap; inside a container, start that with --privileged; "
        "or run only this machine's own column: --where host",
    )


@cache
def namespaces() -> bool:
    """Whether bubblewrap is there and the kernel lets it work."""
    bwrap = find_tool("bwrap")
    return bwrap is not None and succeeds(
        (bwrap, "--unshare-all", "--uid", NOBODY, "--ro-bind", "/", "/", "--proc", "/proc", "true")
    )


def machine() -> tuple[str, str]:
    """What this machine is, as far as a check can tell: its distribution, and its glibc."""
    try:
        title = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        title = "Linux"
    # not platform.libc_ver(), which tells what the interpreter's own file asks for
    library = os.confstr("CS_GNU_LIBC_VERSION") or "glibc unknown"
    return title, library.split()[-1]
