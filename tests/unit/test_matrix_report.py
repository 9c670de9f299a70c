"""The reports of a matrix: page, JUnit, comparison, table and summary."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matrix_maker as maker
import pytest
from rich.console import Console

from longrun.errors import BuildError, SpecError
from longrun.matrix import compare, html, junit
from longrun.matrix.report import FAILED, FIXED, FLAKY, GAP, PASSED, ImportTime, Need
from longrun.matrix.table import PlainTableReporter, TableReporter, summary, unfolded
from longrun.matrix.words import STATES, end_of, plain, tail, verdict

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "input", "br", "use", "path", "circle", "link", "img"}


class Page(HTMLParser):
    """A page as its reader has it: elements with attributes, and what is unclosed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, word: str = "") -> list[dict[str, str]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and (not word or word in attrs.get("class", "").split())
        ]


@pytest.fixture(scope="module")
def large():
    return maker.large()


@pytest.fixture(scope="module")
def large_page(large):
    return html.render(large)


# the page


def test_the_page_is_well_formed_and_small(large_page):
    assert Page(large_page).open == []
    assert len(large_page.encode()) < 3_000_000


def test_every_cell_is_a_link_to_its_details(large, large_page):
    page = Page(large_page)
    links = [attrs["href"] for attrs in page.all("a", "cell")]
    places = {attrs["id"] for attrs in page.all("article")}
    assert len(links) == len(set(links)) == len(large.cells)
    assert {link.removeprefix("#") for link in links} == places
    assert "pytango-late-cp313-bookworm" in places
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    inside = [attrs["href"] for attrs in page.all("a") if attrs["href"].startswith("#")]
    assert {link[1:] for link in inside} - set(ids) <= {"close", "tine-cp311-host"} | {
        f"tine-cp311-{system}" for system in maker.SYSTEMS
    }, "only cells that are gone have no details"


def test_a_cell_says_what_it_is_without_its_colour(large_page):
    labels = {attrs["href"]: attrs["aria-label"] for attrs in Page(large_page).all("a", "cell")}
    assert labels["#pydm-pyside6-cp313-trixie"] == "pydm-pyside6, cp313 · Debian 13: failed"
    assert labels["#snap7-cp313-host"] == "snap7, cp313 · This machine: fixed"


def test_the_page_needs_nothing_from_elsewhere(large_page):
    loads = {"src", "srcset", "data", "poster", "action", "xlink:href"}
    for tag, attrs in Page(large_page).elements:
        assert not loads & set(attrs), (tag, attrs)
        if tag == "a" and not attrs["href"].startswith("#"):
            assert attrs["class"] == "out"
        elif "href" in attrs:
            assert attrs["href"].startswith("#")
    style = large_page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_what_a_log_holds_stays_text():
    evil = "</pre></script><script>alert(1)</script><b onclick=x>&amp;\x00\x1b[31mred\x1b[0m"
    bad = maker.cell(
        "pydm", FAILED, log=evil, why="<i>why</i>", link="javascript:alert(1)", since="<u>"
    )
    page = Page(html.render(maker.matrix(bad)))
    assert len(page.all("script")) == 1
    assert page.all("u") == []
    assert not [attrs for _, attrs in page.elements if "onclick" in attrs]
    assert not [attrs for attrs in page.all("a") if "javascript" in attrs["href"]]
    assert (
        "</pre></script><script>alert(1)</script><b onclick=x>&amp;\N{REPLACEMENT CHARACTER}red"
        in (page.text)
    )
    assert "<i>why</i>" in page.text


def test_the_policy_of_the_page_allows_its_own_script_alone():
    import base64
    import hashlib

    text = html.render(maker.each_state())
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a for a in Page(text).all("meta") if "http-equiv" in a)["content"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_details_tell_how_each_run_ended():
    runs = (
        maker.attempt(-11, seconds=7.25, memory=123_000_000),
        maker.attempt(0, timed_out=True),
        maker.attempt(0, orphans=("caRepeater -v",)),
    )
    found = maker.cell("pydm", FAILED, attempts=runs, isolation="session", cached=True)
    text = Page(html.render(maker.matrix(found))).text
    for expected in (
        "killed by SIGSEGV 7.2 s 1.0 s 123.0 MB",
        "killed at its time limit",
        "left 1 process running",
        "caRepeater -v",
        "a session of its own",
        "an earlier time",
        found.key,
    ):
        assert expected in text


def test_the_counts_are_filters_by_state_and_libraries_are_found(large, large_page):
    page = Page(large_page)
    chips = page.all("button", "chip")
    assert [chip["data-state"] for chip in chips] == list(STATES)
    counts = large.counts()
    for state, word in ((PASSED, "passed"), (GAP, "known gaps"), (FAILED, "failed")):
        assert f"{counts[state]} {word}" in page.text
    rows = [attrs["data-words"].split() for attrs in page.all("tr") if "data-words" in attrs]
    row = next(words for words in rows if words[0] == "pydm")
    assert {"pydm", "Qt", "gui", "pyqt5"} <= set(row), "found by its library as well"


def test_a_state_that_no_cell_has_is_no_filter():
    page = Page(html.render(maker.matrix(maker.cell())))
    assert [a["data-state"] for a in page.all("button", "chip") if "disabled" not in a] == [PASSED]
    assert "The one cell passes." in page.text


def test_what_fails_is_told_once_with_all_its_places(large_page):
    attention = large_page.partition('id="attention"')[2].partition("</section>")[0]
    assert attention.count("killed by SIGSEGV after it had printed that all held") == 1
    for place in ("cp313-bookworm", "cp311-bookworm", "cp313-trixie", "cp311-trixie"):
        assert f"#pydm-pyside6-{place}" in attention


def test_a_check_that_an_interpreter_does_not_have_is_a_dash():
    cells = (
        maker.cell("pyepics"),
        maker.cell("pyepics", tag="cp311"),
        maker.cell("sardana", tag="cp311"),
    )
    text = html.render(maker.matrix(*cells))
    assert text.count("not for this interpreter") == 1


def test_long_logs_of_many_failures_keep_their_ends_and_the_page_small():
    cells = [
        maker.cell(check[1], FAILED, tag=tag, system=system, log="x" * 79 + "\n" + "y\n" * 30_000)
        for check in maker.CHECKS
        for tag in maker.PYTHONS
        for system in maker.SYSTEMS
    ]
    cells[0] = maker.cell("pyepics", FAILED, system="host", log="lost\n" * 9000 + "the very end\n")
    text = html.render(maker.matrix(*cells))
    assert len(text.encode()) < 3_500_000
    assert "the very end" in text
    assert "are left out" in text


def test_changes_are_told_by_what_they_mean(large_page):
    changes = large_page.partition('id="changes"')[2].partition("</section>")[0]
    parts = dict(re.findall(r"<h3>(\w+)</h3>(.*?)</ul>", changes, re.S))
    assert {"pydm-pyside6", "pytango-late"} <= set(re.findall(r"<b>(\S+)</b>", parts["Worse"]))
    assert re.findall(r"<b>(\S+)</b>", parts["Better"]) == ["taurus"]
    assert re.findall(r"<b>(\S+)</b>", parts["New"]) == ["xtrack"]
    assert re.findall(r"<b>(\S+)</b>", parts["Gone"]) == ["tine"]
    assert re.findall(r"<b>(\S+)</b>", parts["Versions"]) == ["pytango", "taurus"]
    assert "10.0.2 → 10.1.0" in parts["Versions"]


def test_without_a_matrix_before_there_are_no_changes_to_show():
    page = Page(html.render(maker.each_state()))
    assert not [a for a in page.all("section") if a.get("id") == "changes"]
    same = Page(html.render(maker.matrix(maker.cell(), before="2025.2")))
    assert "every state and every version is the same" in same.text


def test_needs_show_the_highest_first_as_versions_and_not_as_words():
    def need(name: str, glibc: str, tag: str = "cp313") -> Need:
        fields = {"version": "1", "layer": "base", "files": 1, "glibcxx": ""}
        return Need(tag=tag, name=name, glibc=glibc, **fields)

    needs = (need("low", "2.4"), need("high", "2.17"), need("high", "2.17", "cp311"))
    matrix = maker.matrix(maker.cell(), needs=(*needs, need("pure", "")))
    table = html.render(matrix).partition('id="needs-table"')[2].partition("</table>")[0]
    assert re.findall(r'<th scope="row">(\S+)</th>', table) == ["high", "low"]
    assert "<td>cp313 cp311</td>" in table
    assert "1 distributions need nothing" in Page(html.render(matrix)).text


def test_imports_show_the_longest_first_for_each_interpreter():
    def took(tag: str, module: str, warm: float, cold: float) -> ImportTime:
        return ImportTime(tag=tag, name=module, module=module, layer="base", warm=warm, cold=cold)

    times = (
        took("cp313", "quick", 0.01, 0.02),
        took("cp313", "slow", 0.2, 2.0),
        took("cp311", "less", -0.001, 0.5),
    )
    text = html.render(maker.matrix(maker.cell(), imports=times))
    shown = re.findall(r'class="module" title="\w+">(\w+)<.*?--cold: ([\d.]+)%', text)
    assert shown == [("slow", "100.00"), ("quick", "1.00"), ("less", "25.00")]
    assert "--warm: 0.00%" in text, "a bar has no negative length"


def test_a_part_of_a_matrix_says_so(large_page):
    part = Page(html.render(maker.matrix(maker.cell(), whole=False)))
    assert "not the whole matrix" in part.text
    assert "not the whole matrix" not in large_page


def test_an_empty_matrix_is_a_page_as_well():
    assert "No cell was run." in Page(html.render(maker.matrix())).text


# JUnit


def suites(matrix) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(junit.render(matrix))
    assert root.tag == "testsuites"
    return {suite.get("name"): suite for suite in root}


def cases(matrix) -> dict[str, ElementTree.Element]:
    return {
        case.get("name"): case
        for suite in suites(matrix).values()
        for case in suite.iter("testcase")
    }


def test_junit_has_a_suite_for_each_column_and_a_test_for_each_cell(large):
    found = suites(large)
    assert list(found)[:2] == ["cp313 · This machine", "cp311 · This machine"]
    assert sum(len(list(suite.iter("testcase"))) for suite in found.values()) == len(large.cells)
    suite = found["cp311 · Debian 13"]
    assert suite.get("failures") == "1"
    assert suite.get("skipped") == "1"
    case = next(suite.iter("testcase"))
    assert (case.get("classname"), case.get("name")) == ("EPICS", "pyepics")
    assert float(case.get("time")) > 0


def test_junit_tells_each_state_as_servers_read_it():
    found = cases(maker.each_state())
    assert [child.tag for child in found["pyepics"]] == ["properties"]
    assert "reruns: 1" in found["caproto"].find("system-out").text
    assert found["caproto"].find("failure") is None
    gap = found["pytango-late"].find("skipped")
    assert gap.text == gap.get("message")
    for expected in ("known gap: aborts at its end", "since 10.1.0", "issues/1"):
        assert expected in gap.text
    assert "fixed: the spec says" in found["jpype"].find("failure").text
    failure = found["pydm"].find("failure").text
    for expected in (
        "killed by SIGSEGV",
        "attempt 1: exit status 1",
        "a </script><b>log</b> & more",
    ):
        assert expected in failure


def test_junit_of_any_bytes_is_xml():
    log = "".join(map(chr, range(0x100))) + "\ud800\ufffe\x1b[1;31mred\x1b]0;title\x07 end"
    matrix = maker.matrix(maker.cell("pydm", FAILED, log=log, why="\x08 & <why>"))
    text = junit.render(matrix)
    text.encode("utf-8")
    failure = cases(matrix)["pydm"].find("failure")
    assert failure.text.endswith("red end")
    assert "& <why>" in failure.get("message")


def test_no_test_of_junit_has_two_outputs():
    """GitLab refuses the whole file where one has."""
    for case in cases(maker.each_state()).values():
        assert len(case.findall("system-out")) <= 1


# comparison


def before(*cells) -> dict:
    return json.loads(json.dumps(maker.matrix(*cells).to_json()))


def test_changes_are_the_cells_that_differ():
    old = before(
        maker.cell("pyepics"),
        maker.cell("caproto", FAILED),
        maker.cell("p4p", versions={"p4p": "4.2", "old": "1"}),
        maker.cell("redis"),
    )
    now = (
        maker.cell("pyepics"),
        maker.cell("caproto"),
        maker.cell("p4p", versions={"p4p": "4.3", "new": "2"}),
        maker.cell("zmq"),
    )
    found = compare.changes(now, old)
    assert [(change.check, change.before, change.now) for change in found] == [
        ("caproto", FAILED, PASSED),
        ("p4p", PASSED, PASSED),
        ("zmq", "", PASSED),
        ("redis", PASSED, ""),
    ]
    assert found[1].versions == {"p4p": ("4.2", "4.3"), "old": ("1", ""), "new": ("", "2")}
    assert found[2].versions == {}


def test_cells_that_were_not_asked_for_are_not_gone():
    old = before(maker.cell("pyepics"), maker.cell("redis"))
    assert compare.changes([maker.cell("pyepics")], old, whole=False) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema: expected 1, found None"),
        ('{"schema": 2, "cells": []}', "schema: expected 1, found 2"),
        ('{"schema": 1}', "cells: not those of a matrix"),
        ('{"schema": 1, "cells": [{"check": "x"}]}', "cells: not those of a matrix"),
        ('{"schema": 1, "cells": [3]}', "cells: not those of a matrix"),
    ],
)
def test_what_is_no_matrix_is_named(tmp_path, content, message):
    path = tmp_path / "matrix.json"
    path.write_text(content)
    with pytest.raises(SpecError) as caught:
        compare.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert caught.value.remedy


def test_a_matrix_that_was_written_is_read(tmp_path, large):
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps(large.to_json()))
    assert compare.changes(large.cells, compare.read(path)) == ()
    with pytest.raises(SpecError, match=r"none\.json"):
        compare.read(tmp_path / "none.json")


# words


def test_text_of_programs_is_fit_for_pages():
    said = "\x1b[1mbold\x1b[0m 10%\r 50%\r100%\r\nnext\x07\tend"
    assert plain(said) == "100%\nnext\N{REPLACEMENT CHARACTER}\tend"
    assert plain("é ✔ 🙂\n") == "é ✔ 🙂\n"


def test_the_end_of_a_text_begins_with_a_whole_line():
    text = "first line\nsecond line\nthird line"
    assert tail(text, 100) == text
    assert tail(text, 15).splitlines()[1:] == ["third line"]
    assert tail(text, 15).startswith("[… 23 characters")
    assert tail("x" * 50, 10).endswith("\n" + "x" * 10)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (maker.attempt(0), "ended well"),
        (maker.attempt(3), "exit status 3"),
        (maker.attempt(-6), "killed by SIGABRT"),
        (maker.attempt(-99), "killed by signal 99"),
        (maker.attempt(-9, timed_out=True), "killed at its time limit"),
        (maker.attempt(0, orphans=("a", "b")), "left 2 processes running"),
    ],
)
def test_the_end_of_a_run_in_words(attempt, words):
    assert end_of(attempt) == words


def test_the_verdict_is_a_sentence():
    assert verdict(maker.matrix(maker.cell("pyepics"), maker.cell("p4p"))) == "All 2 cells pass."
    good = maker.matrix(maker.cell(), maker.cell("p4p", FLAKY), maker.cell("caproto", GAP))
    assert verdict(good) == (
        "No cell fails: 2 cells pass, 1 of them only when run again, 1 is a known gap."
    )
    assert verdict(maker.each_state()) == (
        "1 cell fails and 1 known gap passes now, of 5 cells: not fit for a release."
    )
    assert verdict(maker.matrix(maker.cell("p4p", FIXED), maker.cell())) == (
        "1 known gap passes now, of 2 cells: not fit for a release."
    )


# the terminal


def test_a_log_has_a_line_a_cell_in_columns_that_line_up(tmp_path):
    steps = (
        maker.system_step(),
        maker.step("pyepics"),
        maker.step("pydm-pyside6", "cp311", "trixie"),
        maker.step("redis"),
        maker.step("zmq"),
    )
    states = {"pydm-pyside6": FAILED, "redis": FLAKY}
    columns = (maker.column(), maker.column("cp311", "trixie"))
    rows = tuple(map(maker.row, ("pyepics", "pydm-pyside6", "redis", "zmq")))
    out = io.StringIO()
    reporter = PlainTableReporter(
        columns,
        rows,
        {step.id: 60.0 for step in steps},
        jobs=2,
        judge=lambda step: states.get(step.spec.check.name),
        out=out,
    )
    reporter.begin(steps, cached=3)
    for step in steps[:4]:
        reporter.started(step)
        reporter.finished(step, 75.0)
    error = BuildError("no space left", remedy="make some")
    reporter.failed(steps[4], error, tmp_path / "none", [])
    reporter.end()
    assert out.getvalue().splitlines() == [
        "4 cells and 1 other step to run, 3 cached; about 2 min 30 s",
        "[1/5] made       system/bookworm 2026.1    1 min 15 s",
        "[2/5] passed     pyepics       cp313  bookworm    1 min 15 s",
        "[3/5] FAILED     pydm-pyside6  cp311  trixie      1 min 15 s",
        "[4/5] FLAKY      redis         cp313  bookworm    1 min 15 s",
        "cell/zmq-cp313-bookworm 2026.1 FAILED: no space left",
        "remedy:  make some",
    ]


def test_the_summary_counts_by_column_and_tells_why(large):
    lines = summary(large)
    assert lines[0].split() == ["passed", "flaky", "known", "gap", "fixed", "failed"]
    assert lines[1].split() == ["cp313", "·", "This", "machine", "40", "1", "2", "1", "-"]
    assert len({len(line) for line in lines[:10]}) == 1, "columns line up"
    text = "\n".join(lines)
    for expected in (
        "✘ failed  caproto\n    value after the server's restart: not within 20 s\n"
        "    cp311 · Debian 11  exit status 1 (24 s), then killed at its time limit (30 s)",
        "in all 8 columns\n    since 10.1.0, 2026-11-20  https://gitlab.com",
        "reruns: 1",
        "! fixed  snap7",
    ):
        assert expected in text
    assert lines[-1] == verdict(large)
    assert text.index("◐ known gap") < text.index("↻ flaky") < text.index("failed  caproto")


def test_a_low_terminal_shows_what_runs_and_fails(large):
    families = {}
    for row in large.rows:
        families.setdefault(row.group, []).append(row)
    states = {(row.name, "cp313", "host"): "waiting" for row in large.rows}
    states["p4p", "cp313", "host"] = "running"
    states["redis", "cp313", "host"] = FAILED
    everything = unfolded(families, states, 100)
    assert everything == families
    shown = unfolded(families, states, len(families) + 2)
    assert [row.name for rows in shown.values() for row in rows] == ["p4p", "redis"]
    one = unfolded(families, states, len(families) + 1)
    assert [row.name for rows in one.values() for row in rows] == ["p4p"], "what runs comes first"
    more = unfolded(families, states, len(families) + 9)
    assert [row.name for row in more["EPICS"]] == [row.name for row in families["EPICS"]]
    assert sum(map(len, more.values())) <= 9
    assert not any(unfolded(families, states, 3).values())


def test_nothing_is_printed_under_the_lock_that_drawing_takes(tmp_path, monkeypatch):
    """Rich draws under a lock of its own: a print from within ours waits for it, and it for us."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    reporter = TableReporter([maker.column()], [maker.row()], {}, jobs=2, console=console)
    held = []
    original = console.print

    def watched(*arguments, **options):
        held.append(reporter.lock.locked())
        original(*arguments, **options)

    monkeypatch.setattr(console, "print", watched)
    reporter.begin((maker.step(), maker.system_step()), cached=0)
    reporter.waiting(maker.step())
    reporter.started(maker.step())
    reporter.finished(maker.step(), 1.0)
    reporter.failed(maker.system_step(), BuildError("no"), tmp_path / "none", [])
    reporter.end()
    assert held
    assert not any(held)


LIVE = """
import sys, threading, time
sys.path[:0] = {paths!r}
from pathlib import Path
import matrix_maker as maker
from longrun.errors import BuildError
from longrun.matrix.table import TableReporter
columns = [maker.column(tag, system) for system in ("bookworm", "trixie") for tag in maker.PYTHONS]
rows = [maker.row(name) for name in ("pyepics", "caproto", "pytango")]
steps = [maker.step(row.name, one.tag, one.system) for row in rows for one in columns[1:]]
states = dict(zip((step.id for step in steps), ("passed", "flaky", "gap", "failed", "fixed")))
reporter = TableReporter(
    columns, rows, {{step.id: 20.0 for step in steps}}, jobs=2,
    judge=lambda step: states.get(step.id),
    known={{("pyepics", "cp313", "bookworm"): "passed"}},
)
others = [maker.system_step("trixie")]
reporter.begin((*others, *steps), cached=1)
reporter.started(others[0])
reporter.started(steps[0])
reporter.said(steps[0], "[/] not markup")
time.sleep(0.4)
reporter.finished(others[0], 1.0)
def run(mine):
    for step in mine:
        reporter.started(step)
        if step is steps[-1]:
            reporter.failed(step, BuildError("[/] no"), Path("/nonexistent"), [])
        else:
            reporter.finished(step, 1.0)
threads = [threading.Thread(target=run, args=(steps[at::2],)) for at in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
reporter.end()
"""


def test_a_terminal_shows_the_table_while_it_runs_and_at_the_end():
    script = textwrap.dedent(LIVE).format(paths=[str(Path(__file__).parent), str(ROOT / "src")])
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    done = subprocess.run([sys.executable, "-c", script], stderr=other, env=env)
    os.close(other)
    os.set_blocking(main, False)
    printed = b""
    while True:
        try:
            printed += os.read(main, 65536)
        except OSError:
            break
    text = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", printed.decode("utf-8", "replace"))
    assert done.returncode == 0, text
    assert "▸ 0" in text
    assert "▸ system/trixie 2026.1" in text
    assert re.search(r"0/10 about \d+ \w+", text)
    assert "⊘ cell/pytango-cp311-trixie 2026.1 FAILED: [/] no" in text
    final = text[text.rindex("Debian 12") :].replace("\r", "").splitlines()
    lines = {line.split()[0]: line.split()[1:] for line in final if line.strip()}
    assert lines["pyepics"] == ["✔", "✔", "↻", "◐"]
    assert lines["caproto"] == ["—", "✘", "!", "✔"]
    assert lines["pytango"] == ["—", "✔", "✔", "⊘"]
