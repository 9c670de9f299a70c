"""Reports: what they count, in a terminal, as JSON and as a page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from usage_events import DAY, NOON, make_event

from longrun.errors import TelemetryError, UsageError
from longrun.usage import cli, report_text
from longrun.usage.report import Report, Span, make_report, make_view, span_of, version_key
from longrun.usage.report_duckdb import ParquetSource
from longrun.usage.report_html import render
from longrun.usage.stores.parquet import ParquetStore

NOW = datetime.fromtimestamp(NOON + 3600, UTC)
SPAN = Span(since=NOON - NOON % DAY - 29 * DAY, until=NOON - NOON % DAY + DAY)
OLD = {
    "python": "3.11.2",
    "base": "/opt/longrun/cp311",
    "packages": {"numpy": "1.26.4", "pyepics": "3.5.10"},
}
VENV = {"venv": True, "prefix": "/home/anna/venv"}
EVIL = "</script><img src=x onerror=alert(1)>\x1b[31m'\"&"

EVENTS = [
    make_event(1),
    make_event(2, host="console2", user="anna"),
    make_event(3, **OLD, **VENV, name="rf.scan"),
    make_event(4, **OLD, **VENV, name="rf.scan", host="console2", exit="exception", exc="KeyError"),
    make_event(5, **OLD, prefix="/opt/longrun/cp311", name="old", start=NOON - 20 * DAY),
    make_event(6, ci="gitlab", host="runner1", layer=None, exit="status", code=2),
    make_event(7, exit="none", end=None, forbidden=("LD_LIBRARY_PATH", "PYTHONPATH")),
    make_event(8, forbidden=("PYTHONPATH",), name=None, how="stdin"),
    make_event(9, start=NOON - 40 * DAY, name="before the span"),
    make_event(10, start=NOON + DAY, name="after the span"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("usage") / "data"
    store = ParquetStore(directory)
    store.put(EVENTS[:6])
    store.put(EVENTS[6:])
    store.close()
    return directory


@pytest.fixture(scope="module")
def report(data) -> Report:
    with ParquetSource(data, SPAN) as source:
        return make_report(source, SPAN, retire="", now=NOW)


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: object) -> str:
        assert cli.main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


def counts(rows) -> dict[str, int]:
    return {row.name: row.count.invocations for row in rows}


def test_only_the_span_counts(report):
    assert report.totals.invocations == 8
    assert (report.totals.hosts, report.totals.users, report.totals.programs) == (3, 2, 3)
    assert (report.since, report.until) == ("2025-10-23", "2025-11-21")
    assert len(report.days) == 30


def test_interpreters_and_how_they_are_taken_up(report):
    assert counts(report.interpreters) == {"3.13": 5, "3.11": 3}
    assert [part.name for part in report.interpreters[0].parts] == ["3.13.5"]
    assert report.adoption.values["3.11"][9] == 1
    assert report.adoption.values["3.11"][29] == 2
    assert sum(report.adoption.values["3.13"]) == 5
    assert report.adoption_hosts.values["3.13"][29] == 3
    assert report.share("3.13") == 5 / 7


def test_what_is_to_be_retired_is_the_oldest_and_who_still_uses_it_was_seen_lately(report):
    assert report.retire == "3.11"
    assert counts(report.retiring) == {"rf.scan": 2, "old": 1}
    assert [one.name for one in report.still(report.retiring)] == ["rf.scan"]
    assert counts(report.retiring_hosts) == {"console1": 2, "console2": 1}
    assert report.still(report.retiring)[0].count.hosts == 2


def test_the_oldest_is_so_by_its_number():
    assert sorted(["3.9", "3.13", "3.11", "3"], key=version_key) == ["3", "3.9", "3.11", "3.13"]
    assert version_key("2.0rc1") < version_key("2.0.1")


def test_packages_those_on_most_hosts_first_and_their_versions_newest_first(report):
    assert [(one.name, one.count.hosts) for one in report.packages] == [
        ("numpy", 3),
        ("pyepics", 3),
    ]
    numpy, pyepics = report.packages
    assert [(part.name, part.count.invocations) for part in numpy.parts] == [
        ("2.3.4", 5),
        ("1.26.4", 3),
    ]
    assert [part.name for part in pyepics.parts] == ["3.5.10", "3.5.7"]
    assert numpy.count.programs == 3


def test_the_census_counts_environments_and_who_runs_the_prefix_itself(report):
    census = {one.base: one for one in report.prefixes}
    old = census["/opt/longrun/cp311"]
    assert counts(old.environments) == {"/home/anna/venv": 2}
    assert old.environments[0].count.hosts == 2
    assert old.own.invocations == 1
    assert census["/opt/longrun/cp313"].environments == ()
    assert census["/opt/longrun/cp313"].own.invocations == 5


def test_forbidden_things_and_the_programs_that_have_them(report):
    assert counts(report.forbidden) == {"PYTHONPATH": 2, "LD_LIBRARY_PATH": 1}
    assert counts(report.forbidden[0].parts) == {"": 1, "orbit.display": 1}


def test_failures_by_kind_by_exception_and_by_program(report):
    assert counts(report.exits) == {"ok": 5, "exception": 1, "none": 1, "status": 1}
    assert counts(report.exceptions) == {"KeyError": 1}
    assert [(one.name, one.failed, one.count.invocations) for one in report.failing] == [
        ("orbit.display", 1, 4),
        ("rf.scan", 1, 2),
    ]


def test_layers_ci_and_hosts(report):
    assert counts(report.layers) == {"controls": 7, "": 1}
    assert counts(report.ci) == {"": 7, "gitlab": 1}
    assert counts(report.hosts) == {"console1": 5, "console2": 2, "runner1": 1}
    assert counts(report.hosts[0].parts) == {"3.13": 3, "3.11": 2}


def test_json_has_a_version_and_no_user(report):
    document = json.loads(json.dumps(report.document()))
    assert document["schema"] == 1
    assert document["interpreters"][0]["parts"][0]["name"] == "3.13.5"
    assert "operator" not in json.dumps(document)
    assert "anna" not in json.dumps({**document, "prefixes": []})


@pytest.mark.parametrize(("since", "days"), [("90d", 90), ("2w", 14), ("2025-11-20", 2), ("1d", 1)])
def test_a_span_ends_with_today(since, days):
    span = span_of(since, NOW)
    assert len(span.days) == days
    assert span.days[-1] == "2025-11-21"


@pytest.mark.parametrize("since", ["", "d", "0d", "90", "-3d", "٣d", "99999d", "2026-01-01", "x"])
def test_what_is_no_span_is_refused(since):
    with pytest.raises(UsageError, match="no span of days") as error:
        span_of(since, NOW)
    assert "90d" in error.value.remedy


# in a terminal


def test_a_report_begins_with_what_matters(report):
    lines = report_text.lines_of(report)
    share = "71\N{NARROW NO-BREAK SPACE}%"
    assert lines[0] == (
        f"Python 3.13 makes {share} of the starts of the last two weeks, "
        "and 2 hosts still use 3.11."
    )
    text = "\n".join(lines)
    for words in ("rf.scan", "/opt/longrun/cp311", "PYTHONPATH", "died of an exception", "people"):
        assert words in text


def test_tables_line_up_and_fit(report, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    lines = report_text.view_lines("interpreter", report.interpreters)
    head, *rows = lines[2:]
    for row in rows:
        assert len(row) <= 72
        assert row.index("2025-11-21") + len("2025-11-21") == head.index("last") + 4


def test_nothing_was_recorded(tmp_path):
    store = ParquetStore(tmp_path / "data")
    store.put([make_event(1, start=NOON - 50 * DAY)])
    with ParquetSource(tmp_path / "data", SPAN) as source:
        empty = make_report(source, SPAN, retire="", now=NOW)
    assert "No invocation" in report_text.lines_of(empty)[0]
    assert "No invocation" in render(empty)


def test_nothing_is_left_to_retire(data):
    with ParquetSource(data, SPAN) as source:
        report = make_report(source, SPAN, retire="3.9", now=NOW)
    assert "3.9 is used no more" in report_text.lines_of(report)[0]
    assert "it may go" in "\n".join(report_text.lines_of(report))
    assert "nobody" in render(report)


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (1, 2, "50 %"),
        (1, 5000, "<0.1 %"),
        (3, 300, "1.0 %"),
        (9999, 10000, "99.9 %"),
        (0, 0, "0 %"),
    ],
)
def test_shares_are_never_nothing_where_there_is_something(part, whole, shown):
    assert report_text.percent(part, whole).replace(report_text.SPACE, " ") == shown


# the verb


def test_the_verb_prints_a_view_as_text_and_as_json(run, data):
    text = run("report", "--data", data, "--since", "2025-10-23", "--by", "package")
    assert re.search(r"numpy +8 +3 +2 +3", text) or "numpy" in text
    document = json.loads(
        run("report", "--data", data, "--since", "2025-10-23", "--by", "host", "--json")
    )
    assert document["schema"] == 1
    assert document["by"] == "host"
    names = [row["name"] for row in document["rows"]]
    assert names == ["console1", "console2", "runner1"]


def test_the_verb_writes_a_page_and_prints_json(run, data, tmp_path):
    page = tmp_path / "usage.html"
    assert run("report", "--data", data, "--since", "2025-10-23", "--html", page).strip() == str(
        page
    )
    assert "<svg" in page.read_text()
    found = json.loads(run("report", "--data", data, "--since", "2025-10-23", "--json"))
    assert found["retire"] == "3.11"


def test_the_configured_store_is_asked(run, data, tmp_path):
    config = tmp_path / "usage.toml"
    config.write_text(f'store = "parquet"\n[parquet]\ndirectory = "{data}"\n')
    words = ("report", "--config", config, "--since", "2025-10-23", "--by", "ci", "--json")
    rows = json.loads(run(*words))["rows"]
    assert {row["name"] for row in rows} == {"", "gitlab"}


def test_wrong_questions_get_an_answer(data, capsys, tmp_path):
    assert cli.main(["report", "--data", str(tmp_path / "nowhere")]) == TelemetryError.exit_code
    assert "no such directory" in capsys.readouterr().err
    words = ["report", "--data", str(data), "--by", "ci", "--html", str(tmp_path / "x")]
    assert cli.main(words) == UsageError.exit_code
    config = tmp_path / "usage.toml"
    config.write_text('store = "lines"\n')
    assert cli.main(["report", "--config", str(config)]) == UsageError.exit_code
    assert "which no report reads" in capsys.readouterr().err


def test_without_duckdb_the_remedy_is_told(data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert cli.main(["report", "--data", str(data)]) == TelemetryError.exit_code
    assert "pip install duckdb" in capsys.readouterr().err


def test_a_view_is_the_same_as_in_the_whole_report(data, report):
    with ParquetSource(data, SPAN) as source:
        for view in ("interpreter", "package", "host", "layer", "ci"):
            assert make_view(source, view) == report.rows(view)


# the page


class Page(HTMLParser):
    """Tags, identifiers and links of a page; a tag that is not closed in its place fails."""

    VOID = frozenset({"meta", "wbr", "br", "img", "path", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.plots: list[dict] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("href", "src") if key in found]
        if "data-plot" in found:
            self.plots.append(json.loads(found["data-plot"]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_whose_links_lead_somewhere(report):
    text = render(report)
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.plots) == 4
    assert not re.search(r"https?://|@import|url\(", text)


def test_its_policy_allows_the_one_script_it_has(report):
    text = render(report)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in text


def test_plots_show_what_was_counted(report):
    page = Page(render(report))
    plot = page.plots[0]
    assert plot["days"][0] == "23 October 2025"
    assert [(name, sum(values)) for name, _, values in plot["series"]] == [("3.13", 5), ("3.11", 3)]


def test_names_of_anybody_cannot_break_the_page_or_move_a_terminal(tmp_path):
    store = ParquetStore(tmp_path / "data")
    evil = {
        "name": EVIL,
        "host": EVIL,
        "layer": EVIL,
        "ci": EVIL,
        "exc": EVIL,
        "exit": "exception",
        "prefix": EVIL,
        "base": EVIL,
        "python": f"3.11.{EVIL}",
        "forbidden": (EVIL,),
        "packages": {EVIL: EVIL},
        "venv": True,
    }
    store.put([make_event(1, **evil), make_event(2)])
    with ParquetSource(tmp_path / "data", SPAN) as source:
        report = make_report(source, SPAN, retire="", now=NOW)
    page = Page(render(report))
    assert page.tags.count("img") == 0
    assert page.tags.count("script") == 1
    assert not any("\x1b" in line for line in report_text.lines_of(report))
