"""Layers: from files, or from a tar that is there already, to a compressed tar and its digests.

The bytes are written by ``deflate``, a program that a built interpreter runs: its zlib and its
tarfile are pinned, those of the machine are not.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from longrun import fs
from longrun.errors import BuildError
from longrun.oci.model import LAYER, LayerBlob

LEVEL = 6
"""zlib's own choice; 9 takes several times as long for a hundredth less."""

PROGRAM = Path(__file__).with_name("deflate.py")

Compressor = Callable[[list[str]], None]
"""Runs the pinned interpreter, without the machine's site, with these arguments, and waits:

    lambda arguments: job.run([str(python), "-I", "-S", *arguments])
"""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One path of an image: ``kind`` is DIRECTORY, FILE or LINK of ``fs``; ``path`` has no first /.

    A file's content is ``content``, or what is in the file ``source``; ``target`` is a link's.
    ``owner`` is the number of user and group.
    """

    path: str
    kind: str = fs.FILE
    mode: int = 0o644
    source: Path | None = None
    content: bytes = b""
    target: str = ""
    owner: int = 0


def tree_members(tree: Path, records: Iterable[fs.Record], top: str) -> tuple[Member, ...]:
    """The members that put a tree of the store into the directory ``top`` of an image, as it is."""
    return tuple(
        Member(
            path=f"{top}/{record.path}",
            kind=record.type,
            mode=record.mode,
            source=tree / record.path if record.type == fs.FILE else None,
            target=record.value if record.type == fs.LINK else "",
        )
        for record in records
    )


def write_layer(
    members: Iterable[Member],
    out: Path,
    *,
    title: str,
    epoch: int,
    compress: Compressor,
    level: int = LEVEL,
) -> LayerBlob:
    """Write the file ``out``: a gzipped tar of which the same members give the same bytes.

    Members are sorted; all are stamped with ``epoch``, seconds since 1970. Directories above a
    member that is not there itself get mode 0755. Each source is read once. BuildError for two
    members at one path, for one below something that is no directory, or for a path that leaves.
    """
    order = {"epoch": epoch, "members": [_order(member) for member in arrange(members)]}
    return _write(order, out, title=title, compress=compress, level=level)


def compress_layer(
    tar: Path, out: Path, *, title: str, compress: Compressor, level: int = LEVEL
) -> LayerBlob:
    """Write the file ``out``: a tar that is there already, such as a base's root, as a layer."""
    return _write({"tar": str(tar)}, out, title=title, compress=compress, level=level)


def _write(
    order: Mapping[str, Any], out: Path, *, title: str, compress: Compressor, level: int
) -> LayerBlob:
    asked, told = out.with_name(f"{out.name}.order"), out.with_name(f"{out.name}.result")
    try:
        asked.write_text(json.dumps({**order, "out": str(out), "level": level}))
        compress([str(PROGRAM), str(asked), str(told)])
        result = json.loads(told.read_text())
    finally:
        asked.unlink(missing_ok=True)
        told.unlink(missing_ok=True)
    return LayerBlob(
        media_type=LAYER,
        digest=result["digest"],
        size=result["size"],
        path=out,
        diff_id=result["diff_id"],
        title=title,
    )


def arrange(members: Iterable[Member]) -> list[Member]:
    """Members sorted, with the directories above them; each directory before what is in it."""
    found: dict[str, Member] = {}
    for member in members:
        path = _checked(member)
        if path in found:
            raise BuildError(f"a layer has two members at {path}")
        found[path] = member
    for path in list(found):
        for parent in PurePosixPath(path).parents[:-1]:
            above = found.setdefault(
                str(parent), Member(path=str(parent), kind=fs.DIRECTORY, mode=0o755)
            )
            if above.kind != fs.DIRECTORY:
                raise BuildError(f"a layer has {path} below {parent}, which is a {above.kind}")
    # by parts: "a/b" comes right after "a", whatever "a-c" is
    return [found[path] for path in sorted(found, key=lambda path: path.split("/"))]


def _checked(member: Member) -> str:
    parts = member.path.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in member.path:
        raise BuildError(f"a layer cannot have a member at {member.path!r}")
    return member.path


def _order(member: Member) -> dict[str, object]:
    order: dict[str, object] = {
        "path": member.path,
        "kind": member.kind,
        "mode": member.mode,
        "owner": member.owner,
    }
    if member.kind == fs.LINK:
        order["target"] = member.target
    elif member.kind == fs.FILE and member.source is not None:
        order["source"] = os.fspath(member.source)
    elif member.kind == fs.FILE:
        order["content"] = base64.b64encode(member.content).decode()
    return order
