"""Makes small wheels, true ones and false ones."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"


def make_wheel(
    directory: Path,
    name: str = "demo",
    version: str = "1.0",
    *,
    files: Mapping[str, str | bytes] | None = None,
    metadata: str = "",
    entry_points: str = "",
    tag: str = "py3-none-any",
    executable: tuple[str, ...] = (),
    record: Mapping[str, str] | None = None,
) -> Path:
    """A wheel with the given files; ``record`` replaces the hashes that RECORD lists."""
    info = f"{name}-{version}.dist-info"
    given = files if files is not None else {f"{name}/__init__.py": "value = 1\n"}
    content = {
        path: text.encode() if isinstance(text, str) else text for path, text in given.items()
    }
    content[f"{info}/METADATA"] = (METADATA.format(name=name, version=version) + metadata).encode()
    content[f"{info}/WHEEL"] = WHEEL.format(tag=tag).encode()
    if entry_points:
        content[f"{info}/entry_points.txt"] = entry_points.encode()
    rows = [f"{path},{_hash(text)},{len(text)}" for path, text in content.items()]
    for path, checksum in (record or {}).items():
        rows = [f"{path},{checksum}," if row.startswith(f"{path},") else row for row in rows]
    content[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in content.items():
            member = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            member.external_attr = (0o100755 if path in executable else 0o100644) << 16
            archive.writestr(member, text)
    return file


def _hash(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
