"""``why`` and ``log``: everything about one step, or about a distribution's."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrun.errors import UsageError
from longrun.model import Interpreter, Library, Source, Toolchain, Wheel
from longrun.plan import Plan, Step, choose_release
from longrun.specs import near, normalised
from longrun.store import Store
from longrun.term import duration, paint, print_rows, size
from longrun.verbs.context import Context
from longrun.verbs.plan import in_short, reasons

if TYPE_CHECKING:
    from longrun.verbs.stacks import Item, Stacks

WHEELS = 8
"""Wheels of an interpreter that a step needs, up to which each has a line of its own."""


def why(root: Path, arguments: argparse.Namespace) -> int:
    """Explain a step, or why a distribution is here and which steps make it."""
    context = Context(root)
    found = search(context, arguments)
    if found.item and found.stacks:
        _why_distribution(found, found.item, found.stacks, context.store, arguments)
        return 0
    assert found.step is not None, "search found one of the two"
    document = explain(found.step, found.plan, context.store)
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        _print(document)
    return 0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a name stands for: a step of a plan, or else a distribution of the stack."""

    plan: Plan
    step: Step | None = None
    item: Item | None = None
    stacks: Stacks | None = None

    def wheel(self, tag: str) -> Step | None:
        """The step that makes the distribution's files for an interpreter."""
        return _step(self.plan, f"wheel/{tag}-{self.item.name}") if self.item else None

    def made_by(self) -> Step:
        """The one step that is meant; of a distribution's, that for the first interpreter."""
        wheels = [self.wheel(tag) for tag in self.item.files] if self.item else []
        for step in (self.step, *wheels):
            if step:
                return step
        raise UsageError("no step makes this")


def search(context: Context, arguments: argparse.Namespace) -> Found:
    """What a person means: a step of the interpreters, a distribution, or a step of the layers."""
    name = arguments.step
    plan = context.plan(arguments, every=True)
    if step := _step(plan, name):
        return Found(plan=plan, step=step)
    if not _is_locked(context, arguments):
        plan.find(name)  # has the words for what is not there
    from longrun.verbs.stacks import load_stacks  # 20 ms that other steps do not need

    stacks = load_stacks(context, arguments)
    plan = context.plan(arguments, every=True, layered=True)
    if item := stacks.find(name):
        return Found(plan=plan, item=item, stacks=stacks)
    if step := _step(plan, name):
        return Found(plan=plan, step=step)
    known = [*stacks.names(), *(step.id for step in plan.steps)]
    known += [step.name for step in plan.steps]
    raise UsageError(
        f"neither a step nor a distribution {name!r} in release {plan.release.name}"
        f"{near(normalised(name), known)}",
        remedy="./build.py list shows the distributions, ./build.py plan the steps",
    )


def _step(plan: Plan, name: str) -> Step | None:
    try:
        return plan.find(name)
    except UsageError:
        return None


def _is_locked(context: Context, arguments: argparse.Namespace) -> bool:
    """Whether there is any lock: without one, only steps of interpreters can be meant."""
    release = choose_release(context.specs, arguments.release)
    interpreters = context.interpreters(release, arguments, every=True)
    paths = [context.specs.lock_path(release.name, item.tag) for item in interpreters]
    return any(path.exists() for path in paths)


def _why_distribution(
    found: Found, item: Item, stacks: Stacks, store: Store, arguments: argparse.Namespace
) -> None:
    from longrun.verbs.chains import describe, print_chains

    steps = {tag: found.wheel(tag) for tag in item.files}
    explained = {tag: explain(step, found.plan, store) for tag, step in steps.items() if step}
    document = describe(stacks, item, explained)
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        print_chains(document)


def explain(step: Step, plan: Plan, store: Store) -> dict[str, Any]:
    """All that is known of a step, as plain data."""
    entry = store.get(step.key)
    document: dict[str, Any] = {
        "schema": 1,
        "id": step.id,
        "version": step.version,
        "platform": step.platform,
        "key": step.key,
        "state": "cached" if entry else "build",
        "reasons": [] if entry else reasons(step, store),
        "inputs": {needed.id: needed.version for needed in step.inputs},
        "needed_by": [other.id for other in plan.steps if step in other.inputs],
        "sources": [_source(source) for source in _sources(step)],
        "patches": {path.name: patch_title(path) for path in step.patches},
    }
    if isinstance(step.spec, Library | Toolchain | Interpreter | Wheel):
        document["licence"] = step.spec.licence
        document["homepage"] = getattr(step.spec, "homepage", "")
    if entry:
        record = entry.record
        document["entry"] = {"path": str(entry.path)} | {
            name: record[name] for name in ("digest", "size", "count", "seconds")
        }
    return document


def _sources(step: Step) -> list[Source]:
    if isinstance(step.spec, Source):
        return [step.spec]
    if isinstance(step.spec, Interpreter):
        return [step.spec.source, *(series.source for series in step.spec.series)]
    return [step.spec.source] if isinstance(step.spec, Library | Toolchain | Wheel) else []


def _source(source: Source) -> dict[str, Any]:
    return {
        "file": source.file,
        "sha256": source.sha256,
        "size": source.size,
        "urls": [*source.urls, *source.pool, *filter(None, [source.index])],
        "repacked": source.repacked,
    }


def patch_title(path: Path) -> str:
    """The first line of a patch's header, without ``Subject:``."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("---", "diff ")):
            break
        if line.strip() and not line.startswith(("From ", "From:", "Date:")):
            return line.removeprefix("Subject:").strip()
    return ""


def in_words(document: dict[str, Any]) -> str:
    """The state of a step, and why it is to be built."""
    if document["state"] == "cached":
        return paint("green", "cached")
    because = f": {in_short(document['reasons'])}" if document["reasons"] else ""
    return f"{paint('yellow', 'to build')}{because}"


def _print(document: dict[str, Any]) -> None:
    title = paint("bold", f"{document['id']} {document['version']}")
    print(f"{title}  {in_words(document)}")
    rows = [("platform", document["platform"]), ("key", document["key"])]
    rows += [(name, document[name]) for name in ("licence", "homepage") if document.get(name)]
    for source in document["sources"]:
        rows += [("source", f"{source['file']}  {size(source['size'])}")]
        rows += [("", f"sha256 {source['sha256']}")]
        rows += [("", url) for url in source["urls"]]
        rows += [("", source["repacked"])] if source["repacked"] else []
    rows += [("patch", f"{name}: {title}") for name, title in document["patches"].items()]
    rows += [("needs", text) for text in _gathered(document["inputs"])]
    rows += [("needed by", text) for text in _gathered(dict.fromkeys(document["needed_by"], ""))]
    if entry := document.get("entry"):
        rows += [
            ("entry", entry["path"]),
            ("", f"{entry['count']} files, {size(entry['size'])}, in {duration(entry['seconds'])}"),
            ("digest", entry["digest"]),
        ]
    print_rows(rows)


def _gathered(steps: dict[str, str]) -> list[str]:
    """A line for each step; one for many wheels of an interpreter, as a layer has them."""
    wheels: dict[str, list[str]] = {}
    lines: dict[str, str] = {}
    for step, version in steps.items():
        kind, _, name = step.partition("/")
        lines[step] = f"{step} {version}".strip()
        if kind == "wheel":
            wheels.setdefault(name.partition("-")[0], []).append(step)
    for tag, found in wheels.items():
        if len(found) > WHEELS:
            texts = [lines.pop(step).removeprefix(f"wheel/{tag}-") for step in found]
            lines[tag] = f"{len(found)} wheels for {tag}: {', '.join(texts)}"
    return list(lines.values())


def log(root: Path, arguments: argparse.Namespace) -> int:
    """Print the log of a step's last build."""
    context = Context(root)
    found = search(context, arguments)
    step = found.made_by()
    path = context.store.log(step)
    if not path.exists():
        raise UsageError(
            f"{step.id} {step.version} was not built on this machine with its present key",
            remedy=f"./build.py why {step.id} tells its state",
        )
    if arguments.path:
        print(path)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(path.read_bytes())
    return 0
