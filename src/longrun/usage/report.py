"""What usage says, counted: the questions that a report asks of any store, and its answers.

All of it comes from counts of groups, which DuckDB and OpenSearch give alike. Users are counted and
not named; only a path of an environment may tell whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from longrun.errors import UsageError

SCHEMA = 1
"""The version of the JSON."""

DAY = 86400

VIEWS = ("interpreter", "package", "host", "layer", "ci")
"""What ``--by`` knows."""

RECENT = 14
"""Days before the end of the span within which a thing is still in use."""

BAD = ("exception", "status", "signal", "none")
"""Kinds of exit that a maintainer looks at; ``none``: killed, or running still."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """How often, on how many hosts, by how many users, which programs; when last (Unix s)."""

    invocations: int
    hosts: int = 0
    users: int = 0
    programs: int = 0
    last: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Group:
    """The count of all events that have the same values."""

    keys: tuple[Any, ...]
    count: Count


class Source(Protocol):
    """A store that can be asked.

    Fields are those of an event, and ``day`` (as 2026-11-21), ``series`` (3.13 of 3.13.5),
    ``package`` (``(name, version)``) and ``package_name``. An event with several packages or
    forbidden things is in several groups.
    """

    title: str

    def group(
        self,
        by: Sequence[str],
        where: Mapping[str, object] | None = None,
        *,
        distinct: Sequence[str] = ("hosts", "users", "programs"),
    ) -> list[Group]:
        """Counts by values of fields, of events whose fields are as ``where`` says.

        A list there means one of these. ``distinct`` are the counts that are wanted: each costs.
        """


@dataclass(frozen=True, kw_only=True)
class Named:
    """Something and its count."""

    name: str
    count: Count


@dataclass(frozen=True, kw_only=True)
class Nest:
    """Something, its count, and what it is made of, the most used first."""

    name: str
    count: Count
    parts: tuple[Named, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program: how it is started and its name. ``failed``: starts that ended with an error."""

    how: str
    name: str
    count: Count
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A prefix: who runs it itself, and each environment that stands upon it.

    While there is either, it must not go.
    """

    base: str
    count: Count
    own: Count
    environments: tuple[Named, ...]


T = TypeVar("T", Named, Program, Prefix)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Values of each day, by name."""

    values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report says of a span of days; lists have the most used first."""

    source: str
    generated: str
    since: str
    until: str
    retire: str
    days: tuple[str, ...]
    totals: Count
    interpreters: tuple[Nest, ...]
    adoption: Timeline
    adoption_hosts: Timeline
    packages: tuple[Nest, ...]
    retiring: tuple[Program, ...]
    retiring_hosts: tuple[Named, ...]
    prefixes: tuple[Prefix, ...]
    forbidden: tuple[Nest, ...]
    exits: tuple[Named, ...]
    exits_by_day: Timeline
    exceptions: tuple[Named, ...]
    failing: tuple[Program, ...]
    layers: tuple[Named, ...]
    ci: tuple[Named, ...]
    ci_by_day: Timeline
    hosts: tuple[Nest, ...]

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @property
    def recent(self) -> float:
        """From when on (Unix seconds) what was seen is still in use."""
        end = datetime.fromisoformat(self.until).replace(tzinfo=UTC).timestamp() + DAY
        return end - RECENT * DAY

    def still(self, things: Sequence[T]) -> tuple[T, ...]:
        """Those that were seen in the last days of the span."""
        return tuple(one for one in things if one.count.last >= self.recent)

    def share(self, series: str) -> float:
        """The part of the starts of the last days that a series of interpreters makes."""
        lately = {name: sum(row[-RECENT:]) for name, row in self.adoption.values.items()}
        return lately.get(series, 0) / max(1, sum(lately.values()))

    def rows(self, view: str) -> tuple[Named | Nest, ...]:
        """What ``--by`` shows."""
        found: dict[str, tuple[Named | Nest, ...]] = {
            "interpreter": self.interpreters,
            "package": self.packages,
            "host": self.hosts,
            "layer": self.layers,
            "ci": self.ci,
        }
        return found[view]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Whole days, from Unix seconds to Unix seconds."""

    since: float
    until: float

    @property
    def days(self) -> tuple[str, ...]:
        """Each day of it, as 2026-11-21."""
        return tuple(day_name(moment) for moment in range(int(self.since), int(self.until), DAY))


def day_name(moment: float) -> str:
    """The day (UTC) of a time in Unix seconds."""
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def span_of(since: str, now: datetime) -> Span:
    """The span of ``90d``, ``12w`` or ``2026-09-01`` until the end of today (UTC)."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    until = midnight + timedelta(days=1)
    begin = _begin(since, until)
    if begin is None or not timedelta(0) < until - begin <= timedelta(days=3660):
        raise UsageError(
            f"--since {since}: no span of days", remedy="such as 90d, 12w or 2026-09-01"
        )
    return Span(since=begin.timestamp(), until=until.timestamp())


def _begin(since: str, until: datetime) -> datetime | None:
    units = {"d": 1, "w": 7}
    number, unit = since[:-1], since[-1:]
    if unit in units and number.isascii() and number.isdigit() and len(number) < 5:
        return until - timedelta(days=int(number) * units[unit])
    try:
        return datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def make_report(source: Source, span: Span, *, retire: str, now: datetime) -> Report:
    """Ask a store all that a report tells; ``retire`` is the series that is to go, or empty."""
    interpreters = _nests(source, "series", "python")
    retire = retire or oldest(interpreters)
    gone = {"series": retire}
    exits = source.group(["day", "exit"], distinct=())
    by_ci = source.group(["day", "ci"], distinct=())
    return Report(
        source=source.title,
        generated=now.astimezone(UTC).isoformat(timespec="seconds"),
        since=day_name(span.since),
        until=day_name(span.until - 1),
        retire=retire,
        days=span.days,
        totals=_total(source.group([])),
        interpreters=interpreters,
        adoption=_timeline(span, source.group(["day", "series"], distinct=()), _invocations),
        adoption_hosts=_timeline(
            span, source.group(["day", "series"], distinct=["hosts"]), lambda count: count.hosts
        ),
        packages=_packages(source),
        retiring=_programs(source.group(["how", "name"], gone, distinct=["hosts", "users"])),
        retiring_hosts=_named(source.group(["host"], gone, distinct=["users", "programs"])),
        prefixes=_prefixes(source),
        forbidden=_nests(source, "forbidden", "name", empty=False),
        exits=_named(_summed(exits, 1)),
        exits_by_day=_timeline(span, exits, _invocations),
        exceptions=_named(source.group(["exc"], {"exit": ["exception"]}), empty=False),
        failing=_failing(source),
        layers=_named(source.group(["layer"])),
        ci=_named(source.group(["ci"])),
        ci_by_day=_timeline(span, by_ci, _invocations),
        hosts=_nests(source, "host", "series"),
    )


def make_view(source: Source, view: str) -> tuple[Named | Nest, ...]:
    """What ``--by`` shows, without asking for the rest."""
    views: dict[str, Callable[[], tuple[Named | Nest, ...]]] = {
        "interpreter": lambda: _nests(source, "series", "python"),
        "package": lambda: _packages(source),
        "host": lambda: _nests(source, "host", "series"),
        "layer": lambda: _named(source.group(["layer"])),
        "ci": lambda: _named(source.group(["ci"])),
    }
    return views[view]()


def newest(report: Report) -> str:
    """The newest series that is used."""
    names = [one.name for one in report.interpreters if one.name]
    return max(names, key=version_key, default="")


def oldest(interpreters: Iterable[Nest]) -> str:
    """The oldest series of several: the next that is to be retired; empty where there is one."""
    names = sorted((one.name for one in interpreters if one.name), key=version_key)
    return names[0] if len(names) > 1 else ""


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """What sorts versions: numbers as numbers, words before them."""
    parts = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((int(part) if part.isdigit() else -1, part) for part in parts)


def _total(groups: Sequence[Group]) -> Count:
    return groups[0].count if groups else Count(invocations=0)


def _invocations(count: Count) -> int:
    return count.invocations


def _most(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda one: (-one.count.invocations, str(one.keys)))


def _named(groups: Iterable[Group], *, empty: bool = True) -> tuple[Named, ...]:
    return tuple(
        Named(name=str(one.keys[0] or ""), count=one.count)
        for one in _most(groups)
        if one.keys[0] or empty
    )


def _nests(source: Source, outer: str, inner: str, *, empty: bool = True) -> tuple[Nest, ...]:
    """Counts by one field, and within by another."""
    parts: dict[str, list[Named]] = {}
    for one in _most(source.group([outer, inner], distinct=["hosts", "users"])):
        named = Named(name=str(one.keys[1] or ""), count=one.count)
        parts.setdefault(str(one.keys[0] or ""), []).append(named)
    return tuple(
        Nest(name=one.name, count=one.count, parts=tuple(parts.get(one.name, ())))
        for one in _named(source.group([outer]), empty=empty)
    )


def _packages(source: Source) -> tuple[Nest, ...]:
    """Distributions and their versions, those on most hosts first: a loop counts no more."""
    versions: dict[str, list[Named]] = {}
    for one in source.group(["package"], distinct=["hosts", "users"]):
        name, version = one.keys[0]
        versions.setdefault(name, []).append(Named(name=version, count=one.count))
    nests = [
        Nest(name=one.name, count=one.count, parts=_newest_first(versions.get(one.name, [])))
        for one in _named(source.group(["package_name"]), empty=False)
    ]
    return tuple(sorted(nests, key=lambda one: (-one.count.hosts, -one.count.invocations)))


def _newest_first(versions: Iterable[Named]) -> tuple[Named, ...]:
    return tuple(sorted(versions, key=lambda one: version_key(one.name), reverse=True))


def _programs(groups: Iterable[Group]) -> tuple[Program, ...]:
    return tuple(
        Program(how=str(one.keys[0] or ""), name=str(one.keys[1] or ""), count=one.count)
        for one in _most(groups)
    )


def _failing(source: Source) -> tuple[Program, ...]:
    """Programs that ended with an error, those that did so most often first."""
    wrong = source.group(["how", "name"], {"exit": list(BAD[:3])}, distinct=["hosts", "users"])
    all_of = {one.keys: one.count for one in source.group(["how", "name"], distinct=["hosts"])}
    return tuple(
        Program(
            how=str(one.keys[0] or ""),
            name=str(one.keys[1] or ""),
            count=all_of.get(one.keys, one.count),
            failed=one.count.invocations,
        )
        for one in _most(wrong)
    )


def _prefixes(source: Source) -> tuple[Prefix, ...]:
    """The census: the environments of each prefix, and who runs the prefix itself."""
    environments: dict[str, list[Named]] = {}
    wanted = ["hosts", "users"]
    for one in _most(source.group(["base", "prefix"], {"venv": True}, distinct=wanted)):
        named = Named(name=str(one.keys[1] or ""), count=one.count)
        environments.setdefault(str(one.keys[0] or ""), []).append(named)
    own = {
        str(one.keys[0] or ""): one.count
        for one in source.group(["base"], {"venv": False}, distinct=wanted)
    }
    nobody = Count(invocations=0)
    return tuple(
        Prefix(
            base=one.name,
            count=one.count,
            own=own.get(one.name, nobody),
            environments=tuple(environments.get(one.name, ())),
        )
        for one in _named(source.group(["base"]), empty=False)
    )


def _summed(groups: Iterable[Group], at: int) -> list[Group]:
    """Invocations by one of several keys."""
    found: dict[Any, int] = {}
    for one in groups:
        found[one.keys[at]] = found.get(one.keys[at], 0) + one.count.invocations
    return [Group(keys=(key,), count=Count(invocations=value)) for key, value in found.items()]


def _timeline(span: Span, groups: Iterable[Group], value: Callable[[Count], int]) -> Timeline:
    """Values of each day of the span, by the second key."""
    places = {day: at for at, day in enumerate(span.days)}
    found: dict[str, list[int]] = {}
    for one in groups:
        day, name = one.keys
        if day in places:
            row = found.setdefault(str(name or ""), [0] * len(places))
            row[places[day]] += value(one.count)
    return Timeline(values={name: tuple(row) for name, row in sorted(found.items())})
