"""Packages and locks of a small stack, for what tells of it: two interpreters, three layers."""

from __future__ import annotations

import hashlib
from pathlib import Path

LAYERS = """
[layers.base]
summary = "numbers and files"
[layers.controls]
summary = "control systems"
includes = ["base"]
[layers.gui]
summary = "panels"
includes = ["controls"]
"""

PACKAGE = """\
name = "{name}"
layer = "{layer}"
why = "{why}"
owner = "{layer} group"
imports = ["{module}"]
"""

PYTHONS = {"cp313": "3.13.5", "cp311": "3.11.5"}


def give_stack(root: Path) -> None:
    """Give a checkout layers, packages and the locks of both interpreters.

    numpy (base) and pyepics (controls) are packages for both, panel (gui) for cp313 alone; tracker
    (controls) is built from its sdist. pyparsing came along with pyepics, and wheels with a build.
    """
    release = root / "specs/releases/2026.1.toml"
    release.write_text(release.read_text() + LAYERS)
    give_package(root, "numpy", "base", why="arrays", extra='constraint = ">=2"')
    give_package(root, "pyepics", "controls", why="Channel Access", extra='brings = ["pyparsing"]')
    give_package(root, "panel-kit", "gui", why="panels", extra='interpreters = ["cp313"]')
    give_package(
        root,
        "tracker",
        "controls",
        why="orbits",
        extra='brings = ["wheel"]\n[build]\nrequires = ["setuptools>=61"]',
    )
    for tag in PYTHONS:
        give_lock(root, tag)


def give_package(root: Path, name: str, layer: str, *, why: str, extra: str = "") -> None:
    """Write the spec of a package."""
    text = PACKAGE.format(name=name, layer=layer, why=why, module=name.replace("-", "_"))
    _write(root / f"specs/packages/{name}.toml", f"{text}{extra}\n")


def give_lock(root: Path, tag: str, more: str = "") -> None:
    """Write the lock of an interpreter; ``more`` is put behind."""
    numpy = "2.5.1" if tag == "cp313" else "2.4.0"
    asked = '{pyepics = ">=1.23", tracker = ""}'
    rows = [
        distribution(tag, "numpy", numpy, asked=asked, size=20_000_000),
        distribution(tag, "pyepics", "3.5.10", size=5_000_000, licence="EPICS Open License"),
        distribution(tag, "pyparsing", "3.3.3", asked='{pyepics = ">=3"}', size=120_000),
        distribution(tag, "tracker", "1.0", sdist=True, size=1000),
        distribution(tag, "setuptools", "80.0", build=True, size=1_200_000),
        distribution(
            tag, "wheel", "0.45", build=True, asked='{setuptools = ">=0.40"}', size=70_000
        ),
    ]
    if tag == "cp313":
        rows.append(distribution(tag, "panel-kit", "0.9", size=300_000))
    head = f'release = "2026.1"\ninterpreter = "{tag}"\npython = "{PYTHONS[tag]}"\n'
    head += 'platform = "manylinux_2_28_x86_64"\n'
    _write(root / f"specs/locks/2026.1/{tag}.lock.toml", head + "".join(rows) + more)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def distribution(
    tag: str,
    name: str,
    version: str,
    *,
    size: int,
    asked: str = "{}",
    licence: str = "MIT",
    sdist: bool = False,
    build: bool = False,
) -> str:
    """The entry of one distribution in a lock; numpy's file differs from tag to tag."""
    wheel_tag = f"{tag}-{tag}-manylinux_2_28_x86_64" if name == "numpy" else "py3-none-any"
    stem = f"{name.replace('-', '_')}-{version}"
    file = f"{stem}.tar.gz" if sdist else f"{stem}-{wheel_tag}.whl"
    return f"""
[[{"build" if build else "distribution"}]]
name = "{name}"
version = "{version}"
file = "{file}"
size = {size}
sha256 = "{hashlib.sha256(file.encode()).hexdigest()}"
tag = "{"sdist" if sdist else wheel_tag}"
licence = "{licence}"
summary = "what {name} is"
required_by = {asked}
"""
