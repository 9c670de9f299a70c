"""Events into a real OpenSearch: restarts, full queues, documents that it refuses."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opensearch_node import Node, run_node

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from usage_events import DAY, NOON, make_event, make_events

from longrun.errors import StoreAway, TelemetryError
from longrun.usage.search import Search, read_credentials
from longrun.usage.stores.opensearch import (
    MAPPING,
    OpenSearchStore,
    document,
    millis,
    pipeline,
    setup,
    template,
)


@pytest.fixture(scope="session")
def one_node(tmp_path_factory) -> Iterator[Node]:
    # a short queue and one thread for writing: what refuses a bulk with 429 when many come
    settings = ("node.processors=1", "thread_pool.write.queue_size=1")
    with run_node(tmp_path_factory.mktemp("opensearch"), *settings) as node:
        yield node


@pytest.fixture
def node(one_node) -> Node:
    if one_node.program is None:
        one_node.start()
    one_node.clear()
    return one_node


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make_store(tmp_path, said) -> Callable[..., OpenSearchStore]:
    def make(url: str, **options) -> OpenSearchStore:
        search = Search([url], patience=options.pop("patience", 60.0))
        rejected = tmp_path / "rejected.jsonl"
        return OpenSearchStore(
            search, host="console1", rejected=rejected, say=said.append, **options
        )

    return make


def found(node: Node, query: object, index: str = "longrun-usage-*") -> list[dict]:
    node.count()
    search = node.search()
    hits = search.call("POST", f"/{index}/_search", {"size": 100, "query": query}).json()["hits"]
    search.close()
    return [hit["_source"] for hit in hits["hits"]]


def mapping(node: Node) -> dict:
    search = node.search()
    indices = search.call("GET", "/longrun-usage-*/_mapping").json()
    search.close()
    return {name: one["mappings"]["properties"] for name, one in indices.items()}


def test_events_are_found_by_what_they_are(node, make_store):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    event = make_event(1, forbidden=("PYTHONPATH",), start=NOON + 0.123456)
    make_store(node.url).put([event, make_event(2, packages={}, start=NOON + DAY)])
    for query in (
        {"term": {"package": "numpy==2.3.4"}},
        {"term": {"package_name": "pyepics"}},
        {"term": {"forbidden": "PYTHONPATH"}},
        {"bool": {"must": [{"term": {"series": "3.13"}}, {"ids": {"values": [event.id]}}]}},
        {"range": {"start": {"gte": millis(NOON), "lt": millis(NOON + 1)}}},
    ):
        assert found(node, query) == [document(event)], query
    assert sorted(mapping(node)) == ["longrun-usage-2025-11-21", "longrun-usage-2025-11-22"]


def test_the_mapping_does_not_grow_with_names_of_packages(node, make_store):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    names = {f"package-{number}": f"1.{number}" for number in range(3000)}
    make_store(node.url).put([make_event(1, packages=names)])
    assert found(node, {"term": {"package": "package-2999==1.2999"}})
    assert mapping(node)["longrun-usage-2025-11-21"].keys() == MAPPING.keys()


def test_what_comes_again_replaces_and_does_not_double(node, make_store):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    store = make_store(node.url)
    store.put([make_event(1, exit="none", end=None), *make_events(20, first=2)])
    store.put(make_events(21))
    assert node.count() == 21
    assert [one["exit"] for one in found(node, {"ids": {"values": [make_event(1).id]}})] == ["ok"]


def test_setup_twice_changes_nothing_and_mends_what_was_edited(node):
    search = node.search()
    assert setup(search, "longrun-usage", days=400) == {
        "template": "created",
        "pipeline": "created",
        "policy": "missing",  # the node of the tests has no plugin for it
    }
    assert setup(search, "longrun-usage", days=400)["template"] == "unchanged"
    assert setup(search, "longrun-usage", days=400)["pipeline"] == "unchanged"
    assert setup(search, "longrun-usage", days=400, shards=2)["template"] == "changed"
    changed = {**pipeline(), "processors": []}
    search.call("PUT", "/_ingest/pipeline/longrun-usage", changed)
    assert setup(search, "longrun-usage", days=400, shards=2)["pipeline"] == "changed"
    there = search.call("GET", "/_index_template/longrun-usage").json()
    body = there["index_templates"][0]["index_template"]
    assert body["template"]["settings"]["index"]["number_of_shards"] == "2"
    assert template("longrun-usage")["template"]["mappings"] == body["template"]["mappings"]


def test_lines_through_the_pipeline_are_the_same_documents(node):
    """What rsyslog sends is the event as it is; the cluster makes the document of it."""
    search = node.search()
    setup(search, "longrun-usage", days=400, replicas=0)
    for event in (make_event(1), make_event(2, packages={}, python="", start=NOON + 0.5)):
        path = f"/longrun-usage-2025-11-21/_doc/{event.id}?pipeline=longrun-usage"
        search.call("PUT", path, event.document())
        assert found(node, {"ids": {"values": [event.id]}}) == [document(event)]


# away and busy


def in_thread(action: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_killed_and_started_again_under_load_it_has_every_event_once(node, make_store):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    store = make_store(node.url, bulk=10_000, patience=600.0)
    progress = threading.Semaphore(0)

    def load() -> None:
        for first in range(1, 2001, 100):
            store.put(make_events(100, first=first))
            progress.release()

    thread, failures = in_thread(load)
    for _ in range(4):
        progress.acquire()
    node.kill()
    node.start()
    thread.join()
    assert not failures
    assert node.count() == 2000


def test_away_for_longer_than_its_patience_the_agent_is_told_and_nothing_is_lost(
    node, make_store, said
):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    store = make_store(node.url, patience=0.1)
    store.put(make_events(10))
    node.stop()
    with pytest.raises(StoreAway, match="refused"):
        store.put(make_events(20))
    node.start()
    store.put(make_events(20))
    assert node.count() == 20
    assert said == []


class Counting(Search):
    """Remembers which states items had."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.states: list[int] = []

    def send(self, method, path, data, **options):
        answer = super().send(method, path, data, **options)
        self.states.append(answer.status)
        if path.startswith("/_bulk") and answer.status == 200:
            items = json.loads(answer.body).get("items", [])
            self.states += [next(iter(one.values()))["status"] for one in items]
        return answer


def test_a_node_whose_queue_is_full_says_429_and_gets_all_a_little_later(node, tmp_path, said):
    """Real refusals: one writing thread, room for one bulk in its queue, eight writers."""
    search = node.search()
    setup(search, "longrun-usage", days=400, shards=5, replicas=0)
    clients = [Counting([node.url], patience=600.0) for _ in range(8)]
    stores = [
        OpenSearchStore(client, host="c", rejected=tmp_path / "r", say=said.append)
        for client in clients
    ]
    threads = [
        in_thread(lambda store=store, n=number: store.put(make_events(1000, first=n * 1000 + 1)))
        for number, store in enumerate(stores)
    ]
    for thread, _ in threads:
        thread.join()
    assert not any(failures for _, failures in threads)
    states = {state for client in clients for state in client.states}
    assert 429 in states, "the node was never too busy: the test proves nothing"
    assert node.count() == 8000
    assert said == []


def test_an_index_that_is_closed_for_writing_keeps_the_events_with_the_agent(node, make_store):
    search = node.search()
    setup(search, "longrun-usage", days=400, replicas=0)
    store = make_store(node.url, patience=0.1)
    store.put(make_events(2))
    block = "/longrun-usage-2025-11-21/_settings"
    search.call("PUT", block, {"index.blocks.write": True})
    with pytest.raises(StoreAway, match="403 cluster_block_exception"):
        store.put([*make_events(3), make_event(9, start=NOON + DAY)])
    search.call("PUT", block, {"index.blocks.write": None})
    store.put([*make_events(3), make_event(9, start=NOON + DAY)])
    assert node.count() == 4


def test_a_cluster_that_has_too_many_shards_loses_nothing(node, make_store, said):
    search = node.search()
    setup(search, "longrun-usage", days=400, shards=3, replicas=0)
    limit = "/_cluster/settings"
    search.call("PUT", limit, {"transient": {"cluster.max_shards_per_node": 2}})
    try:
        with pytest.raises(StoreAway, match="maximum"):
            make_store(node.url, patience=0.1).put(make_events(2))
    finally:
        search.call("PUT", limit, {"transient": {"cluster.max_shards_per_node": None}})
    make_store(node.url).put(make_events(2))
    assert node.count() == 2
    assert said == []


# what it refuses for good


def test_a_document_that_fits_no_mapping_is_set_aside_and_the_others_are_in(
    node, make_store, said, tmp_path
):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    odd = make_event(3, seconds="for ever")
    store = make_store(node.url)
    store.put([*make_events(2), odd, make_event(4)])
    assert node.count() == 3
    (line,) = (tmp_path / "rejected.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert kept["event"] == odd.document()
    assert "mapper_parsing_exception" in kept["error"]
    assert (tmp_path / "rejected.jsonl").stat().st_mode & 0o077 == 0
    assert "1 events refused" in said[0]
    assert odd.id in said[0]
    store.put([odd])
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 2


def test_what_is_refused_for_an_unknown_reason_is_set_aside_only_where_others_are_taken(
    node, make_store, said, tmp_path
):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    store = make_store(node.url, patience=0.1)
    odd = make_event(1, id="x" * 600)  # OpenSearch: at most 512 bytes
    with pytest.raises(StoreAway, match="Validation Failed"):
        store.put([odd])
    assert not (tmp_path / "rejected.jsonl").exists()
    store.put([odd, make_event(2)])
    assert "Validation Failed" in said[0]
    assert node.count() == 1


# what the agent asks of a store that keeps


def test_users_become_pseudonyms_and_only_those_of_this_host(node, make_store):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    store = make_store(node.url)
    store.put(
        [
            make_event(1, user="anna"),
            make_event(2, user="bert", start=NOON + DAY),
            make_event(3, user="anna", host="console2"),
            make_event(4, user="u-0123", uid=None),
        ]
    )
    node.count()
    assert store.pseudonymise(NOON + DAY / 2, lambda user: f"u-{user}") == 1
    users = {one["id"][-1]: (one["user"], one["uid"]) for one in found(node, {"match_all": {}})}
    assert users == {
        "1": ("u-anna", None),
        "2": ("bert", 1000),
        "3": ("anna", 1000),
        "4": ("u-0123", None),
    }
    assert store.pseudonymise(NOON + DAY / 2, lambda user: f"u-{user}") == 0


def test_old_indices_are_deleted_only_by_the_agent_that_is_told_to(node, make_store):
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    store = make_store(node.url)
    store.put([make_event(1), make_event(2, start=NOON + DAY)])
    assert store.prune(NOON + DAY) == 0
    assert make_store(node.url, delete=True).prune(NOON + DAY) == 1
    assert list(mapping(node)) == ["longrun-usage-2025-11-22"]


# a proxy before the node: TLS, passwords, and what a node cannot be made to say


Answers = Callable[[BaseHTTPRequestHandler, bytes], bool]


@contextmanager
def proxy(node: Node, before: Answers, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """What ``before`` does not answer goes to the node."""

    class Between(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if before(self, body):
                return
            upstream = http.client.HTTPConnection("127.0.0.1", node.port)
            kept = ("Content-Type", "Content-Encoding")
            headers = {name: self.headers[name] for name in kept if name in self.headers}
            upstream.request(self.command, self.path, body or None, headers)
            response = upstream.getresponse()
            reply(self, response.status, response.read())

        do_GET = do_PUT = do_POST = do_DELETE = do

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()
    try:
        assert isinstance(server, socketserver.BaseServer)
        yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> bool:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


@pytest.fixture
def certificate(tmp_path) -> ssl.SSLContext:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    return context


def test_tls_with_an_authority_of_ones_own_and_a_password(node, certificate, tmp_path, said):
    secret = tmp_path / "password"
    secret.write_text("top secret\n")
    secret.chmod(0o600)
    wanted = "Basic " + base64.b64encode(b"agent:top secret").decode()

    def guard(handler: BaseHTTPRequestHandler, _: bytes) -> bool:
        return handler.headers.get("Authorization") != wanted and reply(handler, 401, b"Denied")

    with proxy(node, guard, certificate) as url:

        def store(**options) -> OpenSearchStore:
            search = Search([url], patience=0, **options)
            rejected = tmp_path / "rejected.jsonl"
            return OpenSearchStore(search, host="c", rejected=rejected, say=said.append)

        with pytest.raises(StoreAway, match="self-signed certificate") as error:
            store().put(make_events(1))
        assert "ca_file" in error.value.remedy
        trusting = {"ca_file": tmp_path / "ca.pem"}
        with pytest.raises(StoreAway, match="401 Denied") as error:
            store(**trusting).put(make_events(1))
        assert "password_file" in error.value.remedy
        right = store(**trusting, credentials=read_credentials("agent", secret, None))
        right.put(make_events(1))
        right.close()
    assert node.count() == 1


def test_a_body_that_is_too_large_for_a_proxy_is_sent_in_halves(node, make_store, said, tmp_path):
    sizes = []

    def small(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        sizes.append(len(body))
        return len(body) > 1000 and reply(handler, 413)

    huge = {f"package-{hash(str(n))}": "1" for n in range(2000)}
    with proxy(node, small) as url:
        store = make_store(url)
        store.put([*make_events(100), make_event(101, packages=huge)])
        store.close()
    assert node.count() == 100
    assert max(sizes) > 1000
    assert "too large" in said[0]
    assert make_event(101).id in (tmp_path / "rejected.jsonl").read_text()


def test_a_policy_is_made_once_and_changed_with_the_number_that_the_cluster_wants(node):
    """Index state management is a plugin that no registry has: the proxy answers as it does."""
    policies: dict[str, dict] = {}
    asked: list[str] = []

    def ism(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        if "/_plugins/_ism/" not in handler.path:
            return False
        asked.append(f"{handler.command} {handler.path}")
        if handler.command == "GET" and not policies:
            return reply(handler, 404, b'{"error": {"type": "status", "reason": "not found"}}')
        if handler.command == "PUT":
            policies["one"] = json.loads(body)
        there = {"_id": "longrun-usage", "_seq_no": 7, "_primary_term": 1, **policies["one"]}
        return reply(handler, 200, json.dumps(there).encode())

    with proxy(node, ism) as url:
        search = Search([url])
        assert setup(search, "longrun-usage", days=400)["policy"] == "created"
        assert setup(search, "longrun-usage", days=400)["policy"] == "unchanged"
        assert setup(search, "longrun-usage", days=30)["policy"] == "changed"
        search.close()
    assert asked[-1].endswith("longrun-usage?if_seq_no=7&if_primary_term=1")
    assert "30d" in json.dumps(policies)


def test_what_is_no_opensearch_is_said_so(node, make_store):
    with proxy(node, lambda handler, _: reply(handler, 200, b"<html>login</html>")) as url:
        store = make_store(url)
        with pytest.raises(TelemetryError, match=r"no OpenSearch: b'<html>login"):
            store.put(make_events(1))
        store.close()


def test_of_several_nodes_one_that_answers_is_enough(node, tmp_path, said):
    search = Search(["http://127.0.0.1:9", node.url], patience=0)
    rejected = tmp_path / "rejected.jsonl"
    store = OpenSearchStore(search, host="c", rejected=rejected, say=said.append)
    store.put([replace(make_event(1), name="x")])
    assert node.count() == 1


# reports and dashboards


def test_a_report_of_a_cluster_is_that_of_the_files(node, make_store, tmp_path):
    from test_usage_report import EVENTS, NOW, SPAN

    from longrun.usage.report import make_report
    from longrun.usage.report_duckdb import ParquetSource
    from longrun.usage.report_opensearch import OpenSearchSource
    from longrun.usage.stores.parquet import ParquetStore

    setup(node.search(), "longrun-usage", days=400, replicas=0)
    make_store(node.url).put(EVENTS)
    files = ParquetStore(tmp_path / "data")
    files.put(EVENTS)
    with ParquetSource(tmp_path / "data", SPAN) as source:
        wanted = make_report(source, SPAN, retire="", now=NOW)
    with OpenSearchSource(node.search(), "longrun-usage", SPAN) as source:
        found = make_report(source, SPAN, retire="", now=NOW)
    assert replace(found, source=wanted.source) == wanted


def test_more_groups_than_a_page_has_are_all_counted(node, make_store, monkeypatch):
    from test_usage_report import SPAN

    from longrun.usage import report_opensearch
    from longrun.usage.report_opensearch import OpenSearchSource

    monkeypatch.setattr(report_opensearch, "PAGE", 3)
    setup(node.search(), "longrun-usage", days=400, replicas=0)
    make_store(node.url).put([make_event(n, name=f"program{n}") for n in range(10)])
    with OpenSearchSource(node.search(), "longrun-usage", SPAN) as source:
        found = {one.keys[0]: one.count.invocations for one in source.group(["name"])}
        assert found == {f"program{n}": 1 for n in range(10)}
        monkeypatch.setattr(report_opensearch, "MOST", 5)
        with pytest.raises(TelemetryError, match="more than 5 groups"):
            source.group(["name"])


def test_a_cluster_without_events_has_an_empty_report(node):
    from test_usage_report import NOW, SPAN

    from longrun.usage.report import make_report
    from longrun.usage.report_opensearch import OpenSearchSource

    with OpenSearchSource(node.search(), "longrun-usage", SPAN) as source:
        report = make_report(source, SPAN, retire="", now=NOW)
    assert report.totals.invocations == 0


def test_each_visualization_is_answered(node, make_store):
    """What a dashboard's table or plot asks, asked of the real mapping."""
    from usage_dashboards import fields_of, visualizations

    setup(node.search(), "longrun-usage", days=400, replicas=0)
    make_store(node.url).put([make_event(1, forbidden=("PYTHONPATH",), exc="KeyError", ci="x")])
    node.count()
    search = node.search()
    for one in visualizations():
        for field in fields_of(one):
            aggs = {"one": {"terms": {"field": field}}}
            path = "/longrun-usage-*/_search"
            answer = search.call("POST", path, {"size": 0, "aggs": aggs}).json()
            assert answer["aggregations"]["one"]["buckets"], (one["id"], field)


def test_the_verb_sets_a_cluster_up_and_reports_from_it(node, make_store, capsys, tmp_path):
    from longrun.usage import cli

    config = tmp_path / "usage.toml"
    config.write_text(f'store = "opensearch"\n[opensearch]\nurl = "{node.url}"\n')
    words = ("setup-store", "--config", str(config), "--replicas", "0")
    assert cli.main([*words]) == 0
    text = capsys.readouterr().out
    assert "created" in text
    assert "no index state management" in text
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["template"] == "unchanged"
    make_store(node.url).put([make_event(1)])
    words = ("report", "--config", str(config), "--since", "2025-11-01", "--by", "package")
    assert cli.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["name"] for row in rows} == {"numpy", "pyepics"}
    assert cli.main(["report", "--opensearch", node.url, "--config", str(config)]) == 0


def test_while_the_cluster_is_away_the_agent_keeps_all_of_it_on_its_disk(node, tmp_path, capsys):
    from usage_maker import end, start

    from longrun.usage import cli

    setup(node.search(), "longrun-usage", days=400, replicas=0)
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o1733)
    config = tmp_path / "usage.toml"
    config.write_text(
        f'spool = "{spool}"\nstate = "{tmp_path}/state"\nstore = "opensearch"\n'
        f'[opensearch]\nurl = "{node.url}"\npatience_seconds = 0\n'
    )

    def round_with(numbers: range) -> int:
        lines = [line for n in numbers for line in (start(n), end(n))]
        (spool / f"{os.getuid()}.jsonl").write_bytes(b"".join(lines))
        return cli.main(["agent", "--once", "--config", str(config)])

    assert round_with(range(100)) == 0
    node.kill()
    assert round_with(range(100, 250)) == StoreAway.exit_code
    assert round_with(range(250, 300)) == StoreAway.exit_code
    assert "refused" in capsys.readouterr().err
    node.start()
    assert round_with(range(300, 310)) == 0
    assert node.count() == 310
    assert round_with(range(0)) == 0
    assert node.count() == 310
