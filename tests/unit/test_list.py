"""``list`` and ``show``: what a release ships, as a person and as a script see it."""

from __future__ import annotations

import json
import re
import sys

import pytest
from stack_maker import give_lock, give_package, give_stack

from longrun.cli import main


@pytest.fixture
def cli(checkout, tmp_path, monkeypatch, capsys):
    """Run a verb on a checkout with a small stack: (status, printed, complaint)."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LONGRUN_CONFIG", raising=False)
    give_stack(checkout.root)

    def run(*argv: str) -> tuple[int, str, str]:
        status = main(checkout.root, list(argv))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


@pytest.fixture
def screen(cli, monkeypatch):
    """Run a verb on a terminal of so many columns: the lines that it shows, without colours."""

    def show(columns: int, *argv: str) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        status, printed, complaint = cli(*argv)
        assert status == 0, complaint
        return re.sub(r"\x1b\[\d+m", "", printed).splitlines()

    return show


def listed(cli, *argv: str) -> dict[str, dict]:
    """The distributions that ``list --json`` has, by name."""
    document = json.loads(cli("list", "--json", *argv)[1])
    return {row["name"]: row for row in document["distributions"]}


def test_list_has_each_distribution_once_with_its_version_for_each_interpreter(cli):
    rows = listed(cli)
    assert set(rows) == {"numpy", "pyepics", "pyparsing", "tracker", "panel-kit"}
    versions = {tag: file["version"] for tag, file in rows["numpy"]["interpreters"].items()}
    assert versions == {"cp313": "2.5.1", "cp311": "2.4.0"}
    assert list(rows["panel-kit"]["interpreters"]) == ["cp313"]
    assert (rows["numpy"]["curated"], rows["numpy"]["why"]) == (True, "arrays")
    assert (rows["pyparsing"]["curated"], rows["pyparsing"]["with"]) == (False, ["pyepics"])


def test_a_distribution_is_listed_in_the_layer_where_it_comes_in(cli):
    rows = listed(cli)
    assert rows["numpy"]["layer"] == "base"
    assert rows["numpy"]["layers"] == ["base", "controls", "gui"]
    assert rows["pyparsing"]["layer"] == "controls"


def test_a_layer_is_listed_with_those_that_it_builds_on_and_nothing_else(cli):
    assert set(listed(cli, "--layer", "base")) == {"numpy"}
    rows = listed(cli, "--layer", "controls", "--python", "3.11")
    assert set(rows) == {"numpy", "pyepics", "pyparsing", "tracker"}
    assert list(rows["numpy"]["interpreters"]) == ["cp311"]


def test_totals_count_what_a_layer_adds_and_what_it_has(cli):
    document = json.loads(cli("list", "--json")[1])
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["gui"]["own"]["cp313"] == {"distributions": 1, "bytes": 300_000}
    assert layers["gui"]["own"]["cp311"] == {"distributions": 0, "bytes": 0}
    assert layers["controls"]["whole"]["cp311"] == {"distributions": 4, "bytes": 25_121_000}
    assert document["totals"]["cp313"]["distributions"] == 5


def test_who_something_came_with_is_of_the_layer_that_it_is_listed_in(cli, checkout):
    """Accepted for a panel, and then asked for by numpy: in base there is no panel."""
    give_package(checkout.root, "panel-kit", "gui", why="panels", extra='brings = ["pyparsing"]')
    lock = "specs/locks/2026.1/cp313.lock.toml"
    checkout.replace(lock, '{pyepics = ">=3"}', '{panel-kit = "", numpy = "", pyepics = ">=3"}')
    row = listed(cli, "--python", "3.13")["pyparsing"]
    assert (row["layer"], row["with"]) == ("base", ["numpy"])
    assert row["accepted_by"] == ["panel-kit", "pyepics"]


def test_in_a_pipe_each_distribution_is_one_line_of_uncut_columns(cli):
    status, printed, _ = cli("list")
    assert status == 0
    assert printed.splitlines() == [
        "layer\tname\tcp313\tcp311\tlicence\tbytes\twhy",
        "base\tnumpy\t2.5.1\t2.4.0\tMIT\t20000000\tarrays",
        "controls\tpyepics\t3.5.10\t3.5.10\tEPICS Open License\t5000000\tChannel Access",
        "controls\ttracker\t1.0\t1.0\tMIT\t1000\torbits",
        "controls\tpyparsing\t3.3.3\t3.3.3\tMIT\t120000\twith pyepics",
        "gui\tpanel-kit\t0.9\t-\tMIT\t300000\tpanels",
    ]


@pytest.mark.parametrize("columns", [70, 80, 100, 140])
def test_a_table_fits_the_terminal(screen, checkout, columns):
    long = "What an operator does with it at three in the morning, when nobody answers. " * 2
    give_package(checkout.root, "numpy", "base", why=long.strip())
    lines = screen(columns, "list")
    table = [line for line in lines if not line.startswith(("Longrun", "./build.py"))]
    assert max(map(len, table)) <= columns
    (row,) = (line for line in lines if line.startswith("  numpy "))
    assert row.endswith("…")


def test_a_table_is_in_groups_with_summary_heads_and_totals(screen):
    lines = screen(120, "list", "--layer", "controls")
    group = lines[lines.index("controls: control systems; on base") + 1 :]
    assert group[0].split() == ["name", "cp313", "cp311", "licence", "size", "why"]
    names = [line.split()[0] for line in group[1:4]]
    assert names == ["pyepics", "tracker", "pyparsing"], "the packages before what came along"
    assert group[3].endswith("with pyepics")
    assert group[4] == "  3 distributions, 5.1 MB"
    assert "in all: 4 distributions, 25.1 MB" in lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GNU Lesser General Public License v3 (LGPLv3)", "LGPLv3"),
        ("Apache Software License", "Apache"),
        ("MIT License", "MIT"),
        ("Zlib AND (MIT OR X)", "Zlib AND (MIT OR…"),
        ("MIT License, BSD License", "MIT License, BSD…"),
        ("", "-"),
    ],
)
def test_a_table_has_licences_short(screen, checkout, text, shown):
    lock = "specs/locks/2026.1/cp313.lock.toml"
    checkout.replace(lock, '"EPICS Open License"', f'"{text}"')
    (row,) = (line for line in screen(140, "list") if line.startswith("  pyepics "))
    assert f"  {shown}  " in row


def test_totals_are_told_by_interpreter_where_they_differ(screen):
    lines = screen(120, "list")
    assert "  cp313: 1 distribution, 300 kB; cp311: 0 distributions, 0 B" in lines
    assert "in all: cp313: 5 distributions, 25.4 MB; cp311: 4 distributions, 25.1 MB" in lines


@pytest.mark.parametrize("verb", [("list",), ("show", "numpy")])
def test_before_there_is_a_lock_its_remedy_is_told(cli, checkout, verb):
    (checkout.root / "specs/locks/2026.1/cp311.lock.toml").unlink()
    status, printed, complaint = cli(*verb)
    assert (status, printed) == (3, "")
    assert "cp311.lock.toml: there is no such lock yet" in complaint
    assert "remedy: ./build.py lock" in complaint
    assert cli(*verb, "--python", "3.13")[0] == 0


def test_an_unknown_layer_is_told_with_those_that_there_are(cli):
    status, _, complaint = cli("list", "--layer", "control")
    assert status == 2
    assert "no layer 'control' (did you mean 'controls'?)" in complaint
    assert "its layers: base, controls, gui" in complaint


@pytest.mark.parametrize("name", ["panel-kit", "Panel_Kit", "panel.KIT"])
def test_a_name_may_be_written_as_people_write_it(cli, name):
    status, printed, _ = cli("show", name)
    assert status == 0
    assert printed.startswith("panel-kit 0.9\n")


def test_show_tells_why_in_which_versions_and_from_which_file(cli):
    _, printed, _ = cli("show", "numpy")
    words = " ".join(printed.split())
    for expected in (
        "numpy 2.5.1 (cp313), 2.4.0 (cp311)",
        "what numpy is",
        "why arrays",
        "layer base; also in controls, gui",
        "owner base group",
        "constraint >=2",
        "licence MIT",
        "checked with import numpy",
        "asked for by pyepics (>=1.23), tracker (any)",
        "numpy-2.4.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "2.5.1 20.0 MB cp313-cp313-manylinux_2_28_x86_64",
    ):
        assert expected in words
    _, printed, _ = cli("show", "pyepics")
    assert "brings pyparsing" in " ".join(printed.split())
    assert "asks for numpy>=1.23, pyparsing>=3" in " ".join(printed.split())


def test_a_file_of_both_interpreters_is_shown_once(cli):
    printed = cli("show", "pyepics")[1]
    assert printed.count("pyepics-3.5.10-py3-none-any.whl") == 1
    assert "cp313, cp311 3.5.10" in " ".join(printed.split())


def test_what_only_one_interpreter_asks_for_is_told_apart(cli, checkout):
    checkout.replace(
        "specs/locks/2026.1/cp311.lock.toml", '{pyepics = ">=3"}', '{pyepics = ">=3", numpy = "<4"}'
    )
    words = " ".join(cli("show", "pyparsing")[1].split())
    assert "asked for by pyepics (>=3) cp311 only: numpy (<4)" in words


def test_show_as_json_has_both_directions_and_the_spec(cli):
    document = json.loads(cli("show", "pyepics", "--json")[1])
    assert document["package"]["file"] == "specs/packages/pyepics.toml"
    assert document["package"]["imports"] == ["pyepics"]
    file = document["interpreters"]["cp313"]
    assert file["requires"]["numpy"] == {"constraint": ">=1.23", "version": "2.5.1"}
    assert file["required_by"] == {}
    assert len(file["sha256"]) == 64
    document = json.loads(cli("show", "pyparsing", "--json")[1])
    assert document["package"] is None
    asked = document["interpreters"]["cp311"]["required_by"]
    assert asked == {"pyepics": {"constraint": ">=3", "version": "3.5.10"}}


def test_what_only_a_build_needs_is_shown_as_that(cli):
    words = " ".join(cli("show", "setuptools")[1].split())
    assert "only builds from sdists need it; it is not installed" in words
    assert "builds of tracker" in words
    assert "layer" not in words
    assert "built with setuptools>=61" in " ".join(cli("show", "tracker")[1].split())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("show", "nunpy"), "no distribution 'nunpy' in release 2026.1 (did you mean 'numpy'?)"),
        (("show", "Py_Epic"), "did you mean 'pyepics'?"),
        (("show", "ssl"), "remedy: ./build.py why ssl"),
        (("show", "panel-kit", "--python", "3.11"), "panel-kit.toml has it for cp313"),
    ],
)
def test_what_is_not_there_is_told_with_what_may_be_meant(cli, argv, words):
    status, _, complaint = cli(*argv)
    assert status == 2
    assert words in complaint


def test_a_lock_that_disagrees_with_its_specs_is_not_shown_as_if_it_were_right(cli, checkout):
    give_package(checkout.root, "numpy", "base", why="arrays", extra='constraint = "<2"')
    status, _, complaint = cli("list")
    assert status == 3
    assert "asks for numpy<2" in complaint


def test_a_licence_of_many_lines_stays_one_line(cli, checkout):
    lock = checkout.root / "specs/locks/2026.1/cp313.lock.toml"
    give_lock(checkout.root, "cp313")
    lock.write_text(lock.read_text().replace('"EPICS Open License"', '"EPICS\\nOpen\\tLicense"'))
    (row,) = (line for line in cli("list")[1].splitlines() if "\tpyepics\t" in line)
    assert "\tEPICS Open License\t" in row
