"""``longrun-usage`` as one file: what a console without Longrun's sources is given.

A zip with an interpreter's line before it. The same sources give the same bytes: members are
sorted, stamped with one time and not compressed, since compressors differ.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/bin/env python3\n"
SHARED = ("__init__.py", "errors.py", "fs.py", "term.py")
"""What telemetry has of the rest of Longrun; a test holds that this is enough."""

MAIN = """\
# what an old Python can still read: it is to say what is wrong
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "longrun-usage: Python 3.11 or later is needed, this is %s (%s)\\n"
        "  remedy: run it with an interpreter of Longrun's: .../bin/python3.13 %s"
        % (sys.version.split()[0], sys.executable, sys.argv[0])
    )

from longrun.usage.cli import main

sys.exit(main())
"""


def program(package: Path) -> bytes:
    """The program's file, from the directory of the package ``longrun``."""
    output = io.BytesIO(SHEBANG)
    output.seek(0, io.SEEK_END)
    with zipfile.ZipFile(output, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_members(package).items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, content)
    return output.getvalue()


def _members(package: Path) -> dict[str, bytes]:
    files = [package / name for name in SHARED]
    files += [file for file in (package / "usage").rglob("*") if _belongs(file)]
    members = {f"longrun/{file.relative_to(package)}": file.read_bytes() for file in files}
    return members | {"__main__.py": MAIN.encode()}


def _belongs(file: Path) -> bool:
    hidden = any(part.startswith((".", "__pycache__")) for part in file.parts[-3:])
    return file.is_file() and not hidden and file.suffix != ".pyc"
