"""What usage telemetry costs once it is collected: stores, reports, and the agent under load.

    python benchmarks/usage.py events --count 100000 > events.jsonl    # realistic events
    python benchmarks/usage.py stores [--count 200000] [--opensearch]  # ingest, bytes per event
    python benchmarks/usage.py reports [--days 90] [--per-day 30000] [--times 10]
    python benchmarks/usage.py agent [--count 200000]                  # a round over a full spool
    python benchmarks/usage.py page DIRECTORY                          # a store to look at

A laboratory of 500 hosts makes 30 million invocations a day, which are 347 a second on average.
What is measured is a part of it, and says which: the same hosts, programs, packages and days with
fewer invocations. ``--times`` multiplies the events of the store by copies with other ids.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "integration")]

from longrun.usage.event import Event  # noqa: E402
from longrun.usage.report import DAY, Span, make_report  # noqa: E402
from longrun.usage.report_duckdb import ParquetSource  # noqa: E402
from longrun.usage.stores.lines import Lines  # noqa: E402
from longrun.usage.stores.parquet import ParquetStore, Reader, read_manifest  # noqa: E402

AVERAGE = 30e6 / 86400
"""Invocations a second of the whole laboratory."""

HOST = AVERAGE / 500
"""Those of one host: what one agent sees."""

DISTRIBUTIONS = {
    "numpy": ("2.3.4", "2.2.6", "1.26.4"),
    "scipy": ("1.16.2", "1.14.1"),
    "pandas": ("2.3.3", "2.2.3", "1.5.3"),
    "matplotlib": ("3.10.7", "3.9.2"),
    "pyepics": ("3.5.8", "3.5.7", "3.5.2"),
    "pytango": ("10.0.3", "9.5.1"),
    "pyjapc": ("2.7.1", "2.6.0"),
    "jpype1": ("1.6.0", "1.5.0"),
    "pyqt5": ("5.15.11",),
    "pyqtgraph": ("0.13.7", "0.13.3"),
    "requests": ("2.32.5", "2.31.0"),
    "pyyaml": ("6.0.3", "6.0.1"),
    "h5py": ("3.15.1", "3.11.0"),
    "pydantic": ("2.12.3", "1.10.18"),
    "bluesky": ("1.14.4", "1.13.0"),
    "ophyd": ("1.11.0", "1.9.0"),
    "cpymad": ("1.18.1", "1.17.0"),
    "asyncua": ("1.1.8", "1.1.5"),
    "p4p": ("4.2.1", "4.1.12"),
    "pyzmq": ("27.1.0", "26.2.0"),
    "protobuf": ("6.33.0", "4.25.3"),
    "grpcio": ("1.76.0", "1.62.2"),
    "redis": ("7.0.1", "5.0.8"),
    "lxml": ("6.0.2", "5.3.0"),
    "pillow": ("12.0.0", "10.4.0"),
    "typing-extensions": ("4.15.0", "4.12.2"),
    "attrs": ("25.4.0", "24.2.0"),
    "packaging": ("25.0", "24.1"),
    "click": ("8.3.0", "8.1.7"),
    "pytest": ("8.4.2", "7.4.4"),
}
"""Newest first. Real names stand for what a laboratory has; how they are used is made up."""

PLACES = ("orbit", "rf", "vacuum", "injector", "optics", "magnets", "timing", "cryo", "beamloss")
TASKS = ("display", "archiver", "feedback", "scan", "logger", "tuner", "watchdog", "report")
HOWS = ("module", "script", "command", "interactive", "stdin", "child")
EXCEPTIONS = ("KeyError", "TimeoutError", "ConnectionRefusedError", "ValueError", "CAException")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program of the laboratory; ``moves`` is the part of the span after which it is on 3.13."""

    how: str
    name: str | None
    base: str
    prefix: str
    packages: tuple[str, ...]
    moves: float
    fails: float
    seconds: float
    ci: str | None
    hosts: tuple[int, ...]
    forbidden: tuple[str, ...]
    age: float


class Laboratory:
    """Events of so many hosts, always the same ones for a seed."""

    def __init__(self, *, seed: int = 1, hosts: int = 500, programs: int = 800) -> None:
        self.random = random.Random(seed)
        self.hosts = [self._host(number) for number in range(hosts)]
        self.boots = [f"{self.random.getrandbits(32):08x}" for _ in self.hosts]
        self.users = [f"user{number:03}" for number in range(520)]
        self.programs = [self._program(number) for number in range(programs)]
        self.weights = list(accumulate(1 / (rank + 1) ** 1.1 for rank in range(programs)))
        self.number = 0

    def _host(self, number: int) -> str:
        kind = ("console", "server", "server", "server", "desk", "desk", "runner")[number % 7]
        return f"{kind}{number:03}"

    def _program(self, number: int) -> Program:
        pick = self.random
        ci = pick.choices((None, "gitlab", "jenkins"), (88, 11, 1))[0]
        how = pick.choices(HOWS, (50, 25, 12, 4, 2, 7))[0]
        named = how in ("module", "script", "command", "child")
        word = f"{pick.choice(PLACES)}{'.' if how == 'module' else '-'}{pick.choice(TASKS)}"
        suffix = ".py" if how == "script" else ""
        kind = "runner" if ci else pick.choice(("console", "server", "desk"))
        those = [at for at, host in enumerate(self.hosts) if host.startswith(kind)]
        if not named:
            how = pick.choice(("interactive", "stdin"))
        places = sorted(pick.sample(those, min(len(those), 1 + int(pick.expovariate(1 / 14)))))
        layer = pick.choices(("base", "controls", "gui", "analysis"), (20, 45, 25, 10))[0]
        venv = pick.random() < 0.55
        home = f"/home/{pick.choice(self.users)}/venvs" if not ci else "/builds"
        many = min(len(DISTRIBUTIONS), 1 + int(pick.expovariate(1 / 6)))
        return Program(
            how=how,
            name=f"{word}{number % 50 or ''}{suffix}" if named else None,
            base=layer,
            prefix=f"{home}/{word.replace('.', '-')}" if venv else "",
            packages=tuple(sorted(pick.sample(list(DISTRIBUTIONS), many))),
            moves=pick.betavariate(1.6, 1.3) if pick.random() < 0.9 else 2.0,
            fails=pick.choice((0.0, 0.001, 0.001, 0.004, 0.02, 0.2)),
            seconds=pick.lognormvariate(1.2, 1.8),
            ci=ci,
            hosts=tuple(places),
            forbidden=tuple(
                name
                for name, share in (("PYTHONPATH", 0.05), ("LD_LIBRARY_PATH", 0.03))
                if pick.random() < share
            ),
            age=pick.random(),
        )

    def events(self, count: int, begin: float, days: int) -> Iterator[Event]:
        """So many events of a span, day by day; fewer at night and on Sundays."""
        week = [1.0 if (begin // DAY + day + 3) % 7 < 5 else 0.45 for day in range(days)]
        shares = [share * self.random.uniform(0.9, 1.1) for share in week]
        done = 0.0
        for day, share in enumerate(shares):
            todo = round(done + count * share / sum(shares)) - round(done)
            done += count * share / sum(shares)
            yield from self._day(begin + day * DAY, (day + 0.5) / days, todo)

    def _day(self, midnight: float, progress: float, count: int) -> Iterator[Event]:
        pick = self.random
        starts = sorted(min(86399.9, max(0, pick.gauss(45000, 16000))) for _ in range(count))
        for start in starts:
            total = self.weights[-1]
            program = self.programs[bisect(self.weights, pick.random() * total)]
            yield self._event(program, midnight + round(start, 6), progress)

    def _event(self, program: Program, start: float, progress: float) -> Event:
        pick = self.random
        self.number += 1
        host = program.hosts[int(len(program.hosts) * pick.random() ** 2)]
        new = progress > program.moves
        python = "3.13.5" if new else "3.11.2"
        base = f"/opt/longrun/{'cp313' if new else 'cp311'}-{program.base}"
        exit_ = self._exit(program)
        seconds = round(program.seconds * pick.uniform(0.5, 2), 6)
        user = self.users[(host * 7 + len(program.packages)) % len(self.users)]
        return Event(
            id=f"{self.hosts[host]}-{self.boots[host]}-{pick.randrange(300, 400000)}"
            f"-{int(start * 1e9):x}",
            host=self.hosts[host],
            boot=self.boots[host],
            uid=1000 + host,
            user=user,
            start=start,
            end=None if exit_ == "none" else start + seconds,
            seconds=None if exit_ == "none" else seconds,
            python=python,
            release="2026.1",
            layer=program.base,
            prefix=f"{program.prefix}-{python[:4]}" if program.prefix else base,
            base=base,
            how=program.how,
            name=program.name,
            ci=program.ci,
            forbidden=program.forbidden if pick.random() < 0.4 else (),
            flags="I" if program.how == "command" else "",
            exit=exit_,
            code={"ok": 0, "status": 2, "exception": 1}.get(exit_),
            exc=pick.choice(EXCEPTIONS) if exit_ == "exception" else None,
            packages=_packages(program, new, progress),
            venv=bool(program.prefix),
        )

    def _exit(self, program: Program) -> str:
        at = self.random.random()
        if at < program.fails:
            return "exception" if at < program.fails * 0.7 else "status"
        return "none" if at > 0.992 else "ok"


def _packages(program: Program, new: bool, progress: float) -> dict[str, str]:
    """Distributions of a program's environment; later ones where it moved late."""
    found = {}
    for name in program.packages:
        versions = DISTRIBUTIONS[name]
        latest = 0 if new and program.age < progress else 1
        found[name] = versions[min(latest + (program.age > 0.9), len(versions) - 1)]
    return found


def spent() -> float:
    """Seconds of processor that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def batches(events: Sequence[Event], size: int) -> Iterator[Sequence[Event]]:
    """Events in groups, as an agent puts them."""
    for at in range(0, len(events), size):
        yield events[at : at + size]


def measure(name: str, store: Any, events: Sequence[Event], size: int) -> dict[str, Any]:
    """Events a second into a store, of wall time and of this process' processor time."""
    before, wall = spent(), time.perf_counter()
    for batch in batches(events, size):
        store.put(batch)
    wall, cpu = time.perf_counter() - wall, spent() - before
    rate, on_core = len(events) / wall, len(events) / cpu
    print(
        f"{name:<22} {size:>6} a batch  {rate:>8,.0f}/s  {on_core:>8,.0f} per second of one core"
        f"  ({on_core / AVERAGE:,.0f} times the laboratory's average)"
    )
    return {"store": name, "batch": size, "per_second": rate, "per_core_second": on_core}


def stores(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ingest into each store and the bytes that an event takes there."""
    events = list(Laboratory().events(arguments.count, _begin(1), 1))
    text = sum(len(event.to_json().encode()) + 1 for event in events) / len(events)
    print(f"{len(events)} events of one day, {text:.0f} B each as JSON")
    found = []
    place = Path(tempfile.mkdtemp(prefix="longrun-usage."))
    try:
        for size in (1000, 10000):
            lines = Lines(directory=place / f"lines-{size}")
            found.append(measure("lines", lines, events, size))
            parquet = ParquetStore(place / f"parquet-{size}")
            found.append(measure("Parquet", parquet, events, size))
            found.append(measure("Parquet, all again", parquet, events, size))
            print(f"{'':<22} {_size(place / f'parquet-{size}') / len(events):.1f} B an event")
            parquet.compact()
            bytes_each = _size(place / f"parquet-{size}") / len(events)
            print(f"{'':<22} {bytes_each:.1f} B an event, compacted")
            found[-2]["bytes"] = bytes_each
        if arguments.opensearch:
            found += _into_opensearch(place, events)
    finally:
        shutil.rmtree(place)
    return found


def _into_opensearch(place: Path, events: Sequence[Event]) -> list[dict[str, Any]]:
    """The client's and the node's share: both run on this machine's cores."""
    from opensearch_node import run_node

    from longrun.usage.stores.opensearch import OpenSearchStore, setup

    with run_node(place / "node", jvm=("-Xmx2g",)) as node:
        found = []
        for size in (1000, 10000):
            node.clear()
            search = node.search()
            setup(search, "longrun-usage", days=400, replicas=0)
            store = OpenSearchStore(search, host="x", rejected=place / "rejected")
            found.append(measure("OpenSearch", store, events, size))
            assert node.count() == len(events)
            # what was merged is removed only then
            search.call("POST", "/longrun-usage-*/_forcemerge?max_num_segments=1", timeout=600)
            search.call("POST", "/longrun-usage-*/_flush?force=true", timeout=600)
            search.call("POST", "/longrun-usage-*/_refresh")
            stats = search.call("GET", "/longrun-usage-*/_stats/store").json()
            bytes_each = stats["_all"]["total"]["store"]["size_in_bytes"] / len(events)
            print(f"{'':<22} {bytes_each:.1f} B an event, merged")
            found[-1]["bytes"] = bytes_each
        return found


def agent(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What the agent does with a spool of so many invocations: rate, processor time, memory."""
    place = Path(tempfile.mkdtemp(prefix="longrun-usage."))
    found = []
    try:
        for store in ("parquet", "lines"):
            home = place / store
            count = _spool(home / "spool", arguments.count)
            (home / "usage.toml").write_text(
                f'spool = "{home}/spool"\nstate = "{home}/state"\nstore = "{store}"\n'
                f'[lines]\ndirectory = "{home}/lines"\n'
            )
            found.append(_run_agent(store, home, count))
    finally:
        shutil.rmtree(place)
    return found


def _spool(spool: Path, count: int) -> int:
    """Start and end records of so many invocations of the last hours, as the hook writes them."""
    spool.mkdir(parents=True)
    spool.chmod(0o1733)
    now = time.time()
    lines = []
    for number, event in enumerate(Laboratory().events(count, _begin(1), 1)):
        t = now - 7200 + 7000 * number / count
        name = f"{300 + number % 30000}-{int(t * 1e9):x}"
        start = {"v": 1, "k": "start", "id": name, "t": t, "pid": 300, "ppid": 1}
        start |= {"py": event.python, "release": event.release, "layer": event.layer}
        start |= {"prefix": event.prefix, "base": event.base, "how": event.how, "ci": event.ci}
        start |= {"name": event.name, "forbidden": list(event.forbidden), "flags": ""}
        end = {"v": 1, "k": "end", "id": name, "t": t + 1, "s": 1.0, "exit": "ok", "code": 0}
        end |= {"exc": None, "use": {"/opt/site-packages": list(event.packages)}, "more": 0}
        lines += [json.dumps(one, separators=(",", ":")) + "\n" for one in (start, end)]
    file = spool / f"{os.getuid()}.jsonl"
    file.write_text("".join(lines))
    file.chmod(0o600)
    size = sum(map(len, lines)) / count
    print(f"{count} invocations, {size:.0f} B of records each")
    return count


def _run_agent(store: str, home: Path, count: int) -> dict[str, Any]:
    """One round of the agent in a process of its own, that of the spool's owner."""
    argv = [sys.executable, "-m", "longrun.usage", "agent", "--once"]
    argv += ["--config", str(home / "usage.toml")]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    wall = time.perf_counter()
    program = os.posix_spawn(sys.executable, argv, env)
    _, status, usage = os.wait4(program, 0)
    wall = time.perf_counter() - wall
    assert status == 0, "the agent failed"
    cpu = usage.ru_utime + usage.ru_stime
    rate = count / cpu
    print(
        f"{store:<10} {count / wall:>8,.0f}/s  {rate:>8,.0f} per second of one core"
        f" ({rate / AVERAGE:.0f} times the laboratory's average, {rate / HOST:,.0f} times a"
        f" host's), {usage.ru_maxrss / 1000:.0f} MB at its highest"
    )
    return {"store": store, "per_core_second": rate, "megabytes": usage.ru_maxrss / 1000}


def reports(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """How long each question of a report takes over a store of so many days."""
    place = Path(tempfile.mkdtemp(prefix="longrun-usage.", dir=arguments.place))
    try:
        fill(place / "data", arguments.days, arguments.per_day)
        found = _ask(place / "data", arguments)
        if arguments.times > 1:
            multiply(place / "data", arguments.times)
            found += _ask(place / "data", arguments)
        return found
    finally:
        shutil.rmtree(place)


def fill(directory: Path, days: int, per_day: int) -> None:
    """A store of so many days that ends today."""
    store = ParquetStore(directory, memory=1000, threads=2)
    events = Laboratory().events(days * per_day, _begin(days), days)
    while batch := list(islice(events, 50_000)):
        store.put(batch)
    store.compact()
    store.close()


def multiply(directory: Path, times: int) -> None:
    """Write each file anew with copies of its events that have ids and seconds of their own."""
    import duckdb

    for path in sorted(directory.glob("day=*/*.parquet")):
        staged = path.with_suffix(".staged")
        duckdb.execute(
            "COPY (SELECT * REPLACE (id || '-' || n AS id, start + n / 1000.0 AS start)"  # noqa: S608
            f" FROM read_parquet('{path}'), range({times}) r(n) ORDER BY start)"
            f" TO '{staged}' (FORMAT parquet, COMPRESSION zstd)"
        )
        staged.rename(path)


def _ask(directory: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    until = math.ceil(now.timestamp() / DAY) * DAY
    span = Span(since=until - arguments.days * DAY, until=until)
    with Reader(directory, span.since, span.until) as reader:
        ((count,),) = reader.rows("SELECT count(*) FROM events")
    size = _size(directory)
    part = 30e6 * arguments.days / count
    print(f"{count} events of {arguments.days} days (1/{part:,.0f} of a laboratory's),", end=" ")
    print(f"{size / 1e6:.1f} MB, {size / count:.1f} B an event, {_files(directory)} files")
    found: list[dict[str, Any]] = []
    with ParquetSource(directory, span) as source:
        timed = Timed(source, found)
        begin = time.perf_counter()
        report = make_report(timed, span, retire="3.11", now=now)
        total = time.perf_counter() - begin
    print(f"{'all of the report':<40} {total:7.2f} s")
    begin = time.perf_counter()
    text = json.dumps(report.document())
    print(
        f"{'as JSON, ' + str(len(text)) + ' characters':<40} {time.perf_counter() - begin:7.2f} s"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{'memory at its highest':<40} {memory:7.0f} MB")
    return [*found, {"question": "all", "seconds": total, "events": count}]


class Timed:
    """A source that tells how long each of its answers took."""

    def __init__(self, source: ParquetSource, found: list[dict[str, Any]]) -> None:
        self.source = source
        self.title = source.title
        self.found = found

    def group(self, by: Sequence[str], where: Any = None, **options: Any) -> Any:
        begin = time.perf_counter()
        groups = self.source.group(by, where, **options)
        seconds = time.perf_counter() - begin
        question = f"{' x '.join(by) or 'total'}{' of ' + str(where) if where else ''}"
        self.found.append({"question": question, "seconds": seconds, "groups": len(groups)})
        print(f"{question[:46]:<46} {seconds:7.2f} s  {len(groups):>7} groups")
        return groups


def page(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A store to make reports from."""
    fill(arguments.directory, arguments.days, arguments.per_day)
    return []


def events(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Events as lines."""
    for event in Laboratory(seed=arguments.seed).events(arguments.count, _begin(1), 1):
        print(event.to_json())
    return []


def _begin(days: int) -> float:
    return (math.ceil(time.time() / DAY) - days) * DAY


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*.parquet"))


def _files(directory: Path) -> int:
    return len(read_manifest(directory).files())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    verbs = parser.add_subparsers(required=True)
    for function in (events, stores, agent, reports, page):
        sub = verbs.add_parser(function.__name__, help=(function.__doc__ or "").partition("\n")[0])
        sub.set_defaults(function=function)
        sub.add_argument("--count", type=int, default=200_000)
        sub.add_argument("--days", type=int, default=90)
        sub.add_argument("--per-day", type=int, default=30_000)
        sub.add_argument("--times", type=int, default=1)
        sub.add_argument("--seed", type=int, default=1)
        sub.add_argument("--opensearch", action="store_true")
        sub.add_argument("--place", type=Path, help="directory for what is written")
        if function is page:
            sub.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    found = arguments.function(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
