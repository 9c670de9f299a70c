"""A small checkout of made specs, for everything that needs no compiler."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from shelf import Shelf
from stack_desk import LAYERS, StackDesk
from stock import Stock, make_stock
from web import Site

from longrun import download as download_module
from longrun.cli import main
from longrun.index import pip as pip_module
from longrun.plan import Plan, choose_interpreters, choose_release, make_plan
from longrun.specs import Specs, load_specs

RELEASE = """\
name = "2026.1"
date = "2026-11-02"
toolchain = "cc"
interpreters = ["cpython-3.13", "cpython-3.11"]
[lifecycle]
released = "2026-11-02"
end_of_life = "2029-12-31"
[floor]
arch = "x86_64"
glibc = "2.28"
"""

TOOLCHAIN = """\
name = "cc"
version = "1.0"
licence = "MIT"
summary = "a compiler"
[source]
file = "cc-1.0.whl"
sha256 = "{sha}"
size = 10
index = "cc==1.0"
"""

LIBRARY = """\
name = "{name}"
version = "{version}"
licence = "Zlib"
summary = "a library"
inputs = {inputs}
[source]
file = "{name}-{version}.tar.gz"
sha256 = "{sha}"
size = 10
urls = ["https://example.org/{name}-{version}.tar.gz"]
[build]
commands = [["make"]]
licences = ["LICENSE"]
expects = ["lib/lib{name}.a"]
patches = {patches}
"""

INTERPRETER = """\
name = "cpython-{minor}"
version = "{minor}.5"
licence = "PSF-2.0"
libraries = {libraries}
modules = ["zlib"]
[lifecycle]
released = "2024-10-07"
end_of_life = "2029-10-31"
[source]
file = "Python-{minor}.5.tar.xz"
sha256 = "{sha}"
size = 10
urls = ["https://example.org/Python-{minor}.5.tar.xz"]
"""


@dataclass
class Checkout:
    """A checkout in a temporary directory, and shorthands to change it."""

    root: Path

    def write(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def replace(self, path: str, old: str, new: str) -> None:
        target = self.root / path
        text = target.read_text()
        assert old in text
        target.write_text(text.replace(old, new))

    def library(
        self,
        name: str,
        *,
        version: str = "1.0",
        sha: str = "a",
        inputs: tuple[str, ...] = (),
        patches: tuple[str, ...] = (),
    ) -> None:
        text = LIBRARY.format(
            name=name, version=version, sha=sha * 64, inputs=list(inputs), patches=list(patches)
        )
        self.write(f"specs/libraries/{name}.toml", text.replace("'", '"'))

    def specs(self) -> Specs:
        return load_specs(self.root)

    def plan(self, *versions: str) -> Plan:
        specs = self.specs()
        release = choose_release(specs, None)
        return make_plan(specs, release, choose_interpreters(specs, release, list(versions)))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Two interpreters; ssl needs z; one patch."""
    made = Checkout(tmp_path / "checkout")
    made.write("specs/releases/2026.1.toml", RELEASE)
    made.write("specs/toolchains/cc.toml", TOOLCHAIN.format(sha="c" * 64))
    made.write("patches/libraries/ssl/0001-fix.patch", "Fix it\n--- a/x\n+++ b/x\n")
    made.library("z", sha="a")
    made.library("ssl", sha="b", inputs=("z",), patches=("libraries/ssl/0001-fix.patch",))
    for minor, sha in (("3.13", "d"), ("3.11", "e")):
        text = INTERPRETER.format(minor=minor, sha=sha * 64, libraries='["ssl"]')
        made.write(f"specs/interpreters/cpython-{minor}.toml", text)
    return made


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on loopback, ended after the test."""
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def stock(tmp_path: Path, site: Site) -> Stock:
    """A checkout with a stack of tiny distributions, and the index that has them."""
    return make_stock(tmp_path / "checkout", site)


@pytest.fixture
def stock_cli(stock, tmp_path, monkeypatch, capsys):
    """Run a verb on the stock's checkout and index: (status, printed, complaint)."""
    config = tmp_path / "config.toml"
    config.write_text(f'index = ["{stock.index}"]\n')
    monkeypatch.setenv("LONGRUN_CONFIG", str(config))
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LONGRUN_ENVIRONMENT", sys.prefix)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(pip_module, "settings", lambda python: {})
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.005)

    def run(*argv: object) -> tuple[int, str, str]:
        code = main(stock.root, [str(word) for word in argv])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def desk(checkout, site, tmp_path, monkeypatch, capsys) -> StackDesk:
    """A checkout with two layers, an empty index, and the verbs that lock."""
    release = checkout.root / "specs/releases/2026.1.toml"
    release.write_text(release.read_text() + LAYERS)
    config = tmp_path / "config.toml"
    config.write_text(f'index = ["{site.url}/simple"]\n')
    monkeypatch.setenv("LONGRUN_CONFIG", str(config))
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LONGRUN_ENVIRONMENT", sys.prefix)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(pip_module, "settings", lambda python: {})
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.005)
    return StackDesk(checkout, Shelf(site, tmp_path / "shelf"), capsys.readouterr)
