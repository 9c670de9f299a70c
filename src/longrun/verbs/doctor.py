"""``doctor``: what this machine has and lacks, without changing anything."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from longrun.cage import namespaces
from longrun.config import BUBBLEWRAP
from longrun.engine import knock, sockets
from longrun.errors import LongrunError
from longrun.plan import make_plan
from longrun.run import find_tool, without_network
from longrun.setup import TEST_TOOLS, TOOLS, install_commands, missing_tools, packages_of
from longrun.term import paint, size
from longrun.verbs.build import tools_of
from longrun.verbs.context import Context

NEEDED_SPACE = 8_000_000_000
"""Bytes that a cold build of two interpreters and all layers uses at its peak, with a margin."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``state`` is ok, missing (a build fails) or note (it works without)."""

    name: str
    state: str
    found: str
    remedy: str = ""


def doctor(root: Path, arguments: argparse.Namespace) -> int:
    """Report on the machine; 8 where something is missing that a build needs."""
    context = Context(root)
    findings = [
        _python(),
        _environment(),
        *_tools(context),
        _space(context),
        _network_namespace(),
        _cage(),
        _engine(context),
        *_hosts(context),
        _index(context),
    ]
    if arguments.json:
        print(json.dumps({"schema": 1, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        _print(findings)
    return 8 if any(finding.state == "missing" for finding in findings) else 0


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _environment() -> Finding:
    return Finding("environment", "ok", os.environ.get("LONGRUN_ENVIRONMENT", "entered by hand"))


def _tools(context: Context) -> list[Finding]:
    needed: dict[str, None] = {}
    for release in context.specs.releases.values():
        chosen = tuple(context.specs.interpreters[name] for name in release.interpreters)
        needed |= dict.fromkeys(tools_of(make_plan(context.specs, release, chosen).steps))
    return [
        *(_tool(name, "missing") for name in needed),
        *(_tool(name, "note") for name in TEST_TOOLS if name not in needed),
    ]


def _tool(name: str, without: str) -> Finding:
    missing = missing_tools([name])
    if not missing:
        return Finding(name, "ok", find_tool(name) or "")
    command = " && ".join(shlex.join(argv) for argv in install_commands(packages_of(missing)))
    return Finding(name, without, f"not there; for: {TOOLS[name].why}", command)


def _space(context: Context) -> Finding:
    free = shutil.disk_usage(context.store.root).free
    enough = free > NEEDED_SPACE
    return Finding(
        "disk",
        "ok" if enough else "note",
        f"{size(free)} free for {context.store.root}",
        "" if enough else f"a cold build uses up to {size(NEEDED_SPACE)}: ./build.py gc",
    )


def _network_namespace() -> Finding:
    prefix = without_network()
    if prefix:
        return Finding("no network", "ok", f"builds run in `{shlex.join(prefix)}`")
    return Finding(
        "no network",
        "note",
        "builds cannot be cut off from the network: user namespaces are switched off",
        "as root: sysctl kernel.unprivileged_userns_clone=1",
    )


def _cage() -> Finding:
    if namespaces():
        return Finding("cages", "ok", "checks of the matrix run in namespaces of their own")
    return Finding(
        "cages",
        "note",
        "checks of the matrix run in a session only, and in no other system",
        "apt-get install bubblewrap; inside a container, start that with --privileged",
    )


def _engine(context: Context) -> Finding:
    """The container engine that checks in other systems run in; nothing is asked of it."""
    if context.config.engine == BUBBLEWRAP:
        return Finding("engine", "ok", "not used: the configuration says bubblewrap")
    refusals = {path: knock(path) for path in sockets(os.environ)}
    answering = next((path for path, refusal in refusals.items() if not refusal), None)
    if answering:
        return Finding("engine", "ok", f"answers at {answering}")
    refused = [f"{path}: {refusal}" for path, refusal in refusals.items() if os.path.exists(path)]
    return Finding("engine", "note", "; ".join(refused) or "none; bubblewrap does without")


def _hosts(context: Context) -> list[Finding]:
    from longrun.fetch import find_hosts

    try:
        hosts = find_hosts(context.config)
    except LongrunError as error:
        return [Finding("mirrors", "note", error.message, error.remedy)]
    found = [*hosts.archives, *hosts.mirrors]
    remedy = "" if found else f"name one in {context.config.file}: archives = [...]"
    return [Finding("mirrors", "ok" if found else "note", ", ".join(found) or "none", remedy)]


def _index(context: Context) -> Finding:
    """The package index that files of layers come from; nothing is asked of it."""
    from longrun.index.client import find_index

    environment = Path(os.environ.get("LONGRUN_ENVIRONMENT", sys.prefix))
    try:
        index = find_index(context.config, environment / "bin" / "python")
    except LongrunError as error:
        return Finding("package index", "note", error.message, error.remedy)
    found = ", ".join(index.addresses)
    remedy = "" if found else f"name one in {context.config.file}: index = [...]"
    return Finding("package index", "ok" if found else "note", found or "none", remedy)


def _print(findings: list[Finding]) -> None:
    marks = {"ok": ("green", "✔"), "missing": ("red", "✘"), "note": ("yellow", "•")}
    for finding in findings:
        colour, mark = marks[finding.state]
        print(f"  {paint(colour, mark)} {finding.name:<14} {finding.found}")
        if finding.remedy:
            print(f"    {'':<14} {paint('dim', finding.remedy)}")
    missing = [finding.name for finding in findings if finding.state == "missing"]
    print(
        f"\nmissing: {', '.join(missing)} (--setup installs them)"
        if missing
        else "\nthis machine can build"
    )
