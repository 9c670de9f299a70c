"""The really built prefixes: each archive of the default release, unpacked elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from programs import call

from longrun.config import load_config
from longrun.fs import remove_tree
from longrun.plan import Plan, Step, choose_interpreters, choose_release, make_plan
from longrun.specs import load_specs
from longrun.store import Store

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.slow)


@dataclass(frozen=True)
class Prefix:
    """A built prefix that was unpacked away from where it was built."""

    path: Path
    version: str
    archive: Path
    step: Step
    store: Store

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.path / "bin" / f"python{self.version}"

    def entry(self, step_id: str) -> Path:
        """The tree of the entry of one of the steps that this prefix was made of."""
        todo = [self.step]
        while todo:
            step = todo.pop()
            if step.id == step_id:
                # what a cached prefix was made of may have been collected
                if self.store.get(step.key) is None:
                    command = [sys.executable, "-m", "longrun", "build", "--step", step_id]
                    subprocess.run(command, cwd=ROOT, check=True)
                entry = Store(self.store.root).get(step.key)
                assert entry is not None, f"{step_id} is not in the store"
                return entry.tree
            todo.extend(step.inputs)
        raise AssertionError(f"{self.step.id} is not made of {step_id}")


@pytest.fixture(scope="session")
def plan() -> Plan:
    """The plan of every interpreter of the default release."""
    specs = load_specs(ROOT)
    release = choose_release(specs, None)
    return make_plan(
        specs, release, choose_interpreters(specs, release, list(release.interpreters))
    )


@pytest.fixture(scope="session")
def store() -> Store:
    """The machine's store, that `./build.py test` has filled."""
    return Store(load_config(os.environ).cache / "store")


def _interpreters() -> list[str]:
    specs = load_specs(ROOT)
    return [n.removeprefix("cpython-") for n in choose_release(specs, None).interpreters]


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter; another run of pytest would close pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="longrun-test."))
    place.chmod(0o755)
    try:
        yield place
    finally:
        remove_tree(place)


@pytest.fixture(scope="session", params=_interpreters())
def prefix(request: pytest.FixtureRequest, plan: Plan, store: Store) -> Iterator[Prefix]:
    """A prefix of each interpreter, unpacked from its archive; removed after the session."""
    step = plan.find(f"archive/cpython-{request.param}")
    entry = store.get(step.key)
    if entry is None:
        pytest.fail(f"{step.id} is not built: run ./build.py test", pytrace=False)
    (record,) = entry.files()
    archive = entry.tree / record.path
    with open_directory() as place:
        call("tar", "-xf", archive, "-C", place)
        path = place / archive.name.removesuffix(".tar.zst")
        yield Prefix(path=path, version=request.param, archive=archive, step=step, store=store)
