"""Cells in a real container engine: Podman, started here at a socket of its own, and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import ROOT, open_directory
from engines import settings

from longrun.cage import ENGINE, NAMESPACES, Cage
from longrun.config import BUBBLEWRAP, CONTAINER
from longrun.engine import Engines
from longrun.errors import BuildError
from longrun.model import Cell
from longrun.plan import Step, choose_interpreters, choose_release, plan_cells, plan_systems
from longrun.run import JobServer, Programs, Runner, find_tool
from longrun.specs import load_specs
from longrun.steps import check
from longrun.steps.job import Job
from longrun.store import Store

SYSTEM = "bullseye"

FACTS = """
import json, os, platform, socket, subprocess, sys

def loopback(family, address):
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        with socket.create_connection((address, listener.getsockname()[1])):
            return True

def outside():
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=5)
    except OSError as error:
        return str(error)

def executes(path):
    with open(path, "w") as file:
        file.write("#!/bin/sh\\nexit 7\\n")
    os.chmod(path, 0o755)
    return subprocess.run([path]).returncode

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
hidden = ("/tmp", "/var/tmp", "/home", "/root", "/opt", "/srv", "/mnt", "/media")
beside = os.path.dirname(__file__)
places = ("/", "/etc", "/usr/bin", "/run", "/dev/shm", *hidden, sys.prefix, beside)
facts = {
    "user": (os.getuid(), os.getgid()),
    "rights": [status[name].strip() for name in ("CapPrm", "CapEff", "CapInh", "NoNewPrivs")],
    "bounding": status["CapBnd"].strip(),
    "host": (socket.gethostname(), socket.gethostbyname("localhost")),
    "interfaces": socket.if_nameindex(),
    "loopback": [loopback(socket.AF_INET, "127.0.0.1"), loopback(socket.AF_INET6, "::1")],
    "outside": outside(),
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "writable": [path for path in places if os.access(path, os.W_OK)],
    "read-only": [path for path in places if os.statvfs(path).f_flag & os.ST_RDONLY],
    "visible": {path: os.listdir(path) for path in hidden},
    "executes": executes("/tmp/program"),
    "shared memory": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize > 1e9,
    "prefix": sys.prefix,
    "program": __file__,
    "system": (platform.libc_ver(), platform.freedesktop_os_release()["VERSION_CODENAME"]),
}
print(json.dumps(facts))
"""
"""A check that says what it finds around it."""

HANGS = """
import signal, sys, time
print("begun", flush=True)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGABRT):
    signal.signal(number, signal.SIG_IGN)
time.sleep(600)
"""


@dataclass(frozen=True)
class Podman:
    """An engine of the test's own."""

    socket: Path

    @property
    def environ(self) -> dict[str, str]:
        """What tells programs where it is."""
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    def client(self) -> docker.APIClient:
        return docker.APIClient(f"unix://{self.socket}", version="auto")

    def containers(self) -> dict[str, str]:
        """The states of the containers of cells, by step."""
        found = self.client().containers(all=True, filters={"label": "longrun.cell"})
        return {each["Labels"]["longrun.cell"]: each["State"] for each in found}

    def images(self) -> list[str]:
        """The tags of the images of systems."""
        found = self.client().images(filters={"label": "longrun.digest"})
        return [tag for image in found for tag in image["RepoTags"] or ["none"]]


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Podman's service with directories of its own; the machine's Podman does not notice."""
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine without preparing the machine")
    with open_directory() as place:
        environ = {**os.environ, **settings(place)}
        address = f"unix://{place}/podman.sock"
        argv = [find_tool("podman"), "system", "service", "--time=0", address]
        with (
            (place / "log").open("wb") as log,
            subprocess.Popen(argv, env=environ, stdout=log, stderr=log) as service,
        ):
            try:
                until(lambda: (place / "podman.sock").exists() or service.poll() is not None)
                assert service.poll() is None, (place / "log").read_text()
                yield Podman(place / "podman.sock")
            finally:
                service.terminate()
                service.wait()
                subprocess.run(["umount", "--lazy", place / "images/overlay"], check=False)


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; a machine may be slow, but not without end."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def numerics(store: Store) -> Step:
    """The cell of a check without a server, in another system."""
    specs = load_specs(ROOT)
    release = choose_release(specs, None)
    (system,) = plan_systems(specs, release, [specs.systems[SYSTEM]])
    root = store.get(system.key)
    if root is None:
        pytest.fail(f"{system.id} is not made: ./build.py matrix --where {SYSTEM}", pytrace=False)
    interpreters = choose_interpreters(specs, release, [])
    contents = {SYSTEM: root.record["digest"]}
    (step,) = plan_cells(specs, release, interpreters, [specs.checks["numerics"]], contents)
    return step


def with_program(step: Step, text: str, place: Path, *, seconds: int) -> Step:
    """The same cell with another program."""
    assert isinstance(step.spec, Cell)
    (place / "check_other.py").write_text(text)
    other = replace(step.spec.check, name="other", timeout=seconds, attempts=1, gaps=())
    return replace(
        step,
        spec=replace(step.spec, check=other),
        data={"check_other.py": place / "check_other.py"},
    )


def inputs(step: Step, store: Store) -> dict[str, Path]:
    found = {needed.id: store.get(needed.key) for needed in step.inputs}
    missing = [name for name, entry in found.items() if entry is None]
    assert not missing, f"{missing} not built: run ./build.py test"
    return {name: entry.tree for name, entry in found.items() if entry}


def make_job(step: Step, store: Store, place: Path) -> Job:
    for name in ("out", "work", "private", "cache"):
        (place / name).mkdir(parents=True)
    runner = Runner(
        work=place / "work",
        private=place / "private",
        log=place / "log",
        epoch=0,
        jobserver=JobServer(1),
        programs=Programs(),
    )
    return Job(
        spec=step.spec,
        floor=step.floor,
        epoch=0,
        inputs=inputs(step, store),
        patches=(),
        data=step.data,
        out=place / "out",
        work=place / "work",
        cache=place / "cache",
        jobs=1,
        run=runner,
        log=place / "log",
        say=lambda _text: None,
        files=lambda _name: (),
    )


Run = Callable[[Step, Engines], check.CellRecord]


@pytest.fixture
def run(store: Store) -> Iterator[Run]:
    """Runs a cell and gives its record, whether it passed or not."""
    with open_directory() as place:
        numbers = iter(range(100))

        def once(step: Step, engines: Engines) -> check.CellRecord:
            job = make_job(step, store, place / str(next(numbers)))
            try:
                check.build(job, engines)
            except check.CellError as error:
                return error.record
            return check.read(job.out)

        yield once


@pytest.fixture
def engines(podman: Podman) -> Engines:
    return Engines(CONTAINER, podman.environ)


def facts(record: check.CellRecord) -> Mapping[str, Any]:
    assert record.attempts[-1].passed, record.log
    return json.loads(record.log)


def test_a_real_check_comes_out_as_under_bubblewrap(numerics, run, engines, podman):
    here = run(numerics, engines)
    there = run(numerics, Engines(BUBBLEWRAP, {}))
    assert (here.isolation, there.isolation) == (ENGINE, NAMESPACES)
    assert here.attempts[-1].passed
    assert there.attempts[-1].passed
    assert here.attempts[-1].memory > 1e7, "of Python's, not of a program that starts it"
    assert podman.containers() == {}


def test_a_check_finds_the_same_around_it_as_under_bubblewrap(numerics, run, engines, tmp_path):
    step = with_program(numerics, FACTS, tmp_path, seconds=60)
    here = facts(run(step, engines))
    there = facts(run(step, Engines(BUBBLEWRAP, {})))
    # bubblewrap leaves root's bounding set, of which nobody who may gain no rights has anything
    assert here == {**there, "bounding": "0000000000000000"}
    assert here["user"] == [65534, 65534]
    assert here["outside"] == "[Errno 101] Network is unreachable"
    assert "/" not in here["writable"]
    assert here["system"][1] == SYSTEM


def test_a_root_becomes_an_image_once(numerics, store, podman, tmp_path):
    root = inputs(numerics, store)[f"system/{SYSTEM}"] / "root"
    tmp_path.chmod(0o777)
    found = [
        Engines(CONTAINER, podman.environ).image(root, numerics.spec.content, tmp_path)
        for _ in range(2)
    ]
    assert found[0].id == found[1].id
    digest = numerics.spec.content
    assert [tag.partition("longrun/")[2] for tag in podman.images()] == [f"system:{digest[:16]}"]


def test_a_check_that_hangs_is_killed_and_its_container_is_gone(
    numerics, run, engines, podman, tmp_path
):
    record = run(with_program(numerics, HANGS, tmp_path, seconds=2), engines)
    assert record.isolation == ENGINE
    assert record.attempts[-1].timed_out
    assert "begun" in record.log
    assert podman.containers() == {}


@pytest.fixture
def sleeps(numerics, store, engines, tmp_path) -> Callable[[float], None]:
    """Runs a container that would stay."""
    image, cage = make_sleeper(numerics, store, engines, tmp_path)
    return lambda seconds: image.run("check/sleeps", cage, ("/bin/sleep", "600"), seconds)


def make_sleeper(step, store, engines, out):
    out.chmod(0o777)
    root = inputs(step, store)[f"system/{SYSTEM}"] / "root"
    cage = Cage(root=root, prefix=out, stem="p", programs=out, out=out)
    return engines.image(root, step.spec.content, out), cage


def test_a_container_that_does_not_end_is_removed(sleeps, podman):
    with pytest.raises(BuildError, match="killed after 2 s"):
        sleeps(2)
    assert podman.containers() == {}


def test_what_ends_badly_tells_what_it_said(numerics, store, engines, podman, tmp_path):
    image, cage = make_sleeper(numerics, store, engines, tmp_path)
    with pytest.raises(BuildError, match="exit status 3: no such luck"):
        image.run("check/bad", cage, ("/bin/sh", "-c", "echo no such luck; exit 3"), 60)
    assert podman.containers() == {}


def test_an_interrupted_run_leaves_no_container(sleeps, engines, podman):
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(sleeps, 60)
        until(lambda: podman.containers() == {"check/sleeps": "running"})
        engines.stop()
        with pytest.raises(BuildError, match="interrupted"):
            running.result()
    assert podman.containers() == {}
    with pytest.raises(BuildError, match="interrupted"):
        sleeps(60)
    assert podman.containers() == {}


KILLED = """
import sys
from pathlib import Path
from longrun.cage import Cage
from longrun.engine import Engines
address, root, digest, out = sys.argv[1:]
place = Path(out)
image = Engines("container", {"DOCKER_HOST": address}).image(Path(root), digest, place)
cage = Cage(root=Path(root), prefix=place, stem="p", programs=place, out=place)
image.run("check/killed", cage, ("/bin/sleep", "600"), 600)
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next(numerics, store, sleeps, podman, tmp_path):
    root = inputs(numerics, store)[f"system/{SYSTEM}"] / "root"
    out = tmp_path / "killed"
    out.mkdir(mode=0o777)
    address = podman.environ["DOCKER_HOST"]
    argv = [sys.executable, "-c", KILLED, address, str(root), numerics.spec.content, str(out)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(argv, env=environ) as killed, ThreadPoolExecutor(1) as threads:
        until(lambda: podman.containers() == {"check/killed": "running"})
        running = threads.submit(sleeps, 60)
        until(lambda: podman.containers().get("check/sleeps") == "running")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert podman.containers() == {"check/killed": "running", "check/sleeps": "running"}
        other = Engines(CONTAINER, podman.environ)
        other.image(root, numerics.spec.content, out)
        assert podman.containers() == {"check/sleeps": "running"}, "that run is alive"
        podman.client().kill(next(iter(podman.client().containers()))["Id"])
        with pytest.raises(BuildError, match="exit status 137"):
            running.result()
    assert podman.containers() == {}


def test_threads_share_an_engine(numerics, store, engines, podman, tmp_path):
    """As in a run: each asks for the image, and each runs its own container."""
    root = inputs(numerics, store)[f"system/{SYSTEM}"] / "root"
    gate = threading.Barrier(4)

    def one(number: int) -> str:
        out = tmp_path / str(number)
        out.mkdir(mode=0o777)
        out.chmod(0o777)
        gate.wait()
        image = engines.image(root, numerics.spec.content, out)
        cage = Cage(root=root, prefix=out, stem="p", programs=out, out=out)
        image.run(
            f"check/{number}", cage, ("/bin/sh", "-c", f"echo {number} >/opt/longrun/out/n"), 60
        )
        return (out / "n").read_text().strip()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(4))) == ["0", "1", "2", "3"]
    assert podman.containers() == {}
