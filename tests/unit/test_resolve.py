"""uv as it is started: nothing of the user's, no credentials where others can see them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from shelf import Shelf
from web import Site

from longrun.errors import SourceError
from longrun.index.client import open_index
from longrun.lock import resolve as resolve_module
from longrun.lock.closure import Target
from longrun.lock.resolve import Described, Question, Unsatisfiable, Uv
from longrun.model import Floor

TARGET = Target(tag="cp313", python="3.13.5", floor=Floor(arch="x86_64", glibc="2.28"))


@pytest.fixture
def shelf(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("NO_PROXY", "*")
    made = Shelf(site, tmp_path / "shelf")
    made.put("lib", "1.0")
    made.put("lib", "2.0")
    made.put("app", "1.0", requires=["lib"])
    return made


def uv(tmp_path: Path, *addresses: str) -> Uv:
    return Uv(
        program=Path(sys.prefix) / "bin" / "uv",
        python=Path(sys.executable),
        cache=tmp_path / "uv",
        index=open_index(addresses, tmp_path / "cache"),
    )


def ask(*requirements: str, **more) -> Question:
    return Question(target=TARGET, requirements=requirements, **more)


def test_pins_are_kept_where_they_can_be(shelf, tmp_path):
    resolver = uv(tmp_path, shelf.url)
    assert resolver.resolve(ask("app")) == {"app": "1.0", "lib": "2.0"}
    kept = {"lib": "1.0", "gone": "3"}
    assert resolver.resolve(ask("app", pins=kept)) == {"app": "1.0", "lib": "1.0"}
    assert resolver.resolve(ask("app", pins=kept, upgrade=frozenset({"lib"})))["lib"] == "2.0"
    assert resolver.resolve(ask("app", pins=kept, upgrade_all=True))["lib"] == "2.0"
    assert resolver.resolve(ask("app", "lib>1", pins=kept))["lib"] == "2.0"
    assert resolver.resolve(ask("app", constraints=("lib<2",)))["lib"] == "1.0"
    assert resolver.resolve(ask()) == {}


def test_the_user_s_environment_does_not_count(shelf, tmp_path, monkeypatch):
    (tmp_path / "uv.toml").write_text('constraint-dependencies = ["lib<2"]\n')
    (tmp_path / "limits.txt").write_text("lib<2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "limits.txt"))
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2001-01-01")
    assert uv(tmp_path, shelf.url).resolve(ask("lib")) == {"lib": "2.0"}


def test_credentials_are_in_the_environment_alone(tmp_path, monkeypatch):
    seen = {}

    def outcome(argv, *, env, cwd):
        seen.update(argv=argv, env=env, files="".join(p.read_text() for p in cwd.iterdir()))
        return 1, "", f"error: cannot reach {env['UV_DEFAULT_INDEX']}lib/"

    monkeypatch.setattr(resolve_module, "outcome", outcome)
    secret = "p@ss/word"
    resolver = uv(tmp_path, "https://me:p%40ss%2Fword@index.invalid/simple/")
    with pytest.raises(SourceError) as caught:
        resolver.resolve(ask("lib"))
    assert seen["env"]["UV_DEFAULT_INDEX"] == "https://me:p%40ss%2Fword@index.invalid/simple"
    for text in ("p%40ss", secret):
        assert text not in " ".join(seen["argv"])
        assert text not in seen["files"]
        assert text not in caught.value.message
    assert "https://index.invalid/simple" in caught.value.message


def test_the_first_index_that_has_a_project_is_the_only_one_for_it(shelf, tmp_path, monkeypatch):
    other = Site()
    try:
        second = Shelf(other, tmp_path / "second")
        second.put("lib", "3.0")
        second.put("only-here", "1.0")
        found = uv(tmp_path, shelf.url, second.url).resolve(ask("lib", "only-here"))
    finally:
        other.server.shutdown()
        other.server.server_close()
    assert found == {"lib": "2.0", "only-here": "1.0"}


def test_what_an_sdist_asks_for_is_told_and_not_found_out(shelf, tmp_path):
    shelf.put_sdist("tracker", "1.0")
    shelf.put_sdist("tracker", "2.0")
    told = Described(name="tracker", version="1.0", requires=("lib<2", "x; extra == 'y'"))
    found = uv(tmp_path, shelf.url).resolve(ask("tracker", described=(told,)))
    assert found == {"tracker": "1.0", "lib": "1.0"}
    assert not (shelf.directory / "RAN").exists()
    with pytest.raises(Unsatisfiable, match="has no wheel, only an sdist"):
        uv(tmp_path, shelf.url).resolve(ask("tracker"))


def test_an_address_that_is_asked_for_cannot_be_locked(shelf, tmp_path):
    shelf.put("linked", requires=[f"lib @ {shelf.site.url}/files/lib-1.0-py3-none-any.whl"])
    with pytest.raises((SourceError, Unsatisfiable), match="lib"):
        uv(tmp_path, shelf.url).resolve(ask("linked"))
