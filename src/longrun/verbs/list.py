"""``list``: what a release ships, layer by layer."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longrun.stack import choose_layers, included
from longrun.term import clip, fold, paint, size, terminal, width
from longrun.verbs.context import Context
from longrun.verbs.stacks import Item, Stacks, facts, load_stacks

LICENCE = range(10, 19)
"""Columns that a licence may have: in less it is not shown, and some are a whole sentence."""

NARROW = 100
"""Columns of a terminal below which long names and versions are cut, too."""


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
    return facts(stacks, Item(name=name, package=item.package, files=files), layers)


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
    return str(row["why"]) if row["curated"] else f"with {', '.join(row['with'])}"


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
    """How wide the columns of a layer's table are: what the others leave is for the reason."""

    def __init__(self, rows: list[dict[str, Any]], tags: list[str]) -> None:
        longest = (20, 10) if width() < NARROW else (40, 20)
        self.tags = tags
        self.name = min(longest[0], max(len(row["name"]) for row in rows))
        self.versions = {
            tag: min(longest[1], max([len(tag), *(len(version(row, tag)) for row in rows)]))
            for tag in tags
        }
        left = width() - 2 - self.name - sum(2 + room for room in self.versions.values()) - 10 - 2
        room = min(left // 3, LICENCE[-1])
        longest_licence = max([len("licence"), *(len(licence(row)) for row in rows)])
        self.licence = min(longest_licence, room) if room in LICENCE else 0
        self.reason = max(10, left - (self.licence + 2 if self.licence else 0))

    def line(self, name: str, versions: Mapping[str, str], terms: str, size: str) -> list[str]:
        """The cells before the reason, cut and padded."""
        cells = [(name, self.name), *((versions[tag], self.versions[tag]) for tag in self.tags)]
        cells += [(terms, self.licence)] if self.licence else []
        return [*(f"{clip(text, room):<{room}}" for text, room in cells), f"{size:>8}"]


def version(row: Mapping[str, Any], tag: str) -> str:
    """The version for an interpreter; a dash where it has none."""
    files = row["interpreters"]
    return str(files[tag]["version"]) if tag in files else "-"


def licence(row: Mapping[str, Any]) -> str:
    """The licence in few columns: of `GNU Lesser General Public License v3 (LGPLv3)` the end."""
    text = " ".join(row["licence"].split()) or "-"
    if short := re.fullmatch(r"[^,]* License[^,]* \(([^()]+)\)", text):
        return short[1]
    return text if "," in text else text.removesuffix(" License").removesuffix(" Software")


def _print_tables(document: Mapping[str, Any]) -> None:
    tags = list(document["interpreters"])
    pythons = ", ".join(
        f"{tag} (CPython {item['python']})" for tag, item in document["interpreters"].items()
    )
    title = paint("bold", f"Longrun {document['release']}")
    print(f"{title}: {pythons} on {document['platform']}")
    for layer in document["layers"]:
        print(f"\n{paint('cyan', layer['name'])}: {_heading(layer)}")
        rows = [row for row in document["distributions"] if row["layer"] == layer["name"]]
        if rows:
            _print_table(rows, tags)
        for line in fold(in_words(layer["own"]), indent=2):
            print(paint("dim", f"  {line}"))
    print("\n" + "\n".join(fold(f"{paint('bold', 'in all')}: {in_words(document['totals'])}")))
    print(
        paint(
            "dim", "./build.py show NAME tells all about one, ./build.py why NAME who asks for it"
        )
    )


def _print_table(rows: list[dict[str, Any]], tags: list[str]) -> None:
    columns = Columns(rows, tags)
    heads = columns.line("name", {tag: tag for tag in tags}, "licence", "size")
    print(paint("dim", "  " + "  ".join([*heads, "why"])))
    for row in rows:
        _print_row(row, columns)


def _heading(layer: Mapping[str, Any]) -> str:
    on = f"; on {', '.join(layer['includes'])}" if layer["includes"] else ""
    return clip(f"{layer['summary']}{on}", width() - len(layer["name"]) - 2)


def _print_row(row: Mapping[str, Any], columns: Columns) -> None:
    versions = {tag: version(row, tag) for tag in columns.tags}
    name, *cells = columns.line(row["name"], versions, licence(row), size(_size(row)))
    why = clip(reason(row), columns.reason)
    if row["curated"]:
        print("  " + "  ".join([paint("bold", name), *cells, why]))
    else:
        print(paint("dim", "  " + "  ".join([name, *cells, why])))


def in_words(totals: Mapping[str, Mapping[str, int]]) -> str:
    """Counts and sizes of files; by interpreter where they differ."""
    texts = {
        tag: f"{_count(item['distributions'])}, {size(item['bytes'])}"
        for tag, item in totals.items()
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{tag}: {text}" for tag, text in texts.items())


def _count(number: int) -> str:
    return f"{number} distribution{'' if number == 1 else 's'}"
