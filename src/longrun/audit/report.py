"""What an audit found, and the stable form of it that machines read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 1
"""Raised when a key of the JSON form changes its meaning or goes away; new keys do not raise it."""

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with one file. Only errors make an audit fail."""

    path: str
    message: str
    remedy: str
    severity: str = ERROR
    check: str = ""


@dataclass(frozen=True, kw_only=True)
class Highest:
    """The highest symbol version that any file needs, and the first file that needs it."""

    version: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of an audit.

    ``not_checked`` maps a check to the reason why it could not be made; ``highest`` maps GLIBC,
    GLIBCXX and CXXABI to the highest version needed; ``counts`` has files, directories, links,
    elf, bytes, errors and warnings.
    """

    prefix: str
    python: str
    platform: str
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    not_checked: Mapping[str, str]
    highest: Mapping[str, Highest]
    counts: Mapping[str, int]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked is wrong."""
        return not any(finding.severity == ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with stable keys; ``schema`` tells readers which."""
        return {
            "schema": SCHEMA,
            "prefix": self.prefix,
            "python": self.python,
            "platform": self.platform,
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
            "checked": list(self.checked),
            "not_checked": dict(self.not_checked),
            "highest": {name: asdict(highest) for name, highest in self.highest.items()},
            "counts": dict(self.counts),
            "seconds": round(self.seconds, 3),
        }
