"""Matrices to test reports with: a small one with each state, and one of a real one's size."""

from __future__ import annotations

import hashlib
import random
from types import SimpleNamespace

from longrun.matrix.report import (
    FAILED,
    FIXED,
    FLAKY,
    GAP,
    PASSED,
    Attempt,
    CellResult,
    Change,
    Column,
    ImportTime,
    Matrix,
    Need,
    Row,
    StartTime,
)
from longrun.model import Cell, Check, Floor, System
from longrun.plan import Step

PYTHONS = {"cp313": "3.13.9", "cp311": "3.11.14"}
SYSTEMS = {
    "host": ("This machine", "2.36"),
    "bullseye": ("Debian 11", "2.31"),
    "bookworm": ("Debian 12", "2.36"),
    "trixie": ("Debian 13", "2.41"),
}
CHECKS = (
    ("EPICS", "pyepics", "Channel Access from pyepics: put, monitor, alarms, reconnect", "pyepics"),
    ("EPICS", "caproto", "caproto's clients and repeater against its own IOC", "caproto"),
    ("EPICS", "p4p", "PV Access: put, monitor, RPC, a server that restarts", "p4p"),
    ("EPICS", "softioc", "An IOC in Python, read by aioca and by QSRV", "softioc aioca"),
    ("EPICS", "bluesky", "A scan over ophyd devices, its documents checked", "bluesky ophyd"),
    ("EPICS", "ophyd-async", "Asynchronous devices against an IOC", "ophyd-async"),
    ("EPICS", "pyepics-aioca", "Two libca in one process: monitors stay alive", "pyepics aioca"),
    ("Tango", "pytango", "A device server and its client without database", "pytango"),
    ("Tango", "pytango-db", "A database on SQLite; memorized values after a restart", "pytango"),
    ("Tango", "pytango-both", "Client and server in one process", "pytango"),
    ("Tango", "pytango-late", "Events first, a server later; ends in order", "pytango"),
    ("Tango", "itango", "The shell starts, completes a device, ends", "itango"),
    ("Tango", "taurus", "Models and widgets against a device", "taurus pytango"),
    ("Tango", "sardana", "A macro server moves a dummy motor", "sardana taurus"),
    ("Java", "jpype", "Compiled Java called; called back from a Java thread", "jpype1"),
    ("Java", "py4j", "A Java program behind a socket, killed and started again", "py4j"),
    ("Java", "jpype-pyside6", "A JVM and Qt in one process, either order", "jpype1 pyside6"),
    ("Qt", "pyqt5", "A panel offscreen: keys, clicks, threads, Ctrl-C", "pyqt5"),
    ("Qt", "pyqt6", "A panel offscreen: keys, clicks, threads, Ctrl-C", "pyqt6"),
    ("Qt", "pyside6", "A panel offscreen: keys, clicks, threads, Ctrl-C", "pyside6"),
    ("Qt", "pyqtgraph", "A curve's pixels, live data from a thread", "pyqtgraph"),
    ("Qt", "pydm", "A label and a spin box on Channel Access", "pydm pyqt5"),
    ("Qt", "pydm-pyside6", "The same on PySide6; its end counts", "pydm pyside6"),
    ("Industrial", "asyncua", "OPC UA: subscriptions, methods, refusals, restart", "asyncua"),
    ("Industrial", "pymodbus", "Registers, coils, refusals, a server lost and found", "pymodbus"),
    ("Industrial", "snap7", "A PLC's data block over S7", "python-snap7"),
    ("Instruments", "pyvisa", "Simulated instruments and one behind a socket", "pyvisa pyvisa-py"),
    ("Instruments", "pyserial", "A pseudo-terminal, a socket, RFC 2217", "pyserial"),
    ("Messages", "redis", "Values, streams, subscriptions, restart", "redis"),
    ("Messages", "mqtt", "QoS, retained values, last will, TLS", "paho-mqtt"),
    ("Messages", "zmq", "Request and reply, a server that restarts", "pyzmq"),
    ("Messages", "grpc", "Calls, streams, deadlines, a server that restarts", "grpcio"),
    ("Messages", "asyncio-services", "A status service, cancelled cleanly", "uvloop websockets"),
    ("Messages", "bec-lib", "Messages through the connector", "bec-lib redis"),
    ("Messages", "zmq-two", "pyzmq and PyTango, each with its libzmq", "pyzmq pytango"),
    ("Numbers", "numerics", "Known results, BLAS threads, FFT, fits, a picture", "numpy scipy"),
    ("Numbers", "hdf5", "SWMR between two processes, a writer killed", "h5py"),
    ("Numbers", "uproot", "A ROOT file written and read, damage", "uproot awkward"),
    ("Numbers", "pandas", "Time zones, resampling, parquet", "pandas pyarrow"),
    ("Numbers", "numerics-hdf5", "OpenMP and HDF5 together after a fork", "numpy h5py"),
    ("Physics", "cpymad", "A FODO cell against the formula", "cpymad"),
    ("Physics", "xtrack", "A FODO cell against the formula and MAD-X", "xtrack"),
    ("Services", "psycopg", "A server of the system: copy, notify, reconnect", "psycopg"),
    ("Services", "requests", "TLS, proxies, retries, a slow server", "requests urllib3"),
    ("Services", "lxml", "Schemas, large files, namespaces", "lxml"),
)

TRACE = """Traceback (most recent call last):
  File "/checks/check_{name}.py", line 118, in <module>
    main()
  File "/checks/check_{name}.py", line 97, in main
    scene.wait_for("value after the server's restart", lambda: seen[-1] == 7.5)
  File "/checks/scene.py", line 48, in wait_for
    raise AssertionError(f"{{what}}: not within {{seconds:g}} s")
AssertionError: value after the server's restart: not within 20 s
"""


def column(tag: str = "cp313", system: str = "bookworm") -> Column:
    title, glibc = SYSTEMS[system]
    return Column(tag=tag, python=PYTHONS[tag], system=system, title=title, glibc=glibc)


def row(name: str = "pyepics", **other: object) -> Row:
    group, _, title, _ = next(check for check in CHECKS if check[1] == name)
    fields = {"name": name, "title": title, "group": group, "layer": "controls", "pair": False}
    return Row(**{**fields, **other})


def attempt(status: int = 0, **other: object) -> Attempt:
    fields = {"timed_out": False, "seconds": 2.5, "cpu": 1.0, "memory": 90_000_000, "orphans": ()}
    return Attempt(status=status, **{**fields, **other})


def cell(check: str = "pyepics", state: str = PASSED, **other: object) -> CellResult:
    attempts = {
        PASSED: (attempt(),),
        FIXED: (attempt(),),
        FLAKY: (attempt(1), attempt()),
        GAP: (attempt(-6),),
        FAILED: (attempt(1), attempt(-11, seconds=7.25)),
    }
    fields = {
        "tag": "cp313",
        "system": "bookworm",
        "attempts": attempts[state],
        "isolation": "namespaces",
        "versions": {"pyepics": "3.5.8"},
        "why": "",
        "link": "",
        "since": "",
        "log": "ok  server up\nok  all held\n",
        "cached": False,
        "key": hashlib.sha256(check.encode()).hexdigest(),
    }
    return CellResult(check=check, state=state, **{**fields, **other})


def matrix(*cells: CellResult, **other: object) -> Matrix:
    """A matrix of some cells, with the columns and rows that they are in."""
    places = dict.fromkeys((one.tag, one.system) for one in cells)
    fields = {
        "release": "2026.1",
        "date": "2026-11-21T12:00:00+00:00",
        "host": "Debian 12 (glibc 2.36), 2 processors",
        "columns": tuple(column(*place) for place in places),
        "rows": tuple(row(name) for name in dict.fromkeys(one.check for one in cells)),
        "cells": cells,
        "needs": (),
        "imports": (),
        "starts": (),
        "seconds": 61.0,
        "before": "",
        "changes": (),
    }
    return Matrix(**{**fields, **other})


def each_state() -> Matrix:
    """One cell of each state."""
    return matrix(
        cell("pyepics"),
        cell("caproto", FLAKY, why="passed when run again"),
        cell(
            "pytango-late",
            GAP,
            why="aborts at its end",
            link="https://gitlab.com/tango-controls/pytango/-/issues/1",
            since="10.1.0, 2026-11-20",
        ),
        cell("jpype", FIXED, why="the spec says that it fails since 1.5.0"),
        cell("pydm", FAILED, why="killed by SIGSEGV", log="a </script><b>log</b> & more\n"),
    )


def large(seed: int = 7) -> Matrix:
    """A matrix as large as a real one: 45 checks in eight columns, with their figures."""
    chance = random.Random(seed)
    columns = tuple(column(tag, system) for system in SYSTEMS for tag in PYTHONS)
    rows = tuple(
        Row(
            name=name,
            title=title,
            group=group,
            layer={"Qt": "gui", "Physics": "analysis"}.get(group, "controls"),
            pair="one process" in title or "together" in title or "Two" in title,
        )
        for group, name, title, _ in CHECKS
    )
    cells = tuple(
        _large_cell(chance, check, where)
        for check in CHECKS
        for where in columns
        if not (check[1] == "sardana" and where.tag == "cp313")
    )
    return Matrix(
        release="2026.1",
        date="2026-11-21T12:00:00+00:00",
        host="Debian 12 (glibc 2.36), 2 processors, 8 GB",
        columns=columns,
        rows=rows,
        cells=cells,
        needs=_needs(chance),
        imports=_imports(chance),
        starts=(
            StartTime(tag="cp313", warm=0.0142, cold=0.164),
            StartTime(tag="cp311", warm=0.0118, cold=0.149),
        ),
        seconds=1534.0,
        before="2025.2",
        changes=_changes(columns),
    )


def _large_cell(chance: random.Random, check: tuple[str, ...], where: Column) -> CellResult:
    _, name, _, proves = check
    log = _log(chance, name)
    other: dict[str, object] = {}
    state = PASSED
    if name == "pytango-late":
        state = GAP
        other = {
            "why": "A process that listens to events and then becomes a server aborts at its end. "
            "Start the server before the first subscription, or end with os._exit.",
            "link": "https://gitlab.com/tango-controls/pytango/-/issues/700",
            "since": "10.1.0, 2026-11-20",
            "attempts": (attempt(-6, seconds=6.1),),
        }
    elif name == "pyepics-aioca" and where.tag == "cp313":
        state = GAP
        other = {
            "why": "Two libca in one process: aioca times out. Use one client a process, or point "
            "PYEPICS_LIBCA at the libca of epicscorelibs.",
            "link": "https://github.com/pyepics/pyepics/issues/100",
            "since": "3.5.8, 2026-11-18",
            "attempts": (attempt(1, seconds=22.4),),
        }
    elif name == "pydm-pyside6" and where.system in ("trixie", "bookworm"):
        state = FAILED
        other = {
            "why": "killed by SIGSEGV after it had printed that all held",
            "attempts": (attempt(-11, seconds=9.2), attempt(-11, seconds=8.7)),
        }
        log += "Fatal Python error: Segmentation fault\n\n" + "  File <frame>\n" * 600
    elif name == "caproto" and where.system == "bullseye" and where.tag == "cp311":
        state = FAILED
        log += TRACE.format(name=name)
        other = {
            "why": "value after the server's restart: not within 20 s",
            "attempts": (
                attempt(1, seconds=24.0),
                attempt(0, seconds=30.0, timed_out=True, orphans=("python3.11 ioc.py",)),
            ),
        }
    elif name == "snap7" and where.system == "host" and where.tag == "cp313":
        state = FIXED
        other = {
            "why": "passes, and its spec says that it fails: take the gap out",
            "link": "https://github.com/gijzelaerr/python-snap7/issues/1",
            "since": "2.0.2, 2026-06-01",
        }
    elif (name, where.system) in (("mqtt", "trixie"), ("asyncua", "host"), ("pydm", "bookworm")):
        state = FLAKY
        log += f"\x1b[31m--- attempt 1\x1b[0m\n{TRACE.format(name=name)}"
        other = {"why": "value after the server's restart: not within 20 s"}
    if state in (PASSED, FLAKY) and "attempts" not in other:
        last = attempt(
            0,
            seconds=round(chance.uniform(0.8, 14), 2),
            cpu=round(chance.uniform(0.5, 6), 2),
            memory=chance.randrange(40_000_000, 420_000_000),
        )
        other["attempts"] = (attempt(1, seconds=21.3), last) if state == FLAKY else (last,)
    versions = {dist: _version(dist) for dist in proves.split()}
    key = hashlib.sha256(f"{name} {where.tag} {where.system}".encode()).hexdigest()
    place = {"tag": where.tag, "system": where.system, "versions": versions, "key": key}
    isolation = "session" if where.system == "host" else "namespaces"
    cached = chance.random() < 0.2
    return cell(name, state, log=log, isolation=isolation, cached=cached, **place, **other)


def _version(dist: str) -> str:
    number = int(hashlib.sha256(dist.encode()).hexdigest()[:6], 16)
    return f"{number % 7 + 1}.{number // 7 % 12}.{number // 84 % 9}"


def _log(chance: random.Random, name: str) -> str:
    facts = (
        "server up on 127.0.0.1:{}",
        "connected in 0.{} s",
        "put and read back: {}",
        "monitor saw 12 values, the last {}",
        "alarm severity MAJOR above {}",
        "limits refuse {}",
        "reconnected {} ms after the server's restart",
        "callback from a thread of the library, thread {}",
        "Ctrl-C ends the loop with status 130, pid {}",
        "memorized value {} after the restart",
    )
    lines = [
        f"ok  {name}: {chance.choice(facts).format(chance.randrange(9999))}" for _ in range(18)
    ]
    return "\n".join(lines) + "\nok  all held\n"


def _changes(columns: tuple[Column, ...]) -> tuple[Change, ...]:
    def change(check: str, where: Column, before: str, now: str, **versions: object) -> Change:
        place = {"tag": where.tag, "system": where.system}
        return Change(check=check, before=before, now=now, versions=versions, **place)

    found = [change("pydm-pyside6", c, PASSED, FAILED) for c in columns if c.system == "trixie"]
    found += [change("taurus", c, GAP, PASSED, taurus=("5.2.4", "5.3.0")) for c in columns]
    found += [change("pytango", c, PASSED, PASSED, pytango=("10.0.2", "10.1.0")) for c in columns]
    found += [change("pytango-late", c, PASSED, GAP, pytango=("10.0.2", "10.1.0")) for c in columns]
    found += [change("xtrack", c, "", PASSED) for c in columns if c.tag == "cp313"]
    found += [change("tine", c, PASSED, "") for c in columns if c.tag == "cp311"]
    return tuple(found)


def _needs(chance: random.Random) -> tuple[Need, ...]:
    names = sorted({dist for check in CHECKS for dist in check[3].split()})
    names += [f"distribution-{number}" for number in range(190 - len(names))]
    return tuple(
        Need(
            tag=tag,
            name=name,
            version=_version(name),
            layer=chance.choice(("base", "controls", "gui", "analysis")),
            files=chance.randrange(1, 60),
            glibc=chance.choice(("2.2.5", "2.4", "2.14", "2.17", "2.17", "2.28")),
            glibcxx=chance.choice(("", "", "3.4.11", "3.4.21", "3.4.25")),
        )
        if chance.random() < 0.5
        else Need(
            tag=tag, name=name, version=_version(name), layer="base", files=0, glibc="", glibcxx=""
        )
        for tag in PYTHONS
        for name in names
    )


def _imports(chance: random.Random) -> tuple[ImportTime, ...]:
    names = sorted({dist for check in CHECKS for dist in check[3].split()})
    found = []
    for tag in PYTHONS:
        for name in names:
            warm = round(chance.lognormvariate(-2.4, 1.1), 4)
            found.append(
                ImportTime(
                    tag=tag,
                    name=name,
                    module=name.replace("-", "_"),
                    layer="controls",
                    warm=warm,
                    cold=round(warm + chance.lognormvariate(-1.0, 0.8), 4),
                )
            )
    return tuple(found)


def step(check: str = "pyepics", tag: str = "cp313", system: str = "bookworm") -> Step:
    """The step of a cell, as the plan makes it; its inputs are left out."""
    title = row(check).title
    spec = Cell(
        check=Check(name=check, title=title, group=row(check).group, layer="controls", proves=()),
        release="2026.1",
        interpreter=SimpleNamespace(tag=tag),
        system=system,
        content="",
        versions={},
    )
    return _step("cell", f"{check}-{tag}-{system}", spec)


def system_step(name: str = "bookworm") -> Step:
    """A step that is no cell."""
    return _step("system", name, System(name=name, title="Debian", glibc="2.36", packages=()))


def _step(kind: str, name: str, spec: object) -> Step:
    return Step(
        kind=kind,
        name=name,
        version="2026.1",
        platform="linux_x86_64",
        spec=spec,
        floor=Floor(arch="x86_64", glibc="2.28"),
        epoch=0,
        patches=(),
        data={},
        inputs=(),
        material={},
        key=hashlib.sha256(name.encode()).hexdigest(),
    )
