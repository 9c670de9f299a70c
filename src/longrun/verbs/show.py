"""``show``: everything about one distribution."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longrun.errors import UsageError
from longrun.model import Distribution
from longrun.specs import near, normalised
from longrun.term import fold, paint, print_rows, size
from longrun.verbs.context import Context
from longrun.verbs.stacks import Item, Stacks, facts, in_layers, load_stacks, together


def show(root: Path, arguments: argparse.Namespace) -> int:
    """Print all that specs and locks say of a distribution."""
    context = Context(root)
    stacks = load_stacks(context, arguments)
    item = stacks.find(arguments.name)
    if item is None:
        raise _unknown(context, stacks, normalised(arguments.name))
    document = describe(stacks, item)
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        _print(document)
    return 0


def _unknown(context: Context, stacks: Stacks, name: str) -> UsageError:
    where = f"release {stacks.release.name}"
    if package := context.specs.packages.get(name):
        return UsageError(
            f"{name} is not for {', '.join(stacks.tags)} in {where}",
            remedy=f"specs/packages/{name}.toml has it for {', '.join(package.interpreters)}",
        )
    if name in (*context.specs.libraries, *context.specs.interpreters, *context.specs.toolchains):
        return UsageError(
            f"{name} is no distribution of {where}, but a step of its build",
            remedy=f"./build.py why {name}",
        )
    return UsageError(
        f"no distribution {name!r} in {where}{near(name, stacks.names())}",
        remedy="./build.py list shows what there is",
    )


def describe(stacks: Stacks, item: Item) -> dict[str, Any]:
    """All that is known of a distribution, as plain data."""
    document = {
        "schema": 1,
        "release": stacks.release.name,
        "title": item.title,
        "package": _package(item),
        **facts(stacks, item, stacks.release.layers),
    }
    for tag, entry in document["interpreters"].items():
        graph = stacks.graphs[tag]
        entry["lock"] = graph.stack.file
        entry["layers"] = list(graph.stack.layers_of(item.name))
        entry["for_builds_of"] = [a.name for a in graph.askers.get(item.name, ()) if a.builds]
        entry["required_by"] = _versions(graph.files, entry["required_by"])
        entry["requires"] = _versions(graph.files, graph.requires(item.name))
    return document


def _package(item: Item) -> dict[str, Any] | None:
    if item.package is None:
        return None
    return {"file": f"specs/packages/{item.name}.toml"} | asdict(item.package)


def _versions(
    files: Mapping[str, Distribution], constraints: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    return {
        name: {"constraint": constraint, "version": files[name].version if name in files else ""}
        for name, constraint in constraints.items()
    }


def _print(document: Mapping[str, Any]) -> None:
    print(paint("bold", document["title"]))
    if summary := " ".join(document["summary"].split()):
        print("\n".join(f"  {line}" for line in fold(summary, indent=2)))
    print()
    print_rows([*_origin(document), *_relations(document), *_files(document)], label_width=12)


def _origin(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why it is here, where, and under whose care."""
    package = document["package"]
    yield "why", because(document)
    if document["layer"]:
        yield "layer", in_layers(document["layer"], document["layers"])
    if package:
        yield "owner", package["owner"]
        yield "spec", package["file"]
        yield "constraint", _constraints(package)
    if package and package["extras"]:
        yield "extras", ", ".join(package["extras"])
    yield "licence", " ".join(document["licence"].split()) or "its metadata does not say"


def because(document: Mapping[str, Any]) -> str:
    """Why a distribution is here, as a sentence."""
    if document["curated"]:
        return str(document["why"])
    if document["layer"]:
        return f"came along with {', '.join(document['with'])}"
    return "only builds from sdists need it; it is not installed"


def _constraints(package: Mapping[str, Any]) -> str:
    texts = [package["constraint"] or "any version"]
    texts += [f"{text or 'any version'} ({tag})" for tag, text in package["constraints"].items()]
    return "; ".join(texts)


def _relations(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What it is checked with, and who asks for whom."""
    package, files = document["package"], document["interpreters"]
    if package:
        yield "checked with", ", ".join(f"import {name}" for name in package["imports"])
    if package and package["brings"]:
        yield "brings", ", ".join(package["brings"])
    if package and package["build"]:
        yield "built with", ", ".join(package["build"]["requires"]) or "nothing else"
    yield from _listed("asked for by", files, lambda file: map(_asker, file["required_by"].items()))
    yield from _listed("asks for", files, lambda file: map(_requirement, file["requires"].items()))
    yield from _listed("builds of", files, lambda file: file["for_builds_of"])


def _listed(
    label: str, files: Mapping[str, Any], texts: Callable[[Mapping[str, Any]], Iterable[str]]
) -> Iterator[tuple[str, str]]:
    """A paragraph of what all interpreters have in common, and one for what only some have."""
    paragraphs: dict[str, list[str]] = {}
    for text, of in together(files, lambda tag: texts(files[tag])).items():
        paragraphs.setdefault(of, []).append(text)
    for of, found in sorted(paragraphs.items()):
        yield label, (f"{of} only: " if of else "") + ", ".join(found)


def _asker(item: tuple[str, Mapping[str, str]]) -> str:
    name, asked = item
    return f"{name} ({asked['constraint'] or 'any'})"


def _requirement(item: tuple[str, Mapping[str, str]]) -> str:
    name, asked = item
    return f"{name}{asked['constraint']}"


def _files(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The file for each interpreter; one for several is shown once."""
    of: dict[str, list[str]] = {}
    for tag, file in document["interpreters"].items():
        of.setdefault(file["sha256"], []).append(tag)
    for tags in of.values():
        file = document["interpreters"][tags[0]]
        label = ", ".join(tags)
        yield label, f"{file['version']}  {size(file['size'])}  {file['tag']}"
        yield label, file["file"]
        yield label, f"sha256 {file['sha256']}"
