"""A real OpenSearch node on loopback, in a process of its own: tests/opensearch/Node.java."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from longrun.config import load_config
from longrun.usage.search import Search

SOURCES = Path(__file__).resolve().parents[1] / "opensearch"
LIST = SOURCES / "jars.sha256"
PROGRAM = SOURCES / "Node.java"

QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")
"""Options of a Java that has not to be fast for long."""


def jars() -> Path:
    """The directory of the jars, outside the repository; each is what jars.sha256 says it is."""
    name = hashlib.sha256(LIST.read_bytes() + PROGRAM.read_bytes()).hexdigest()[:16]
    place = load_config(os.environ).cache / "tests" / f"opensearch-{name}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = place.with_name(f".{place.name}.{os.getpid()}")
        _resolve(staged)
        _verify(staged)
        _compile(staged)
        with contextlib.suppress(OSError):  # another run was first
            staged.rename(place)
        shutil.rmtree(staged, ignore_errors=True)
    _verify(place)
    return place


def _resolve(place: Path) -> None:
    argv = [
        *("mvn", "--quiet", "--batch-mode", "--file", SOURCES / "pom.xml"),
        *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={place}"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"Maven found no OpenSearch:\n{done.stdout[-1500:]}", pytrace=False)


def _compile(place: Path) -> None:
    argv = ["javac", "-cp", f"{place}/*", "-d", place, PROGRAM]
    subprocess.run(argv, check=True, capture_output=True)


def _verify(place: Path) -> None:
    wanted = {name: sha for sha, name in map(str.split, LIST.read_text().splitlines())}
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in place.glob("*.jar")}
    if found != wanted:
        odd = sorted({*wanted.items()} ^ {*found.items()})
        pytest.fail(f"{place}: not the jars of {LIST}: {odd[:3]}; remove it", pytrace=False)


@dataclass
class Node:
    """A node that can be stopped, killed and started again, with its data and on its port."""

    place: Path
    settings: tuple[str, ...] = ()
    jvm: tuple[str, ...] = QUICK_START
    port: int = 0
    program: subprocess.Popen[str] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.place.mkdir(exist_ok=True)
        argv = [
            *("java", *self.jvm),
            *("-cp", f"{jars()}/*:{jars()}", "Node"),
            *(self.place / "data", str(self.port), *self.settings),
        ]
        log = (self.place / "log").open("a")
        self.program = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        log.close()
        assert self.program.stdout is not None
        said = []
        for line in self.program.stdout:
            said.append(line)
            if line.startswith("port "):
                self.port = int(line.split()[1])
                return
        text = "".join(said) + (self.place / "log").read_text()
        pytest.fail(f"OpenSearch did not start:\n{text[-3000:]}", pytrace=False)

    def stop(self) -> None:
        """End it as an administrator would."""
        if self.program is not None:
            assert self.program.stdin is not None
            self.program.stdin.close()
            self._gone()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.program is not None:
            self.program.kill()
            self._gone()

    def _gone(self) -> None:
        assert self.program is not None
        assert self.program.stdout is not None
        self.program.stdout.read()
        self.program.stdout.close()
        self.program.wait()
        self.program = None

    def search(self, **options: float) -> Search:
        """A client of it."""
        return Search([self.url], **options)  # type: ignore[arg-type]

    def count(self, index: str = "longrun-usage-*") -> int:
        """How many documents are there, all that were indexed counted."""
        search = self.search()
        search.call("POST", f"/{index}/_refresh")
        count: int = search.call("GET", f"/{index}/_count").json()["count"]
        search.close()
        return count

    def clear(self) -> None:
        """Make it empty again."""
        search = self.search()
        search.call("DELETE", "/longrun-usage-*", accept=(200, 404))
        search.call("DELETE", "/_index_template/longrun-usage", accept=(200, 404))
        search.call("DELETE", "/_ingest/pipeline/longrun-usage", accept=(200, 404))
        search.close()


@contextlib.contextmanager
def run_node(place: Path, *settings: str, jvm: tuple[str, ...] = QUICK_START) -> Iterator[Node]:
    """A node that is gone afterwards."""
    node = Node(place=place, settings=settings, jvm=jvm)
    node.start()
    try:
        yield node
    finally:
        node.kill()


def wait_for(seen: object, *, seconds: float = 60) -> None:
    """Wait until something is so; how long that may take is generous."""
    assert callable(seen)
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
