"""``doctor`` tells what a build will use, and changes nothing."""

from __future__ import annotations

import json

import pytest

from longrun.cli import main


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A configuration of the site's, with a cache of its own."""

    def configure(text: str) -> None:
        file = tmp_path / "config.toml"
        file.write_text(f'cache = "{tmp_path / "cache"}"\n{text}')
        monkeypatch.setenv("LONGRUN_CONFIG", str(file))

    return configure


def findings(checkout, capsys) -> dict[str, dict[str, str]]:
    main(checkout.root, ["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    return {finding["name"]: finding for finding in found}


def test_the_package_index_is_told(checkout, site, capsys):
    site('index = ["https://index.example.org/simple"]')
    found = findings(checkout, capsys)["package index"]
    assert (found["state"], found["found"]) == ("ok", "https://index.example.org/simple")


def test_mirrors_of_the_site_are_told(checkout, site, capsys):
    site('mirrors = ["https://mirror.example.org/sources"]')
    found = findings(checkout, capsys)
    assert "https://mirror.example.org/sources" in found["mirrors"]["found"]


def test_a_machine_without_an_index_is_told_what_to_name(checkout, site, capsys, monkeypatch):
    site("")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    found = findings(checkout, capsys)["package index"]
    assert found["state"] == "note"
    assert "index = [...]" in found["remedy"]


def test_what_checks_of_the_matrix_run_in_is_told(checkout, site, capsys, monkeypatch):
    site("")
    monkeypatch.setattr("longrun.verbs.doctor.namespaces", lambda: False)
    found = findings(checkout, capsys)["cages"]
    assert found["state"] == "note"
    assert "bubblewrap" in found["remedy"]


def test_an_engine_that_refuses_is_told_with_its_reason(
    checkout, site, capsys, tmp_path, monkeypatch
):
    site("")
    socket = tmp_path / "engine.sock"
    socket.write_text("no socket")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    assert str(socket) in findings(checkout, capsys)["engine"]["found"]
    site('engine = "bubblewrap"')
    assert findings(checkout, capsys)["engine"]["state"] == "ok"
