"""The dashboards that are given to OpenSearch, read."""

from __future__ import annotations

import json
import re
from pathlib import Path

DASHBOARDS = (
    Path(__file__).resolve().parents[2] / "deploy" / "opensearch" / "longrun-dashboards.ndjson"
)


def objects() -> list[dict]:
    *found, summary = [json.loads(line) for line in DASHBOARDS.read_text().splitlines()]
    assert summary["exportedCount"] == len(found)
    return found


def visualizations() -> list[dict]:
    return [one for one in objects() if one["type"] == "visualization"]


def fields_of(visualization: dict) -> set[str]:
    """The fields that it counts by, and those of its query."""
    state = json.loads(visualization["attributes"]["visState"])
    fields = {agg["params"]["field"] for agg in state["aggs"] if "field" in agg["params"]}
    meta = visualization["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]
    return fields | set(re.findall(r"(\w+):", json.loads(meta)["query"]["query"]))
