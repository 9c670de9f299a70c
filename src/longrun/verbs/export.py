"""``export``: layers for machines that have no prefix of ours."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longrun import fs
from longrun.errors import UsageError
from longrun.export import metapackage, pylock, requirements
from longrun.index.client import Index, find_index, open_index
from longrun.model import Release
from longrun.plan import choose_interpreters, choose_release
from longrun.specs import Specs
from longrun.stack import Stack, load_stack
from longrun.term import paint
from longrun.verbs.context import Context


@dataclass(frozen=True, kw_only=True)
class Output:
    """One file to write: which layer it is of, and for which interpreter, if for one."""

    path: Path
    content: bytes
    layer: str
    tag: str = ""


def export(root: Path, arguments: argparse.Namespace) -> int:
    """Write pylock.toml, requirements.txt and the metapackage of layers; all, or none of them."""
    context = Context(root)
    release = choose_release(context.specs, arguments.release)
    layers = context.layers(release, arguments, every=True)
    if not layers:
        raise UsageError(f"release {release.name} has no layers, and so nothing to export")
    chosen = context.interpreters(release, arguments, every=True)
    stacks = load_all(context.specs, release)
    index = _index(context, arguments.index)
    directory = (arguments.output or context.root / "dist" / "export" / release.name).absolute()
    outputs: list[Output] = []
    for layer in layers:
        for interpreter in chosen:
            outputs += _locked(stacks[interpreter.tag], layer, index, arguments.index, directory)
        made = metapackage(release, layer, stacks.values())
        outputs.append(Output(path=directory / made.file, content=made.content, layer=layer))
    for output in outputs:
        fs.write_atomic(output.path, output.content)
    if arguments.json:
        print(json.dumps(_document(release, outputs), indent=1))
    else:
        _print(release, outputs, stacks)
    return 0


def load_all(specs: Specs, release: Release) -> dict[str, Stack]:
    """The stacks of all interpreters of a release, by tag."""
    interpreters = choose_interpreters(specs, release, list(release.interpreters))
    return {item.tag: load_stack(specs, release, item) for item in interpreters}


def _index(context: Context, address: str | None) -> Index:
    python = Path(os.environ["LONGRUN_ENVIRONMENT"]) / "bin" / "python"
    found = find_index(context.config, python)
    if address is None:
        return found
    return open_index([address], found.cache, cert=found.cert, proxy=found.proxy)


def _locked(
    stack: Stack, layer: str, index: Index, named: str | None, directory: Path
) -> list[Output]:
    """What is for one interpreter alone: every file with its hash."""
    place = directory / f"{layer}-{stack.tag}"
    address = index.addresses[0] if named else ""
    files = {
        "pylock.toml": pylock(stack, layer, index),
        "requirements.txt": requirements(stack, layer, index=address),
    }
    return [
        Output(path=place / name, content=text.encode(), layer=layer, tag=stack.tag)
        for name, text in files.items()
    ]


def _document(release: Release, outputs: list[Output]) -> dict[str, object]:
    rows = [
        {
            "path": str(output.path),
            "layer": output.layer,
            "interpreter": output.tag or None,
            "sha256": fs.sha256_file(output.path),
        }
        for output in outputs
    ]
    return {"schema": 1, "release": release.name, "files": rows}


def _print(release: Release, outputs: list[Output], stacks: Mapping[str, Stack]) -> None:
    print(f"Longrun {paint('bold', release.name)}, exported:\n")
    for output in outputs:
        whom = output.tag or ", ".join(stacks)
        print(f"  {paint('green', '✔')} {nearby(output.path)}  {output.layer}, for {whom}")
    lock, listed = (nearby(output.path) for output in outputs[:2])
    wheel = next(nearby(output.path) for output in outputs if not output.tag)
    print(
        "\nAnother machine installs the same with any of these, in a virtual environment:\n\n"
        f"    uv pip install -r {lock}\n"
        f"    pip install --no-deps -r {listed}\n"
        f"    pip install {wheel}"
    )


def nearby(path: Path) -> str:
    """A path as a person would type it here: relative where it is below this directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if here in path.parents else str(path)
