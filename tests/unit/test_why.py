"""``why`` and ``log`` of distributions and of their steps; see test_cli for other steps."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from stack_maker import give_stack

from longrun.cli import main
from longrun.plan import choose_release, make_plan
from longrun.store import Store


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


def words(text: str) -> str:
    return " ".join(text.split())


def build(checkout, store: Store, step_id: str) -> None:
    """Put something into the store as what a step of the stack made."""
    specs = checkout.specs()
    release = choose_release(specs, None)
    interpreters = tuple(specs.interpreters[name] for name in release.interpreters)
    step = make_plan(specs, release, interpreters, layers=("gui",)).find(step_id)
    store.prepare()
    with store.stage(step) as stage:
        (stage.tree / "module.py").write_text("x = 1\n")
        store.commit(stage, step, seconds=1.5)
    store.log(step).write_text("installed\n")


def test_why_tells_the_chains_from_the_specs_to_a_distribution(cli):
    status, printed, _ = cli("why", "numpy")
    assert status == 0
    lines = [words(line) for line in printed.splitlines()]
    assert lines[0] == "numpy 2.5.1 (cp313), 2.4.0 (cp311)"
    assert "layer base; also in controls, gui" in lines
    first = lines.index("asked for by specs/packages/numpy.toml")
    assert lines[first + 1 : first + 3] == ["pyepics -> numpy>=1.23", "tracker -> numpy"]


def test_a_chain_goes_through_what_came_along(cli, checkout):
    lock = "specs/locks/2026.1/cp311.lock.toml"
    checkout.replace(lock, 'tracker = ""}', 'tracker = "", pyparsing = ">=2.1"}')
    printed = words(cli("why", "numpy")[1])
    assert "pyepics -> pyparsing>=3 -> numpy>=2.1 (cp311 only)" in printed


def test_a_chain_goes_through_a_build(cli):
    printed = words(cli("why", "wheel", "--python", "3.13")[1])
    assert "tracker (to build it) -> setuptools>=61 -> wheel>=0.40" in printed
    document = json.loads(cli("why", "wheel", "--json")[1])
    (chain,) = document["interpreters"]["cp313"]["chains"]
    assert [link["name"] for link in chain] == ["tracker", "setuptools", "wheel"]
    assert [link["for_build"] for link in chain] == [False, True, False]
    assert chain[1]["constraint"] == ">=61"
    assert chain[1]["version"] == "80.0"


def test_distributions_that_ask_for_each_other_end_the_chain(cli, checkout):
    lock = "specs/locks/2026.1/cp313.lock.toml"
    text = (checkout.root / lock).read_text()
    head, mark, tail = text.partition('name = "pyepics"')
    tail = tail.replace("required_by = {}", 'required_by = {pyparsing = ""}', 1)
    (checkout.root / lock).write_text(head + mark + tail)
    status, printed, complaint = cli("why", "pyparsing", "--python", "3.13")
    assert status == 0, complaint
    assert "pyepics -> pyparsing>=3" in printed


def test_why_tells_which_file_satisfies_it_and_whether_its_step_is_built(cli, checkout, tmp_path):
    build(checkout, Store(tmp_path / "cache/store"), "wheel/cp313-numpy")
    document = json.loads(cli("why", "NumPy", "--json")[1])
    files = document["interpreters"]
    assert files["cp313"]["file"] == "numpy-2.5.1-cp313-cp313-manylinux_2_28_x86_64.whl"
    assert files["cp313"]["step"]["state"] == "cached"
    assert files["cp311"]["step"]["state"] == "build"
    assert files["cp311"]["step"]["reasons"] == ["never built here"]
    printed = words(cli("why", "numpy")[1])
    assert "wheel/cp313-numpy 2.5.1 cached key" in printed
    assert "wheel/cp311-numpy 2.4.0 to build: never built here key" in printed


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("wheel/cp313-numpy", "needed by layer/base-cp313 layer/controls-cp313"),
        ("cp311-numpy", "source numpy-2.4.0-cp311-cp311-manylinux_2_28_x86_64.whl"),
        ("layer/controls-cp311", "needs prefix/cpython-3.11 2026.1"),
        ("archive/gui-cp313", "needs layer/gui-cp313"),
        ("source/numpy-2.5.1-cp313-cp313", "needed by wheel/cp313-numpy"),
    ],
)
def test_a_step_of_a_layer_is_found_without_naming_the_layer(cli, step, expected):
    status, printed, complaint = cli("why", step)
    assert status == 0, complaint
    assert expected in words(printed)


def test_a_step_of_an_interpreter_is_explained_even_if_the_stack_is_broken(cli, checkout):
    checkout.write("specs/packages/broken.toml", "name =")
    status, printed, _ = cli("why", "ssl")
    assert status == 0
    assert "library/ssl" in printed


def test_a_name_of_both_is_the_step(cli, checkout):
    checkout.library("numpy", sha="9")
    for minor in ("3.13", "3.11"):
        checkout.replace(f"specs/interpreters/cpython-{minor}.toml", '["ssl"]', '["ssl", "numpy"]')
    assert cli("why", "numpy")[1].startswith("library/numpy 1.0")


def test_what_is_neither_is_told_with_what_may_be_meant(cli):
    for name, meant in (("Num_py", "numpy"), ("sssl", "ssl"), ("pyepic", "pyepics")):
        status, _, complaint = cli("why", name)
        assert status == 2
        assert f"neither a step nor a distribution '{name}'" in complaint
        assert f"did you mean '{meant}'?" in complaint


def test_the_log_of_a_distribution_is_that_of_its_wheel(cli, checkout, tmp_path):
    status, _, complaint = cli("log", "numpy")
    assert status == 2
    assert "wheel/cp313-numpy 2.5.1 was not built on this machine" in complaint
    build(checkout, Store(tmp_path / "cache/store"), "wheel/cp311-numpy")
    status, printed, _ = cli("log", "numpy", "--python", "3.11", "--path")
    assert status == 0
    assert Path(printed.strip()).read_text() == "installed\n"


def test_many_wheels_are_one_paragraph(cli, monkeypatch):
    monkeypatch.setattr("longrun.verbs.why.WHEELS", 3)
    printed = words(cli("why", "layer/controls-cp313")[1])
    assert "4 wheels for cp313: numpy 2.5.1, pyepics 3.5.10, pyparsing 3.3.3, tracker" in printed
    assert "needs prefix/cpython-3.13" in printed


def on_a_terminal(monkeypatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


def plain(printed: str) -> list[str]:
    return re.sub(r"\x1b\[\d+m", "", printed).splitlines()


@pytest.mark.parametrize("verb", [("plan",), ("build", "--dry-run")])
def test_a_plan_on_a_terminal_has_equal_steps_in_one_line(cli, monkeypatch, verb):
    monkeypatch.setattr("longrun.verbs.plan.ROWS", 2)
    on_a_terminal(monkeypatch, 100)
    lines = plain(cli(*verb, "--layer", "gui")[1])
    rows = [words(line) for line in lines]
    assert any(row.startswith("wheel 7 for cp313 build never built here: numpy") for row in rows)
    assert any(row.startswith("layer gui-cp313 2026.1 build") for row in rows)
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "./build.py plan --all lists every step"


def test_what_is_to_be_done_stands_apart_from_what_is_cached(cli, checkout, tmp_path, monkeypatch):
    monkeypatch.setattr("longrun.verbs.plan.ROWS", 2)
    build(checkout, Store(tmp_path / "cache/store"), "wheel/cp313-numpy")
    on_a_terminal(monkeypatch, 100)
    rows = [words(line) for line in plain(cli("plan", "--layer", "gui")[1])]
    assert "wheel cp313-numpy 2.5.1 cached" in rows
    assert any(row.startswith("wheel 6 for cp313 build") for row in rows)


def test_every_step_has_its_line_in_a_pipe_and_with_all(cli, monkeypatch):
    monkeypatch.setattr("longrun.verbs.plan.ROWS", 2)
    steps = json.loads(cli("plan", "--layer", "gui", "--json")[1])["steps"]
    piped = plain(cli("plan", "--layer", "gui")[1])
    on_a_terminal(monkeypatch, 200)
    for lines in (piped, plain(cli("plan", "--layer", "gui", "--all")[1])):
        shown = {"/".join(line.split()[:2]) for line in lines if line.startswith("  ")}
        assert shown == {step["id"] for step in steps}


def test_another_file_of_the_same_version_is_told_as_that(cli, checkout, tmp_path):
    build(checkout, Store(tmp_path / "cache/store"), "source/numpy-2.5.1-cp313-cp313")
    lock = "specs/locks/2026.1/cp313.lock.toml"
    text = (checkout.root / lock).read_text()
    digest = re.search(r'numpy.*?sha256 = "(\w+)"', text, re.DOTALL)
    assert digest
    checkout.replace(lock, digest[1], "0" * 64)
    rows = json.loads(cli("plan", "--layer", "gui", "--json")[1])["steps"]
    (row,) = (row for row in rows if row["id"] == "source/numpy-2.5.1-cp313-cp313")
    assert row["reasons"] == ["another file of 2.5.1"]
