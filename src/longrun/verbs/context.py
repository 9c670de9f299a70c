"""What every verb starts from: the checkout, the site's configuration, the specs and the store."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from longrun.config import Config, load_config
from longrun.errors import UsageError
from longrun.model import Interpreter, Release
from longrun.plan import Plan, choose_interpreters, choose_release, make_plan
from longrun.specs import Specs, load_specs
from longrun.store import Store


@dataclass(frozen=True)
class Context:
    """A checkout on a machine."""

    root: Path

    @cached_property
    def config(self) -> Config:
        """The site's configuration."""
        return load_config(os.environ)

    @cached_property
    def specs(self) -> Specs:
        """Every spec of the checkout."""
        return load_specs(self.root)

    @cached_property
    def store(self) -> Store:
        """The store, with its directories made."""
        store = Store(self.config.cache / "store")
        store.prepare()
        return store

    def plan(
        self, arguments: argparse.Namespace, *, every: bool = False, layered: bool = False
    ) -> Plan:
        """The plan that a verb's RELEASE, --python and --layer ask for.

        By default ``every`` interpreter, else one; ``layered`` with all layers, else bare.
        """
        release = choose_release(self.specs, arguments.release)
        interpreters = self.interpreters(release, arguments, every=every)
        layers = self.layers(release, arguments, every=layered)
        return make_plan(self.specs, release, interpreters, layers=layers)

    def interpreters(
        self, release: Release, arguments: argparse.Namespace, *, every: bool
    ) -> tuple[Interpreter, ...]:
        """The interpreters that a verb's --python asks for; ``every`` one by default."""
        versions = arguments.python
        if every and not versions:
            versions = list(release.interpreters)
        return choose_interpreters(self.specs, release, versions)

    def layers(
        self, release: Release, arguments: argparse.Namespace, *, every: bool = False
    ) -> tuple[str, ...]:
        """The layers that a verb's --layer asks for; none is the bare interpreter."""
        names = getattr(arguments, "layer", []) or (["all"] if every else [])
        if not names:
            return ()
        from longrun.stack import choose_layers  # 20 ms that a bare interpreter does not need

        return choose_layers(release, names)

    def jobs(self, arguments: argparse.Namespace) -> int:
        """How many programs may compile at once."""
        if arguments.jobs < 0:
            raise UsageError(f"--jobs: expected a number of 1 or more, found {arguments.jobs}")
        return arguments.jobs or self.config.jobs or len(os.sched_getaffinity(0))
