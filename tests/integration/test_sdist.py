"""A package that is source only: built offline, for the floor, with what it links taken in."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from programs import call

from longrun.errors import BuildError
from longrun.model import FromSdist, Source, Wheel
from longrun.plan import choose_interpreters, choose_release, make_plan
from longrun.run import JobServer, Programs, Runner
from longrun.specs import load_specs
from longrun.steps import wheel
from longrun.steps.job import Job

SETUP = """\
import os, subprocess
from setuptools import Extension, setup
{network}
here = os.path.abspath("helper")
argv = [os.environ["CC"], "-shared", "-o", here + "/libhelper.so", here + "/helper.c"]
subprocess.run(argv, check=True)
setup(
    name="native", version="1.0", packages=["native"],
    ext_modules=[Extension(
        "native._native", ["native.c"], libraries=["helper"], library_dirs=[here],
        runtime_library_dirs=[here],
    )],
)
"""
NETWORK = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError as error:
    assert error.errno == 101, f"there is a network: {error}"
"""
MODULE = """\
#include <Python.h>
#include <math.h>
int helped(void);
static PyObject *answer(PyObject *self, PyObject *x)
{ return PyLong_FromLong(helped() + (long)pow(PyFloat_AsDouble(x), 2)); }
static PyMethodDef methods[] = {{"answer", answer, METH_O, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", 0, -1, methods};
PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
"""
FILES = {
    "native/__init__.py": "from native._native import answer\n",
    "native.c": MODULE,
    "helper/helper.c": "int helped(void) { return 38; }\n",
    "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\n'
    'build-backend = "setuptools.build_meta"\n',
}


def make_sdist(directory: Path, setup: str) -> Path:
    directory.mkdir()
    file = directory / "native-1.0.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, text in {**FILES, "setup.py": setup}.items():
            member = tarfile.TarInfo(f"native-1.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return file


@pytest.fixture
def build(prefix, store, tmp_path):
    """Build an sdist's wheel for the interpreter of ``prefix``, as a step would."""
    from conftest import ROOT

    specs = load_specs(ROOT)
    release = choose_release(specs, None)
    (interpreter,) = choose_interpreters(specs, release, [prefix.version])
    plan = make_plan(specs, release, (interpreter,), layers=tuple(release.layers))

    def tree(step_id: str) -> Path:
        entry = store.get(plan.find(step_id).key)
        assert entry is not None, step_id
        return entry.tree

    def run(name: str, setup: str) -> Path:
        place = tmp_path / name
        work, out = place / "work", place / "out"
        work.mkdir(parents=True)
        out.mkdir()
        file = make_sdist(place / "source", setup)
        source = Source(file=file.name, sha256="a" * 64, size=1, index="native==1.0")
        needs = f"wheel/{interpreter.tag}-setuptools"
        job = Job(
            spec=Wheel(
                name="native",
                version="1.0",
                tag=interpreter.tag,
                build=FromSdist(requires=("setuptools",)),
                needs=("setuptools",),
                source=source,
            ),
            floor=release.floor,
            epoch=0,
            inputs={
                "source/native-sdist": file.parent,
                f"prefix/{interpreter.name}": tree(f"prefix/{interpreter.name}"),
                "toolchain/zig": tree("toolchain/zig"),
                needs: tree(needs),
            },
            patches=(),
            data={},
            out=out,
            work=work,
            cache=store.root.parent / "compiler",
            jobs=1,
            run=Runner(
                work=work,
                private=place / "private",
                log=place / "log",
                epoch=0,
                jobserver=JobServer(1),
                programs=Programs(),
            ),
            log=place / "log",
            say=print,
            files=lambda step: (),
        )
        wheel.build(job)
        return out

    return run


def test_an_extension_is_built_offline_and_what_it_links_is_taken_in(build, prefix):
    out = build("one", SETUP.format(network=NETWORK))
    packages = out / f"lib/python{prefix.version}/site-packages"
    assert list((packages / "native.libs").glob("libhelper*.so"))
    wheel_file = (packages / "native-1.0.dist-info/WHEEL").read_text()
    assert "manylinux_2_28_x86_64" in wheel_file
    env = {"PYTHONPATH": str(packages)}
    program = "import native; print(native.answer(2.0))"
    assert call(prefix.python, "-c", program, env=env) == "42"


def test_the_same_sdist_gives_the_same_bytes(build):
    setup = SETUP.format(network="")
    one, two = (
        {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        for out in (build("one", setup), build("two", setup))
    )
    assert one.keys() == two.keys()
    assert [path for path in one if one[path] != two[path]] == []


def test_a_build_that_fails_says_what_failed(build, tmp_path):
    with pytest.raises(BuildError, match="exit status 1"):
        build("one", "raise SystemExit('no such compiler flag')")
    assert "no such compiler flag" in (tmp_path / "one" / "log").read_text()
