"""``list``: what a release ships, layer by layer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longrun.stack import choose_layers, included
from longrun.term import clip, paint, size, terminal, width
from longrun.verbs.context import Context
from longrun.verbs.stacks import Item, Stacks, facts, load_stacks

LICENCE = 22
"""Columns of a licence, at most: some metadata have a sentence there."""

NARROW = 24
"""Columns that are left for the reason, below which the licence gives way to it."""


def list_(root: Path, arguments: argparse.Namespace) -> int:
    """Print what the layers of a release hold, for each interpreter."""
    context = Context(root)
    stacks = load_stacks(context, arguments)
    chosen = choose_layers(stacks.release, arguments.layer or ["all"])
    document = describe(stacks, chosen)
    if arguments.json:
        print(json.dumps(document, indent=1))
    elif terminal():
        _print_tables(document)
    else:
        _print_lines(document)
    return 0


def describe(stacks: Stacks, chosen: Iterable[str]) -> dict[str, Any]:
    """What the chosen layers, and those that they include, hold: as plain data."""
    release = stacks.release
    wanted = {name for layer in chosen for name in included(release, layer)}
    layers = [layer for layer in release.layers if layer in wanted]
    rows = [row for name in stacks.names() if (row := _row(stacks, name, layers))]
    return {
        "schema": 1,
        "release": release.name,
        "platform": release.floor.tag,
        "interpreters": {
            tag: {"python": graph.stack.lock.python, "lock": graph.stack.file}
            for tag, graph in stacks.graphs.items()
        },
        "layers": [
            {
                "name": name,
                "summary": release.layers[name].summary,
                "includes": list(release.layers[name].includes),
                "own": _totals(stacks.tags, (row for row in rows if row["layer"] == name)),
                "whole": _totals(stacks.tags, (row for row in rows if name in row["layers"])),
            }
            for name in layers
        ],
        "totals": _totals(stacks.tags, rows),
        "distributions": sorted(rows, key=lambda row: _order(row, layers)),
    }


def _row(stacks: Stacks, name: str, layers: list[str]) -> dict[str, Any] | None:
    """One distribution, or None where no interpreter has it in these layers."""
    item = stacks.find(name)
    assert item is not None, f"{name} is locked"
    files = {
        tag: dist
        for tag, dist in item.files.items()
        if set(stacks.graphs[tag].stack.layers_of(name)) & set(layers)
    }
    if not files:
        return None
    held = stacks.layers_of(name)
    return {
        "name": name,
        "layer": stacks.home(layer for layer in held if layer in layers),
        "layers": list(held),
        **facts(stacks, Item(name=name, package=item.package, files=files)),
    }


def _totals(tags: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    rows = list(rows)
    sizes = {
        tag: [row["interpreters"][tag]["size"] for row in rows if tag in row["interpreters"]]
        for tag in tags
    }
    return {tag: {"distributions": len(all_), "bytes": sum(all_)} for tag, all_ in sizes.items()}


def _order(row: Mapping[str, Any], layers: list[str]) -> tuple[int, bool, str]:
    """By layer; the packages before what came along with them."""
    return layers.index(row["layer"]), not row["curated"], row["name"]


def reason(row: Mapping[str, Any]) -> str:
    """Why a distribution is here, in one line."""
    return str(row["why"]) if row["curated"] else f"with {', '.join(row['brought_by'])}"


def _print_lines(document: Mapping[str, Any]) -> None:
    """For another program: one line each, a tab between columns, nothing cut."""
    tags = list(document["interpreters"])
    print("\t".join(["layer", "name", *tags, "licence", "bytes", "why"]))
    for row in document["distributions"]:
        files = row["interpreters"]
        versions = [files[tag]["version"] if tag in files else "-" for tag in tags]
        cells = [row["layer"], row["name"], *versions, row["licence"] or "-", str(_size(row))]
        print("\t".join(" ".join(cell.split()) for cell in [*cells, reason(row)]))


def _size(row: Mapping[str, Any]) -> int:
    return int(next(iter(row["interpreters"].values()))["size"])


class Columns:
    """How wide the columns of a table are: the same in all its groups."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        rows = document["distributions"]
        self.tags = list(document["interpreters"])
        self.name = max((len(row["name"]) for row in rows), default=4)
        self.versions = {
            tag: max([len(tag), *(len(version(row, tag)) for row in rows)]) for tag in self.tags
        }
        licences = max([len("licence"), *(len(row["licence"]) for row in rows)])
        self.licence = min(licences, LICENCE)
        taken = 2 + self.name + 2 + sum(self.versions.values()) + 2 * len(self.tags) + 8 + 2
        if width() - taken - self.licence - 2 < NARROW:
            self.licence = 0
        self.reason = max(10, width() - taken - (self.licence + 2 if self.licence else 0))

    def line(self, name: str, versions: Mapping[str, str], licence: str, size: str) -> list[str]:
        """The cells before the reason, padded."""
        cells = [f"{name:<{self.name}}"]
        cells += [f"{versions[tag]:<{self.versions[tag]}}" for tag in self.tags]
        cells += [f"{clip(licence, self.licence):<{self.licence}}"] if self.licence else []
        return [*cells, f"{size:>8}"]


def version(row: Mapping[str, Any], tag: str) -> str:
    """The version for an interpreter; a dash where it has none."""
    files = row["interpreters"]
    return str(files[tag]["version"]) if tag in files else "-"


def _print_tables(document: Mapping[str, Any]) -> None:
    columns = Columns(document)
    pythons = ", ".join(
        f"{tag} (CPython {item['python']})" for tag, item in document["interpreters"].items()
    )
    title = paint("bold", f"Longrun {document['release']}")
    print(f"{title}: {pythons} on {document['platform']}")
    heads = columns.line("name", {tag: tag for tag in columns.tags}, "licence", "size")
    for layer in document["layers"]:
        on = f"  (with {', '.join(layer['includes'])})" if layer["includes"] else ""
        print(f"\n{paint('cyan', layer['name'])}: {layer['summary']}{paint('dim', on)}")
        rows = [row for row in document["distributions"] if row["layer"] == layer["name"]]
        if rows:
            print(paint("dim", "  " + "  ".join([*heads, "why"])))
        for row in rows:
            _print_row(row, columns)
        print(paint("dim", f"  {in_words(layer['own'])}"))
    print(f"\n{paint('bold', 'in all')}: {in_words(document['totals'])}")


def _print_row(row: Mapping[str, Any], columns: Columns) -> None:
    versions = {tag: version(row, tag) for tag in columns.tags}
    licence = " ".join(row["licence"].split())
    name, *cells = columns.line(row["name"], versions, licence, size(_size(row)))
    why = clip(reason(row), columns.reason)
    if row["curated"]:
        print("  " + "  ".join([paint("bold", name), *cells, why]))
    else:
        print(paint("dim", "  " + "  ".join([name, *cells, why])))


def in_words(totals: Mapping[str, Mapping[str, int]]) -> str:
    """Counts and sizes of files; by interpreter where they differ."""
    texts = {
        tag: f"{item['distributions']} distributions, {size(item['bytes'])}"
        for tag, item in totals.items()
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{tag}: {text}" for tag, text in texts.items())
