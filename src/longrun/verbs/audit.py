"""``audit``: the gate that every prefix passes, on any prefix."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from longrun.audit import Policy, Report, audit, load_kept_api, policy_for, policy_for_path
from longrun.audit.render import lines
from longrun.errors import AuditError
from longrun.hook import SOURCE
from longrun.model import Floor
from longrun.seal import MARKER
from longrun.steps.interpreter import PREFIX
from longrun.term import paint
from longrun.verbs.context import Context


def run(root: Path, arguments: argparse.Namespace) -> int:
    """Inspect a prefix and print what is wrong with it; 6 where something is."""
    path = arguments.path
    if not path.is_dir():
        raise AuditError(
            f"{path}: expected the directory of a prefix, found "
            f"{'a file' if path.exists() else 'nothing'}",
            remedy="unpack an archive first: tar -xf ARCHIVE -C DIRECTORY",
        )
    report = audit(path, choose_policy(Context(root), path, arguments))
    if arguments.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        _print(report)
    return 0 if report.ok else AuditError.exit_code


def choose_policy(context: Context, path: Path, arguments: argparse.Namespace) -> Policy:
    """The policy of a prefix of ours, known by its marker; else what holds of any prefix."""
    mark = read_marker(path)
    floor = _floor(arguments.floor) or (_marked_floor(mark) if mark else None)
    interpreter = context.specs.interpreters.get(mark.get("interpreter", ""))
    if interpreter is None or floor is None:
        return policy_for_path(path, floor=floor)
    policy = policy_for(
        interpreter,
        floor,
        forbidden={"constant prefix": PREFIX, "store": str(context.store.root)},
        api=load_kept_api(context.root, interpreter.name),
        hook=SOURCE.read_text(encoding="utf-8"),
    )
    inside_store = context.store.root in path.resolve().parents
    return replace(policy, forbidden={"constant prefix": PREFIX}) if inside_store else policy


def read_marker(path: Path) -> dict[str, Any]:
    """What a prefix says that it is; nothing where it is not one of ours."""
    try:
        found = json.loads((path / MARKER).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _marked_floor(mark: dict[str, Any]) -> Floor | None:
    platform = str(mark.get("platform", ""))
    return _floor(platform) if platform else None


def _floor(tag: str | None) -> Floor | None:
    """A floor from its platform tag, such as ``manylinux_2_28_x86_64``."""
    if not tag:
        return None
    parts = tag.split("_", 3)
    if len(parts) != 4 or parts[0] != "manylinux" or not (parts[1] + parts[2]).isdigit():
        raise AuditError(
            f"--floor: expected a platform tag such as manylinux_2_28_x86_64, found {tag!r}"
        )
    return Floor(arch=parts[3], glibc=f"{parts[1]}.{parts[2]}")


def _print(report: Report) -> None:
    *body, verdict = lines(report)
    print("\n".join(body))
    print(paint("green" if report.ok else "red", verdict))
