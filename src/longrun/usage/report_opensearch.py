"""Counts of events in OpenSearch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from longrun.errors import TelemetryError
from longrun.usage.report import Count, Group, Span
from longrun.usage.search import Search
from longrun.usage.stores.opensearch import millis

PAGE = 1000
"""Groups that one answer has; a cluster allows 10,000 and the memory for their counts."""

MOST = 200_000
"""Groups after which something is wrong with what is asked."""

PRECISION = 3000
"""Up to so many hosts, users or programs the count is nearly exact."""

DISTINCT = {"hosts": "host", "users": "user", "programs": "name"}


class OpenSearchSource:
    """The events of a span of days in a cluster."""

    def __init__(self, search: Search, index: str, span: Span) -> None:
        self.title = search.url
        self._search = search
        self._path = f"/{index}-*/_search?request_cache=true&ignore_unavailable=true"
        self._span = {"gte": millis(span.since), "lt": millis(span.until)}
        # what an agent has just sent counts
        search.call("POST", f"/{index}-*/_refresh", accept=(200, 403, 404))

    def __enter__(self) -> OpenSearchSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._search.close()

    def group(
        self,
        by: Sequence[str],
        where: Mapping[str, object] | None = None,
        *,
        distinct: Sequence[str] = ("hosts", "users", "programs"),
    ) -> list[Group]:
        """See ``longrun.usage.report.Source``."""
        inside = _counts(distinct)
        query = {"bool": {"filter": [{"range": {"start": self._span}}, *_filters(where or {})]}}
        if not by:
            found = self._ask({"query": query, "aggs": inside, "track_total_hits": True})
            total = {**found.get("aggregations", {}), "doc_count": found["hits"]["total"]["value"]}
            return [_group([], {"key": {}, **total}, distinct)] if total["doc_count"] else []
        pages: dict[str, Any] = {"size": PAGE, "sources": [_source_of(name) for name in by]}
        groups: list[Group] = []
        while len(groups) <= MOST:
            asked = {"groups": {"composite": pages, "aggs": inside}}
            found = self._ask({"query": query, "aggs": asked}).get("aggregations")
            buckets = found["groups"]["buckets"] if found else []
            groups += [_group(by, bucket, distinct) for bucket in buckets]
            if len(buckets) < PAGE:
                return groups
            pages = {**pages, "after": found["groups"]["after_key"]}
        raise TelemetryError(
            f"{self.title}: more than {MOST} groups by {', '.join(by)}",
            remedy="ask for fewer days with --since",
        )

    def _ask(self, body: dict[str, Any]) -> Any:
        return self._search.call("POST", self._path, {"size": 0, **body}, timeout=300).json()


def _counts(distinct: Sequence[str]) -> dict[str, Any]:
    counts = {
        name: {"cardinality": {"field": DISTINCT[name], "precision_threshold": PRECISION}}
        for name in distinct
    }
    return {"last": {"max": {"field": "start"}}, **counts}


def _source_of(name: str) -> dict[str, Any]:
    if name == "day":
        return {name: {"date_histogram": {"field": "start", "calendar_interval": "day"}}}
    # without a value: what is not started by CI has none; a name of a package is never missing
    missing = name not in ("package", "package_name", "forbidden")
    return {name: {"terms": {"field": name, "missing_bucket": missing}}}


def _filters(where: Mapping[str, object]) -> list[dict[str, Any]]:
    return [
        {"terms": {name: value}} if isinstance(value, list) else {"term": {name: value}}
        for name, value in where.items()
    ]


def _group(by: Sequence[str], bucket: Mapping[str, Any], distinct: Sequence[str]) -> Group:
    counts = {name: int(bucket[name]["value"]) for name in distinct}
    last = (bucket["last"]["value"] or 0) / 1000
    keys = tuple(_key(name, bucket["key"][name]) for name in by)
    return Group(keys=keys, count=Count(invocations=bucket["doc_count"], last=last, **counts))


def _key(name: str, value: Any) -> Any:
    if name == "day":
        return datetime.fromtimestamp(value / 1000, UTC).date().isoformat()
    if name == "package":
        distribution, _, version = value.partition("==")
        return distribution, version
    return value
