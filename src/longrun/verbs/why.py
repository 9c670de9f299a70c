"""``why`` and ``log``: everything about one step."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from longrun.errors import UsageError
from longrun.model import Interpreter, Library, Source, Toolchain
from longrun.plan import Plan, Step
from longrun.store import Store
from longrun.term import duration, paint, size
from longrun.verbs.context import Context
from longrun.verbs.plan import reasons


def why(root: Path, arguments: argparse.Namespace) -> int:
    """Explain a step."""
    context = Context(root)
    plan = context.plan(arguments, every=True)
    document = explain(plan.find(arguments.step), plan, context.store)
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        _print(document)
    return 0


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
    if isinstance(step.spec, Library | Toolchain | Interpreter):
        document["licence"] = step.spec.licence
        document["homepage"] = step.spec.homepage
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
    return [step.spec.source] if isinstance(step.spec, Library | Toolchain) else []


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


def _print(document: dict[str, Any]) -> None:
    colour = "green" if document["state"] == "cached" else "yellow"
    state = "cached" if document["state"] == "cached" else "to build"
    because = f": {'; '.join(document['reasons'])}" if document["reasons"] else ""
    title = paint("bold", f"{document['id']} {document['version']}")
    print(f"{title}  {paint(colour, state)}{because}")
    rows = [("platform", document["platform"]), ("key", document["key"])]
    rows += [(name, document[name]) for name in ("licence", "homepage") if document.get(name)]
    for source in document["sources"]:
        rows += [("source", f"{source['file']}  {size(source['size'])}")]
        rows += [("", f"sha256 {source['sha256']}")]
        rows += [("", url) for url in source["urls"]]
        rows += [("", source["repacked"])] if source["repacked"] else []
    rows += [("patch", f"{name}: {title}") for name, title in document["patches"].items()]
    rows += [("needs", f"{name} {version}") for name, version in document["inputs"].items()]
    rows += [("needed by", name) for name in document["needed_by"]]
    if entry := document.get("entry"):
        rows += [
            ("entry", entry["path"]),
            ("", f"{entry['count']} files, {size(entry['size'])}, in {duration(entry['seconds'])}"),
            ("digest", entry["digest"]),
        ]
    previous = ""
    for label, value in rows:
        shown = "" if label == previous else label
        print(f"  {paint('dim', f'{shown:<10}')} {value}")
        previous = label or previous


def log(root: Path, arguments: argparse.Namespace) -> int:
    """Print the log of a step's last build."""
    context = Context(root)
    step = context.plan(arguments, every=True).find(arguments.step)
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
