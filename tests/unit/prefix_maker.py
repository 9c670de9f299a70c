"""Makes a small prefix that passes the audit, for tests to break in one place."""

from __future__ import annotations

import _imp
import io
import json
import os
import struct
import zipfile
from pathlib import Path

from elf_maker import make_elf

MAGIC = 3571
RAW_MAGIC = int.from_bytes(struct.pack("<H2s", MAGIC, b"\r\n"), "little")
LIBRARY = "lib/python3.13"
SUFFIX = "cpython-313-x86_64-linux-gnu.so"
SSL = f"{LIBRARY}/lib-dynload/_ssl.{SUFFIX}"
JSON = f"{LIBRARY}/lib-dynload/_json.{SUFFIX}"
NATIVE = f"{LIBRARY}/site-packages/demo/_native.abi3.so"
BUNDLED = f"{LIBRARY}/site-packages/demo.libs/libbundled-12ab.so.1"
PROGRAM = "bin/python3.13"
HOOK = f"{LIBRARY}/_longrun_usage.py"
HOOK_TEXT = 'RELEASE = ""\nLAYER = ""\n\n\ndef start():\n    pass\n'
LOADER = "/lib64/ld-linux-x86-64.so.2"
GLIBC = {"libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.28")}
API = {"names": {"os": ["close", "fork"], "time": ["sleep"]}, "have": ["HAVE_FORK"]}
POLYGLOT = '#!/bin/sh\n"exec" "$(dirname "$(realpath "$0")")/python3.13" "$0" "$@"\n'


class MadePrefix:
    """A prefix below ``root``; its methods change one thing and leave the modes as they were."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def write(self, path: str, data: bytes | str, mode: int = 0o444) -> None:
        """Write a file, with its directories."""
        self._open(path)
        target = self.root / path
        target.unlink(missing_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        target.chmod(mode)
        self.close()

    def source(self, path: str, text: str) -> None:
        """Write a Python source and its unchecked-hash bytecode."""
        self.write(path, text)
        self.bytecode(path, text)

    def bytecode(
        self, path: str, text: str, *, flags: int = 1, magic: int = MAGIC, body: bytes = b"N"
    ) -> None:
        """Write the bytecode of a source."""
        directory, _, name = path.rpartition("/")
        digest = _imp.source_hash(RAW_MAGIC, text.encode())
        header = struct.pack("<H2sI8s", magic, b"\r\n", flags, digest)
        cached = f"{directory}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc"
        self.write(cached, header + body)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        self._open(path)
        (self.root / path).symlink_to(target)
        self.close()

    def remove(self, path: str) -> None:
        """Remove a file or link."""
        self._open(path)
        (self.root / path).unlink()
        self.close()

    def chmod(self, path: str, mode: int) -> None:
        """Change a mode."""
        (self.root / path).chmod(mode)

    def _open(self, path: str) -> None:
        self.open()
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)

    def open(self) -> None:
        """Let everything be changed."""
        for directory, _, _ in os.walk(self.root):
            os.chmod(directory, 0o755)

    def close(self) -> None:
        """Take the write bits of all directories."""
        for directory, _, _ in os.walk(self.root, topdown=False):
            os.chmod(directory, 0o555)


def shared(**options: object) -> bytes:
    """A shared object as the release's toolchain would make it."""
    # all of them call the hook, so that tests which replace the program need not think of it
    made = {"needed": ("libc.so.6",), "versions": GLIBC, "extra": b"_longrun_usage", **options}
    return make_elf(**made)  # type: ignore[arg-type]


def wheel(members: dict[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_prefix(root: Path) -> MadePrefix:
    """A prefix with one of everything that the checks look at."""
    prefix = MadePrefix(root)
    prefix.write(PROGRAM, shared(type_=2, interpreter=LOADER, exports=("Py_BytesMain",)), 0o555)
    prefix.link("bin/python3", "python3.13")
    prefix.write("bin/idle3", POLYGLOT, 0o555)
    prefix.source(f"{LIBRARY}/os.py", "#!/usr/local/bin/python\nname = 'posix'\n")
    prefix.source(
        f"{LIBRARY}/importlib/_bootstrap_external.py",
        f"x = 1\nMAGIC_NUMBER = ({MAGIC}).to_bytes(2, 'little') + b'\\r\\n'\n",
    )
    prefix.source(HOOK, HOOK_TEXT.replace('RELEASE = ""', 'RELEASE = "2026.1"'))
    prefix.write(f"{LIBRARY}/EXTERNALLY-MANAGED", "[externally-managed]\nError=Use a venv.\n")
    prefix.write(SSL, shared(exports=("PyInit__ssl",)), 0o555)
    prefix.write(JSON, shared(exports=("PyInit__json",)), 0o555)
    prefix.write(f"{LIBRARY}/ensurepip/_bundled/pip-25-any.whl", wheel({"pip/a.py": b"pass"}))
    prefix.source(f"{LIBRARY}/site-packages/demo/__init__.py", "from demo import _native\n")
    needed = ("libc.so.6", "libstdc++.so.6", "libbundled-12ab.so.1")
    prefix.write(
        NATIVE,
        shared(needed=needed, runpath="$ORIGIN/../demo.libs", exports=("PyInit__native",)),
    )
    prefix.write(BUNDLED, shared(soname="libbundled-12ab.so.1", exports=("sqlite3_open",)))
    prefix.write("share/longrun/api.json", json.dumps(API))
    prefix.write("share/empty", "")
    return prefix
