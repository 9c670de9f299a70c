"""``mirror``: a static package index of everything in a release's locks."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from longrun.errors import UsageError
from longrun.export import metapackage
from longrun.fs import sha256_file
from longrun.mirror import Item, locked, missing, put, write_metadata, write_pages
from longrun.model import SDIST, Distribution, Release, Source
from longrun.plan import Plan, Step
from longrun.stack import Stack
from longrun.store import Store
from longrun.term import paint, size
from longrun.verbs.build import failure, realise
from longrun.verbs.context import Context
from longrun.verbs.export import load_all, nearby


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a mirror is to have: files of locks, and metapackages, which are made here."""

    files: tuple[Item, ...]
    made: tuple[Item, ...]


def mirror(root: Path, arguments: argparse.Namespace) -> int:
    """Write the index, or add to the one that is there; 0, or the first failed source's code."""
    context = Context(root)
    plan = context.plan(arguments, every=True, layered=True)
    release = plan.release
    layers = context.layers(release, arguments, every=True)
    if not layers:
        raise UsageError(f"release {release.name} has no layers, and so nothing to mirror")
    stacks = load_all(context.specs, release)
    tags = [item.tag for item in context.interpreters(release, arguments, every=True)]
    wanted = choose(release, stacks, tags, layers)
    directory = arguments.directory.absolute()
    if arguments.dry_run:
        return _tell(arguments, release, directory, wanted, missing(directory, wanted.files))
    with locked(directory):
        lacking = missing(directory, wanted.files)
        steps = sources(plan, lacking)
        _distrust(context.store, steps.values())
        with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
            outcome = realise(context, plan, tuple(steps.values()), arguments)
        if outcome.failed:
            return failure(outcome)
        with context.store.used():
            for item in lacking:
                put(directory, item, _path(context.store, steps[item.sha256]))
        for item in missing(directory, wanted.made):
            put(directory, item, None)
        for item in (*wanted.files, *wanted.made):
            write_metadata(directory, item)
        write_pages(directory, wanted.made)
    return _tell(arguments, release, directory, wanted, lacking)


def choose(
    release: Release, stacks: Mapping[str, Stack], tags: Iterable[str], layers: Iterable[str]
) -> Wanted:
    """The files of some layers for some interpreters, with what their builds need.

    A metapackage pins the versions of all interpreters, and so is the same whichever are chosen.
    """
    layers = list(layers)
    files: dict[str, Item] = {}
    for tag in tags:
        for dist in _distributions(stacks[tag], layers):
            files[dist.sha256] = Item(
                project=dist.name, file=dist.file, sha256=dist.sha256, size=dist.size
            )
    made = []
    for layer in layers:
        package = metapackage(release, layer, stacks.values())
        made.append(
            Item(
                project=package.name,
                file=package.file,
                sha256=package.sha256,
                size=len(package.content),
                content=package.content,
            )
        )
    return Wanted(files=tuple(files.values()), made=tuple(made))


def _distributions(stack: Stack, layers: list[str]) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    for layer in layers:
        for dist in stack.members(layer):
            found[dist.sha256] = dist
            if dist.tag == SDIST:
                needed = stack.build_closure(stack.packages[dist.name])
                found |= {item.sha256: item for item in needed}
    return list(found.values())


def sources(plan: Plan, items: Iterable[Item]) -> dict[str, Step]:
    """The steps that bring files into the store, by sha256."""
    known = {
        step.spec.sha256: step
        for step in plan.steps
        if step.kind == "source" and isinstance(step.spec, Source)
    }
    return {item.sha256: known[item.sha256] for item in items}


def _distrust(store: Store, steps: Iterable[Step]) -> None:
    """Take damaged files out of the store, which then fetches them anew."""
    for step in steps:
        entry = store.get(step.key)
        assert isinstance(step.spec, Source)
        if entry and sha256_file(entry.tree / step.spec.file) != step.spec.sha256:
            print(f"{step.title}: damaged in the store; it is fetched anew", file=sys.stderr)
            with store.used(alone=True):
                store.remove(entry)


def _path(store: Store, step: Step) -> Path:
    entry = store.get(step.key)
    assert entry is not None, f"{step.id} was fetched or is cached"
    assert isinstance(step.spec, Source)
    return entry.tree / step.spec.file


def _tell(
    arguments: argparse.Namespace,
    release: Release,
    directory: Path,
    wanted: Wanted,
    lacking: list[Item],
) -> int:
    total = sum(item.size for item in wanted.files)
    new = sum(item.size for item in lacking)
    if arguments.json:
        document = {
            "schema": 1,
            "release": release.name,
            "directory": str(directory),
            "dry_run": arguments.dry_run,
            "bytes": total,
            "files": [
                {
                    "project": item.project,
                    "path": item.place.as_posix(),
                    "sha256": item.sha256,
                    "size": item.size,
                    "added": item in lacking,
                }
                for item in (*wanted.files, *wanted.made)
            ],
        }
        print(json.dumps(document, indent=1))
        return 0
    verb = "would be added" if arguments.dry_run else "added"
    print(
        f"{paint('green', '✔')} {nearby(directory)}: {len(wanted.files)} files of Longrun "
        f"{release.name}, {size(total)}; {len(lacking)} of them ({size(new)}) {verb}"
    )
    if not arguments.dry_run:
        names = [item.project for item in wanted.made]
        print(
            f"\nMetapackages: {', '.join(names)}\n\n"
            "Serve it with any web server, or take it as it is:\n\n"
            f"    pip install --index-url {(directory / 'simple').as_uri()} {names[0]}"
        )
    return 0
