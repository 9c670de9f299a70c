"""Events in OpenSearch: the store of a laboratory.

An event is a document of the index of the day of its start, under its own id: what is sent again
changes nothing. Names of packages are values and not fields, so that a cluster's mapping does not
grow with what people install. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from longrun.errors import StoreAway, TelemetryError
from longrun.usage.config import Options
from longrun.usage.event import Event
from longrun.usage.search import BUSY, Answer, Search, read_credentials, refused

NAME = "longrun-usage"
"""The name of template, policy and pipeline, and what indices begin with."""

KEYWORD = {"type": "keyword", "ignore_above": 1024}

MAPPING: dict[str, Any] = {
    "v": {"type": "byte", "index": False},
    "id": {"type": "keyword", "index": False, "doc_values": False},
    "host": KEYWORD,
    "boot": KEYWORD,
    "uid": {"type": "long", "index": False},
    "user": KEYWORD,
    "start": {"type": "date", "format": "epoch_millis"},
    "end": {"type": "date", "format": "epoch_millis"},
    "seconds": {"type": "float"},
    "python": KEYWORD,
    "series": KEYWORD,
    "release": KEYWORD,
    "layer": KEYWORD,
    "prefix": KEYWORD,
    "base": KEYWORD,
    "exe": KEYWORD,
    "how": KEYWORD,
    "name": KEYWORD,
    "ci": KEYWORD,
    "forbidden": KEYWORD,
    "flags": KEYWORD,
    "exit": KEYWORD,
    "code": {"type": "long"},
    "exc": KEYWORD,
    "package": KEYWORD,
    "package_name": KEYWORD,
    "venv": {"type": "boolean"},
    "more": {"type": "integer", "index": False},
}
"""Fields of a document. ``package`` are ``name==version``; ``series`` is ``3.13`` of 3.13.5.

Times are in whole milliseconds, which are a date in every place where OpenSearch reads one. What
finds an event is the document's ``_id``: ``id`` is not indexed, which saves a quarter of the size.
"""

POISON = frozenset(
    {
        "mapper_parsing_exception",
        "document_parsing_exception",
        "strict_dynamic_mapping_exception",
        "parsing_exception",
    }
)
"""Refusals that are the document's own: no patience helps."""

PIPELINE_SCRIPT = """\
def found = ctx.remove('packages');
def names = []; def pairs = [];
if (found instanceof Map) {
  for (one in found.entrySet()) {
    names.add(one.getKey()); pairs.add(one.getKey() + '==' + one.getValue());
  }
}
names.sort((one, other) -> one.compareTo(other));
pairs.sort((one, other) -> one.compareTo(other));
ctx.package_name = names; ctx.package = pairs;
ctx.start = Math.round(ctx.start * 1000.0);
if (ctx.end != null) { ctx.end = Math.round(ctx.end * 1000.0); }
if (ctx.python != null) {
  def first = ctx.python.indexOf('.'); def second = ctx.python.indexOf('.', first + 1);
  ctx.series = second < 0 ? ctx.python : ctx.python.substring(0, second);
}
"""
"""What ``document`` does, for events that come as lines through rsyslog."""

REJECTED_BYTES = 50_000_000
"""How large the file of what OpenSearch refused may get."""

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def document(event: Event) -> dict[str, Any]:
    """What is indexed of an event."""
    found = event.document()
    packages = found.pop("packages")
    found["start"] = millis(event.start)
    found["end"] = None if event.end is None else millis(event.end)
    found["series"] = ".".join(event.python.split(".")[:2])
    found["package"] = sorted(f"{name}=={version}" for name, version in packages.items())
    found["package_name"] = sorted(packages)
    return found


def millis(seconds: float) -> int:
    """Unix seconds as OpenSearch's milliseconds."""
    return math.floor(seconds * 1000 + 0.5)


@dataclass(frozen=True, kw_only=True)
class Item:
    """An event on its way: the lines of a bulk request."""

    event: Event
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an item was not indexed."""

    item: Item
    status: int
    type: str
    reason: str

    @property
    def passing(self) -> bool:
        """Whether the same item may be taken a little later."""
        return self.status in BUSY


class OpenSearchStore:
    """A store in a cluster. ``rejected`` is the file of events that it refuses for good.

    ``bulk`` is the number of bytes of one request before compression. ``delete`` says that this
    agent deletes old indices, where no policy of the cluster does.
    """

    def __init__(
        self,
        search: Search,
        *,
        host: str,
        rejected: Path,
        index: str = NAME,
        bulk: int = 5_000_000,
        delete: bool = False,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.search = search
        self.host = host
        self.rejected = rejected
        self.index = index
        self.bulk = bulk
        self.delete = delete
        self.say = say

    def put(self, events: Sequence[Event]) -> None:
        """Index events, or raise StoreAway; those that were taken may come again."""
        items = [self._item(event) for event in {event.id: event for event in events}.values()]
        for batch in _batches(items, self.bulk):
            self._put(batch)

    def prune(self, before: float) -> int:
        """Delete the indices of days that ended before a time, if that is left to this agent."""
        if not self.delete:
            return 0
        found = self.search.call("GET", f"/_cat/indices/{self.index}-*?format=json&h=index").json()
        old = [row["index"] for row in found if self._ended(row["index"]) <= before]
        for name in old:
            self.search.call("DELETE", f"/{name}", accept=(200, 404))
        return len(old)

    def pseudonymise(self, before: float, name: Callable[[str], str]) -> int:
        """Rename users of this host's events that started before a time; how many events."""
        mine = {
            "bool": {
                "filter": [
                    {"term": {"host": self.host}},
                    {"range": {"start": {"lt": millis(before)}}},
                ],
                "must_not": [{"prefix": {"user": "u-"}}],
            }
        }
        users = {"users": {"terms": {"field": "user", "size": 1000}}}
        asked = {"size": 0, "query": mine, "aggs": users}
        everywhere = f"/{self.index}-*"
        found = self.search.call("POST", f"{everywhere}/_search", asked).json()
        buckets = found.get("aggregations", {}).get("users", {}).get("buckets", [])
        names = {bucket["key"]: name(bucket["key"]) for bucket in buckets}
        if not names:
            return 0
        script = {
            "source": "ctx._source.user = params.names[ctx._source.user]; ctx._source.uid = null",
            "params": {"names": names},
        }
        known = {"bool": {"filter": [mine, {"terms": {"user": list(names)}}]}}
        answer = self.search.call(
            "POST",
            f"{everywhere}/_update_by_query?conflicts=proceed&refresh=true",
            {"query": known, "script": script},
            timeout=600,
        )
        return int(answer.json()["updated"])

    def close(self) -> None:
        """Close the connection."""
        self.search.close()

    def _item(self, event: Event) -> Item:
        day = datetime.fromtimestamp(event.start, UTC).date()
        action = {"index": {"_index": f"{self.index}-{day}", "_id": event.id}}
        return Item(event=event, data=f"{_encode(action)}\n{_encode(document(event))}\n".encode())

    def _ended(self, index: str) -> float:
        """When the day of an index ended (Unix seconds); never, for an index that has no day."""
        try:
            day = date.fromisoformat(index.removeprefix(f"{self.index}-"))
        except ValueError:
            return float("inf")
        return datetime.combine(day, datetime.min.time(), UTC).timestamp() + 86400

    def _put(self, items: Sequence[Item]) -> None:
        """Send until each item is in or set aside; StoreAway where patience ends."""
        left, accepted = list(items), 0
        for pause in self.search.pauses():
            refusals = self._send(left)
            accepted += len(left) - len(refusals)
            poison = [one for one in refusals if one.type in POISON]
            self._set_aside(poison)
            rest = [one for one in refusals if one.type not in POISON]
            if any(not one.passing for one in rest):
                # those that the cluster refuses for a reason of its own, such as too many shards
                self._give_up(rest, accepted)
                rest = [one for one in rest if one.passing]
            if not rest:
                return
            if pause is None:
                raise StoreAway(f"{self.search.url}: {rest[0].status} {rest[0].reason}")
            left = [one.item for one in rest]
            self.search.wait(pause)

    def _give_up(self, refusals: Sequence[Refusal], accepted: int) -> None:
        """Refused by a rule we do not know: the fault of an item if others were taken."""
        odd = [one for one in refusals if not one.passing]
        if odd[0].status != 400 or not accepted:
            raise StoreAway(
                f"{self.search.url}: {odd[0].status} {odd[0].type}: {odd[0].reason}",
                remedy="see what the cluster says; nothing is lost meanwhile",
            )
        self._set_aside(odd)

    def _send(self, items: Sequence[Item]) -> list[Refusal]:
        """One bulk request; what was not taken. One refused for its size or an item: in halves."""
        data = b"".join(item.data for item in items)
        path = "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
        answer = self.search.patient(
            lambda: self.search.send("POST", path, data, kind="application/x-ndjson")
        )
        invalid = answer.status == 400 and "validation" in answer.reason
        if (answer.status == 413 or invalid) and len(items) > 1:
            half = len(items) // 2
            return [*self._send(items[:half]), *self._send(items[half:])]
        if answer.status == 413:
            return [_refusal(items[0], 413, {"type": "parsing_exception", "reason": "too large"})]
        if invalid:
            return [_refusal(items[0], 400, {"type": "invalid", "reason": answer.reason})]
        if answer.status != 200:
            raise _as_away(refused(f"POST {self.search.url}/_bulk", answer))
        return _refusals(items, answer)

    def _set_aside(self, refusals: Sequence[Refusal]) -> None:
        """Keep what no OpenSearch will take in a file, and tell of it."""
        if not refusals:
            return
        lines = "".join(
            _encode(
                {
                    "time": int(time.time()),
                    "error": f"{one.type}: {one.reason}"[:500],
                    "event": one.item.event.document(),
                }
            )
            + "\n"
            for one in refusals
        )
        try:
            descriptor = os.open(
                self.rejected, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                if file.tell() < REJECTED_BYTES:
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise StoreAway(f"{self.rejected}: {error}") from error
        first = refusals[0]
        self.say(
            f"{len(refusals)} events refused by {self.search.url}, now in {self.rejected}; the "
            f"first: {first.item.event.id}: {first.type}: {first.reason}"
        )


def _batches(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    """Items in requests of so many bytes; at least one in each."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and size + len(item.data) > most:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.data)
    if batch:
        yield batch


def _refusals(items: Sequence[Item], answer: Answer) -> list[Refusal]:
    """The items of a bulk request that were not taken; the answer has them in the same order."""
    found = answer.json()
    if not found.get("errors"):
        return []
    results = [next(iter(one.values())) for one in found["items"]]
    if len(results) != len(items):
        raise StoreAway(f"an answer for {len(results)} of {len(items)} events")
    return [
        _refusal(item, result["status"], result.get("error") or {})
        for item, result in zip(items, results, strict=True)
        if result["status"] not in (200, 201)
    ]


def _refusal(item: Item, status: int, error: dict[str, Any]) -> Refusal:
    return Refusal(
        item=item,
        status=status,
        type=str(error.get("type", "")),
        reason=str(error.get("reason", ""))[:300],
    )


def _as_away(error: TelemetryError) -> StoreAway:
    return error if isinstance(error, StoreAway) else StoreAway(error.message, remedy=error.remedy)


# what a cluster has to know


def template(index: str, *, shards: int = 1, replicas: int = 1) -> dict[str, Any]:
    """The index template: other fields than those of the mapping are kept, but not indexed."""
    return {
        "index_patterns": [f"{index}-*"],
        "priority": 200,
        "template": {
            "settings": {
                "index": {
                    "number_of_shards": str(shards),
                    "number_of_replicas": str(replicas),
                    "refresh_interval": "30s",
                    "codec": "best_compression",
                }
            },
            "mappings": {"dynamic": "false", "properties": MAPPING},
        },
    }


def policy(index: str, days: int) -> dict[str, Any]:
    """The policy of index state management: one segment after two days, deleted after ``days``."""
    return {
        "policy": {
            "description": f"Longrun's usage: indices are deleted after {days} days",
            "default_state": "new",
            "states": [
                _state("new", [], "whole", 2),
                _state("whole", [{"force_merge": {"max_num_segments": 1}}], "old", days),
                {"name": "old", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [{"index_patterns": [f"{index}-*"], "priority": 200}],
        }
    }


def _state(name: str, actions: list[dict[str, Any]], then: str, days: int) -> dict[str, Any]:
    moment = {"state_name": then, "conditions": {"min_index_age": f"{days}d"}}
    return {"name": name, "actions": actions, "transitions": [moment]}


def pipeline() -> dict[str, Any]:
    """The ingest pipeline for events that come as they are, through rsyslog."""
    script = {"script": {"lang": "painless", "source": PIPELINE_SCRIPT}}
    return {"description": "Longrun's usage: events as lines", "processors": [script]}


def setup(
    search: Search, index: str, *, days: int, shards: int = 1, replicas: int = 1
) -> dict[str, str]:
    """Give the cluster template, pipeline and policy; by name, what was done with each.

    Doing it again changes nothing. ``policy`` is ``missing`` where the cluster has no index state
    management.
    """
    wanted = template(index, shards=shards, replicas=replicas)
    return {
        "template": _give(search, f"/_index_template/{index}", wanted, _template_of),
        "pipeline": _give(search, f"/_ingest/pipeline/{index}", pipeline(), _pipeline_of),
        "policy": _give_policy(search, index, policy(index, days)),
    }


def _give(search: Search, path: str, wanted: dict[str, Any], found_in: Callable[[Any], Any]) -> str:
    answer = search.call("GET", path, accept=(200, 404))
    before = found_in(answer.json()) if answer.status == 200 else None
    if before is not None and _within(wanted, before):
        return "unchanged"
    search.call("PUT", path, wanted)
    return "created" if before is None else "changed"


def _template_of(found: Any) -> Any:
    return found["index_templates"][0]["index_template"]


def _pipeline_of(found: Any) -> Any:
    return next(iter(found.values()))


def _give_policy(search: Search, index: str, wanted: dict[str, Any]) -> str:
    path = f"/_plugins/_ism/policies/{index}"
    answer = search.call("GET", path, accept=(200, 400, 404, 405))
    if answer.status in (400, 405) or "no handler found" in answer.reason:
        return "missing"
    if answer.status == 404:
        search.call("PUT", path, wanted)
        # a policy takes new indices by itself, and those that are there when told
        search.call("POST", f"/_plugins/_ism/add/{index}-*", {"policy_id": index}, accept=ANY)
        return "created"
    found = answer.json()
    if _within(wanted, found):
        return "unchanged"
    place = f"?if_seq_no={found['_seq_no']}&if_primary_term={found['_primary_term']}"
    search.call("PUT", f"{path}{place}", wanted)
    return "changed"


ANY = tuple(range(200, 500))


def _within(wanted: object, found: object) -> bool:
    """Whether all that is wanted was found; a cluster adds keys of its own and writes texts."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and _within(value, found[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_within(one, other) for one, other in zip(wanted, found, strict=True))
        )
    return wanted == found or str(wanted) == str(found)


def make_search(options: Options) -> Search:
    """The cluster that a configuration's table ``[opensearch]`` describes."""
    password = options.path("password_file") if options.has("password_file") else None
    token = options.path("token_file") if options.has("token_file") else None
    user = options.text("user", "longrun-usage")
    return Search(
        options.texts("url"),
        credentials=read_credentials(user, password, token),
        ca_file=options.path("ca_file") if options.has("ca_file") else None,
        timeout=options.number("timeout_seconds", 30, least=1),
        patience=options.number("patience_seconds", 30, least=0),
    )


def open_store(options: Options) -> OpenSearchStore:
    """The store that a configuration's table ``[opensearch]`` describes."""
    return OpenSearchStore(
        make_search(options),
        host=options.config.host,
        rejected=options.path("rejected", options.config.state / "rejected.jsonl"),
        index=index_name(options),
        bulk=int(options.number("bulk_mb", 5, least=0.01, most=90) * 1e6),
        delete=options.flag("delete_old", False),
    )


def index_name(options: Options) -> str:
    """What indices begin with."""
    name = options.text("index", NAME)
    if name != name.lower() or not name.replace("-", "").replace("_", "").isalnum():
        raise options.wrong("index", "lower case letters, digits, - and _", name)
    return name
