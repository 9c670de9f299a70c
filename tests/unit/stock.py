"""A checkout with two layers of tiny distributions, and a package index that has their files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from web import Site, page, serve
from wheel_maker import make_wheel

RELEASE = """\
name = "2026.1"
date = "2026-11-02"
toolchain = "cc"
interpreters = {interpreters}
[lifecycle]
released = "2026-11-02"
end_of_life = "2029-12-31"
[floor]
arch = "x86_64"
glibc = "2.28"
[layers.base]
summary = "numbers"
[layers.controls]
summary = "control systems"
includes = ["base"]
"""

SOURCE = """\
[source]
file = "{name}.tar.gz"
sha256 = "{sha}"
size = 10
urls = ["https://example.invalid/{name}.tar.gz"]
"""

INTERPRETER = """\
name = "cpython-{minor}"
version = "{minor}.5"
licence = "PSF-2.0"
libraries = []
modules = ["zlib"]
[lifecycle]
released = "2024-10-07"
end_of_life = "2029-10-31"
"""

PACKAGE = """\
name = "{name}"
layer = "{layer}"
why = "a test"
owner = "tests"
imports = ["{name}"]
{more}
"""

BACKEND = """\
import os, zipfile
import helper  # which the build requires

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "gamma-1.0-py3-none-any.whl"
    info = "gamma-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        archive.writestr("gamma.py", f"value = {helper.value}\\n")
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: gamma\\nVersion: 1.0\\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        archive.writestr(info + "RECORD", "")
    return name
"""

PYPROJECT = """\
[build-system]
requires = ["helper"]
build-backend = "backend"
backend-path = ["."]
"""


@dataclass
class Stock:
    """Layer base has beta (of another version for each interpreter); controls has alpha, which
    requires beta, and gamma, an sdist whose build requires helper.
    """

    root: Path
    site: Site
    files: dict[str, bytes]

    @property
    def index(self) -> str:
        """The address of the index."""
        return f"{self.site.url}/simple"

    @property
    def tags(self) -> list[str]:
        """The tags of the interpreters."""
        return sorted(path.name[:-10] for path in self.root.glob("specs/locks/2026.1/*.lock.toml"))

    def sha256(self, file: str) -> str:
        return hashlib.sha256(self.files[file]).hexdigest()

    def offer(self, file: str, content: bytes | None = None) -> None:
        """Have a file on the index, which may lie about its content."""
        self.site.does[f"/files/{file}"] = serve(self.files[file] if content is None else content)

    def write_pages(self) -> None:
        projects: dict[str, list[str]] = {}
        for file in self.files:
            projects.setdefault(file.partition("-")[0], []).append(file)
        for name, files in projects.items():
            links = [f'<a href="/files/{f}#sha256={self.sha256(f)}">{f}</a>' for f in files]
            self.site.does[f"/simple/{name}/"] = page(f"<html>{''.join(links)}</html>")


def make_stock(root: Path, site: Site, minors: tuple[str, str] = ("3.13", "3.11")) -> Stock:
    """Write the specs and locks of a checkout below ``root``, and put the files on the index."""
    stock = Stock(root, site, _files(root / "made"))
    for file in stock.files:
        stock.offer(file)
    stock.write_pages()
    names = ", ".join(f'"cpython-{minor}"' for minor in minors)
    _write(root / "specs/releases/2026.1.toml", RELEASE.format(interpreters=f"[{names}]"))
    text = 'name = "cc"\nversion = "1"\nlicence = "MIT"\nsummary = "a compiler"\n'
    _write(root / "specs/toolchains/cc.toml", text + SOURCE.format(name="cc", sha="c" * 64))
    for minor in minors:
        text = INTERPRETER.format(minor=minor) + SOURCE.format(name=minor, sha="d" * 64)
        _write(root / f"specs/interpreters/cpython-{minor}.toml", text)
    for name, layer, more in (
        ("beta", "base", ""),
        ("alpha", "controls", ""),
        ("gamma", "controls", '[build]\nrequires = ["helper"]'),
    ):
        text = PACKAGE.format(name=name, layer=layer, more=more)
        _write(root / f"specs/packages/{name}.toml", text)
    for minor, beta in zip(minors, ("2.0", "1.0"), strict=True):
        tag = f"cp{minor.replace('.', '')}"
        _write(root / f"specs/locks/2026.1/{tag}.lock.toml", _lock(stock, minor, tag, beta))
    return stock


def _files(directory: Path) -> dict[str, bytes]:
    make_wheel(directory, "alpha", metadata="Requires-Dist: beta >=1\nRequires-Python: >=3.9\n")
    make_wheel(directory, "beta", "1.0")
    make_wheel(directory, "beta", "2.0")
    make_wheel(directory, "helper", "0.5", files={"helper.py": "value = 42\n"})
    info = "Metadata-Version: 2.1\nName: gamma\nVersion: 1.0\nRequires-Python: >=3.8\n"
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in (
            ("PKG-INFO", info),
            ("pyproject.toml", PYPROJECT),
            ("backend.py", BACKEND),
        ):
            member = tarfile.TarInfo(f"gamma-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    (directory / "gamma-1.0.tar.gz").write_bytes(raw.getvalue())
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def _lock(stock: Stock, minor: str, tag: str, beta: str) -> str:
    rows = [
        ("distribution", "alpha", "1.0", "alpha-1.0-py3-none-any.whl", "{}"),
        ("distribution", "beta", beta, f"beta-{beta}-py3-none-any.whl", '{alpha = ">=1"}'),
        ("distribution", "gamma", "1.0", "gamma-1.0.tar.gz", "{}"),
        ("build", "helper", "0.5", "helper-0.5-py3-none-any.whl", "{}"),
    ]
    text = f'release = "2026.1"\ninterpreter = "{tag}"\npython = "{minor}.5"\n'
    text += 'platform = "manylinux_2_28_x86_64"\n'
    for kind, name, version, file, asked in rows:
        text += f'[[{kind}]]\nname = "{name}"\nversion = "{version}"\nfile = "{file}"\n'
        text += f'size = {len(stock.files[file])}\nsha256 = "{stock.sha256(file)}"\n'
        text += f'tag = "{"sdist" if file.endswith(".gz") else "py3-none-any"}"\n'
        text += f"required_by = {asked}\n"
    return text


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
