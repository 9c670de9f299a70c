"""The really built prefixes: each archive of the default release, unpacked elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
                entry = self.store.get(step.key)
                assert entry is not None, f"{step_id} is not in the store"
                return entry.tree
            todo.extend(step.inputs)
        raise AssertionError(f"{self.step.id} is not made of {step_id}")

    def run(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the interpreter with a bare environment; its output is captured."""
        return run(str(self.python), *arguments, **options)


def run(
    *argv: str, env: dict[str, str] | None = None, **options
) -> subprocess.CompletedProcess[str]:
    """Run a program with a bare environment; fails the test where it does not succeed."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    options = {"capture_output": True, "text": True, "timeout": 300} | options
    done = subprocess.run(argv, env={**bare, **(env or {})}, check=False, **options)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


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


@pytest.fixture(scope="session", params=_interpreters())
def prefix(
    request: pytest.FixtureRequest, plan: Plan, store: Store, tmp_path_factory
) -> Iterator[Prefix]:
    """A prefix of each interpreter, unpacked from its archive; removed after the session."""
    step = plan.find(f"archive/cpython-{request.param}")
    entry = store.get(step.key)
    if entry is None:
        pytest.fail(f"{step.id} is not built: run ./build.py test", pytrace=False)
    (record,) = entry.files()
    archive = entry.tree / record.path
    place = tmp_path_factory.mktemp("moved")
    # readable for the unprivileged users of some tests
    for directory in (place, *place.parents[:2]):
        directory.chmod(0o755)
    run("tar", "-xf", str(archive), "-C", str(place))
    path = place / archive.name.removesuffix(".tar.zst")
    yield Prefix(path=path, version=request.param, archive=archive, step=step, store=store)
    remove_tree(path)


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[Path]:
    """A directory that may be filled with read-only trees."""
    yield tmp_path
    for path in tmp_path.iterdir():
        remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def copied(prefix: Prefix, clean: Path) -> Path:
    """A further copy of the prefix, that a test may move or change."""
    target = clean / "copy"
    shutil.copytree(prefix.path, target, symlinks=True)
    return target
