"""The layers as a console has them: what is in them, that it works, and a user's own on top."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, open_directory
from programs import attempt, call, index, unprivileged

from longrun.audit import audit, policy_for_path
from longrun.fs import scan, tree_digest
from longrun.model import Package
from longrun.plan import Plan, choose_interpreters, choose_release, make_plan
from longrun.seal import MARKER
from longrun.specs import load_specs
from longrun.stack import packages_for
from longrun.store import Store

SPECS = load_specs(ROOT)
RELEASE = choose_release(SPECS, None)
TAGS = {SPECS.interpreters[name].tag: name for name in RELEASE.interpreters}


@dataclass(frozen=True)
class Layers:
    """Every layer of one interpreter, as it is in the store: read-only, in no place of its own."""

    tag: str
    plan: Plan
    store: Store

    @property
    def version(self) -> str:
        """Such as ``3.13``."""
        return f"3.{self.tag.removeprefix('cp3')}"

    def path(self, layer: str) -> Path:
        """The prefix of a layer."""
        entry = self.store.get(self.plan.find(f"layer/{layer}-{self.tag}").key)
        assert entry is not None, f"layer/{layer}-{self.tag} is not built: run ./build.py test"
        return entry.tree

    def python(self, layer: str) -> Path:
        """The interpreter of a layer."""
        return self.path(layer) / "bin" / f"python{self.version}"

    def packages(self) -> list[Package]:
        """The packages that the interpreter has."""
        return list(packages_for(SPECS.packages, RELEASE, self.tag).values())


@pytest.fixture(scope="session", params=TAGS)
def layers(request: pytest.FixtureRequest, store: Store) -> Layers:
    interpreters = choose_interpreters(SPECS, RELEASE, [TAGS[request.param]])
    plan = make_plan(SPECS, RELEASE, interpreters, layers=tuple(RELEASE.layers))
    return Layers(request.param, plan, store)


@pytest.fixture(scope="session")
def pip(layers, tmp_path_factory) -> list[str | Path]:
    """A pip that looks into other prefixes: no prefix has one of its own."""
    env = tmp_path_factory.mktemp("pip") / "env"
    call(layers.python("base"), "-m", "venv", env)
    return [env / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--python"]


@pytest.mark.parametrize("layer", RELEASE.layers)
def test_pip_list_and_pip_check_tell_the_truth(layers, pip, layer):
    python = layers.python(layer)
    listed = json.loads(call(*pip, python, "list", "--format", "json"))
    found = {item["name"].lower().replace("_", "-").replace(".", "-"): item for item in listed}
    marker = json.loads((layers.path(layer) / MARKER).read_text())
    assert {name: item["version"] for name, item in found.items()} == marker["distributions"]
    assert call(*pip, python, "check") == "No broken requirements found."
    program = "import importlib.metadata as m; print(len({d.name for d in m.distributions()}))"
    assert call(python, "-c", program) == str(len(marker["distributions"]))


@pytest.mark.parametrize("layer", ["analysis", "beamline"])
def test_a_layer_passes_the_audit_of_anyone(layers, layer):
    """These two hold everything; each layer passed the gate of its step before it was kept."""
    path = layers.path(layer)
    report = audit(path, policy_for_path(path, floor=RELEASE.floor))
    assert [
        f"{f.check}: {f.path}: {f.message}" for f in report.findings if f.severity == "error"
    ] == []


def test_a_layer_holds_all_that_it_includes(layers):
    marker = {
        layer: json.loads((layers.path(layer) / MARKER).read_text())["distributions"]
        for layer in RELEASE.layers
    }
    for layer, spec in RELEASE.layers.items():
        for included in spec.includes:
            assert marker[included].items() <= marker[layer].items()


def test_every_package_imports_in_its_layer(layers):
    """Each module in a process of its own, as a user without a home."""
    modules = [(p.layer, module) for p in layers.packages() for module in p.imports]
    assert len(modules) > 40

    def failure(item: tuple[str, str]) -> str:
        layer, module = item
        env = {"QT_QPA_PLATFORM": "offscreen"}
        done = attempt(layers.python(layer), "-c", f"import {module}", env=env)
        last = done.stderr.strip().splitlines()[-1:]
        return f"{module} ({layer}): {done.returncode} {last}" if done.returncode else ""

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        assert [text for text in pool.map(failure, modules) if text] == []


def test_a_layer_may_be_moved_and_its_scripts_go_with_it(layers, tmp_path):
    with open_directory() as place:
        moved = place / "elsewhere"
        call("cp", "-a", layers.path("base"), moved)
        (place / "bin").mkdir()
        (place / "bin" / "tool").symlink_to(moved / "bin" / "f2py")
        version = json.loads((moved / MARKER).read_text())["distributions"]["numpy"]
        assert call(*unprivileged(), place / "bin" / "tool", "-v") == version
        program = "import numpy, scipy.linalg; print(numpy.__file__)"
        python = moved / "bin" / f"python{layers.version}"
        assert call(*unprivileged(), python, "-c", program).startswith(str(moved))


def test_an_environment_is_empty_unless_the_stack_is_asked_for(layers, tmp_path):
    python = layers.python("controls")
    call(python, "-m", "venv", tmp_path / "empty")
    listed = json.loads(call(tmp_path / "empty/bin/pip", "list", "--format", "json"))
    assert {item["name"] for item in listed} <= {"pip", "setuptools"}
    call(python, "-m", "venv", "--system-site-packages", tmp_path / "stack")
    program = "import epics, numpy; print(epics.__file__)"
    assert str(layers.path("controls")) in call(tmp_path / "stack/bin/python", "-c", program)


def test_a_user_overrides_one_package_and_the_rest_stays(layers, tmp_path):
    """The stack below the user's own: nothing that it satisfies is fetched again."""
    prefix = layers.path("base")
    before = tree_digest(
        scan(prefix / "lib" / f"python{layers.version}" / "site-packages/pyparsing")
    )
    env = tmp_path / "env"
    call(layers.python("base"), "-m", "venv", "--system-site-packages", env)
    installed = call(
        *(env / "bin/pip", "install", "pyparsing==3.2.3", "matplotlib"),
        env={**index(), "HOME": str(tmp_path)},
    )
    assert "Requirement already satisfied: matplotlib" in installed
    own = sorted(path.name for path in env.glob("lib/*/site-packages/*.dist-info"))
    assert [name.partition("-")[0] for name in own if "setuptools" not in name] == [
        "pip",
        "pyparsing",
    ]
    program = "import pyparsing, matplotlib.mathtext as m; print(pyparsing.__version__, m.__file__)"
    version, file = call(env / "bin/python", "-c", program).split()
    assert version == "3.2.3"
    assert file.startswith(str(prefix))
    base = "import pyparsing; print(pyparsing.__version__)"
    assert call(layers.python("base"), "-c", base) != "3.2.3"
    assert before == tree_digest(
        scan(prefix / "lib" / f"python{layers.version}" / "site-packages/pyparsing")
    )
    call(env / "bin/pip", "uninstall", "--yes", "pyparsing", env={"HOME": str(tmp_path)})
    assert call(env / "bin/python", "-c", base) != "3.2.3"


def test_the_stack_itself_cannot_be_changed_from_an_environment(layers, tmp_path):
    env = tmp_path / "env"
    call(layers.python("base"), "-m", "venv", "--system-site-packages", env)
    done = attempt(env / "bin/pip", "uninstall", "--yes", "numpy", env={"HOME": str(tmp_path)})
    assert "outside environment" in done.stdout + done.stderr
    call(layers.python("base"), "-c", "import numpy")


def test_layers_share_their_files(layers):
    """A layer is links to what was installed once."""
    numpy = f"lib/python{layers.version}/site-packages/numpy/__init__.py"
    assert (layers.path("base") / numpy).samefile(layers.path("controls") / numpy)
    library = f"lib/python{layers.version}/os.py"
    assert (layers.path("base") / library).samefile(layers.path("gui") / library)
