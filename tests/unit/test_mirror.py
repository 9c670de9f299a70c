"""``mirror``: a static package index, that is whole whatever happens to it or while it is made."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from pathlib import Path

import pytest
from web import serve, status

from longrun import mirror as mirror_module
from longrun.errors import SourceError
from longrun.fs import sha256_file
from longrun.index.client import Index, open_index

WHEEL = "alpha-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """The mirror, as our own client reads it from its directory."""
    return open_index([(tmp_path / "mirror/simple").as_uri()], tmp_path / "none")


@pytest.fixture
def cli(stock_cli):
    """The command line, on the stock."""
    return stock_cli


@pytest.fixture
def make(cli, tmp_path):
    """Run ``mirror`` and give what it prints; it must succeed."""

    def run(*argv: object) -> str:
        code, printed, complaint = cli("mirror", tmp_path / "mirror", *argv)
        assert code == 0, complaint
        return printed

    return run


def files(directory: Path) -> dict[str, Path]:
    """The distributions in a mirror, by name."""
    return {
        path.name: path for path in directory.glob("files/*/*/*") if path.suffix in (".whl", ".gz")
    }


ALL = {
    WHEEL,
    "beta-1.0-py3-none-any.whl",
    "beta-2.0-py3-none-any.whl",
    "gamma-1.0.tar.gz",
    "helper-0.5-py3-none-any.whl",
    "longrun_base-2026.1-py3-none-any.whl",
    "longrun_controls-2026.1-py3-none-any.whl",
}


def whole(directory: Path) -> set[str]:
    """The files that the pages tell of, each held against its hash, in both kinds of pages."""
    found = set()
    root = json.loads((directory / "simple/index.json").read_text())
    html = (directory / "simple/index.html").read_text()
    names = [row["name"] for row in root["projects"]]
    assert re.findall(r'href="(.+)/"', html) == names
    for name in names:
        place = directory / "simple" / name
        links = re.findall(r'href="(.+?)#sha256=(\w+)"', (place / "index.html").read_text())
        rows = json.loads((place / "index.json").read_text())["files"]
        assert links == [(row["url"], row["hashes"]["sha256"]) for row in rows]
        for row in rows:
            path = place / row["url"]
            assert sha256_file(path) == row["hashes"]["sha256"]
            assert path.stat().st_size == row["size"]
            if beside := row.get("core-metadata"):
                assert sha256_file(path.with_name(path.name + ".metadata")) == beside["sha256"]
            found.add(row["filename"])
    assert not list(directory.rglob(".*.whl*"))
    return found


def test_everything_in_the_locks_is_there_with_what_builds_need(make, stock, tmp_path, index):
    printed = make()
    assert "5 files of Longrun 2026.1" in printed
    assert "5 of them" in printed
    assert "longrun-base, longrun-controls" in printed
    directory = tmp_path / "mirror"
    assert whole(directory) == set(files(directory)) == ALL
    (alpha,) = index.project("alpha")
    assert (alpha.sha256, alpha.requires_python) == (stock.sha256(WHEEL), ">=3.9")
    assert alpha.metadata
    assert "Requires-Dist: beta >=1" in index.metadata(alpha)
    (gamma,) = index.project("gamma")
    assert (gamma.requires_python, gamma.metadata) == (">=3.8", False)
    assert [file.version for file in index.project("beta")] == ["1.0", "2.0"]


def test_pages_say_the_same_as_html_and_json(make, tmp_path, site):
    make()
    place = tmp_path / "mirror/simple/alpha"
    page = (place / "index.json").read_text()
    site.does["/simple/alpha/"] = lambda request: _json(request, page)
    by_json = open_index([f"{site.url}/simple"], tmp_path / "none").project("alpha")[0]
    by_html = open_index([place.parent.as_uri()], tmp_path / "none").project("alpha")[0]
    for name in ("name", "sha256", "requires_python", "metadata", "version", "yanked"):
        assert getattr(by_json, name) == getattr(by_html, name)
    assert json.loads(page)["versions"] == ["1.0"]


def _json(request, text: str) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
    request.end_headers()
    request.wfile.write(text.encode())


def test_files_are_further_names_of_the_stores_or_copies(make, tmp_path, monkeypatch):
    make("--layer", "base")
    (beta, *_) = (path for name, path in files(tmp_path / "mirror").items() if "beta" in name)
    assert beta.stat().st_nlink > 1

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    make()
    assert files(tmp_path / "mirror")[WHEEL].stat().st_nlink == 1
    assert files(tmp_path / "mirror")[WHEEL].stat().st_mode & 0o777 == 0o444
    assert whole(tmp_path / "mirror") == ALL


def test_a_second_run_fetches_and_writes_nothing(make, stock, tmp_path):
    make()
    stock.site.asked.clear()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mirror").rglob("*")}
    assert "0 of them (0 B) added" in make()
    assert stock.site.asked == []
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "mirror").rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} <= {
        tmp_path / "mirror/.lock"
    }


def test_a_run_for_one_interpreter_and_layer(make, tmp_path):
    make("--layer", "base", "--python", "3.11")
    assert whole(tmp_path / "mirror") == {
        "beta-1.0-py3-none-any.whl",
        "longrun_base-2026.1-py3-none-any.whl",
    }


def test_what_other_releases_put_there_stays(make, stock, tmp_path):
    make()
    release = stock.root / "specs/releases/2026.1.toml"
    text = release.read_text().replace("2026.1", "2026.2").replace("2026-11-02", "2026-12-02")
    (stock.root / "specs/releases/2026.2.toml").write_text(text)
    for tag in ("cp313", "cp311"):
        lock = stock.root / f"specs/locks/2026.1/{tag}.lock.toml"
        text = lock.read_text().replace("2026.1", "2026.2").replace("alpha-1.0-", "alpha-1.1-")
        text = text.replace('name = "alpha"\nversion = "1.0"', 'name = "alpha"\nversion = "1.1"')
        content = stock.files.setdefault("alpha-1.1-py3-none-any.whl", stock.files[WHEEL] + b"\0")
        text = text.replace(stock.sha256(WHEEL), stock.sha256("alpha-1.1-py3-none-any.whl"))
        text = text.replace(f"size = {len(content) - 1}", f"size = {len(content)}")
        target = stock.root / f"specs/locks/2026.2/{tag}.lock.toml"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    stock.offer("alpha-1.1-py3-none-any.whl")
    stock.write_pages()
    assert "1 of them" in make("2026.2")
    assert whole(tmp_path / "mirror") >= ALL | {
        "alpha-1.1-py3-none-any.whl",
        "longrun_controls-2026.2-py3-none-any.whl",
    }


def test_a_metapackage_that_changed_takes_the_place_of_the_old_one(make, stock, tmp_path):
    make()
    release = stock.root / "specs/releases/2026.1.toml"
    release.write_text(release.read_text().replace("control systems", "controls"))
    make()
    assert whole(tmp_path / "mirror") == ALL
    found = list((tmp_path / "mirror").glob("files/*/*/longrun_controls*.whl"))
    assert len(found) == 1


@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_file_is_replaced_though_the_store_has_it_damaged_too(make, stock, tmp_path, how):
    make()
    path = files(tmp_path / "mirror")[WHEEL]
    content = path.read_bytes()
    path.chmod(0o644)
    if how == "gone":
        path.unlink()
    else:  # the store and the downloads have other names of this very file
        path.write_bytes(content[:-1] if how == "cut" else content[:-1] + b"?")
    assert "1 of them" in make()
    assert files(tmp_path / "mirror")[WHEEL].read_bytes() == content
    assert whole(tmp_path / "mirror") == ALL


def test_metadata_that_is_damaged_is_written_again(make, tmp_path):
    make()
    path = files(tmp_path / "mirror")[WHEEL]
    beside = path.with_name(f"{WHEEL}.metadata")
    good = beside.read_bytes()
    beside.write_text("?")
    make()
    assert beside.read_bytes() == good
    assert whole(tmp_path / "mirror") == ALL


def test_pages_of_files_that_somebody_removed_go(make, stock, tmp_path, index):
    make()
    path = files(tmp_path / "mirror")["helper-0.5-py3-none-any.whl"]
    path.unlink()
    make("--layer", "base")
    assert not (tmp_path / "mirror/simple/helper").exists()
    with pytest.raises(SourceError):
        index.project("helper")


def test_killed_at_any_moment_it_is_whole_and_the_next_run_completes_it(cli, tmp_path, monkeypatch):
    """Each write in turn is the last one of a run; the files are linked, the pages written."""

    class Killed(BaseException):
        pass

    left = 0

    def counted(function):
        def call(*arguments):
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            return function(*arguments)

        return call

    kills = 0
    while not left:
        kills += 1
        left, directory = kills, tmp_path / f"mirror{kills}"
        with monkeypatch.context() as patch:
            for name in ("_link_or_copy", "write_atomic"):
                patch.setattr(mirror_module, name, counted(getattr(mirror_module, name)))
            with contextlib.suppress(Killed):
                cli("mirror", directory)
        for path in files(directory).values():
            assert sha256_file(path) == path.parent.parent.name + path.parent.name
        if (directory / "simple/index.json").exists():
            whole(directory)
        assert cli("mirror", directory)[0] == 0
        assert whole(directory) == ALL
    assert kills > 20


def test_leftovers_of_a_killed_run_are_swept(make, tmp_path):
    make()
    directory = tmp_path / "mirror"
    path = files(directory)[WHEEL]
    left = [path.with_name(f".{WHEEL}"), directory / "simple/alpha/.index.html.x1"]
    for each in left:
        each.write_text("half")
    make()
    assert not any(each.exists() for each in left)


def test_an_index_that_goes_away_half_way(cli, stock, tmp_path):
    stock.site.does["/files/gamma-1.0.tar.gz"] = status(500)
    code, _, complaint = cli("mirror", tmp_path / "mirror")
    assert code == 4
    assert "gamma-1.0.tar.gz: HTTP 500" in complaint
    assert not (tmp_path / "mirror/simple").exists()
    stock.site.asked.clear()
    stock.offer("gamma-1.0.tar.gz")
    code, _, complaint = cli("mirror", tmp_path / "mirror")
    assert code == 0, complaint
    assert {path for path, _ in stock.site.asked if "files" in path} == {"/files/gamma-1.0.tar.gz"}
    assert whole(tmp_path / "mirror") == ALL


def test_an_index_with_other_bytes(cli, stock, tmp_path):
    content = stock.files[WHEEL]
    stock.site.does[f"/files/{WHEEL}"] = serve(content[:-1] + b"?")
    code, _, complaint = cli("mirror", tmp_path / "mirror")
    assert code == 4
    assert f"not the pinned {stock.sha256(WHEEL)}" in complaint


def test_a_dry_run_writes_and_fetches_nothing(cli, stock, tmp_path):
    code, printed, _ = cli("mirror", tmp_path / "mirror", "--dry-run", "--json")
    assert code == 0
    document = json.loads(printed)
    assert document["dry_run"] is True
    assert {row["project"] for row in document["files"] if row["added"]} == {
        "alpha",
        "beta",
        "gamma",
        "helper",
    }
    assert not (tmp_path / "mirror").exists()
    assert stock.site.asked == []
    assert "5 of them" in cli("mirror", tmp_path / "mirror", "--dry-run")[1]


def test_as_json_only_json_is_printed(cli, tmp_path):
    code, printed, _ = cli("mirror", tmp_path / "mirror", "--json")
    assert code == 0
    document = json.loads(printed)
    assert document["directory"] == str(tmp_path / "mirror")
    for row in document["files"]:
        assert sha256_file(tmp_path / "mirror" / row["path"]) == row["sha256"]


def test_a_directory_of_something_else_is_left_alone(cli, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("x")
    code, _, complaint = cli("mirror", tmp_path / "home")
    assert code == 2
    assert "expected a mirror or an empty directory, found other files" in complaint
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter"]
    code, _, complaint = cli("mirror", tmp_path / "home/letter")
    assert code == 1
    assert "home/letter: File exists" in complaint


def test_a_full_disk_is_told_and_the_next_run_goes_on(cli, make, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "mirror/x"))

    with monkeypatch.context() as patch:
        patch.setattr(mirror_module, "_link_or_copy", full)
        code, _, complaint = cli("mirror", tmp_path / "mirror")
    assert code == 1
    assert "mirror/x: No space left on device" in complaint
    assert "goes on from here" in complaint
    make()
    assert whole(tmp_path / "mirror") == ALL


def test_two_runs_wait_for_each_other(tmp_path):
    entered = threading.Event()

    def other() -> None:
        with mirror_module.locked(tmp_path / "mirror"):
            entered.set()

    with mirror_module.locked(tmp_path / "mirror"):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.2)
    thread.join(30)
    assert entered.is_set()
