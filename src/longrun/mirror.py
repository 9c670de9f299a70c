"""A static package index: a directory that pip installs from, over any web server or none.

    files/ab/cdef.../NAME              a file, below its sha256; NAME.metadata is its core metadata
    simple/PROJECT/index.html, .json   its page (PEP 503, PEP 691), with relative addresses
    simple/index.html, .json           all projects

Pages follow from the files alone and are written after them: a run that is killed leaves an index
that is whole, if without the newest. Whatever is there from other releases stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import html
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from longrun.errors import LongrunError, StoreError, UsageError
from longrun.fs import sha256_file, write_atomic
from longrun.index.metadata import BadArchive, read_metadata
from longrun.specs import normalised

FILES, PAGES = "files", "simple"
METADATA = ".metadata"
API = "1.1"


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file that a mirror is to have; ``content`` where it is made, and not in the store."""

    project: str
    file: str
    sha256: str
    size: int
    content: bytes | None = None

    @property
    def place(self) -> Path:
        """Where it is, below the mirror's directory."""
        return Path(FILES, self.sha256[:2], self.sha256[2:], self.file)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A file that a mirror has, as its page tells of it."""

    project: str
    file: str
    sha256: str
    size: int
    version: str
    requires_python: str
    metadata: str
    """The sha256 of its metadata; empty for an sdist, whose metadata its build may change."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one to write a mirror; its directory is made where there is none.

    Raises UsageError where it is some other directory, LongrunError where it cannot be written.
    """
    if directory.is_dir():
        found = {path.name for path in directory.iterdir()}
        if found and not found & {FILES, PAGES, ".lock"}:
            raise UsageError(
                f"{directory}: expected a mirror or an empty directory, found other files",
                remedy="name a directory of the mirror's own",
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _sweep(directory)
            yield
    except OSError as error:
        raise LongrunError(
            f"{error.filename or directory}: {error.strerror}",
            remedy="Make room, or the directory writable; the same command goes on from here.",
        ) from error


def _sweep(directory: Path) -> None:
    """Remove what a killed run left unfinished."""
    for pattern in (f"{FILES}/*/*/.*", f"{PAGES}/.index*", f"{PAGES}/*/.index*"):
        for path in directory.glob(pattern):
            path.unlink()


def has(directory: Path, item: Item) -> bool:
    """Whether a mirror has a file, and it is whole."""
    path = directory / item.place
    try:
        return path.stat().st_size == item.size and sha256_file(path) == item.sha256
    except OSError:
        return False


def missing(directory: Path, items: Iterable[Item]) -> list[Item]:
    """The files that a mirror lacks, or has damaged; all are hashed."""
    items = list(items)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        there = pool.map(lambda item: has(directory, item), items)
    return [item for item, found in zip(items, there, strict=True) if not found]


def put(directory: Path, item: Item, source: Path | None) -> None:
    """Put a file into a mirror: a further name of ``source`` where that can be, else a copy.

    Raises StoreError where the source has other bytes.
    """
    target = directory / item.place
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{item.file}")
    staged.unlink(missing_ok=True)
    try:
        if source is None:
            staged.write_bytes(item.content or b"")
        else:
            _link_or_copy(source, staged)
        if sha256_file(staged) != item.sha256:
            raise StoreError(
                f"{source or item.file}: its sha256 is not {item.sha256}",
                remedy="./build.py verify --repair removes damaged entries",
            )
        target.unlink(missing_ok=True)  # rename does nothing where both are names of one file
        staged.rename(target)
    finally:
        staged.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        target.chmod(0o444)


def write_metadata(directory: Path, item: Item) -> None:
    """Put a file's core metadata beside it. Raises StoreError where it has none."""
    path = directory / item.place
    try:
        with path.open("rb") as content:
            text = read_metadata(content, item.file)
    except BadArchive as error:
        raise StoreError(f"{path}: {error}", remedy="lock another file") from None
    beside = path.with_name(path.name + METADATA)
    if not beside.is_file() or beside.read_bytes() != text:
        write_atomic(beside, text)


def write_pages(directory: Path, made: Iterable[Item] = ()) -> int:
    """Write all pages from the files that are there; how many projects there are.

    Of a file that is ``made``, one of the same name from an earlier run is removed.
    """
    current = {item.file: item.sha256 for item in made}
    rows = list(_rows(directory))
    outdated = [row for row in rows if current.get(row.file, row.sha256) != row.sha256]
    projects: dict[str, list[Row]] = {}
    for row in rows:
        if row not in outdated:
            projects.setdefault(row.project, []).append(row)
    pages = directory / PAGES
    for project, files in sorted(projects.items()):
        files.sort(key=lambda row: (row.file, row.sha256))
        _write(pages / project, _project_html(project, files), _project_json(project, files))
    _write(pages, _root_html(sorted(projects)), _root_json(sorted(projects)))
    _remove_pages(pages, set(projects))
    for row in outdated:
        shutil.rmtree(directory / FILES / row.sha256[:2] / row.sha256[2:])
    return len(projects)


def _rows(directory: Path) -> Iterator[Row]:
    for beside in sorted(directory.glob(f"{FILES}/??/*/*{METADATA}")):
        path = beside.with_name(beside.name.removesuffix(METADATA))
        if path.name.startswith(".") or not path.is_file():
            continue
        content = beside.read_bytes()
        fields = _fields(content.decode("utf-8", "replace"))
        yield Row(
            project=normalised(fields["name"]),
            file=path.name,
            sha256=path.parent.parent.name + path.parent.name,
            size=path.stat().st_size,
            version=fields["version"],
            requires_python=fields.get("requires-python", ""),
            metadata=hashlib.sha256(content).hexdigest() if path.suffix == ".whl" else "",
        )


def _fields(metadata: str) -> dict[str, str]:
    """The fields of core metadata that are in one line, by name in lower case."""
    found: dict[str, str] = {"name": "", "version": ""}
    for line in metadata.splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            found[name.lower()] = value.strip()
    return found


def _address(row: Row) -> str:
    return f"../../{FILES}/{row.sha256[:2]}/{row.sha256[2:]}/{quote(row.file)}"


def _project_html(project: str, rows: Iterable[Row]) -> str:
    lines = []
    for row in rows:
        attributes = {"href": f"{_address(row)}#sha256={row.sha256}"}
        if row.requires_python:
            attributes["data-requires-python"] = row.requires_python
        if row.metadata:
            for name in ("data-core-metadata", "data-dist-info-metadata"):
                attributes[name] = f"sha256={row.metadata}"
        text = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
        lines.append(f"<a {text}>{html.escape(row.file)}</a><br>")
    return _html(f"Links for {project}", lines)


def _project_json(project: str, rows: Iterable[Row]) -> dict[str, Any]:
    rows = list(rows)
    return {
        "meta": {"api-version": API},
        "name": project,
        "versions": sorted({row.version for row in rows}),
        "files": [_file_json(row) for row in rows],
    }


def _file_json(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "filename": row.file,
        "url": _address(row),
        "hashes": {"sha256": row.sha256},
        "size": row.size,
        "yanked": False,
    }
    if row.requires_python:
        found["requires-python"] = row.requires_python
    if row.metadata:
        for name in ("core-metadata", "dist-info-metadata"):
            found[name] = {"sha256": row.metadata}
    return found


def _root_html(projects: Iterable[str]) -> str:
    return _html("Simple index", [f'<a href="{name}/">{name}</a><br>' for name in projects])


def _root_json(projects: Iterable[str]) -> dict[str, Any]:
    return {"meta": {"api-version": API}, "projects": [{"name": name} for name in projects]}


def _html(title: str, lines: Iterable[str]) -> str:
    head = (
        f'<meta charset="utf-8">\n<meta name="pypi:repository-version" content="{API}">\n'
        f"<title>{title}</title>"
    )
    body = "\n".join((f"<h1>{title}</h1>", *lines))
    return f"<!DOCTYPE html>\n<html>\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n"


def _write(directory: Path, page: str, document: dict[str, Any]) -> None:
    """Write a page in both its forms; one that says the same already keeps its time."""
    text = json.dumps(document, indent=1) + "\n"
    for path, content in ((directory / "index.html", page), (directory / "index.json", text)):
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != content:
            write_atomic(path, content)


def _remove_pages(pages: Path, projects: set[str]) -> None:
    """Remove the pages of projects whose files somebody took away."""
    for path in pages.iterdir():
        if path.is_dir() and path.name not in projects:
            for name in ("index.html", "index.json"):
                (path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.rmdir()
