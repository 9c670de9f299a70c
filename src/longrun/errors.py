"""The exception tree: every failure that a user can meet, its exit code and its remedy.

Nothing below ``cli`` exits the process; it raises one of these. ``message`` says what happened and
where, ``remedy`` says what to do about it. Exit codes are part of the interface: scripts read them.
"""

from __future__ import annotations


class LongrunError(Exception):
    """A failure with a cause and, where there is one, a remedy."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(LongrunError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class SpecError(LongrunError):
    """A spec file is wrong; the message names file, key, what was expected and what was found."""

    exit_code = 3


class SourceError(LongrunError):
    """A source cannot be had, is not what its spec pins, or is unsafe to unpack."""

    exit_code = 4


class UnknownProject(SourceError):
    """The package index answers, and has no project of this name."""


class BuildError(LongrunError):
    """A step failed to build."""

    exit_code = 5


class AuditError(LongrunError):
    """A prefix does not pass the audit."""

    exit_code = 6


class StoreError(LongrunError):
    """The store is damaged, locked or cannot be written."""

    exit_code = 7


class SetupError(LongrunError):
    """The machine lacks something; the remedy is the command that installs it."""

    exit_code = 8


class MatrixError(LongrunError):
    """A check of the matrix failed, or passes where its spec says that it does not."""

    exit_code = 9


class TelemetryError(LongrunError):
    """Usage records or events cannot be collected, kept or read."""

    exit_code = 10


class StoreAway(TelemetryError):
    """A store of events does not take them now; the agent keeps them and tries again."""
