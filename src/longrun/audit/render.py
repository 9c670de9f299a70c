"""A report for people: plain lines that read well in a terminal and in a log."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from longrun.audit.report import ERROR, Finding, Report

_WIDTH = 100


def lines(report: Report, *, limit: int = 5) -> list[str]:
    """The report as lines; of a check with many findings, the first ``limit`` of each severity."""
    return [
        *_head(report),
        *_findings(report, limit),
        *_listed("passed", ", ".join(_passed(report)) or "none"),
        *_not_checked(report),
        "",
        verdict(report),
    ]


def verdict(report: Report) -> str:
    """One sentence that says whether the prefix passes."""
    errors, warnings = report.counts["errors"], report.counts["warnings"]
    result = "passes" if report.ok else "does not pass"
    return f"The prefix {result}: {_count(errors, 'error')}, {_count(warnings, 'warning')}."


def _head(report: Report) -> Iterator[str]:
    counts = report.counts
    python = f"Python {report.python}" if report.python else "no Python found"
    yield f"Audit of {report.prefix}"
    yield f"  {python}, {report.platform or 'no floor given'}"
    yield (
        f"  {_count(counts['files'], 'file')}, {counts['elf']} of them ELF, "
        f"{counts['bytes'] / 1e6:.1f} MB, {report.seconds:.2f} s"
    )
    for name, highest in report.highest.items():
        yield f"  highest {name}_{highest.version}, needed by {highest.path}"


def _findings(report: Report, limit: int) -> Iterator[str]:
    for (severity, check), group in groupby(report.findings, lambda f: (f.severity, f.check)):
        found = list(group)
        yield ""
        yield f"{'FAIL' if severity == ERROR else 'warn'}  {check} ({len(found)})"
        for remedy, alike in groupby(found[:limit], lambda finding: finding.remedy):
            for finding in alike:
                yield from _finding(finding)
            yield from _wrap(f"-> {remedy}", "        ")
        if len(found) > limit:
            yield f"      and {len(found) - limit} more (--json has all)"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"      {finding.path}"
    yield from _wrap(finding.message, "        ")


def _passed(report: Report) -> list[str]:
    failed = {finding.check for finding in report.findings if finding.severity == ERROR}
    return [name for name in report.checked if name not in failed]


def _not_checked(report: Report) -> Iterator[str]:
    for name, reason in report.not_checked.items():
        yield from _wrap(f"not checked: {name}: {reason}", "      ", first="")


def _listed(title: str, text: str) -> Iterator[str]:
    yield ""
    yield from _wrap(f"{title}: {text}", "      ", first="")


def _wrap(text: str, indent: str, *, first: str | None = None) -> list[str]:
    start = indent if first is None else first
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
