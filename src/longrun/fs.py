"""Files: hashing, the digest of a tree, atomic writes, read-only trees, deterministic tar."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO

DIRECTORY = "dir"
FILE = "file"
LINK = "link"


@dataclass(frozen=True, slots=True)
class Record:
    """One file, link or directory of a tree, as manifests keep it.

    ``value`` is the sha256 of a file, the target of a link and empty for a directory; ``size`` is
    in bytes and 0 but for files; ``path`` is relative to the tree, with ``/``.
    """

    path: str
    type: str
    mode: int
    size: int
    value: str


def sha256_file(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(tree: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every path below a tree, sorted, parents first; links are not followed."""
    stack = [("", str(tree))]
    while stack:
        prefix, directory = stack.pop()
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            yield prefix + entry.name, entry
        stack.extend(
            (f"{prefix}{entry.name}/", entry.path)
            for entry in reversed(entries)
            if entry.is_dir(follow_symlinks=False)
        )


Inode = tuple[int, int]
"""Device and number: what all names of one file share."""


def scan(
    tree: Path,
    known: Mapping[str, str] = MappingProxyType({}),
    read: dict[Inode, str] | None = None,
) -> tuple[Record, ...]:
    """The records of everything below a tree, sorted by path; files are hashed on all cores.

    ``known`` maps paths to the sha256 of files that need not be read. ``read`` remembers, over
    several scans, the sha256 of files that have further names.
    """
    seen = {} if read is None else read
    records: list[Record] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hashed: list[tuple[Record, Inode, Future[str]]] = []
        for path, entry in walk(tree):
            record, inode = _record(path, entry)
            sha256 = known.get(path) or seen.get(inode)
            if record.type != FILE:
                records.append(record)
            elif sha256:
                records.append(replace(record, value=sha256))
            else:
                # a thread for each file is worth its price only where there is something to read
                hashed.append((record, inode, pool.submit(sha256_file, Path(entry.path))))
        for record, inode, future in hashed:
            seen[inode] = future.result()
            records.append(replace(record, value=seen[inode]))
    return tuple(sorted(records, key=lambda record: record.path))


def _record(path: str, entry: os.DirEntry[str]) -> tuple[Record, Inode]:
    """A path's record, without a file's sha256, and which file it is a name of."""
    status = entry.stat(follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    inode = (status.st_dev, status.st_ino)
    if stat.S_ISLNK(status.st_mode):
        return Record(path, LINK, 0o777, 0, os.readlink(entry.path)), inode
    if stat.S_ISDIR(status.st_mode):
        return Record(path, DIRECTORY, mode, 0, ""), inode
    return Record(path, FILE, mode, status.st_size, ""), inode


def tree_digest(records: Iterable[Record]) -> str:
    """One sha256 for a tree: paths, types, modes, contents; owners and times do not count."""
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.path):
        line = f"{record.type} {record.mode:o} {record.value} {record.path}\0"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def rename(temporary: Path, target: Path) -> None:
    """Put a staged file into place; a name of its own, so that a test can die here."""
    temporary.rename(target)


def write_together(files: Mapping[Path, str]) -> None:
    """Write several texts: all are staged beside their targets before the first is renamed.

    A failure until then changes nothing. A kill between two renames leaves the first ones new:
    the order is the caller's.
    """
    staged = {path: path.with_name(f".{path.name}.staged") for path in files}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged[path].open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            rename(temporary, path)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def link_atomic(source: Path, target: Path) -> None:
    """Give a read-only file a further name, beside the target and then renamed into place.

    It is copied where the file system does not let a file have two names there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o444)
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_read_only(tree: Path) -> None:
    """Take the write bits from everything below a tree and from the tree itself."""
    for _, entry in list(walk(tree)):
        if not entry.is_symlink():
            mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
            if mode & 0o222:
                os.chmod(entry.path, mode & ~0o222)
    tree.chmod(stat.S_IMODE(tree.stat().st_mode) & ~0o222)


def remove_tree(tree: Path) -> None:
    """Remove a tree, read-only directories too; nothing happens where there is none."""
    if not tree.exists():
        return
    with contextlib.suppress(OSError):
        tree.chmod(0o755)
    for _, entry in walk_writable(tree):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o755)
    shutil.rmtree(tree, ignore_errors=False)


def walk_writable(tree: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """As ``walk``, but each directory comes before it is entered, so that a caller may chmod it."""
    with os.scandir(tree) as found:
        entries = list(found)
    for entry in entries:
        yield entry.name, entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk_writable(Path(entry.path))


def write_tar(
    tree: Path,
    records: Iterable[Record],
    output: IO[bytes],
    *,
    top: str,
    epoch: int,
    first: Iterable[tuple[str, bytes]] = (),
) -> None:
    """Write a tree as a tar of which the same tree always gives the same bytes.

    Members are sorted, below the directory ``top``, owned by root and stamped with ``epoch``
    (seconds since 1970); ``first`` are files (path, content) that come before all else.
    """
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
            member = tarfile.TarInfo(f"{top}/{name}" if name else top)
            member.type, member.mode, member.mtime = kind, mode, epoch
            member.uname = member.gname = "root"
            return member

        for name, content in first:
            member = add(name, tarfile.REGTYPE, 0o444)
            member.size = len(content)
            tar.addfile(member, _bytes_io(content))
        tar.addfile(add("", tarfile.DIRTYPE, 0o555))
        for record in sorted(records, key=lambda record: record.path):
            if record.type == DIRECTORY:
                tar.addfile(add(record.path, tarfile.DIRTYPE, record.mode))
            elif record.type == LINK:
                member = add(record.path, tarfile.SYMTYPE, record.mode)
                member.linkname = record.value
                tar.addfile(member)
            else:
                member = add(record.path, tarfile.REGTYPE, record.mode)
                member.size = record.size
                with (tree / record.path).open("rb") as file:
                    tar.addfile(member, file)


def _bytes_io(content: bytes) -> IO[bytes]:
    import io

    return io.BytesIO(content)
