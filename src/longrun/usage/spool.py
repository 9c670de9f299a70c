"""The spool: where programs leave records, and how the agent takes them away.

A program opens ``<uid>.jsonl`` with O_APPEND, looks whether the file is its user's own, regular,
and has one name, writes one line, and closes. Everybody may make files in the directory, and
nobody but the agent can list it, or remove what is another's.

The agent renames first and looks then: what it has renamed into its own directory, nobody can
put anything else in place of. A program may have opened the file before that and not written
yet. So the file is read until there is a **read lease** on it, which the kernel grants only
while nobody has it open for writing (``fcntl(2)``, F_SETLEASE). Nobody can open it anew, since its
name is out of reach: so what is read below a lease is all there will ever be, and the file goes.
One case is left: a program that had looked up the name before the rename and comes to open the
file only now. The kernel refuses it (EWOULDBLOCK) while the lease is held, or gives it a
file without a name (no link) after that. It then opens the name in the spool again, which makes a
new file: this one retry is the hook's part of the promise that no record is lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longrun.errors import TelemetryError

OWN = re.compile(r"(0|[1-9][0-9]{0,9})\.jsonl", re.ASCII)
"""The name of a user's file: the uid as the kernel writes it."""

CLAIMED = re.compile(r"([0-9]{19,20})-([0-9]+)\.jsonl", re.ASCII)
"""The name that the agent gives it: nanoseconds of the wall clock, and the uid."""

REFUSED = "refused"
MOST = 100_000
"""Names to take in one round, so that a flood of them does not keep the agent from its work."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A file of one user that the agent has taken; ``since`` is when, in Unix seconds."""

    name: str
    uid: int
    since: float


class Refused(Exception):
    """What is in a user's place is not that user's file; the text says why, to be counted."""


class Spool:
    """The directory of records and the agent's directory beside it, both held open.

    Every name is one below these descriptors: no path is looked up twice.
    """

    def __init__(self, directory: Path, claimed: Path) -> None:
        self.directory, self.claimed = directory, claimed
        self._from = _open_spool(directory)
        try:
            self._to = _open_claimed(claimed)
        except BaseException:
            os.close(self._from)
            raise

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._from)
        os.close(self._to)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def claim(self) -> dict[str, int]:
        """Take every file out of the spool; how many of what else was there, by reason.

        The renames have reached the disk when this returns.
        """
        refused: dict[str, int] = {}
        stamp = time.time_ns()
        with os.scandir(self._from) as found:
            names = [entry.name for _, entry in zip(range(MOST), found, strict=False)]
        for number, name in enumerate(names):
            own = OWN.fullmatch(name)
            uid = int(own[1]) if own else -1
            target = f"{stamp + number}-{uid}.jsonl" if own else f"{REFUSED}-{stamp + number}"
            if not self._take(name, target):
                _count(refused, "cannot be renamed")
            elif not own:
                self._discard(target)
                _count(refused, "not a user's name")
        os.fsync(self._to)
        return refused

    def _take(self, name: str, target: str) -> bool:
        try:
            os.rename(name, target, src_dir_fd=self._from, dst_dir_fd=self._to)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise TelemetryError(
                    f"{self.claimed} is on another file system than {self.directory}",
                    remedy="set claimed in the agent's configuration to a directory beside the "
                    "spool, which the agent alone can enter",
                ) from error
            return error.errno == errno.ENOENT
        return True

    def claims(self) -> list[Claim]:
        """Every file that is taken and not yet done with, oldest first."""
        found = []
        for name in sorted(os.listdir(self._to)):
            if match := CLAIMED.fullmatch(name):
                found.append(Claim(name=name, uid=int(match[2]), since=int(match[1]) / 1e9))
            else:  # what was refused, and stayed when an agent was killed
                self._discard(name)
        return found

    @contextlib.contextmanager
    def reading(self, claim: Claim) -> Iterator[Claimed]:
        """Open a claimed file; raises Refused where it is not what its name says."""
        descriptor = self._open(claim)
        try:
            yield Claimed(descriptor)
        finally:
            os.close(descriptor)

    def _open(self, claim: Claim) -> int:
        # what is no file is not opened at all: that may wait, or do things
        before = os.stat(claim.name, dir_fd=self._to, follow_symlinks=False)
        if not stat.S_ISREG(before.st_mode):
            raise Refused("not a regular file")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        descriptor = os.open(claim.name, flags, dir_fd=self._to)
        try:
            _check_owner(os.fstat(descriptor), claim.uid)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def remove(self, claim: Claim) -> None:
        """Remove a claimed file, or whatever was in its place."""
        self._discard(claim.name)

    def _discard(self, name: str) -> None:
        """Remove anything from the agent's directory; what does not go now goes another time."""
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self._to)
            except IsADirectoryError:
                # never follows a link, whatever is done meanwhile below it
                with contextlib.suppress(OSError, RecursionError):
                    shutil.rmtree(name, dir_fd=self._to)

    def size(self) -> tuple[int, int]:
        """Files and bytes that wait in both directories."""
        sizes = []
        for descriptor in (self._from, self._to):
            with os.scandir(descriptor) as found:
                for entry in found:
                    with contextlib.suppress(FileNotFoundError):
                        sizes.append(entry.stat(follow_symlinks=False).st_size)
        return len(sizes), sum(sizes)


class Claimed:
    """A claimed file that is open for reading."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def lease(self) -> bool:
        """Ask for a lease: whether nobody has the file open for writing.

        TelemetryError where the file system knows no leases.
        """
        # the kernel tells of a writer who comes by a signal; the default of SIGIO ends a process
        fcntl.fcntl(self._descriptor, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            raise TelemetryError(
                f"the spool's file system grants no lease: {error.strerror}",
                remedy="put the spool on a local file system (ext4, xfs, tmpfs), and let the "
                "agent be root or have CAP_LEASE",
            ) from error
        return True

    def leased(self) -> bool:
        """Whether the lease is held still, and nobody has come since."""
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; empty at its end."""
        return os.pread(self._descriptor, size, offset)


def _open_spool(directory: Path) -> int:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise TelemetryError(
            f"{directory}: {error.strerror}",
            remedy="systemd-tmpfiles --create longrun-usage.conf makes the spool (root, mode 1733)",
        ) from error
    status = os.fstat(descriptor)
    if status.st_uid not in (0, os.geteuid()):
        os.close(descriptor)
        raise TelemetryError(
            f"{directory} belongs to uid {status.st_uid}, who could change every record",
            remedy=f"chown root:root {directory}; chmod 1733 {directory}",
        )
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        os.close(descriptor)
        raise TelemetryError(
            f"{directory} has mode {stat.S_IMODE(status.st_mode):o}: users could remove others' "
            "records",
            remedy=f"chmod 1733 {directory}",
        )
    return descriptor


def _open_claimed(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise TelemetryError(
            f"{directory}: {error.strerror}", remedy=f"install -d -m 0700 {directory}"
        ) from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(descriptor)
        raise TelemetryError(
            f"{directory} is not the agent's alone",
            remedy="remove it; the agent makes it anew with mode 0700",
        )
    return descriptor


def _check_owner(status: os.stat_result, uid: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not a regular file")
    if status.st_uid != uid:
        raise Refused("another user's")
    if status.st_nlink != 1:
        raise Refused("has further names")
    if status.st_mode & 0o022:
        raise Refused("others can write to it")


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1
