"""Sealing a made prefix: what goes, what comes, and that nothing can change afterwards."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from longrun.errors import BuildError
from longrun.fs import remove_tree, scan, tree_digest
from longrun.seal import MARKER, seal

EPOCH = 1_750_000_000
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
LIBRARY = f"lib/python{VERSION}"
HOOK = ("_longrun_usage.py", "RELEASE = '2026.1'\n")
MARKS = {"release": "2026.1", "interpreter": f"cpython-{VERSION}"}


def run(argv: list[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(argv, check=True, cwd=cwd, env={"PATH": "/usr/bin:/bin", **(env or {})})


def make(root: Path) -> Path:
    """A small prefix, whose interpreter is the one that runs the test."""
    files = {
        f"{LIBRARY}/os.py": "NAMES = {'a', 'b', 'c'} if 'x' in {'x', 'y', 'z'} else None\n",
        f"{LIBRARY}/json/__init__.py": "def f():\n    raise ValueError\n",
        f"{LIBRARY}/json/__pycache__/__init__.cpython-1.pyc": "stale",
        f"{LIBRARY}/test/test_os.py": "",
        f"{LIBRARY}/lib-dynload/_json.cpython-x.so": "",
        f"{LIBRARY}/lib-dynload/_testcapi.cpython-x.so": "",
        f"{LIBRARY}/site-packages/README.txt": "",
        "share/doc/empty/gone": "",
        "bin/tool": "#!/bin/sh\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / f"{LIBRARY}/os.py").chmod(0o777)
    (root / f"{LIBRARY}/lib-dynload/_json.cpython-x.so").chmod(0o755)
    (root / f"{LIBRARY}/lib-dynload/_alias.so").symlink_to("_testcapi.cpython-x.so")
    python = root / f"bin/python{VERSION}"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (root / "bin/python3").symlink_to(python.name)
    return root


EXCLUDE = (f"{LIBRARY}/test", f"{LIBRARY}/lib-dynload/_test*", "share/doc/*/gone")


@pytest.fixture
def sealed(tmp_path):
    prefix = make(tmp_path / "prefix")
    seal(prefix, exclude=EXCLUDE, marker=MARKS, hook=HOOK, epoch=EPOCH, run=run)
    yield prefix
    remove_tree(prefix)


def test_what_is_excluded_is_gone_and_leaves_nothing_hanging(sealed):
    assert not (sealed / LIBRARY / "test").exists()
    assert [p.name for p in (sealed / LIBRARY / "lib-dynload").iterdir()] == ["_json.cpython-x.so"]
    assert not (sealed / "share/doc").exists(), "an empty directory is left"


def test_no_write_bit_is_left_and_only_programs_are_executable(sealed):
    for path in sealed.rglob("*"):
        if not path.is_symlink():
            assert not path.stat().st_mode & 0o222, path
    modes = {
        "bin/tool": 0o555,
        f"{LIBRARY}/os.py": 0o444,
        f"{LIBRARY}/lib-dynload/_json.cpython-x.so": 0o555,
        LIBRARY: 0o555,
    }
    for name, mode in modes.items():
        assert stat.S_IMODE((sealed / name).stat().st_mode) == mode, name


def test_every_time_is_the_release_s(sealed):
    for path in (sealed, *sealed.rglob("*")):
        assert path.lstat().st_mtime == EPOCH, path


def test_bytecode_is_valid_whatever_the_time_of_its_source(sealed):
    cached = importlib.util.cache_from_source(str(sealed / LIBRARY / "json/__init__.py"))
    assert Path(cached).read_bytes()[4:8] == b"\x01\0\0\0", "not unchecked-hash"
    stale = list(sealed.rglob("*-1.pyc"))
    assert not stale


def test_bytecode_holds_no_path_of_the_build(sealed):
    for path in sealed.rglob("*.pyc"):
        assert str(sealed).encode() not in path.read_bytes()


def test_sealing_twice_gives_the_same_bytes(sealed, tmp_path):
    other = make(tmp_path / "a longer name" / "prefix")
    seal(other, exclude=EXCLUDE, marker=MARKS, hook=HOOK, epoch=EPOCH, run=run)
    assert tree_digest(scan(sealed)) == tree_digest(scan(other))
    remove_tree(other)


def test_installing_is_refused_with_what_to_do_instead(sealed):
    """Read as pip reads it (PEP 668)."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(sealed / LIBRARY / "EXTERNALLY-MANAGED", encoding="utf-8")
    message = parser["externally-managed"]["Error"]
    assert f"python{VERSION} -m venv my-env" in message
    assert "my-env/bin/python -m pip install" in message


def test_the_prefix_says_what_it_is(sealed):
    assert json.loads((sealed / MARKER).read_text()) == MARKS


@pytest.mark.parametrize("name", ["pip", "pip-25.0.dist-info", "sneaked.pth"])
def test_something_installed_in_the_base_is_an_error(tmp_path, name):
    prefix = make(tmp_path / "prefix")
    (prefix / LIBRARY / "site-packages" / name).write_text("")
    with pytest.raises(BuildError, match=f"site-packages hold {name}"):
        seal(prefix, exclude=(f"{LIBRARY}/none",), marker=MARKS, hook=HOOK, epoch=EPOCH, run=run)


def test_a_source_that_does_not_compile_is_an_error(tmp_path):
    prefix = make(tmp_path / "prefix")
    (prefix / LIBRARY / "broken.py").write_text("def f(:\n")
    with pytest.raises(subprocess.CalledProcessError):
        seal(prefix, exclude=(), marker=MARKS, hook=HOOK, epoch=EPOCH, run=run)
    assert os.access(prefix / LIBRARY, os.W_OK)
