"""The store: one read-only entry per realised step, found by key.

    entries/<kind>-<name>-<version>-<key>/   entry.json  files.json  tree/
    files/     equal files of wheels' entries, under further names by their sha256
    staging/   what is being built; removed by the next build once nobody holds its lock
    failed/    what was kept of failed steps (--keep-failed)
    logs/      the log of each step's last build
    locks/     one per key being built, so that two builds do not make the same thing
    lock       held by builds together, and alone by what removes entries
    roots/     the keys that each checkout's builds use; ``gc`` keeps what these name

An entry appears by one rename of a directory that is complete, hashed and read-only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from longrun import fs, manifest
from longrun.errors import StoreError
from longrun.plan import Plan, Step

KEY_LENGTH = 32
"""Hexadecimal digits of a key in a directory's name: 128 bits."""

SHARED = ("wheel",)
"""Kinds of which equal files are kept once: one wheel serves several interpreters, and most of a
package's files are the same from version to version."""

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Entry:
    """One realised step."""

    path: Path

    @property
    def tree(self) -> Path:
        """What the step made."""
        return self.path / "tree"

    @cached_property
    def record(self) -> dict[str, Any]:
        """What is known of the step: id, version, key, digest, material, seconds, size."""
        found: dict[str, Any] = json.loads((self.path / "entry.json").read_bytes())
        return found

    def files(self) -> tuple[fs.Record, ...]:
        """The files of the tree as they were when the entry was made."""
        return manifest.files_from_json(json.loads((self.path / "files.json").read_bytes()))


@dataclass(frozen=True)
class Stage:
    """Where a step is built: ``entry`` becomes the entry; the rest vanishes."""

    path: Path
    lock: int

    @property
    def tree(self) -> Path:
        """The directory that the builder fills."""
        return self.path / "entry" / "tree"

    @property
    def work(self) -> Path:
        """The builder's scratch directory."""
        return self.path / "work"


class Store:
    """A directory of entries; every method may be called from several threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._index: dict[str, Path] | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the store's directories; StoreError where that is not possible."""
        try:
            for name in ("entries", "files", "staging", "failed", "logs", "locks", "roots"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{error.filename}: {error.strerror}",
                remedy="set LONGRUN_CACHE to a directory that you can write to",
            ) from error

    # finding

    def get(self, key: str) -> Entry | None:
        """The entry of a key, or None."""
        path = self._entries().get(key[:KEY_LENGTH])
        return Entry(path) if path else None

    def entries(self) -> list[Entry]:
        """Every entry, sorted by name."""
        return [Entry(path) for path in sorted(self._entries().values())]

    def predecessor(self, step: Step) -> Entry | None:
        """The youngest other entry of the same kind and name: what a rebuild is compared with."""
        prefix = f"{step.kind}-{step.name}-"
        paths = [path for path in self._entries().values() if path.name.startswith(prefix)]
        for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
            entry = Entry(path)
            if entry.record["id"] == step.id and entry.record["key"] != step.key:
                return entry
        return None

    def missing(self, steps: Iterable[Step], targets: Iterable[Step]) -> tuple[Step, ...]:
        """The steps to build for the targets, in order; inputs of a cached step are not needed."""
        wanted: set[str] = set()
        stack = list(targets)
        while stack:
            step = stack.pop()
            if step.key not in wanted and self.get(step.key) is None:
                wanted.add(step.key)
                stack.extend(step.inputs)
        return tuple(step for step in steps if step.key in wanted)

    def log(self, step: Step) -> Path:
        """The log of a step's last build, whether it exists or not."""
        return self.root / "logs" / f"{_name(step)}.log"

    def _entries(self) -> dict[str, Path]:
        # one thread lists at a time: a list from before a commit must not replace one from after
        with self._lock:
            if self._index is None:
                directory = self.root / "entries"
                names = os.listdir(directory) if directory.is_dir() else []
                self._index = {name.rpartition("-")[2]: directory / name for name in names}
            return self._index

    # making

    @contextlib.contextmanager
    def used(self, *, alone: bool = False) -> Iterator[None]:
        """Hold the store: builds share it, and what removes entries needs it alone.

        StoreError where a build and a removal meet.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT)
        try:
            self._hold(descriptor, alone=alone)
            yield
        finally:
            os.close(descriptor)

    def _hold(self, descriptor: int, *, alone: bool) -> None:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{self.root} is in use by {'a build' if alone else 'gc or verify --repair'}",
                remedy="run this again when that has ended",
            ) from error

    @contextlib.contextmanager
    def building(self, step: Step, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of a key, so that no other process builds it; ``waiting`` if one does."""
        descriptor = os.open(self.root / "locks" / step.key[:KEY_LENGTH], os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with self._lock:
                self._index = None  # another process may have built it since this one looked
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def stage(self, step: Step, *, keep_failed: bool = False) -> Iterator[Stage]:
        """A fresh place to build a step; gone afterwards, moved to ``failed/`` if that is asked."""
        name = f"{step.kind}-{step.name}-{step.key[:8]}."
        path = Path(tempfile.mkdtemp(prefix=name, dir=self.root / "staging"))
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            stage = Stage(path, descriptor)
            stage.tree.mkdir(parents=True)
            stage.work.mkdir()
            yield stage
        except Exception:
            if keep_failed:
                kept = self.root / "failed" / _name(step)
                fs.remove_tree(kept)
                path.rename(kept)
            raise
        finally:
            os.close(descriptor)
            fs.remove_tree(path)

    def commit(
        self, stage: Stage, step: Step, *, seconds: float, known: Mapping[str, str] = NOTHING
    ) -> Entry:
        """Hash the staged tree, make it read-only and rename it into place.

        ``known`` maps paths to the sha256 of files that the builder hashed already.
        """
        fs.make_read_only(stage.tree)
        records = fs.scan(stage.tree, known)
        if step.kind in SHARED:
            self._share(stage.tree, records)
        record = {
            "schema": manifest.SCHEMA,
            "id": step.id,
            "version": step.version,
            "key": step.key,
            "digest": fs.tree_digest(records),
            "seconds": round(seconds, 2),
            "size": sum(record.size for record in records),
            "count": len(records),
            "material": step.material,
            "versions": {needed.id: needed.version for needed in step.inputs},
        }
        staged = stage.path / "entry"
        files = manifest.files_to_json(records)
        (staged / "files.json").write_text(json.dumps(files, separators=(",", ":")))
        (staged / "entry.json").write_text(json.dumps(record, indent=1))
        target = self.root / "entries" / _name(step)
        try:
            staged.rename(target)
        except OSError:
            if not target.is_dir():  # else it is there already, and the same key is the same tree
                raise
        target.chmod(0o555)
        self._entries()[step.key[:KEY_LENGTH]] = target
        return Entry(target)

    def _share(self, tree: Path, records: Iterable[fs.Record]) -> None:
        """Make files that the store has already further names of those.

        Files are the same if content, mode and time are: all names of a file share these.
        """
        for record in records:
            if record.type == fs.FILE and record.size:
                self._share_file(tree / record.path, record)

    def _share_file(self, path: Path, record: fs.Record) -> None:
        name = f"{record.value}-{record.mode:o}-{int(path.stat().st_mtime)}"
        shared = self.root / "files" / name[:2] / name
        try:
            shared.parent.mkdir(exist_ok=True)
            os.link(path, shared)
        except FileExistsError:
            beside = path.with_name(f"{path.name}.{name[:16]}")
            with contextlib.suppress(OSError):  # such as EMLINK: then this one stays its own
                if shared.stat().st_size == record.size:
                    os.link(shared, beside)
                    beside.rename(path)
        except OSError:
            return  # a file system without hard links

    def forget(self, entry: Entry) -> None:
        """Do not share a damaged entry's files with what is built next."""
        for record in entry.files():
            for path in (self.root / "files" / record.value[:2]).glob(f"{record.value}-*"):
                path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Drop shared files that no entry has any more."""
        for path in (self.root / "files").glob("*/*"):
            if path.stat().st_nlink == 1:
                path.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what killed builds left in staging; what still has a writer stays. How many."""
        removed = 0
        for path in (self.root / "staging").iterdir():
            with contextlib.suppress(OSError), _unlocked(path / "lock") as free:
                if free:
                    fs.remove_tree(path)
                    removed += 1
        return removed

    # keeping

    def check(self, entry: Entry) -> None:
        """Compare sizes, modes and links of an entry with its record, without reading contents.

        Cheap enough before each use. StoreError names the first difference.
        """
        for record in entry.files():
            path = entry.tree / record.path
            problem = _difference(path, record)
            if problem:
                raise StoreError(
                    f"{path}: {problem}",
                    remedy="./build.py verify --repair removes damaged entries",
                )

    def verify(self, entry: Entry, read: dict[fs.Inode, str] | None = None) -> list[str]:
        """Hash an entry again; what differs from its record, in words (nothing: it is whole).

        ``read`` remembers what was hashed over several entries: layers are links to other entries.
        """
        try:
            expected = {record.path: record for record in entry.files()}
            digest = entry.record["digest"]
        except (OSError, ValueError, KeyError) as error:
            return [f"its record cannot be read: {error}"]
        found = {record.path: record for record in fs.scan(entry.tree, read=read)}
        problems = [f"{path}: missing" for path in expected.keys() - found.keys()]
        problems += [f"{path}: not in the record" for path in found.keys() - expected.keys()]
        problems += [
            f"{path}: changed"
            for path in expected.keys() & found.keys()
            if expected[path] != found[path]
        ]
        if not problems and fs.tree_digest(found.values()) != digest:
            problems = ["its record was changed"]
        return sorted(problems)

    def remove(self, entry: Entry) -> None:
        """Take an entry out: first out of sight by one rename, then its files."""
        grave = Path(tempfile.mkdtemp(prefix="removed.", dir=self.root / "staging"))
        (grave / "lock").touch()
        entry.path.chmod(0o755)
        entry.path.rename(grave / "entry")
        self._entries().pop(entry.path.name.rpartition("-")[2], None)
        fs.remove_tree(grave)

    def write_root(self, checkout: Path, plan: Plan) -> None:
        """Remember what a checkout uses, for ``gc``."""
        identity = hashlib.sha256(f"{checkout}\0{plan.release.name}".encode()).hexdigest()[:16]
        path = self.root / "roots" / f"{identity}.json"
        old = json.loads(path.read_bytes()) if path.exists() else {"keys": {}}
        keys = {step.id: step.key for step in plan.steps}
        document = {"checkout": str(checkout), "release": plan.release.name}
        fs.write_atomic(path, json.dumps(document | {"keys": old["keys"] | keys}, indent=1))

    def garbage(self) -> list[Entry]:
        """The entries that no checkout that still exists uses."""
        kept: set[str] = set()
        for path in (self.root / "roots").glob("*.json"):
            root = json.loads(path.read_bytes())
            if Path(root["checkout"]).is_dir():
                kept |= {key[:KEY_LENGTH] for key in root["keys"].values()}
        return [e for e in self.entries() if e.path.name.rpartition("-")[2] not in kept]


def _name(step: Step) -> str:
    return f"{step.kind}-{step.name}-{step.version}-{step.key[:KEY_LENGTH]}"


def _difference(path: Path, record: fs.Record) -> str:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return "missing"
    if record.type == fs.LINK:
        same = stat.S_ISLNK(status.st_mode) and os.readlink(path) == record.value
        return "" if same else "not the link that it was"
    if stat.S_IMODE(status.st_mode) != record.mode:
        return f"mode {stat.S_IMODE(status.st_mode):04o}, was {record.mode:04o}"
    if record.type == fs.FILE and status.st_size != record.size:
        return f"{status.st_size} bytes, were {record.size}"
    return ""


@contextlib.contextmanager
def _unlocked(lock: Path) -> Iterator[bool]:
    """Whether nobody holds a lock file (true too where it does not exist yet and is old)."""
    if not lock.exists():
        # between mkdtemp and the lock's creation another process may still be at work
        yield time.time() - lock.parent.stat().st_mtime > 60
        return
    descriptor = os.open(lock, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def disk_usage(entries: Iterable[Entry], *, alone: bool = False) -> int:
    """Bytes of all files of some entries, each file once whatever its names are.

    ``alone`` counts only files of which no other entry has a name: what goes with these entries.
    """
    sizes: dict[fs.Inode, int] = {}
    names: dict[fs.Inode, int] = {}
    for entry in entries:
        for _, found in fs.walk(entry.tree):
            status = found.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                inode = (status.st_dev, status.st_ino)
                sizes[inode] = status.st_size
                names.setdefault(inode, status.st_nlink)
                names[inode] -= 1
    # one name that is left may be that in files/, which is no entry's
    return sum(size for inode, size in sizes.items() if not alone or names[inode] <= 1)
