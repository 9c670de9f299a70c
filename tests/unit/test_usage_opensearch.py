"""What OpenSearch is sent and given, as far as that can be told without one; the dashboards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from usage_dashboards import fields_of, objects, visualizations
from usage_events import make_event

from longrun.errors import SpecError, StoreAway, TelemetryError
from longrun.usage.config import Options, make_config
from longrun.usage.event import FIELDS
from longrun.usage.search import Credentials, Search, read_credentials
from longrun.usage.stores import Keeper, open_store
from longrun.usage.stores.opensearch import (
    MAPPING,
    OpenSearchStore,
    _batches,
    document,
    policy,
    template,
)


def test_every_field_of_a_document_is_in_the_mapping_and_the_other_way_round():
    assert document(make_event(1)).keys() == MAPPING.keys()
    assert MAPPING.keys() - {"v", "series", "package", "package_name"} == {*FIELDS} - {"packages"}


def test_names_of_packages_are_values():
    found = document(make_event(1, packages={"numpy": "2.3.4", "a.b": "1"}))
    assert found["package"] == ["a.b==1", "numpy==2.3.4"]
    assert found["package_name"] == ["a.b", "numpy"]
    assert "packages" not in found
    assert template("x")["template"]["mappings"]["dynamic"] == "false"


@pytest.mark.parametrize(
    ("python", "series"), [("3.13.5", "3.13"), ("3.14.0rc1", "3.14"), ("", ""), ("4", "4")]
)
def test_a_series_is_the_first_two_numbers(python, series):
    assert document(make_event(1, python=python))["series"] == series


def test_a_bulk_is_never_larger_than_it_may_be_but_for_one_event():
    store = OpenSearchStore(Search(["http://localhost:9"]), host="c", rejected=Path("/nowhere"))
    items = [store._item(make_event(n)) for n in range(20)]
    each = max(len(item.data) for item in items)
    batches = list(_batches(items, 3 * each))
    assert all(sum(len(item.data) for item in batch) <= 3 * each for batch in batches)
    assert [item for batch in batches for item in batch] == items
    assert [len(batch) for batch in _batches(items[:2], 10)] == [1, 1]


def test_the_policy_deletes_what_is_too_old():
    states = {state["name"]: state for state in policy("x", 400)["policy"]["states"]}
    assert states["whole"]["transitions"][0]["conditions"] == {"min_index_age": "400d"}
    assert states["old"]["actions"] == [{"delete": {}}]


# who asks, and where


def test_a_password_is_read_from_a_file_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o640)
    with pytest.raises(TelemetryError, match=r"others can read this secret \(mode 0640\)") as e:
        read_credentials("me", path, None)
    assert e.value.remedy == f"chmod 600 {path}"
    path.chmod(0o400)
    assert read_credentials("me", path, None).header == "Basic bWU6c2VjcmV0"
    assert read_credentials("me", None, path).header == "Bearer secret"
    assert "secret" not in repr(read_credentials("me", None, path))
    assert read_credentials("me", None, None).header == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff"])
def test_a_file_without_a_secret_is_named(tmp_path, content):
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(TelemetryError, match="password: "):
        read_credentials("me", path, None)
    with pytest.raises(TelemetryError, match="nowhere"):
        read_credentials("me", tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    "url",
    [
        "opensearch:9200",
        "ftp://x",
        "http://",
        "http://u:p@x",
        "http://x:y",
        "http://x?a",
        "http://x:0",
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(TelemetryError, match="is not the URL"):
        Search([url])


def test_a_password_does_not_go_over_a_network_as_it_is():
    secret = Credentials(header="Bearer x")
    with pytest.raises(TelemetryError, match="go over the network"):
        Search(["http://opensearch.example.org:9200"], credentials=secret)
    Search(["http://localhost:9200"], credentials=secret)
    Search(["https://opensearch.example.org"], credentials=secret)


def test_a_file_that_holds_no_certificates_is_named(tmp_path):
    (tmp_path / "ca.pem").write_text("no")
    with pytest.raises(TelemetryError, match=r"ca\.pem: no certificates"):
        Search(["https://x"], ca_file=tmp_path / "ca.pem")


def test_pauses_grow_and_end_with_the_patience():
    pauses = Search(["http://localhost:9"], patience=60).pauses()
    assert pauses[-1] is None
    waits = [pause for pause in pauses if pause is not None]
    assert 30 <= sum(waits) <= 90
    assert len(waits) == 8
    assert Search(["http://localhost:9"], patience=0).pauses() == [None]


def test_who_cannot_be_reached_is_named_after_the_patience():
    slept: list[float] = []
    search = Search(["http://localhost:9"], patience=2, sleep=slept.append)
    store = OpenSearchStore(search, host="c", rejected=Path("/nowhere"))
    with pytest.raises(StoreAway, match=r"http://localhost:9: .*refused"):
        store.put([make_event(1)])
    assert len(slept) == 4
    assert isinstance(store, Keeper)


# the configuration


def configured(tmp_path: Path, **table: object) -> OpenSearchStore:
    document = {"store": "opensearch", "state": str(tmp_path), "host": "c1", "opensearch": table}
    store = open_store(make_config(Path("usage.toml"), document, {}))
    assert isinstance(store, OpenSearchStore)
    return store


def test_the_configuration_says_which_cluster_and_how(tmp_path):
    store = configured(tmp_path, url=["http://a:9200", "http://b:9200/"], bulk_mb=1, index="lab")
    assert store.search.urls == ["http://a:9200", "http://b:9200"]
    assert (store.bulk, store.index, store.host) == (1_000_000, "lab", "c1")
    assert store.rejected == tmp_path / "rejected.jsonl"
    assert not store.delete


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"opensearch\.url: expected .* found nothing"),
        ({"url": "http://a", "index": "Lab"}, r"opensearch\.index"),
        ({"url": "http://a", "ulr": "x"}, "unknown key 'ulr'"),
        ({"url": "http://a", "bulk_mb": 1000}, r"opensearch\.bulk_mb"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, table, message):
    with pytest.raises(SpecError, match=message):
        configured(tmp_path, **table)


def test_no_table_is_no_cluster(tmp_path):
    config = make_config(Path("usage.toml"), {"store": "opensearch"}, {})
    with pytest.raises(SpecError, match="url"):
        open_store(replace(config, tables={}))
    assert Options(config).config.store == "opensearch"


# dashboards


def test_each_visualization_asks_for_fields_that_are_there_and_can_be_counted():
    for one in visualizations():
        assert fields_of(one) <= MAPPING.keys(), one["id"]
    asked = set().union(*map(fields_of, visualizations()))
    assert {"series", "package", "package_name", "forbidden", "exit", "ci", "base"} <= asked


def test_every_reference_of_the_dashboards_leads_to_an_object_of_the_file():
    there = {(one["type"], one["id"]) for one in objects()}
    assert len(there) == len(objects())
    for one in objects():
        for reference in one["references"]:
            assert (reference["type"], reference["id"]) in there, one["id"]


def test_the_dashboard_shows_each_visualization_once_and_none_covers_another():
    (board,) = [one for one in objects() if one["type"] == "dashboard"]
    panels = json.loads(board["attributes"]["panelsJSON"])
    names = [reference["name"] for reference in board["references"]]
    assert [panel["panelRefName"] for panel in panels] == names
    assert len(panels) == len(visualizations())
    covered = set()
    for panel in panels:
        at = panel["gridData"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & covered
        assert at["x"] + at["w"] <= 48
        covered |= cells


def test_the_index_pattern_is_that_of_the_template():
    (pattern,) = [one for one in objects() if one["type"] == "index-pattern"]
    assert [pattern["attributes"]["title"]] == template("longrun-usage")["index_patterns"]
    assert MAPPING[pattern["attributes"]["timeFieldName"]]["type"] == "date"


def test_metrics_are_ordered_by_one_that_is_there():
    for one in visualizations():
        state = json.loads(one["attributes"]["visState"])
        ids = [agg["id"] for agg in state["aggs"]]
        assert len(ids) == len(set(ids)), one["id"]
        for agg in state["aggs"]:
            assert agg["params"].get("orderBy", ids[0]) in ids, one["id"]
