"""``matrix`` and ``check`` from the command line, on made layers whose Python is the system's."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from check_maker import make_prefix
from stack_maker import give_stack

from longrun.cli import main
from longrun.errors import SpecError
from longrun.plan import Step, make_plan, plan_cells
from longrun.store import Store

CHECK = """\
name = "{name}"
title = "what {name} is about"
group = "{group}"
layer = "{layer}"
proves = {proves}
timeout = 20
{more}
"""

GAP = """
[[gaps]]
since = "numpy 2.5.1, 2026-11-02"
why = "numpy cannot count"
link = "https://example.org/issues/7"
shows = "miscounted"
{more}
"""


@pytest.fixture
def give(checkout) -> Callable[..., None]:
    """Give the checkout a check: its name, its program, what more its spec says."""
    give_stack(checkout.root)

    def write(
        name: str,
        program: str = "print('counted')",
        *,
        layer: str = "base",
        group: str = "Numbers",
        proves: str = '["numpy"]',
        more: str = "",
    ) -> None:
        text = CHECK.format(name=name, group=group, layer=layer, proves=proves, more=more)
        checkout.write(f"specs/checks/{name}.toml", text)
        checkout.write(f"tests/matrix/check_{name.replace('-', '_')}.py", program)

    return write


@pytest.fixture
def cells(checkout) -> Callable[..., dict[str, Step]]:
    """The planned cells by id, for systems of a content."""

    def plan(**contents: str) -> dict[str, Step]:
        specs = checkout.specs()
        release = specs.releases["2026.1"]
        interpreters = tuple(specs.interpreters[name] for name in release.interpreters)
        checks = tuple(specs.checks.values())
        steps = plan_cells(specs, release, interpreters, checks, contents or {"host": "Linux"})
        return {step.id: step for step in steps}

    return plan


def test_every_check_has_a_cell_with_each_interpreter_in_each_system(checkout, give, cells):
    give("count")
    checkout.write(
        "specs/systems/old.toml",
        'name = "old"\ntitle = "Old 1"\nglibc = "2.28"\npackages = ["bash"]\n',
    )
    found = cells(host="Linux", old="digest")
    assert list(found) == [
        "check/count-cp313-host",
        "check/count-cp313-old",
        "check/count-cp311-host",
        "check/count-cp311-old",
    ]
    assert [step.id for step in found["check/count-cp313-old"].inputs] == [
        "layer/base-cp313",
        "system/old",
    ]
    assert found["check/count-cp313-host"].spec.versions == {"numpy": "2.5.1"}
    assert found["check/count-cp311-host"].spec.versions == {"numpy": "2.4.0"}


def test_an_interpreter_without_the_library_has_no_cell(give, cells):
    give("panel", layer="gui", proves='["panel-kit"]')
    assert list(cells()) == ["check/panel-cp313-host"]


KEY = "check/count-cp313-host"


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda c: c.replace("tests/matrix/check_count.py", "import scene", "import scene "), True),
        (lambda c: c.replace("tests/matrix/scene.py", "1", "2"), True),
        (lambda c: c.replace("tests/matrix/other.py", "3", "4"), True),
        (lambda c: c.write("tests/matrix/unrelated.py", "5"), False),
        (lambda c: c.replace("specs/checks/count.toml", "what count is about", "counting"), False),
        (lambda c: c.replace("specs/checks/count.toml", "timeout = 20", "timeout = 21"), True),
        (lambda c: c.replace("specs/checks/count.toml", "cannot count", "can not count"), False),
        (lambda c: c.replace("specs/locks/2026.1/cp313.lock.toml", '"2.5.1"', '"2.5.2"'), True),
        (lambda c: c.replace("specs/locks/2026.1/cp311.lock.toml", '"2.4.0"', '"2.4.1"'), False),
    ],
    ids=["program", "import", "server", "neighbour", "title", "limit", "gap", "package", "other"],
)
def test_a_cell_is_run_again_if_what_it_depends_on_changes(checkout, give, cells, change, again):
    give("count", "import scene\nserver = 'other.py'", more=GAP.format(more=""))
    checkout.write("tests/matrix/scene.py", "value = 1")
    checkout.write("tests/matrix/other.py", "value = 3")
    before = cells()[KEY].key
    change(checkout)
    assert (cells()[KEY].key != before) == again


def test_a_system_of_other_content_has_its_cells_run_again(give, cells):
    give("count")
    assert cells(host="Linux 1")[KEY].key != cells(host="Linux 2")[KEY].key


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (('"base"', '"bass"'), r"count.toml: layer\[0\]: .*'bass' \(did you mean 'base'\?\)"),
        (('"numpy"', '"nunpy"'), r"count.toml: proves\[0\]: .*'nunpy' \(did you mean 'numpy'\?\)"),
        (('"numpy"', '"pyepics"'), r"proves\[0\]: expected a distribution of the layer base"),
        (('["numpy"]', "[]"), "proves: expected at least one"),
        (("timeout = 20", "timeout = 0"), "timeout: expected 1 or more, found 0"),
        (("miscounted", ""), r"gaps\[0\].shows: expected words"),
        (("[[gaps]]", '[[gaps]]\nsystems = ["osx"]'), r"gaps\[0\].systems\[0\]: .*'osx'"),
        (("[[gaps]]", '[[gaps]]\ninterpreters = ["cp31"]'), r"gaps\[0\].interpreters\[0\]"),
    ],
)
def test_a_wrong_spec_is_named_with_its_key(checkout, give, cells, changed, says):
    give("count", more=GAP.format(more=""))
    checkout.replace("specs/checks/count.toml", *changed)
    with pytest.raises(SpecError, match=says):
        cells()


def test_a_spec_without_its_program_is_refused(checkout, give, cells):
    give("count")
    (checkout.root / "tests/matrix/check_count.py").unlink()
    with pytest.raises(SpecError, match=r"count.toml: name: .*tests/matrix/check_count.py") as told:
        cells()
    assert "README" in told.value.remedy


@pytest.fixture
def cli(checkout, give, tmp_path, monkeypatch, capsys):
    """Run a verb on the checkout, with layers made of links to the system's Python."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LONGRUN_ENVIRONMENT", sys.prefix)
    monkeypatch.delenv("LONGRUN_CONFIG", raising=False)
    # in a session, a check may leave a mark for its next attempt
    monkeypatch.setattr("longrun.cage.namespaces", lambda: False)

    def run(*argv: str) -> tuple[int, str, str]:
        _make_layers(checkout, tmp_path / "cache" / "store")
        status = main(checkout.root, list(argv))
        told = capsys.readouterr()
        assert "Traceback" not in told.err.replace("| Traceback", "")
        return status, told.out, told.err

    return run


def _make_layers(checkout, root: Path) -> None:
    specs, store = checkout.specs(), Store(root)
    store.prepare()
    release = specs.releases["2026.1"]
    interpreters = tuple(specs.interpreters[name] for name in release.interpreters)
    plan = make_plan(specs, release, interpreters, layers=tuple(release.layers))
    for step in plan.steps:
        if step.kind in ("prefix", "layer", "wheel") and store.get(step.key) is None:
            with store.stage(step) as stage:
                if step.kind != "wheel":
                    make_prefix(stage.tree)
                    python = stage.tree / "bin" / "python3.13"
                    python.rename(python.with_name(f"python{step.spec.interpreter.version[:4]}"))
                store.commit(stage, step, seconds=1)


def states(printed: str) -> dict[str, str]:
    """State by check and tag, of a matrix' JSON."""
    cells = json.loads(printed)["cells"]
    return {f"{cell['check']} {cell['tag']}": cell["state"] for cell in cells}


FIRST = "import os; first = not os.path.exists({0!r}); open({0!r}, 'w').close(); exit(first)"


def test_a_matrix_tells_each_state_and_fails_for_what_counts(give, cli, tmp_path):
    gap = GAP.format(more='interpreters = ["cp313"]')
    give("fine")
    give("bad", "exit('seven is missing')")
    give(
        "known", "import sys; sys.version_info[:2] and exit('miscounted')", more=GAP.format(more="")
    )
    give("fixed", more=gap)
    give("unsure", FIRST.format(str(tmp_path / "mark")))
    status, printed, _ = cli("matrix", "--where", "host", "--json", "-j1")
    assert status == 9
    found = states(printed)
    assert found["fine cp313"] == found["fine cp311"] == "passed"
    assert found["bad cp313"] == found["bad cp311"] == "failed"
    assert found["known cp313"] == found["known cp311"] == "gap"
    assert (found["fixed cp313"], found["fixed cp311"]) == ("fixed", "passed")
    assert (found["unsure cp313"], found["unsure cp311"]) == ("flaky", "passed")


def test_the_end_of_a_run_says_what_is_wrong_in_which_check(give, cli):
    give("fine")
    give("bad", "exit('seven is missing')")
    status, printed, complaint = cli("matrix", "--where", "host", "--python", "3.13")
    assert status == 9
    assert "seven is missing" in printed
    assert "bad" in printed
    assert "seven is missing" in complaint, "in the log as it happens, too"


def test_what_is_unchanged_is_not_run_again_unless_it_is_asked_for(give, cli, tmp_path):
    count = tmp_path / "count"
    give("fine", f"open({str(count)!r}, 'a').write('x')")
    for argv, runs in (((), 2), ((), 2), (("--fresh",), 4)):
        assert cli("matrix", "--where", "host", *argv)[0] == 0
        assert len(count.read_text()) == runs


def test_what_failed_is_run_again_and_passes_once_it_is_mended(give, cli):
    give("bad", "exit('seven is missing')")
    assert cli("matrix", "--where", "host")[0] == 9
    assert cli("matrix", "--where", "host")[0] == 9
    give("bad", "print('all there')")
    assert cli("matrix", "--where", "host")[0] == 0


def test_a_gap_that_is_written_down_or_taken_out_shows_without_a_run(give, cli):
    give("bad", "exit('miscounted')", more=GAP.format(more=""))
    assert cli("matrix", "--where", "host")[0] == 0
    give("bad", "exit('miscounted')")
    status, printed, complaint = cli("matrix", "--where", "host", "--json")
    assert status == 9
    assert states(printed) == {"bad cp313": "failed", "bad cp311": "failed"}
    assert complaint == ""


def test_a_report_of_a_part_is_written_where_it_is_asked_for(checkout, give, cli, tmp_path):
    give("fine")
    status, _, _ = cli("matrix", "--where", "host")
    assert status == 0
    assert not (checkout.root / "dist").exists()
    status, printed, _ = cli("matrix", "--where", "host", "--output", str(tmp_path / "report"))
    assert status == 0
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {f"longrun-2026.1-matrix.{kind}" for kind in ("html", "json", "xml")}
    assert "longrun-2026.1-matrix.html" in printed
    suites = ElementTree.parse(tmp_path / "report" / "longrun-2026.1-matrix.xml").getroot()
    assert [case.get("name") for case in suites.iter("testcase")] == ["fine", "fine"]


def test_the_report_of_the_whole_is_part_of_the_release(checkout, give, cli):
    give("fine")
    for package in ("numpy", "pyepics", "tracker", "panel-kit"):
        module = package.replace("-", "_")
        checkout.replace(f"specs/packages/{package}.toml", f'["{module}"]', '["json"]')
    status, _, complaint = cli("matrix")
    assert status == 0, complaint
    dist = checkout.root / "dist"
    names = sorted(path.name for path in dist.iterdir())
    assert names == ["SHA256SUMS", *(f"longrun-2026.1-matrix.{k}" for k in ("html", "json", "xml"))]
    call = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(call, cwd=dist, check=False).returncode == 0
    found = json.loads((dist / "longrun-2026.1-matrix.json").read_text())
    assert {row["name"] for row in found["imports"]} == {"numpy", "pyepics", "tracker", "panel-kit"}
    assert [row["tag"] for row in found["starts"]] == ["cp313", "cp311"]
    assert {row["name"] for row in found["needs"]} >= {"cpython-3.13", "numpy", "pyparsing"}


def test_the_difference_to_an_earlier_matrix_is_told(give, cli, tmp_path):
    give("fine")
    cli("matrix", "--where", "host", "--output", str(tmp_path))
    before = tmp_path / "longrun-2026.1-matrix.json"
    give("fine", "exit('no longer')")
    status, printed, _ = cli("matrix", "--where", "host", "--compare", str(before), "--json")
    assert status == 9
    changes = json.loads(printed)["changes"]
    assert [(c["check"], c["before"], c["now"]) for c in changes] == [
        ("fine", "passed", "failed")
    ] * 2
    before.write_text("{")
    status, _, complaint = cli("matrix", "--where", "host", "--compare", str(before))
    assert (status, str(before) in complaint) == (3, True)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("matrix", "--check", "fin"), "no check 'fin' (did you mean 'fine'?)"),
        (("matrix", "--where", "bookwrm"), "no system 'bookwrm'"),
        (("matrix", "--python", "3.9"), "no interpreter '3.9'"),
        (("check", "fin"), "no check 'fin' (did you mean 'fine'?)"),
        (("check", "fine", "--where", "mars"), "no system 'mars'"),
    ],
)
def test_what_there_is_not_is_said_with_what_there_is(give, cli, argv, says):
    give("fine")
    status, _, complaint = cli(*argv)
    assert status == 2
    assert says in complaint
    assert "remedy:" in complaint


def test_a_group_names_all_its_checks(give, cli):
    give("fine")
    give("fast", group="Motion")
    _, printed, _ = cli("matrix", "--where", "host", "--check", "Motion", "--json")
    assert set(states(printed)) == {"fast cp313", "fast cp311"}


def test_a_dry_run_tells_which_cells_would_be_run(give, cli):
    give("fine")
    _, printed, _ = cli("matrix", "--where", "host", "--dry-run")
    assert "check/fine-cp313-host" in printed
    assert "2 cells to run, 0 cached" in printed
    cli("matrix", "--where", "host")
    _, printed, _ = cli("matrix", "--where", "host", "--dry-run")
    assert printed == "0 cells to run, 2 cached\n"


def test_check_runs_one_cell_and_shows_what_it_says(give, cli):
    give("fine", "print('one two three')")
    status, _, _ = cli("check", "fine")
    assert status == 0
    give("fine", "print('one two'); exit(4)", more=GAP.format(more=""))
    status, _, _ = cli("check", "fine", "--python", "3.11")
    assert status == 9


def test_check_says_how_it_ended(give, checkout, cli):
    give("fine", "print('one two', flush=True); import os; os.abort()", more=GAP.format(more=""))
    status, printed, _ = cli("check", "fine")
    assert status == 9
    for words in (
        "failed",
        "SIGABRT",
        "numpy cannot count",
        "https://example.org/issues/7",
        "2.5.1",
    ):
        assert words in printed
