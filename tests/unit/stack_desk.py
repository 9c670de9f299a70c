"""A checkout, a package index and the command line on them, for the verbs that lock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelf import Shelf

from longrun.cli import main
from longrun.model import Distribution, Lock
from longrun.plan import choose_release
from longrun.stack import Stack, load_stack

if TYPE_CHECKING:
    from conftest import Checkout

LAYERS = """
[layers.base]
summary = "numbers"
[layers.controls]
summary = "control systems"
includes = ["base"]
"""

PACKAGE = """\
name = "{name}"
layer = "{layer}"
why = "a test"
owner = "tests"
imports = ["{name}"]
{more}"""


@dataclass
class StackDesk:
    """What the tests of ``lock``, ``add`` and ``outdated`` stand on."""

    checkout: Checkout
    shelf: Shelf
    said: Callable[[], Any]

    def package(self, name: str, more: str = "", *, layer: str = "base") -> Path:
        """Write the spec of a package."""
        text = PACKAGE.format(name=name, layer=layer, more=more)
        return self.checkout.write(f"specs/packages/{name}.toml", text)

    def run(self, *argv: str, status: int = 0) -> str:
        """Run a verb; what it prints, or complains of where another status than 0 is expected."""
        found = main(self.checkout.root, list(argv))
        told = self.said()
        assert found == status, told.out + told.err
        assert "Traceback" not in told.err
        return told.err if status else told.out

    def json(self, *argv: str) -> Any:
        """What a verb prints for a script."""
        return json.loads(self.run(*argv, "--json"))

    def lock(self, tag: str = "cp313") -> Lock:
        """A lock as it is on disk."""
        lock = self.checkout.specs().lock("2026.1", tag)
        assert lock is not None
        return lock

    def versions(self, tag: str = "cp313") -> dict[str, str]:
        """What is locked."""
        return {dist.name: dist.version for dist in self.lock(tag).distribution}

    def find(self, name: str, tag: str = "cp313") -> Distribution:
        """One entry of a lock."""
        return next(dist for dist in self.lock(tag).distribution if dist.name == name)

    def load(self, tag: str = "cp313") -> Stack:
        """The stack as a build sees it."""
        specs = self.checkout.specs()
        interpreter = next(i for i in specs.interpreters.values() if i.tag == tag)
        return load_stack(specs, choose_release(specs, None), interpreter)

    def brings(self, name: str) -> tuple[str, ...]:
        """What a spec says that its package brings."""
        return self.checkout.specs().packages[name].brings

    def files(self) -> dict[str, bytes]:
        """Every file of the specs with its content."""
        root = self.checkout.root / "specs"
        return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
