"""What is written beside artefacts: the files of a tree, and where an archive comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from longrun.fs import FILE, LINK, Record
from longrun.model import Archive

SCHEMA = 1
NAME = "MANIFEST.json"
"""The manifest's name at the top of an archive, where it is the first entry."""


def files_to_json(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The records of a tree as plain data, sorted by path."""
    return [_to_json(record) for record in sorted(records, key=lambda record: record.path)]


def _to_json(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"path": record.path, "type": record.type, "mode": f"{record.mode:04o}"}
    if record.type == FILE:
        row |= {"size": record.size, "sha256": record.value}
    if record.type == LINK:
        row["target"] = record.value
    return row


def files_from_json(rows: Iterable[dict[str, Any]]) -> tuple[Record, ...]:
    """The inverse of ``files_to_json``."""
    return tuple(
        Record(
            row["path"],
            row["type"],
            int(row["mode"], 8),
            row.get("size", 0),
            row.get("sha256", row.get("target", "")),
        )
        for row in rows
    )


def archive_manifest(
    archive: Archive, *, platform: str, digest: str, records: Iterable[Record]
) -> bytes:
    """The manifest of an archive: provenance first, then every file."""
    document = {
        "schema": SCHEMA,
        "release": archive.release,
        "interpreter": archive.interpreter,
        "tag": archive.tag,
        "platform": platform,
        "digest": digest,
        "provenance": [dataclasses.asdict(item) for item in archive.provenance],
        "files": files_to_json(records),
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
