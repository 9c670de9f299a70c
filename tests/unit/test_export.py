"""``export``: what pip and uv are given, for machines that have no prefix of ours."""

from __future__ import annotations

import email
import io
import json
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from web import status

from longrun.export import metapackage
from longrun.plan import choose_release
from longrun.specs import load_specs
from longrun.verbs.export import load_all

LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "implementation_name": "cpython"}


@pytest.fixture
def cli(stock_cli):
    """The command line, on the stock."""
    return stock_cli


def test_pylock_is_valid_and_has_what_the_lock_pins(cli, stock, tmp_path):
    code, printed, complaint = cli("export", "--layer", "controls", "--output", tmp_path / "out")
    assert (code, complaint) == (0, "")
    path = tmp_path / "out/controls-cp313/pylock.toml"
    assert "out/controls-cp313/pylock.toml" in printed
    document = tomllib.loads(path.read_text())
    lock = Pylock.from_dict(document)
    assert str(lock.requires_python) == "==3.13.*"
    assert lock.environments is not None
    (environment,) = lock.environments
    assert environment.evaluate({**LINUX, "python_version": "3.13"})
    assert not environment.evaluate({**LINUX, "python_version": "3.11"})
    packages = {package.name: package for package in lock.packages}
    assert {name: str(package.version) for name, package in packages.items()} == {
        "alpha": "1.0",
        "beta": "2.0",
        "gamma": "1.0",
    }
    (alpha,) = packages["alpha"].wheels or ()
    assert alpha.url == f"{stock.site.url}/files/alpha-1.0-py3-none-any.whl"
    assert alpha.hashes == {"sha256": stock.sha256("alpha-1.0-py3-none-any.whl")}
    assert alpha.size == len(stock.files["alpha-1.0-py3-none-any.whl"])
    assert packages["alpha"].dependencies == [{"name": "beta"}]
    gamma = packages["gamma"].sdist
    assert packages["gamma"].wheels is None
    assert gamma is not None
    assert gamma.url == f"{stock.site.url}/files/gamma-1.0.tar.gz"


def test_requirements_have_hashes_and_no_index_unless_named(cli, stock, tmp_path):
    out = tmp_path / "out"
    cli("export", "--layer", "base", "--python", "3.11", "--output", out)
    text = (out / "base-cp311/requirements.txt").read_text()
    (line,) = [line for line in text.replace("\\\n", "").splitlines() if line[0] != "#"]
    assert line.split() == [
        "beta==1.0",
        f"--hash=sha256:{stock.sha256('beta-1.0-py3-none-any.whl')}",
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        "base-cp311",
        "longrun_base-2026.1-py3-none-any.whl",
    ]
    address = stock.index.replace("//", "//me:secret@")
    assert cli("export", "--layer", "base", "--index", address, "--output", out)[0] == 0
    text = (out / "base-cp311/requirements.txt").read_text()
    assert f"\n--index-url {stock.index}\n" in text
    for path in out.rglob("*.t*"):
        assert "secret" not in path.read_text()


def test_by_default_all_layers_go_below_dist(cli, stock):
    code, printed, _ = cli("export", "--json")
    assert code == 0
    document = json.loads(printed)
    found = {Path(row["path"]).relative_to(stock.root).as_posix() for row in document["files"]}
    assert found == {
        "dist/export/2026.1/" + name
        for name in (
            *(
                f"{layer}-{tag}/{file}"
                for layer in ("base", "controls")
                for tag in ("cp313", "cp311")
                for file in ("pylock.toml", "requirements.txt")
            ),
            "longrun_base-2026.1-py3-none-any.whl",
            "longrun_controls-2026.1-py3-none-any.whl",
        )
    }


def test_the_same_locks_give_the_same_bytes(cli, tmp_path):
    for out in ("one", "two"):
        cli("export", "--output", tmp_path / out)
    for path in (tmp_path / "one").rglob("*.*"):
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )


def read_metapackage(content: bytes) -> email.message.Message:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_the_metapackage_pins_every_interpreters_versions(stock):
    specs = load_specs(stock.root)
    release = choose_release(specs, None)
    made = metapackage(release, "controls", load_all(specs, release).values())
    assert made.file == "longrun_controls-2026.1-py3-none-any.whl"
    metadata = read_metapackage(made.content)
    assert (metadata["Name"], metadata["Version"]) == ("longrun-controls", "2026.1")
    pins = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    for minor, beta in (("3.13", "2.0"), ("3.11", "1.0")):
        chosen = {
            f"{pin.name}{pin.specifier}"
            for pin in pins
            if pin.marker is None or pin.marker.evaluate({"python_version": minor})
        }
        assert chosen == {"alpha==1.0", f"beta=={beta}", "gamma==1.0"}
    assert [pin.marker for pin in pins if pin.name == "alpha"] == [None]  # equal, so merged
    python = SpecifierSet(metadata["Requires-Python"])
    wanted = {"3.10": False, "3.11": True, "3.12": False, "3.13": True, "3.14": False}
    assert {minor: f"{minor}.1" in python for minor in wanted} == wanted


def test_an_index_that_lacks_a_file_writes_nothing(cli, stock, tmp_path):
    out = tmp_path / "out"
    stock.files["beta-3.0-py3-none-any.whl"] = stock.files.pop("beta-2.0-py3-none-any.whl")
    stock.write_pages()
    code, _, complaint = cli("export", "--output", out)
    assert code == 4
    assert "has no beta 2.0; the nearest versions are 1.0, 3.0" in complaint
    assert stock.index in complaint
    assert not out.exists()
    stock.site.does["/simple/beta/"] = status(503)
    code, _, complaint = cli("export", "--output", out)
    assert code == 4
    assert f"{stock.index}/beta/: HTTP 503 (tried 3 times)" in complaint
    assert not out.exists()


def test_an_index_with_another_file_of_the_name_is_refused(cli, stock, tmp_path):
    pinned = stock.sha256("alpha-1.0-py3-none-any.whl")
    stock.files["alpha-1.0-py3-none-any.whl"] = b"other"
    stock.write_pages()
    code, _, complaint = cli("export", "--output", tmp_path / "out")
    assert code == 4
    assert pinned in complaint
    assert stock.sha256("alpha-1.0-py3-none-any.whl") in complaint


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--layer", "control"), 2, "did you mean 'controls'?"),
        (("--python", "3.12"), 2, "no interpreter '3.12'"),
        (("--index", "ftp://host/simple"), 4, "expected the http, https or file address"),
        (("2027.1",), 2, "no release '2027.1'"),
    ],
)
def test_what_does_not_exist(cli, argv, code, words):
    status, _, complaint = cli("export", *argv)
    assert status == code
    assert words in complaint


def test_without_a_lock_there_is_nothing_to_export(cli, stock):
    (stock.root / "specs/locks/2026.1/cp311.lock.toml").unlink()
    code, _, complaint = cli("export", "--python", "3.13")
    assert code == 3
    assert "cp311.lock.toml: there is no such lock yet" in complaint
    assert "remedy: ./build.py lock" in complaint
