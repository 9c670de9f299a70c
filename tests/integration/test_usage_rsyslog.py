"""Events as lines through Debian's rsyslog into a real OpenSearch that goes away meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opensearch_node import Node, run_node, wait_for

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from usage_events import make_event, make_events

from longrun.usage.stores.lines import Lines
from longrun.usage.stores.opensearch import document, setup

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy/rsyslog/longrun-usage.conf"


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[Node]:
    with run_node(tmp_path_factory.mktemp("opensearch")) as node:
        setup(node.search(), "longrun-usage", days=400, replicas=0)
        yield node


def configuration(place: Path, node: Node) -> Path:
    """The deployed file, with paths and port of this test, behind what a system's own says."""
    text = CONFIGURATION.read_text()
    changes = {
        "/var/log/longrun/usage-rejected.jsonl": str(place / "rejected.jsonl"),
        "/var/log/longrun/usage": str(place / "lines"),
        "http://127.0.0.1:9200": node.url,
        'resumeInterval="5"': 'resumeInterval="1"',
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (place / "work").mkdir(exist_ok=True)
    path = place / "rsyslog.conf"
    path.write_text(f'global(workDirectory="{place / "work"}")\n{text}')
    return path


@contextmanager
def rsyslog(place: Path, node: Node) -> Iterator[subprocess.Popen[bytes]]:
    path = configuration(place, node)
    argv = ["rsyslogd", "-n", "-f", path, "-i", place / "pid"]
    with (place / "rsyslog.log").open("ab") as log:
        program = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield program
    finally:
        program.terminate()
        program.wait()


def refused(place: Path) -> list[dict]:
    path = place / "rejected.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_file_is_one_that_rsyslog_takes(node, tmp_path):
    path = configuration(tmp_path, node)
    done = subprocess.run(["rsyslogd", "-N1", "-f", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower().replace("errors", "")


def test_across_an_outage_each_event_is_there_once_and_as_the_store_would_have_it(node, tmp_path):
    (tmp_path / "lines").mkdir()
    lines = Lines(directory=tmp_path / "lines")
    long = make_event(9000, packages={f"package-{n}": f"1.{n}" for n in range(800)})
    with rsyslog(tmp_path, node):
        lines.put(make_events(500))
        wait_for(lambda: node.count() == 500)
        node.kill()
        lines.put([*make_events(1000, first=501), long])
        node.start()
        lines.put(make_events(500, first=1501))
        wait_for(lambda: node.count() == 2001, seconds=180)
    # once more from the first line, as after a loss of what it remembers
    for file in (tmp_path / "work").iterdir():
        file.unlink()
    search = node.search()
    with rsyslog(tmp_path, node):
        lines.put([make_event(5000)])
        wait_for(lambda: node.count() == 2002)
    for event in (make_event(1), make_event(1200), long):
        path = f"/longrun-usage-2025-11-21/_doc/{event.id}"
        assert search.call("GET", path).json()["_source"] == document(event)
    assert refused(tmp_path) == []


def test_what_the_cluster_refuses_is_set_aside_and_holds_up_nothing(node, tmp_path):
    before = node.count()
    (tmp_path / "lines").mkdir()
    lines = Lines(directory=tmp_path / "lines")
    odd = make_event(20_001, seconds="for ever")
    with rsyslog(tmp_path, node):
        lines.put([make_event(20_000), odd, make_event(20_002)])
        wait_for(lambda: node.count() == before + 2)
        wait_for(lambda: refused(tmp_path))
    assert refused(tmp_path) == [{"status": 400, "event": odd.document()}]
    assert os.stat(tmp_path / "rejected.jsonl").st_mode & 0o077 == 0


def test_a_busy_cluster_gets_all_a_little_later(node, tmp_path):
    """Real refusals: a write is refused with 429 where the disk is said to be full."""
    before = node.count()
    search = node.search()
    block = "/longrun-usage-2025-11-21/_settings"
    search.call("PUT", block, {"index.blocks.read_only_allow_delete": True})
    (tmp_path / "lines").mkdir()
    with rsyslog(tmp_path, node):
        Lines(directory=tmp_path / "lines").put(make_events(20, first=30_000))
        wait_for(lambda: "429" in counters(node))
        search.call("PUT", block, {"index.blocks.read_only_allow_delete": None})
        wait_for(lambda: node.count() == before + 20)
    assert refused(tmp_path) == []


def counters(node: Node) -> str:
    """What the node counts of its refusals, as text: it has no better place."""
    search = node.search()
    path = "/_nodes/stats/indices/indexing"
    found = search.call("GET", path).json()["nodes"]
    return json.dumps([one["indices"]["indexing"].get("doc_status", {}) for one in found.values()])
