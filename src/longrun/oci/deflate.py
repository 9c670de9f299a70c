"""Writes one layer: a tar and its gzip, both the same bytes wherever it is made.

A program of its own, run by a built interpreter of which zlib and tarfile are pinned, with the
standard library alone:

    python3.13 -I -S deflate.py ORDER RESULT

ORDER is JSON, as ``layer`` writes it: ``out``, ``level`` and either ``tar``, a tar to compress as
it is, or ``epoch`` and ``members``. RESULT gets ``digest``, ``diff_id`` and ``size`` as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import tarfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, cast

BLOCK = 1 << 20
"""Bytes that are compressed at a time, each with the end of those before as its dictionary."""
WINDOW = 1 << 15
"""Bytes that deflate looks back."""
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""gzip: deflate, no name, no time, no system (RFC 1952)."""
TYPES = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE}


def main(order_file: str, result_file: str) -> None:
    """Write what is ordered, then what came of it."""
    with open(order_file, encoding="utf-8") as file:
        order = json.load(file)
    with open(order["out"], "wb") as out:
        gzip = Gzip(out, order["level"])
        if "tar" in order:
            with open(order["tar"], "rb") as tar:
                shutil.copyfileobj(tar, gzip, BLOCK)
        else:
            write_tar(gzip, order["members"], order["epoch"])
        result = gzip.end()
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump(result, file)


class Gzip:
    """A file to write to; what is written comes out as one gzip member.

    Blocks are compressed on all processors and put one after the other. Where they begin does not
    depend on how many processors there are, so neither do the bytes.
    """

    def __init__(self, out: io.BufferedWriter, level: int) -> None:
        self._out, self._level = out, level
        self._buffer, self._window = bytearray(), b""
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._crc = self._length = self._size = 0
        self._processors = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._processors)
        self._queue: deque[Future[bytes]] = deque()
        self._emit(HEADER)

    def write(self, content: bytes) -> int:
        """Take in more of the plain bytes."""
        self._buffer += content
        while len(self._buffer) > BLOCK:  # what is left at the end is never nothing
            self._submit(bytes(self._buffer[:BLOCK]), last=False)
            del self._buffer[:BLOCK]
        return len(content)

    def end(self) -> dict[str, str | int]:
        """Write what is left; the digests, and the size of what came out."""
        self._submit(bytes(self._buffer), last=True)
        while self._queue:
            self._emit(self._queue.popleft().result())
        self._pool.shutdown()
        self._emit(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))
        return {
            "digest": f"sha256:{self._packed.hexdigest()}",
            "diff_id": f"sha256:{self._plain.hexdigest()}",
            "size": self._size,
        }

    def _submit(self, block: bytes, *, last: bool) -> None:
        self._queue.append(self._pool.submit(deflate, block, self._window, self._level, last))
        self._plain.update(block)
        self._crc = zlib.crc32(block, self._crc)
        self._length += len(block)
        self._window = block[-WINDOW:]
        while len(self._queue) > 2 * self._processors:
            self._emit(self._queue.popleft().result())

    def _emit(self, content: bytes) -> None:
        self._out.write(content)
        self._packed.update(content)
        self._size += len(content)


def deflate(block: bytes, window: bytes, level: int, last: bool) -> bytes:
    """One block of a deflate stream, ended at a byte so that the next one can follow."""
    compressor = zlib.compressobj(
        level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, window
    )
    return compressor.compress(block) + compressor.flush(
        zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH
    )


def write_tar(out: Gzip, members: list[dict[str, object]], epoch: int) -> None:
    """Write members in the order given; pax headers only where the plain ones are too small."""
    file = cast("IO[bytes]", out)
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for member in members:
            add(tar, member, epoch)


def add(tar: tarfile.TarFile, member: dict[str, object], epoch: int) -> None:
    """Write one member."""
    info = tarfile.TarInfo(str(member["path"]))
    info.type, info.mtime = TYPES[str(member["kind"])], epoch
    info.mode = int(str(member["mode"]))
    info.uid = info.gid = int(str(member["owner"]))
    info.uname = info.gname = "" if info.uid else "root"
    if member["kind"] == "link":
        info.linkname = str(member["target"])
    if member["kind"] != "file":
        tar.addfile(info)
    elif "content" in member:
        content = base64.b64decode(str(member["content"]))
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    else:
        with open(str(member["source"]), "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
