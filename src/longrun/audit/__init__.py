"""The gate that a prefix passes before it enters the store; also for any other prefix.

Nothing of what is inspected is executed: all is read from bytes, modes and links.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from longrun.audit import elf_checks, file_checks, metadata_checks, python_checks
from longrun.audit.api import KeptApi, load_kept_api
from longrun.audit.check import CannotCheckError, Check
from longrun.audit.policy import Policy, policy_for, policy_for_path
from longrun.audit.report import ERROR, WARNING, Finding, Report
from longrun.audit.tree import Tree, scan
from longrun.errors import AuditError

__all__ = [
    "CHECKS",
    "Finding",
    "KeptApi",
    "Policy",
    "Report",
    "audit",
    "load_kept_api",
    "policy_for",
    "policy_for_path",
    "require",
]

CHECKS: Mapping[str, Check] = {
    **elf_checks.CHECKS,
    **file_checks.CHECKS,
    **python_checks.CHECKS,
    **metadata_checks.CHECKS,
}
"""Every check by its name; the order is that of reports."""


def audit(prefix: Path, policy: Policy) -> Report:
    """Hold a prefix against a policy; AuditError where it cannot be read at all."""
    start = time.monotonic()
    tree = _scan(prefix, policy)
    findings: list[Finding] = []
    not_checked: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            found = list(check(tree, policy))
        except CannotCheckError as reason:
            not_checked[name] = str(reason)
        else:
            findings += (replace(f, check=name, path=_printable(f.path)) for f in found)
    findings.sort(key=lambda finding: finding.severity != ERROR)
    return Report(
        prefix=_printable(str(prefix)),
        python=tree.python,
        platform=policy.floor.tag if policy.floor else "",
        findings=tuple(findings),
        checked=tuple(name for name in CHECKS if name not in not_checked),
        not_checked=not_checked,
        highest=elf_checks.highest_versions(tree),
        counts=_counts(tree, findings),
        seconds=time.monotonic() - start,
    )


def require(report: Report) -> None:
    """Raise AuditError where a report has errors; it names the first ones."""
    errors = [finding for finding in report.findings if finding.severity == ERROR]
    if errors:
        shown = [f"{f.check}: {f.path}: {f.message}" for f in errors[:5]]
        more = [f"and {len(errors) - 5} more"] if len(errors) > 5 else []
        raise AuditError(
            "\n  ".join([f"the prefix does not pass its audit ({len(errors)})", *shown, *more]),
            remedy=errors[0].remedy,
        )


def _scan(prefix: Path, policy: Policy) -> Tree:
    if not prefix.is_dir():
        raise AuditError(f"{prefix}: there is no such directory to audit")
    try:
        return scan(prefix, policy.forbidden or {})
    except OSError as error:
        raise AuditError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _printable(path: str) -> str:
    """A path as text that any log and JSON file can hold."""
    text = path.encode("utf-8", "backslashreplace").decode()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _counts(tree: Tree, findings: list[Finding]) -> dict[str, int]:
    nodes = tree.nodes.values()
    return {
        "files": sum(node.is_file for node in nodes),
        "directories": sum(stat.S_ISDIR(node.mode) for node in nodes),
        "links": sum(stat.S_ISLNK(node.mode) for node in nodes),
        "elf": sum(node.content.elf is not None for node in nodes),
        "bytes": sum(node.size for node in nodes),
        "errors": sum(finding.severity == ERROR for finding in findings),
        "warnings": sum(finding.severity == WARNING for finding in findings),
    }
