"""A report as one page that needs nothing else: for a desk, a wall, a phone, a printer.

Plots are inline SVG that stretches; their labels are text beside it, so they stay sharp and of one
size. Names come from programs of anybody: all of them are escaped, and the page's own policy lets
no script run but the one that shows the values under a pointer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files

from longrun.usage.report import (
    BAD,
    Count,
    Named,
    Nest,
    Prefix,
    Program,
    Report,
    Timeline,
    version_key,
)
from longrun.usage.report_text import (
    WORDS,
    day,
    number,
    percent,
    plural,
    program_name,
    verdict,
)

FEW = 12
"""Lines of a list that are shown before the rest is asked for."""

MOST = 300
"""Lines of a list that the page has at all; JSON has every one."""

COLOURS = 6

CI_COLOURS = ("s3", "s2", "s4", "s5", "s1", "s0")

STEPS = (1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0)

IN_USE = '<span class="badge">in use</span>'

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Longrun: usage {since} to {until}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{content}
</main>
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot: its name, a value for each day, and the class of its colour."""

    name: str
    values: Sequence[int]
    style: str


def render(report: Report) -> str:
    """The page."""
    script = _resource("report.js")
    sections = (
        _header,
        _adoption,
        _retiring,
        _census,
        _packages,
        _failures,
        _forbidden,
        _places,
        _footer,
    )
    return PAGE.format(
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        since=escape(report.since),
        until=escape(report.until),
        style=_resource("report.css"),
        content="\n".join(filter(None, (section(report) for section in sections))),
        script=script,
    )


def _resource(name: str) -> str:
    return files("longrun.usage").joinpath(name).read_text(encoding="utf-8")


def _header(report: Report) -> str:
    when = datetime.fromisoformat(report.generated)
    return f"""<header>
<div class="eyebrow"><span>Longrun</span> <span>Usage</span>
<nav class="jump" aria-label="Sections"><a href="#adoption">Interpreters</a>
<a href="#prefixes">Environments</a> <a href="#packages">Packages</a>
<a href="#failures">Failures</a> <a href="#where">Where</a></nav></div>
<h1>{escape(verdict(report))}</h1>
<p class="dim">{_date(report.since)} to {_date(report.until)} · {escape(report.source)} ·
made {when.day} {when:%B %Y, %H:%M} UTC</p>
{_tiles(report)}
</header>"""


def _tiles(report: Report) -> str:
    total = report.totals.invocations
    machines = sum(one.count.invocations for one in report.ci if one.name)
    failed = sum(one.count.invocations for one in report.exits if one.name in BAD[:3])
    tiles = [
        (f"starts, {_short(total / max(1, len(report.days)))} a day", number(total)),
        ("hosts", number(report.totals.hosts)),
        ("users", number(report.totals.users)),
        ("programs", number(report.totals.programs)),
        ("started by CI", percent(machines, total)),
        ("ended with an error", percent(failed, total)),
    ]
    shown = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in tiles)
    return f'<dl class="tiles">{shown}</dl>'


def _adoption(report: Report) -> str:
    if not report.totals.invocations:
        return ""
    starts = _plot("Starts per day", report, _curves(report.adoption), stacked=True)
    hosts = _plot("Hosts that run it, per day", report, _curves(report.adoption_hosts))
    return f"""<section aria-labelledby="adoption"><h2 id="adoption">Interpreters</h2>
<p>Which Python the laboratory starts, and on how many of its hosts.</p>
<div class="pair">{starts}{hosts}</div></section>"""


def _retiring(report: Report) -> str:
    if not report.retire:
        return ""
    name = escape(report.retire)
    still = report.still(report.retiring)
    gone = len(report.retiring) - len(still)
    if not still:
        return f"""<section><h2 id="retire">Still on Python {name}</h2>
<p class="empty"><span class="badge good">nobody</span> no start in the last two weeks</p>
</section>"""
    words = f"{plural(len(still), 'program')} in the last two weeks, on "
    words += f"{plural(len(report.still(report.retiring_hosts)), 'host')}"
    words += f". {plural(gone, 'program')} stopped using it in this time." if gone else "."
    most = max(one.count.invocations for one in still)
    rows = [_program_row(one, most, report) for one in still]
    return f"""<section><h2 id="retire">Still on Python {name}</h2>
<p>{words} Whoever starts these has to move before it can be retired.</p>
<div class="card">{_rows(rows, style="rows wide")}</div></section>"""


def _program_row(one: Program, most: int, report: Report) -> str:
    style = _styles(report).get(report.retire, "s1")
    facts = f"{plural(one.count.hosts, 'host')} · {plural(one.count.users, 'user')}"
    return _row(
        f"<b>{escape(program_name(one))}</b> <small>{escape(one.how)}</small>",
        _bar(one.count.invocations / most, style),
        f"{number(one.count.invocations)} <small>· {facts}</small>",
    )


def _census(report: Report) -> str:
    if not report.prefixes:
        return ""
    shown = "".join(_prefix(one, report) for one in report.prefixes[:MOST])
    return f"""<section><h2 id="prefixes">Environments on each prefix</h2>
<p>A prefix may go when no environment stands upon it and nobody runs it itself. What was not
started in this time is not seen: look back as far as an environment may sleep.</p>
<div class="census">{shown}</div></section>"""


def _prefix(prefix: Prefix, report: Report) -> str:
    since = _date(day(prefix.count.last), short=True)
    idle = prefix.count.last < report.recent
    badge = f'<span class="badge warn">idle since {since}</span>' if idle else IN_USE
    facts = [
        (number(len(prefix.environments)), "envs"),
        (_short(prefix.count.invocations), "starts"),
        (_short(prefix.own.invocations), "direct"),
        (number(prefix.count.hosts), "hosts"),
    ]
    line = f'<span class="base">{_path(prefix.base)}</span>' + "".join(
        f'<span class="fact"><b>{value}</b>{label}</span>' for value, label in facts
    )
    if not prefix.environments:
        return f'<div class="card"><div class="plain">{line}{badge}</div></div>'
    table = _table(
        ["environment", "starts", "hosts", "users", "last"],
        [[_path(one.name), *_cells(one.count)] for one in prefix.environments[:MOST]],
    )
    return f'<details class="card"><summary>{line}{badge}</summary>{table}</details>'


def _cells(count: Count) -> list[str]:
    return [number(count.invocations), number(count.hosts), number(count.users), day(count.last)]


def _packages(report: Report) -> str:
    if not report.packages:
        return ""
    rows = [_package(one) for one in report.packages]
    return f"""<section><h2 id="packages">Packages</h2>
<p>Distributions that programs imported, those on most hosts first; the bar shows which versions
were started, the newest darkest.</p>
<div class="card">{_rows(rows, few=20)}</div></section>"""


def _package(one: Nest) -> str:
    total = max(1, sum(part.count.invocations for part in one.parts))
    shares = "".join(
        f'<i class="v{min(at, 4)}" style="flex: {part.count.invocations}"'
        f' title="{escape(part.name)}: {percent(part.count.invocations, total)}"></i>'
        for at, part in enumerate(one.parts)
    )
    named = "".join(
        f'<span><i class="v{min(at, 4)}"></i>{escape(part.name)} '
        f"{percent(part.count.invocations, total)}</span>"
        for at, part in enumerate(one.parts[:5])
    )
    more = f"<span>and {len(one.parts) - 5} older</span>" if len(one.parts) > 5 else ""
    return _row(
        f"<b>{escape(one.name)}</b>",
        f'<div class="mix"><div class="bar">{shares}</div>'
        f'<div class="versions">{named}{more}</div></div>',
        f"{plural(one.count.hosts, 'host')} "
        f"<small>· {_short(one.count.invocations)} starts</small>",
    )


def _failures(report: Report) -> str:
    total = report.totals.invocations
    if not total:
        return ""
    wrong = {name: row for name, row in report.exits_by_day.values.items() if name in BAD}
    styles = dict(zip(BAD, ("s4", "s1", "s2", "s5"), strict=True))
    curves = [
        Curve(name=WORDS[name], values=wrong[name], style=styles[name])
        for name in BAD
        if name in wrong
    ]
    plot = _plot("Starts that did not end well, per day", report, curves, stacked=True)
    most = max((one.count.invocations for one in report.exits), default=1)
    exits = [
        _row(
            f"<b>{escape(WORDS.get(one.name, one.name))}</b>",
            _bar(one.count.invocations / most, styles.get(one.name, "s3")),
            f"{percent(one.count.invocations, total)} "
            f"<small>· {_short(one.count.invocations)}</small>",
        )
        for one in report.exits
    ]
    return f"""<section><h2 id="failures">Failures</h2>
<p>How programs end. No end is seen of what is killed, loses its power or runs still.</p>
<div class="pair">{plot}<div class="card"><h3>How programs end</h3>{_rows(exits)}</div></div>
<div class="pair apart">{_failing(report)}{_exceptions(report)}</div></section>"""


def _failing(report: Report) -> str:
    most = max((one.failed for one in report.failing), default=1)
    rows = [
        _row(
            f"<b>{escape(program_name(one))}</b> <small>{escape(one.how)}</small>",
            _bar(one.failed / most, "s4"),
            f"{number(one.failed)} <small>· {percent(one.failed, one.count.invocations)}"
            " of its starts</small>",
        )
        for one in report.failing
    ]
    return f'<div class="card"><h3>Programs that fail most</h3>{_rows(rows, few=8)}</div>'


def _exceptions(report: Report) -> str:
    most = max((one.count.invocations for one in report.exceptions), default=1)
    rows = [
        _row(
            f"<b>{escape(one.name)}</b>",
            _bar(one.count.invocations / most, "s4"),
            f"{number(one.count.invocations)} <small>· "
            f"{plural(one.count.programs, 'program')}</small>",
        )
        for one in report.exceptions
    ]
    return f'<div class="card"><h3>Exceptions that ended programs</h3>{_rows(rows, few=8)}</div>'


def _forbidden(report: Report) -> str:
    title = '<h2 id="forbidden">What a control room does without</h2>'
    if not report.forbidden:
        return f"""<section>{title}
<p class="empty"><span class="badge good">none</span> no such variable was set</p></section>"""
    most = max(one.count.invocations for one in report.forbidden)
    rows = [
        _row(
            f"<b><code>{escape(one.name)}</code></b>",
            f'<div class="mix">{_bar(one.count.invocations / most, "s1")}'
            f'<div class="versions">{_examples(one)}</div></div>',
            f"{number(one.count.invocations)} <small>· {plural(one.count.hosts, 'host')}</small>",
        )
        for one in report.forbidden
    ]
    return f"""<section>{title}
<p>Variables that make a program another one on the next console, and the programs that had them
most often.</p>
<div class="card">{_rows(rows)}</div></section>"""


def _examples(one: Nest) -> str:
    return "".join(
        f"<span>{escape(part.name) or '(no name)'} {number(part.count.invocations)}</span>"
        for part in one.parts[:5]
    )


def _places(report: Report) -> str:
    if not report.totals.invocations:
        return ""
    curves = [
        Curve(name=name or "people", values=report.ci_by_day.values[name], style=style)
        for name, style in zip(sorted(report.ci_by_day.values), CI_COLOURS, strict=False)
    ]
    plot = _plot("People and CI, starts per day", report, curves, stacked=True)
    layers = _counted("Layers", report.layers, "no layer", "s3")
    return f"""<section><h2 id="where">Where</h2>
<p>Started by whom, from which layer, on which hosts.</p>
<div class="pair">{plot}{layers}</div>
<div class="apart">{_hosts(report)}</div></section>"""


def _counted(title: str, rows: Sequence[Named], unnamed: str, style: str) -> str:
    most = max((one.count.invocations for one in rows), default=1)
    shown = [
        _row(
            f"<b>{escape(one.name) or unnamed}</b>",
            _bar(one.count.invocations / most, style),
            f"{_short(one.count.invocations)} <small>· {plural(one.count.hosts, 'host')}</small>",
        )
        for one in rows
    ]
    return f'<div class="card"><h3>{title}</h3>{_rows(shown, few=8)}</div>'


def _hosts(report: Report) -> str:
    styles = _styles(report)
    most = max((one.count.invocations for one in report.hosts), default=1)
    rows = []
    for one in report.hosts:
        parts = "".join(
            f'<i class="{styles.get(part.name, "s5")}" style="flex: {part.count.invocations}"'
            f' title="{escape(part.name)}: {number(part.count.invocations)}"></i>'
            for part in sorted(one.parts, key=lambda part: version_key(part.name), reverse=True)
        )
        width = max(1, 100 * one.count.invocations / most)
        rows.append(
            _row(
                f"<b>{escape(one.name)}</b>",
                f'<div class="bar" style="width: {width:.1f}%">{parts}</div>',
                f"{_short(one.count.invocations)} "
                f"<small>· {plural(one.count.users, 'user')}</small>",
            )
        )
    title = f"{plural(len(report.hosts), 'host')} by interpreter"
    return f'<div class="card"><h3>{title}</h3>{_rows(rows)}</div>'


def _footer(report: Report) -> str:
    return f"""<footer>Users are counted and not named; only a path of an environment may tell
whose it is. <code>longrun-usage report --since {escape(report.since)} --html FILE</code>
</footer>"""


# parts of the page


def _row(what: str, middle: str, values: str) -> str:
    return f'<li><span class="what">{what}</span>{middle}<span class="values">{values}</span></li>'


def _rows(rows: Sequence[str], *, few: int = FEW, style: str = "rows") -> str:
    """Lines of a list; those beyond the first ones show when asked for."""
    if not rows:
        return '<p class="dim">nothing</p>'
    shown = f'<ul class="{style}">{"".join(rows[:few])}</ul>'
    rest = rows[few:MOST]
    if not rest:
        return shown
    beyond = len(rows) - few - len(rest)
    tail = f'<li class="dim">and {number(beyond)} more, in the JSON</li>' if beyond else ""
    return (
        f'{shown}<details class="more"><summary>{number(len(rows) - few)} more</summary>'
        f'<ul class="{style}">{"".join(rest)}{tail}</ul></details>'
    )


def _bar(share: float, style: str) -> str:
    width = max(0.5, 100 * share)
    return f'<div class="bar only"><i class="{style}" style="width: {width:.1f}%"></i></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = head
    heads = f"<th>{first}</th>" + "".join(f'<th class="number">{name}</th>' for name in others)
    lines = "".join(
        f'<tr><td class="long">{row[0]}</td>'
        + "".join(f'<td class="number">{cell}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table class="list"><tr>{heads}</tr>{lines}</table></div>'


def _path(path: str) -> str:
    """A path that may break at its parts."""
    return escape(path).replace("/", "/<wbr>")


def _styles(report: Report) -> dict[str, str]:
    """The colours of the series of interpreters, the newest first."""
    names = sorted(report.adoption.values, key=version_key, reverse=True)
    return {name: f"s{min(at, COLOURS - 1)}" for at, name in enumerate(names)}


def _curves(timeline: Timeline) -> list[Curve]:
    names = sorted(timeline.values, key=version_key, reverse=True)
    return [
        Curve(
            name=name or "unknown",
            values=timeline.values[name],
            style=f"s{min(at, COLOURS - 1)}",
        )
        for at, name in enumerate(names)
    ]


def _plot(title: str, report: Report, curves: Sequence[Curve], *, stacked: bool = False) -> str:
    """A plot over the days: areas upon each other, or lines."""
    if not curves:
        return f'<figure class="card"><figcaption><b>{title}</b></figcaption>nothing</figure>'
    columns = zip(*(curve.values for curve in curves), strict=True)
    top = _round_up(max((sum(column) if stacked else max(column)) for column in columns))
    draw = _areas if stacked else _lines
    legend = "".join(
        f'<span class="{curve.style}"><i></i>{escape(curve.name)}</span>' for curve in curves
    )
    data = {
        "days": [_date(name) for name in report.days],
        "series": [[curve.name, curve.style, list(curve.values)] for curve in curves],
    }
    return f"""<figure class="card"><figcaption><b>{title}</b>
<span class="legend">{legend}</span></figcaption>
<div class="frame" data-plot="{escape(json.dumps(data, separators=(",", ":")))}">
{_rules(top)}
<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"
 aria-label="{escape(_spoken(title, report, curves))}">{draw(curves, top)}</svg>
{_dates(report.days)}
</div></figure>"""


def _areas(curves: Sequence[Curve], top: float) -> str:
    """Areas upon each other, the first at the bottom."""
    below = [0] * len(curves[0].values)
    shapes = []
    for curve in curves:
        above = [one + value for one, value in zip(below, curve.values, strict=True)]
        back = " ".join(f"L{point}" for point in reversed(_points(below, top)))
        path = f"M{' L'.join(_points(above, top))}"
        shapes.append(f'<path class="area {curve.style}" d="{path} {back}Z"/>')
        shapes.append(f'<path class="edge" d="{path}"/>')
        below = above
    return "".join(shapes)


def _lines(curves: Sequence[Curve], top: float) -> str:
    shapes = []
    for curve in reversed(curves):
        points = _points(curve.values, top)
        path = f"M{' L'.join(points)}"
        base = f"L{points[-1].split()[0]} 1000 L{points[0].split()[0]} 1000Z"
        shapes.append(f'<path class="wash {curve.style}" d="{path} {base}"/>')
        shapes.append(f'<path class="curve {curve.style}" d="{path}"/>')
    return "".join(shapes)


def _points(values: Sequence[float], top: float) -> list[str]:
    last = max(1, len(values) - 1)
    if len(values) == 1:
        values = [values[0], values[0]]
    return [
        f"{1000 * at / last:.5g} {1000 - 1000 * value / top:.5g}" for at, value in enumerate(values)
    ]


def _rules(top: float) -> str:
    """Lines across, with what they stand for."""
    return "".join(
        f'<div class="rule" style="bottom: {25 * at}%"><span>{_short(top * at / 4)}</span></div>'
        for at in range(5)
    )


def _dates(days: Sequence[str]) -> str:
    """At most five days below a plot, evenly."""
    last = len(days) - 1
    count = min(4, last)
    places = sorted({round(last * at / count) for at in range(count + 1)}) if count else [0]
    return "".join(
        f'<span class="date{" end" if at == last and at else ""}"'
        f' style="left: {100 * at / max(1, last):.4g}%">'
        f"{_date(days[at], short=True)}</span>"
        for at in places
    )


def _round_up(value: float) -> float:
    """A number at or above a value of which a quarter is round."""
    if value <= 4:
        return 4.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * one for one in STEPS if size * one >= value)


def _spoken(title: str, report: Report, curves: Sequence[Curve]) -> str:
    """A plot in words."""
    ends = "; ".join(
        f"{curve.name} from {curve.values[0]} to {curve.values[-1]}" for curve in curves
    )
    return f"{title}, {report.since} to {report.until}: {ends}"


def _short(value: float) -> str:
    """A number in few characters: ``840``, ``1.2k``, ``30M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            shown = value / size
            return (
                f"{shown:.0f}{unit}"
                if shown >= 99.5 or shown == round(shown)
                else f"{shown:.1f}{unit}"
            )
    return f"{value:.0f}"


def _date(name: str, *, short: bool = False) -> str:
    """A day as a person writes it: ``21 November 2026``, short ``21 Nov``."""
    if not name:
        return "never"
    date = datetime.fromisoformat(name)
    return f"{date.day} {date:%b}" if short else f"{date.day} {date:%B %Y}"
