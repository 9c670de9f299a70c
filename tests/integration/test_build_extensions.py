"""Software that others build against a prefix, with the console's own compiler."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from programs import call, index

EMBED = r"""
#include <Python.h>
int main(void)
{
    Py_Initialize();
    int failed = PyRun_SimpleString(
        "import json, math, ssl, sqlite3, sys\n"
        "print(json.dumps({'prefix': sys.prefix, 'platform': sys.exec_prefix, 'path': sys.path}))\n"
    );
    return Py_FinalizeEx() < 0 || failed;
}
"""

TINY = r"""
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, NULL}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tiny", NULL, 0, methods};
PyMODINIT_FUNC PyInit_tiny(void) { return PyModule_Create(&module); }
"""


@pytest.fixture
def env(prefix, tmp_path) -> Path:
    """A virtual environment."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    call(prefix.python, "-m", "venv", tmp_path / "env")
    return tmp_path / "env" / "bin"


def test_an_extension_from_source(env, tmp_path):
    download = {**index(), "PIP_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    call(env / "pip", "install", "--no-binary", "markupsafe", "markupsafe==3.0.2", env=download)
    say = "from markupsafe import _speedups, escape; print(_speedups.__file__, escape('<'))"
    path, escaped = call(env / "python", "-c", say).split()
    assert path.endswith(".so")
    assert escaped == "&lt;"


def test_a_wheel_with_native_code(env, tmp_path):
    download = {**index(), "PIP_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    call(env / "pip", "install", "--only-binary", ":all:", "numpy", env=download)
    say = "import numpy as n; a = n.ones((3, 3)) + n.eye(3); print(n.linalg.det(a).round(9))"
    assert call(env / "python", "-c", say) == "4.0"


def test_an_extension_with_the_config_script(prefix, tmp_path):
    (tmp_path / "tiny.c").write_text(TINY)
    config = prefix.path / "bin" / f"python{prefix.version}-config"
    flags = call(config, "--cflags", "--ldflags").split()
    suffix = call(config, "--extension-suffix")
    call("gcc", "-shared", "-fPIC", "tiny.c", *flags, "-o", f"tiny{suffix}", cwd=tmp_path)
    assert call(prefix.python, "-c", "import tiny; print(tiny.answer())", cwd=tmp_path) == "42"


def embed(prefix, tmp_path: Path, flags: list[str]) -> Path:
    """Compile the embedding program with these flags."""
    (tmp_path / "embed.c").write_text(EMBED)
    call("gcc", "embed.c", "-o", "embed", *flags, cwd=tmp_path)
    return tmp_path / "embed"


def config_flags(prefix, alias: Path) -> list[str]:
    script = alias / "bin" / f"python{prefix.version}-config"
    return call(script, "--embed", "--cflags", "--ldflags").split()


def pkgconfig_flags(prefix, alias: Path) -> list[str]:
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config on this machine")
    where = {"PKG_CONFIG_PATH": str(alias / "lib" / "pkgconfig")}
    name = f"python-{prefix.version}-embed"
    return call("pkg-config", "--cflags", "--libs", name, env=where).split()


@pytest.mark.parametrize("find", [config_flags, pkgconfig_flags])
@pytest.mark.parametrize("path", ["/usr/bin:/bin", "", "/nonexistent"])
def test_a_program_that_embeds_python(prefix, tmp_path, find, path):
    """It finds the prefix beside libpython, whatever `python3` the PATH holds."""
    program = embed(prefix, tmp_path, find(prefix, prefix.path))
    told = json.loads(call(program, env={"PATH": path}, cwd=tmp_path))
    assert os.path.samefile(told["prefix"], prefix.path)
    assert os.path.samefile(told["platform"], prefix.path)


def test_a_program_that_embeds_python_finds_a_prefix_that_moved(prefix, tmp_path):
    shutil.copytree(prefix.path, tmp_path / "first", symlinks=True)
    program = embed(prefix, tmp_path, config_flags(prefix, tmp_path / "first"))
    (tmp_path / "first").rename(tmp_path / "second")
    moved = {"LD_LIBRARY_PATH": str(tmp_path / "second" / "lib")}
    told = json.loads(call(program, env=moved, cwd=tmp_path))
    assert told["prefix"] == str(tmp_path / "second")


def test_a_program_that_embeds_python_in_an_active_environment(prefix, env, tmp_path):
    program = embed(prefix, tmp_path, config_flags(prefix, prefix.path))
    told = json.loads(call(program, env={"PATH": f"{env}:/usr/bin:/bin"}, cwd=tmp_path))
    assert told["prefix"] == str(env.parent)
    assert f"{prefix.path}/lib/python{prefix.version}" in told["path"]


def test_a_console_s_linker_reads_all_that_is_shipped(prefix):
    """No archive or object of a compiler's own intermediate code is left to trip over."""
    shipped = [path for path in prefix.path.rglob("*") if path.suffix in (".a", ".o", ".bc")]
    assert not shipped
