"""Why a distribution is here: who asks for it, from the specs on, and which file satisfies that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from longrun.term import paint, print_rows, size
from longrun.verbs.show import because
from longrun.verbs.stacks import Graph, Item, Stacks, facts, in_layers, together
from longrun.verbs.why import in_words


def describe(stacks: Stacks, item: Item, steps: Mapping[str, Any]) -> dict[str, Any]:
    """The chains to a distribution and the files that end them; ``steps`` explains its wheels."""
    document = {
        "schema": 1,
        "release": stacks.release.name,
        "title": item.title,
        **facts(stacks, item, stacks.release.layers),
    }
    for tag, file in document["interpreters"].items():
        graph = stacks.graphs[tag]
        file["layers"] = list(graph.stack.layers_of(item.name))
        file["chains"] = list(_chains(graph, item.name))
        file["step"] = steps.get(tag)
    return document


def _chains(graph: Graph, name: str) -> Iterator[list[dict[str, Any]]]:
    for chain in graph.chains(name):
        yield [
            {
                "name": link,
                "version": graph.files[link].version if link in graph.files else "",
                "constraint": asker.constraint if asker else "",
                "for_build": bool(asker and asker.builds),
            }
            for link, asker in chain
        ]


def print_chains(document: Mapping[str, Any]) -> None:
    """The same for a person."""
    print(paint("bold", document["title"]))
    rows = [("why", because(document))]
    if document["layer"]:
        rows += [("layer", in_layers(document["layer"], document["layers"]))]
    files = document["interpreters"]
    if document["curated"]:
        rows += [("asked for by", f"specs/packages/{document['name']}.toml")]
    asked = together(files, lambda tag: map(_text, files[tag]["chains"]))
    rows += [("asked for by", f"{text}  ({of} only)" if of else text) for text, of in asked.items()]
    for tag, file in files.items():
        rows += [(tag, text) for text in _file(file)]
    print_rows(rows, label_width=12)


def _text(chain: list[dict[str, Any]]) -> str:
    """A chain in one line, such as ``pyepics -> numpy>=1.23``."""
    links = [f"{link['name']}{link['constraint']}" for link in chain]
    for position, link in enumerate(chain):
        if link["for_build"]:
            links[position - 1] += " (to build it)"
    return " -> ".join(links)


def _file(file: Mapping[str, Any]) -> Iterator[str]:
    yield f"{file['file']}  {size(file['size'])}"
    if step := file["step"]:
        yield f"{step['id']} {step['version']}  {in_words(step)}"
        yield f"key {step['key']}"
