"""Modules in a wheel, build needs in an sdist."""

from __future__ import annotations

import pytest
from shelf import Shelf
from web import Site

from longrun.errors import SourceError
from longrun.index.client import Index, open_index
from longrun.lock.contents import build_requires, modules_of, top_level


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["tool/__init__.py", "tool/a.py", "tool-1.dist-info/METADATA"], ["tool"]),
        (["tool.py", "_speed.cpython-311-x86_64-linux-gnu.so"], ["tool"]),
        (["_only.abi3.so"], ["_only"]),
        (["space/sub/mod.py"], ["space"]),
        (["tool/__init__.py", "tests/test_a.py", "docs/conf.py"], ["tool"]),
        (["tool-1.data/purelib/kept/__init__.py", "tool-1.data/scripts/run.py"], ["kept"]),
        (["tool.libs/libx.so", "tool/data.txt", "b/__init__.py"], ["b"]),
        ([], []),
    ],
)
def test_the_modules_of_a_wheel(paths, names):
    assert top_level(paths) == names


@pytest.fixture
def shelf(site: Site, tmp_path, monkeypatch) -> Shelf:
    monkeypatch.setenv("NO_PROXY", "*")
    return Shelf(site, tmp_path / "shelf")


@pytest.fixture
def index(shelf: Shelf, tmp_path) -> Index:
    return open_index([shelf.url], tmp_path / "cache")


def test_the_module_of_the_distribution_s_name_stands_for_all(shelf, index):
    shelf.put("my-tool", files={"my_tool/__init__.py": "", "other/__init__.py": ""})
    shelf.put("pyserial", files={"serial/__init__.py": ""})
    shelf.put_sdist("from-source")
    assert modules_of(index, index.project("my-tool")[0], "my-tool") == ("my_tool",)
    assert modules_of(index, index.project("pyserial")[0], "pyserial") == ("serial",)
    assert modules_of(index, index.project("from-source")[0], "from-source") == ("from_source",)


def test_what_the_build_of_an_sdist_asks_for(shelf, index):
    shelf.put_sdist("plain")
    shelf.put_sdist("said", build='["hatchling", "cython>=3"]')
    shelf.put_sdist("broken", build="[")
    shelf.put_sdist("odd", build="3")
    assert build_requires(index, index.project("plain")[0]) == ("setuptools>=40.8.0",)
    assert build_requires(index, index.project("said")[0]) == ("hatchling", "cython>=3")
    for name in ("broken", "odd"):
        with pytest.raises(SourceError, match=f"{name}-1.0.tar.gz: its pyproject.toml cannot"):
            build_requires(index, index.project(name)[0])


def test_a_damaged_file_is_named(shelf, index):
    shelf.link("bad", "bad-1.0-py3-none-any.whl", b"no zip")
    with pytest.raises(SourceError, match=r"bad-1\.0-py3-none-any\.whl"):
        modules_of(index, index.project("bad")[0], "bad")
