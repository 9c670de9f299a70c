"""The command line as a person or a script meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longrun.cli import main, make_parser
from longrun.errors import LongrunError
from longrun.reference import verbs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cli(checkout, tmp_path, monkeypatch, capsys):
    """Run a verb on the small checkout with a cache of its own: (status, printed, complaint)."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LONGRUN_CONFIG", raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        status = main(checkout.root, list(argv))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_plan_lists_every_step_with_the_reason(cli, checkout):
    status, printed, _ = cli("plan", "2026.1", "--python", "3.11")
    assert status == 0
    assert "cpython-3.11 for manylinux_2_28_x86_64" in printed
    assert "never built here" in printed
    assert f"{len(checkout.plan('3.11').steps)} steps: 0 cached" in printed


def test_plan_as_json_has_what_a_script_needs(cli, checkout):
    document = json.loads(cli("plan", "--json")[1])
    assert document["schema"] == 1
    assert document["release"] == "2026.1"
    rows = {row["id"]: row for row in document["steps"]}
    assert rows["library/ssl"]["state"] == "build"
    assert rows["library/ssl"]["inputs"] == ["source/ssl", "toolchain/cc", "library/z"]
    assert rows["library/ssl"]["key"] == checkout.plan().find("library/ssl").key


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("plan", "2027.1"), 2, "no release '2027.1'"),
        (("plan", "--python", "2.7"), 2, "its interpreters: 3.13, 3.11"),
        (("why", "openssl"), 2, "no step 'openssl'"),
        (("log", "ssl"), 2, "was not built on this machine"),
        (("audit", "/nonexistent"), 6, "expected the directory of a prefix, found nothing"),
        (("build", "--jobs", "-1"), 2, "--jobs: expected a number of 1 or more"),
        (("audit", "/usr", "--floor", "glibc2"), 6, "expected a platform tag"),
    ],
)
def test_an_error_has_its_exit_code_a_cause_and_no_traceback(cli, argv, status, words):
    found, _, complaint = cli(*argv)
    assert found == status, complaint
    assert words in complaint
    assert "Traceback" not in complaint


def test_a_broken_spec_stops_every_verb_that_plans(cli, checkout):
    checkout.replace("specs/libraries/z.toml", "size = 10", "sise = 10")
    for verb in (("plan",), ("build",), ("fetch",), ("why", "z")):
        status, _, complaint = cli(*verb)
        assert status == 3
        assert "specs/libraries/z.toml: source.sise: unknown key" in complaint
        assert "did you mean 'size'?" in complaint


def test_why_tells_origin_patches_and_who_needs_it(cli):
    document = json.loads(cli("why", "ssl", "--json")[1])
    assert document["state"] == "build"
    assert document["patches"] == {"0001-fix.patch": "Fix it"}
    assert document["needed_by"] == [
        "interpreter/cpython-3.13",
        "prefix/cpython-3.13",
        "interpreter/cpython-3.11",
        "prefix/cpython-3.11",
    ]
    assert document["sources"][0]["urls"] == ["https://example.org/ssl-1.0.tar.gz"]
    printed = cli("why", "ssl")[1]
    assert "https://example.org/ssl-1.0.tar.gz" in printed
    assert "0001-fix.patch: Fix it" in printed


def test_a_dry_run_builds_nothing(cli, tmp_path):
    status, printed, _ = cli("build", "--dry-run", "--step", "ssl")
    assert status == 0
    assert "library      ssl" in printed
    assert "interpreter" not in printed
    assert not list((tmp_path / "cache/store/entries").iterdir())


def test_an_empty_store_verifies_and_has_no_garbage(cli):
    assert cli("verify")[0] == 0
    status, printed, _ = cli("gc", "--dry-run", "--json")
    assert status == 0
    assert json.loads(printed) == {"schema": 1, "removed": [], "bytes": 0, "dry_run": True}


def test_gc_also_removes_downloads_that_no_entry_came_from(cli, tmp_path):
    cli("gc")
    orphan = tmp_path / "cache/downloads/0123456789abcdef-old.tar.gz"
    orphan.parent.mkdir(parents=True)
    orphan.write_text("x")
    cli("gc", "--dry-run")
    assert orphan.exists()
    cli("gc")
    assert not orphan.exists()


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} {ROOT / 'build.py'} plan | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.stdout.startswith("Longrun 2026.1")
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_every_verb_explains_itself():
    for name, verb in verbs().items():
        for action in verb._actions:
            assert action.help, f"{name} {action.dest}"
    assert make_parser().format_help().count("\n") < 60


def test_every_error_has_an_exit_code_of_its_own():
    codes = [error.exit_code for error in LongrunError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
