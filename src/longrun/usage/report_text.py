"""A report as text for a terminal: what a maintainer asks first, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from longrun.term import clip, paint, width
from longrun.usage.report import BAD, Count, Named, Nest, Prefix, Program, Report, newest

FEW = 12
"""Lines of a table; ``--by``, ``--json`` and ``--html`` have all."""

SPACE = "\N{NARROW NO-BREAK SPACE}"

WORDS = {
    "ok": "ended well",
    "status": "ended with a status",
    "exception": "died of an exception",
    "signal": "died of a signal",
    "unknown": "ended, it is not known how",
    "none": "no end was seen",
}

TITLES = {
    "interpreter": ("Interpreters", "interpreter"),
    "package": ("Packages", "package"),
    "host": ("Hosts", "host"),
    "layer": ("Layers", "layer"),
    "ci": ("People and CI", "started by"),
}

Cell = tuple[str, str]
"""A text and its style."""


def lines_of(report: Report) -> list[str]:
    """The whole report."""
    lines = [
        paint("bold", verdict(report)),
        paint("dim", f"{report.since} to {report.until}, from {report.source}"),
    ]
    lines += view_lines("interpreter", report.interpreters, most=FEW)
    if report.retire:
        lines += _retiring(report)
    lines += view_lines("package", report.packages, most=FEW)
    lines += _census(report.prefixes)
    lines += _forbidden(report.forbidden)
    lines += _failures(report)
    lines += view_lines("layer", report.layers, most=FEW)
    lines += view_lines("ci", report.ci, most=FEW)
    return lines


def verdict(report: Report) -> str:
    """The report in one sentence."""
    if not report.totals.invocations:
        return "No invocation was recorded in this time."
    new = newest(report)
    lead = f"{new} makes {percent(report.share(new), 1)} of the starts of the last two weeks"
    if not report.retire:
        return f"Python {lead}."
    left = len(report.still(report.retiring_hosts))
    if not left:
        return f"Python {lead}, and {report.retire} is used no more."
    verb = "uses" if left == 1 else "use"
    return f"Python {lead}, and {plural(left, 'host')} still {verb} {report.retire}."


def view_lines(view: str, rows: Sequence[Named | Nest], *, most: int | None = None) -> list[str]:
    """A table of ``--by``."""
    title, first = TITLES[view]
    head = [first, "starts", "hosts", "users", "programs", "last", ""]
    cells = [
        [(_name(view, row.name), ""), *_counts(row.count), (_parts(row), "dim")] for row in rows
    ]
    return _section(title, head, cells, most)


def _name(view: str, name: str) -> str:
    missing = {"ci": "people", "layer": "no layer", "interpreter": "unknown"}
    return name or missing.get(view, "?")


def _parts(row: Named | Nest) -> str:
    """What a thing is made of, in a few words."""
    parts = row.parts if isinstance(row, Nest) else ()
    total = max(1, sum(part.count.invocations for part in parts))
    shares = [f"{part.name} {percent(part.count.invocations, total)}" for part in parts[:4]]
    return "  ".join(shares) + ("  …" if len(parts) > 4 else "")


def _counts(count: Count) -> list[Cell]:
    return [
        (number(count.invocations), ""),
        (number(count.hosts) if count.hosts else "", ""),
        (number(count.users) if count.users else "", ""),
        (number(count.programs) if count.programs else "", ""),
        (day(count.last), "dim"),
    ]


def _retiring(report: Report) -> list[str]:
    title = f"Still on Python {report.retire} in the last two weeks"
    still = report.still(report.retiring)
    if not still:
        return ["", paint("bold", title), f"  {paint('green', '✔')} nothing: it may go"]
    head = ["program", "starts", "hosts", "users", "last", ""]
    cells = [
        [
            (program_name(one), ""),
            (number(one.count.invocations), ""),
            (number(one.count.hosts), ""),
            (number(one.count.users), ""),
            (day(one.count.last), "dim"),
            (one.how, "dim"),
        ]
        for one in still
    ]
    return _section(title, head, cells, FEW)


def _census(prefixes: Sequence[Prefix]) -> list[str]:
    head = ["prefix", "envs", "starts", "own", "hosts", "last", ""]
    cells = [
        [
            (one.base, ""),
            (number(len(one.environments)), ""),
            (number(one.count.invocations), ""),
            (number(one.own.invocations), ""),
            (number(one.count.hosts), ""),
            (day(one.count.last), "dim"),
            ("", ""),
        ]
        for one in prefixes
    ]
    return _section("Environments on each prefix", head, cells, FEW)


def _forbidden(rows: Sequence[Nest]) -> list[str]:
    title = "What a control room does without"
    if not rows:
        return ["", paint("bold", title), f"  {paint('green', '✔')} nothing of it was used"]
    head = ["variable", "starts", "hosts", "users", "programs", "last", ""]
    cells = [[(row.name, "yellow"), *_counts(row.count), (_parts(row), "dim")] for row in rows]
    return _section(title, head, cells, FEW)


def _failures(report: Report) -> list[str]:
    total = report.totals.invocations
    head = ["how programs end", "starts", "share"]
    cells = [
        [
            (WORDS.get(one.name, one.name), "red" if one.name in BAD[:3] else ""),
            (number(one.count.invocations), ""),
            (percent(one.count.invocations, total), "dim"),
        ]
        for one in report.exits
    ]
    lines = _section("Failures", head, cells, None)
    worst = [
        [
            (program_name(one), ""),
            (number(one.failed), "red"),
            (percent(one.failed, one.count.invocations), "dim"),
            (one.how, "dim"),
        ]
        for one in report.failing
    ]
    return lines + (_table(["fails most", "times", "share", ""], worst, FEW) if worst else [])


def _section(
    title: str, head: Sequence[str], cells: Sequence[Sequence[Cell]], most: int | None
) -> list[str]:
    return ["", paint("bold", title), *_table(head, cells, most)]


def _table(head: Sequence[str], cells: Sequence[Sequence[Cell]], most: int | None) -> list[str]:
    """Columns that line up: the first to the left, numbers to the right, the last as it fits."""
    if not cells:
        return ["  nothing"]
    shown = [[(_plain(text), style) for text, style in row] for row in cells[:most]]
    first = min(48, max(len(row[0][0]) for row in shown))
    widths = [max(first, len(head[0]))]
    for at in range(1, len(head)):
        widths.append(max(len(head[at]), *(len(row[at][0]) for row in shown)))
    lines = [paint("dim", _line([(text, "") for text in head], widths))]
    lines += [_line(row, widths) for row in shown]
    if len(cells) > len(shown):
        lines.append(paint("dim", f"  and {number(len(cells) - len(shown))} more"))
    return lines


def _plain(text: str) -> str:
    """A name as a terminal can show it: nothing in it moves the cursor."""
    shown = (
        one if one.isprintable() or one == SPACE else "\N{REPLACEMENT CHARACTER}" for one in text
    )
    return "".join(shown)


def _line(row: Sequence[Cell], widths: Sequence[int]) -> str:
    text, style = row[0]
    first = f"{clip(text, widths[0]):<{widths[0]}}"
    parts = [paint(style, first) if style else first]
    used = 2 + widths[0]
    for at, (value, look) in enumerate(row[1:], 1):
        last = at == len(row) - 1
        room = max(10, width() - used - 2) if last else widths[at]
        shown = clip(value, room) if last else f"{value:>{widths[at]}}"
        parts.append(paint(look, shown) if look else shown)
        used += 2 + widths[at]
    return f"  {'  '.join(parts)}".rstrip()


def program_name(program: Program) -> str:
    """What a person would call it."""
    return program.name or {"interactive": "(interactive)", "stdin": "(standard input)"}.get(
        program.how, f"({program.how or 'unknown'})"
    )


def number(value: float) -> str:
    """A number that can be read: ``12 345``."""
    return f"{value:,.0f}".replace(",", SPACE)


def percent(part: float, whole: float) -> str:
    """A share: ``12 %``, ``0.3 %``, and never 0 or 100 for what is not."""
    value = 100 * part / whole if whole else 0.0
    if 0 < value < 0.1:
        return f"<0.1{SPACE}%"
    if 0 < value < 10 or 99 < value < 100:
        return f"{min(value, 99.9):.1f}{SPACE}%"
    return f"{value:.0f}{SPACE}%"


def plural(count: int, noun: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def day(moment: float) -> str:
    """The day of a time in Unix seconds."""
    return datetime.fromtimestamp(moment, UTC).date().isoformat() if moment else ""


def print_lines(lines: Iterable[str]) -> None:
    """Print a report."""
    for line in lines:
        print(line)
