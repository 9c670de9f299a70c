"""``verify`` and ``gc``: keep the store whole, and small."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from longrun.fs import Inode, remove_tree
from longrun.store import Entry, Store, disk_usage
from longrun.term import paint, size
from longrun.verbs.context import Context

DAMAGED = 7
"""Exit status where an entry is damaged: StoreError's."""


def verify(root: Path, arguments: argparse.Namespace) -> int:
    """Hash every entry again; 7 where one is not what it was, unless it was repaired."""
    store = Context(root).store
    with store.used(alone=True) if arguments.repair else nullcontext():
        return _verify(store, arguments)


def _verify(store: Store, arguments: argparse.Namespace) -> int:
    entries = store.entries()
    damaged: dict[str, list[str]] = {}
    read: dict[Inode, str] = {}
    for position, entry in enumerate(entries, 1):
        _progress(f"{position}/{len(entries)} {entry.path.name}")
        if problems := store.verify(entry, read):
            damaged[entry.path.name] = problems
            if arguments.repair:
                store.forget(entry)
                store.remove(entry)
    _progress("")
    if arguments.json:
        document = {"schema": 1, "entries": len(entries), "damaged": damaged}
        print(json.dumps(document | {"repaired": arguments.repair}, indent=1))
    else:
        _print_verdict(len(entries), damaged, repaired=arguments.repair)
    return DAMAGED if damaged and not arguments.repair else 0


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def _print_verdict(count: int, damaged: dict[str, list[str]], *, repaired: bool) -> None:
    for name, problems in damaged.items():
        print(f"{paint('red', '✘')} {name}")
        for problem in problems[:10]:
            print(f"    {problem}")
        if len(problems) > 10:
            print(f"    and {len(problems) - 10} more")
    if not damaged:
        print(f"{paint('green', '✔')} {count} entries, every file as it was when it was made")
    elif repaired:
        print(f"{len(damaged)} of {count} entries were damaged, now removed; build makes them anew")
    else:
        print(f"{len(damaged)} of {count} entries are damaged; --repair removes them")


def gc(root: Path, arguments: argparse.Namespace) -> int:
    """Remove entries that no checkout uses, and what failed and killed builds left."""
    context = Context(root)
    store = context.store
    garbage = store.garbage()
    leftovers = _leftovers(store, context.config.cache / "downloads")
    freed = disk_usage(garbage, alone=True)
    if not arguments.dry_run:
        with store.used(alone=True):
            _remove(store, garbage, leftovers)
    if arguments.json:
        names = [entry.path.name for entry in garbage]
        print(
            json.dumps(
                {"schema": 1, "removed": names, "bytes": freed, "dry_run": arguments.dry_run}
            )
        )
    else:
        _print_garbage(garbage, leftovers, freed, store, dry_run=arguments.dry_run)
    return 0


def _remove(store: Store, garbage: list[Entry], leftovers: list[Path]) -> None:
    store.sweep()
    for entry in garbage:
        store.remove(entry)
    for path in leftovers:
        remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
    store.prune()


def _leftovers(store: Store, downloads: Path) -> list[Path]:
    """What failed steps left, and the logs and downloads of entries that are no more."""
    names = {entry.path.name for entry in store.entries()}
    logs = [path for path in (store.root / "logs").iterdir() if path.stem not in names]
    sources = {name.rpartition("-")[2][:16] for name in names if name.startswith("source-")}
    orphans = [path for path in downloads.glob("*") if path.name[:16] not in sources]
    return [*(store.root / "failed").iterdir(), *logs, *orphans]


def _print_garbage(
    garbage: list[Entry], leftovers: list[Path], freed: int, store: Store, *, dry_run: bool
) -> None:
    for entry in garbage:
        print(f"  {entry.path.name:<60} {size(entry.record['size']):>10}")
    verb = "would remove" if dry_run else "removed"
    free = shutil.disk_usage(store.root).free
    print(
        f"{verb} {len(garbage)} entries ({size(freed)}) and {len(leftovers)} leftovers of failed "
        f"builds; {len(store.entries())} entries stay, {size(free)} of the disk are free"
    )
