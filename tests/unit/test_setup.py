"""What a person reads on a machine that lacks something."""

from __future__ import annotations

import pytest

from longrun import setup
from longrun.errors import SetupError
from longrun.setup import TEST_TOOLS, TOOLS, Tool, missing_tools, packages_of, require
from longrun.specs import load_specs


@pytest.fixture
def lacking(monkeypatch):
    """A machine with apt that lacks two programs."""
    table = {
        "ghost": Tool("ghost-program", "ghost-deb", "ghost-rpm", "scares"),
        "bad": Tool("sh", "bad-deb", "bad-rpm", "is there, but broken", ("sh", "-c", "exit 1")),
        "sh": Tool("sh", "dash", "bash", "runs scripts"),
    }
    monkeypatch.setattr(setup, "TOOLS", table)
    monkeypatch.setattr(setup.shutil, "which", lambda name, **_: "/usr/bin/" + name)
    monkeypatch.setattr(setup, "find_tool", lambda name: None if "ghost" in name else name)


def test_the_error_names_what_is_missing_why_and_the_exact_command(lacking):
    with pytest.raises(SetupError) as caught:
        require(["ghost", "sh", "bad"], install=False)
    assert "ghost-program (scares)" in caught.value.message
    assert "sh (is there, but broken)" in caught.value.message
    assert caught.value.remedy.startswith(
        "apt-get update && apt-get install --yes bad-deb ghost-deb\n"
    )
    assert "--setup" in caught.value.remedy


def test_nothing_is_said_where_nothing_is_missing(lacking):
    require(["sh"], install=False)


def test_what_is_still_missing_after_the_installation_is_an_error(lacking, monkeypatch):
    ran = []
    monkeypatch.setattr(setup, "install_packages", ran.append)
    with pytest.raises(SetupError, match="still missing: ghost-program"):
        require(["ghost"], install=True)
    assert ran == [["ghost-deb"]]


def test_without_apt_the_names_are_those_of_dnf(lacking, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name, **_: None)
    assert packages_of(missing_tools(["ghost"])) == ["ghost-rpm"]
    assert setup.install_commands(["x"]) == [["dnf", "install", "--assumeyes", "x"]]
    with pytest.raises(SetupError) as caught:
        require(["ghost"], install=False)
    assert "not tried" in caught.value.remedy


def test_a_package_program_that_fails_shows_what_it_said(lacking, monkeypatch):
    monkeypatch.setattr(
        setup, "install_commands", lambda packages: [["sh", "-c", "echo no; exit 3"]]
    )
    with pytest.raises(SetupError, match="no"):
        setup.install_packages(["ghost-deb"])


def test_the_table_knows_every_tool_that_specs_and_tests_need(request):
    root = request.config.rootpath
    specs = load_specs(root)
    named = {tool for spec in specs.libraries.values() for tool in spec.tools}
    named |= {tool for spec in specs.interpreters.values() for tool in spec.tools}
    assert named | set(TEST_TOOLS) <= TOOLS.keys()
