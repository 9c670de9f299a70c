"""What ``list``, ``show`` and ``why`` share: the stacks of the interpreters, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from packaging.requirements import Requirement

from longrun.model import Distribution, Package, Release
from longrun.plan import choose_release
from longrun.specs import Specs, normalised
from longrun.stack import Stack, included, load_stack
from longrun.verbs.context import Context


@dataclass(frozen=True)
class Asker:
    """Who asks for a distribution: another one, or (``builds``) the build of one from its sdist."""

    name: str
    constraint: str
    builds: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One distribution of a release: its file for each interpreter that has it, by tag."""

    name: str
    package: Package | None
    files: Mapping[str, Distribution]

    @property
    def first(self) -> Distribution:
        """The file for the first interpreter that has it: its metadata stand for all."""
        return next(iter(self.files.values()))

    @property
    def title(self) -> str:
        """Name and version, or versions, for people: ``numpy 2.5.5 (cp313), 2.4.1 (cp311)``."""
        tags: dict[str, list[str]] = {}
        for tag, dist in self.files.items():
            tags.setdefault(dist.version, []).append(tag)
        if len(tags) == 1:
            return f"{self.name} {self.first.version}"
        versions = (f"{version} ({', '.join(names)})" for version, names in tags.items())
        return f"{self.name} {', '.join(versions)}"


class Graph:
    """Who asks for whom in one stack, with what only builds need."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.files = {dist.name: dist for dist in (*stack.lock.build, *stack.lock.distribution)}

    @cached_property
    def askers(self) -> Mapping[str, list[Asker]]:
        """Who asks for each distribution; those with a spec first."""
        found: dict[str, list[Asker]] = {
            name: [Asker(*item) for item in dist.required_by.items()]
            for name, dist in self.files.items()
        }
        for package in self.stack.packages.values():
            for text in package.build.requires if package.build else ():
                wanted = Requirement(text)
                asker = Asker(package.name, str(wanted.specifier), builds=True)
                found.setdefault(normalised(wanted.name), []).append(asker)
        for askers in found.values():
            askers.sort(key=lambda a: (a.builds, a.name not in self.stack.packages, a.name))
        return found

    def requires(self, name: str) -> dict[str, str]:
        """What a distribution asks for, and in which versions."""
        return {
            dist.name: dist.required_by[name]
            for dist in sorted(self.files.values(), key=lambda dist: dist.name)
            if name in dist.required_by
        }

    @cached_property
    def _asks(self) -> Mapping[str, list[tuple[str, Asker]]]:
        found: dict[str, list[tuple[str, Asker]]] = {}
        for name in sorted(self.askers):
            for asker in self.askers[name]:
                found.setdefault(asker.name, []).append((name, asker))
        return found

    def ways(self, roots: Iterable[str]) -> Mapping[str, Asker | None]:
        """For all that can be reached from some packages, who asks for it on a shortest way."""
        found: dict[str, Asker | None] = dict.fromkeys(sorted(roots))
        waiting = list(found)
        for asking in waiting:  # grows as it goes
            for name, asker in self._asks.get(asking, ()):
                if name not in found:
                    found[name] = asker
                    waiting.append(name)
        return found

    @cached_property
    def _all_ways(self) -> Mapping[str, Asker | None]:
        return self.ways(self.stack.packages)

    def chains(self, name: str) -> Iterator[list[tuple[str, Asker | None]]]:
        """For everyone who asks for a distribution, a shortest way there from a spec.

        Each link is a name, with who asks for it; the spec at the beginning is asked for by none.
        """
        for asker in self.askers.get(name, ()):
            chain: list[tuple[str, Asker | None]] = [(name, asker)]
            above: Asker | None = asker
            while above:
                here = above.name
                above = self._all_ways.get(here)
                chain.insert(0, (here, above))
            yield chain

    @cached_property
    def companions(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """For what came along in each layer, the packages there that it is with.

        Those that accepted it where they are of that layer, else the one that is nearest.
        """
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for layer in self.stack.release.layers:
            within = included(self.stack.release, layer)
            packages = {p.name: p for p in self.stack.packages.values() if p.layer in within}
            ways = self.ways(packages)
            for name in ways:
                accepting = tuple(sorted(p.name for p in packages.values() if name in p.brings))
                found[layer, name] = accepting or (_root(ways, name),)
        return found


def _root(ways: Mapping[str, Asker | None], name: str) -> str:
    while above := ways.get(name):
        name = above.name
    return name


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """The stacks of some interpreters of a release, by tag."""

    release: Release
    specs: Specs
    graphs: Mapping[str, Graph]

    @property
    def tags(self) -> tuple[str, ...]:
        """The interpreters' tags, in the release's order."""
        return tuple(self.graphs)

    def names(self) -> list[str]:
        """Everything that is locked, for builds too."""
        return sorted({name for graph in self.graphs.values() for name in graph.files})

    def find(self, name: str) -> Item | None:
        """What is locked under a name, however that is written (``PyQt5`` is ``pyqt5``)."""
        name = normalised(name)
        files = {
            tag: graph.files[name] for tag, graph in self.graphs.items() if name in graph.files
        }
        if not files:
            return None
        return Item(name=name, package=self.specs.packages.get(name), files=files)

    def layers_of(self, name: str) -> tuple[str, ...]:
        """The layers that hold a distribution for any of the interpreters."""
        held = {layer for graph in self.graphs.values() for layer in graph.stack.layers_of(name)}
        return tuple(layer for layer in self.release.layers if layer in held)

    def home(self, layers: Iterable[str]) -> str:
        """Of the layers that hold something, the one where it comes in; none for none."""
        found = tuple(layers)
        for layer in found:
            if not set(included(self.release, layer)) & set(found) - {layer}:
                return layer
        return found[0] if found else ""

    def accepted_by(self, name: str) -> list[str]:
        """The packages whose specs accept that a distribution comes along with them."""
        return sorted(
            {
                package.name
                for graph in self.graphs.values()
                for package in graph.stack.packages.values()
                if name in package.brings
            }
        )

    def companions(self, name: str, layer: str) -> list[str]:
        """The packages that a distribution came along with into a layer."""
        found = {
            companion
            for graph in self.graphs.values()
            for companion in graph.companions.get((layer, name), ())
        }
        return sorted(found)


def load_stacks(context: Context, arguments: argparse.Namespace) -> Stacks:
    """The stacks that RELEASE and --python ask for; SpecError where there is no lock yet."""
    release = choose_release(context.specs, arguments.release)
    interpreters = context.interpreters(release, arguments, every=True)
    return Stacks(
        release=release,
        specs=context.specs,
        graphs={
            interpreter.tag: Graph(load_stack(context.specs, release, interpreter))
            for interpreter in interpreters
        },
    )


def facts(stacks: Stacks, item: Item, layers: Iterable[str]) -> dict[str, Any]:
    """Where a distribution is, why, and its file for each interpreter: as plain data."""
    package = item.package
    held = [layer for layer in stacks.layers_of(item.name) if layer in set(layers)]
    home = stacks.home(held)
    return {
        "name": item.name,
        "layer": home,
        "layers": held,
        "curated": package is not None,
        "why": package.why if package else "",
        "owner": package.owner if package else "",
        "with": [] if package else stacks.companions(item.name, home),
        "accepted_by": stacks.accepted_by(item.name),
        "licence": item.first.licence,
        "summary": item.first.summary,
        "interpreters": {
            tag: {key: value for key, value in asdict(dist).items() if key != "name"}
            for tag, dist in item.files.items()
        },
    }


def together(tags: Iterable[str], texts: Callable[[str], Iterable[str]]) -> dict[str, str]:
    """The texts of all interpreters, each once, and which have it: nothing where all do."""
    tags = tuple(tags)
    found: dict[str, list[str]] = {}
    for tag in tags:
        for text in texts(tag):
            found.setdefault(text, []).append(tag)
    return {text: "" if len(of) == len(tags) else ", ".join(of) for text, of in found.items()}


def in_layers(home: str, layers: Iterable[str]) -> str:
    """Where a distribution is, for people: ``base; with it in controls, gui``."""
    others = [layer for layer in layers if layer != home]
    return f"{home}; also in {', '.join(others)}" if others else home
