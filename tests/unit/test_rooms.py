"""The structure that docs/architecture.md promises: imports go one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "longrun"
FILES = sorted(PACKAGE.rglob("*.py"))


def rooms() -> list[str]:
    """The rooms in the order of the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("| room | what lives there |")[1].split("\n\n")[0]
    return [
        name.rstrip("/")
        for row in re.findall(r"(?m)^\| (`.+?`) \|", table)
        for name in re.findall(r"`([\w/]+)`", row)
    ]


def room(module: str) -> str:
    return module.split(".")[1]


def imports(file: Path) -> set[str]:
    """The modules of Longrun that a file imports, lazily too, but not only for types."""
    found = set()
    tree = ast.parse(file.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("longrun"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {node.module} if node.module != "longrun" else set(names)
    return {name for name in found if name and "." in name}


def test_every_room_is_on_the_map():
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert found - {"__init__", "bootstrap"} == set(rooms())


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_above_it(file):
    order = rooms()
    here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here in ("__init__", "bootstrap"):
        return
    for module in imports(file):
        if module == "longrun.__version__":
            continue
        assert order.index(room(module)) <= order.index(here), f"{file.name} imports {module}"


def calls(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


STARTS = re.compile(
    r"(subprocess\.\w+|os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*|fork\w*))$"
)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_only_run_starts_programs_and_only_the_entry_ends_the_process(file):
    name = str(file.relative_to(PACKAGE))
    starts = {call for call in calls(file) if STARTS.match(call)}
    # before the environment is there, for the package program that asks the user, and what is a
    # program of its own: inside a cage, and on consoles
    own = ("run.py", "bootstrap.py", "setup.py", "inside.py", "usage/child.py")
    assert not starts or name in own, starts
    ends = calls(file) & {"sys.exit", "exit", "quit", "os._exit"}
    own = ("bootstrap.py", "inside.py", "usage/__main__.py", "usage/child.py")
    assert not ends or name in own, ends


def test_what_bootstrap_needs_is_the_standard_library():
    """With no environment there is nothing else; checked by running it without site-packages."""
    path = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})"
    code = "import longrun.bootstrap, longrun.config, longrun.setup, longrun.errors"
    subprocess.run([sys.executable, "-S", "-c", f"{path}; {code}"], check=True)


def test_a_build_with_nothing_to_do_loads_neither_http_nor_packaging():
    """They take longer to load than all the rest of such a build does."""
    path = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})"
    code = f"{path}; import longrun.cli, longrun.verbs.build; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"requests", "urllib3", "packaging", "longrun.fetch"} & set(done.stdout.split())
