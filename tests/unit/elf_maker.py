"""Makes small ELF files from nothing, so that unit tests need no compiler.

The files have a header, program headers and the dynamic linker's tables, and no section headers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

ADDRESS = 0x10000  # where byte 0 is mapped: not 0, so a reader that mixes the two up is caught
PF_X = 1


def make_elf(
    *,
    machine: int = 62,
    type_: int = 3,
    interpreter: str = "",
    needed: tuple[str, ...] = (),
    soname: str = "",
    rpath: str | None = None,
    runpath: str | None = None,
    versions: Mapping[str, tuple[str, ...]] | None = None,
    exports: tuple[str, ...] = (),
    hidden: tuple[str, ...] = (),
    imports: tuple[str, ...] = (),
    stack: int | None = 6,
    relro: bool = True,
    bind_now: bool = True,
    textrel: bool = False,
    hash_: str = "gnu",
    extra: bytes = b"",
) -> bytes:
    """An ELF64 little-endian shared object; ``extra`` is appended as it is."""
    strings = _Strings()
    symbols = bytes(24)
    for name, other, section in [
        *((name, 0, 0) for name in imports),
        *((name, 2, 1) for name in hidden),
        *((name, 0, 1) for name in exports),
    ]:
        symbols += struct.pack("<IBBHQQ", strings.add(name), 0x12, other, section, ADDRESS, 8)
    verneed = _verneed(strings, versions or {})
    entries = [(1, strings.add(name)) for name in needed]
    entries += [(tag, strings.add(value)) for tag, value in ((14, soname),) if value]
    entries += [(t, strings.add(v)) for t, v in ((15, rpath), (29, runpath)) if v is not None]
    entries += [(30, 8)] if bind_now else []
    entries += [(22, 0)] if textrel else []
    first = 1 + len(imports) + len(hidden)
    parts = [
        (5, bytes(strings.data)),
        (6, symbols),
        *{
            "gnu": [(0x6FFFFEF5, _gnu_hash(first, len(exports)))],
            "sysv": [(4, struct.pack("<III", 1, len(symbols) // 24, 0) + bytes(len(symbols)))],
            "": [],
        }[hash_],
        *([(0x6FFFFFFE, verneed)] if verneed else []),
    ]
    entries += [(10, len(strings.data))]
    entries += [(0x6FFFFFFF, len(versions or {}))] if verneed else []
    return _assemble(machine, type_, interpreter, parts, entries, stack, relro) + extra


class _Strings:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        value = text.encode() + b"\0"
        found = self.data.find(value)  # shared tails, as linkers make them
        if found >= 0:
            return found
        self.data += value
        return len(self.data) - len(value)


def _gnu_hash(first: int, count: int) -> bytes:
    chain = [2] * (count - 1) + [3] if count else []
    bucket = first if count else 0
    return struct.pack(f"<IIIIQI{count}I", 1, first, 1, 0, 0, bucket, *chain)


def _verneed(strings: _Strings, versions: Mapping[str, tuple[str, ...]]) -> bytes:
    result = b""
    for position, (library, names) in enumerate(versions.items()):
        last = position == len(versions) - 1
        size = 16 + 16 * len(names)
        result += struct.pack(
            "<HHIII", 1, len(names), strings.add(library), 16, 0 if last else size
        )
        for number, name in enumerate(names):
            step = 0 if number == len(names) - 1 else 16
            result += struct.pack("<IHHII", 0, 0, number + 2, strings.add(name), step)
    return result


def _assemble(
    machine: int,
    type_: int,
    interpreter: str,
    parts: list[tuple[int, bytes]],
    entries: list[tuple[int, int]],
    stack: int | None,
    relro: bool,
) -> bytes:
    count = 2 + bool(interpreter) + (stack is not None) + relro
    body = bytearray(64 + 56 * count)

    def place(data: bytes) -> int:
        body.extend(bytes(-len(body) % 8))
        body.extend(data)
        return len(body) - len(data)

    path = place(interpreter.encode() + b"\0")
    entries = [(tag, ADDRESS + place(data)) for tag, data in parts] + entries + [(0, 0), (0, 0)]
    dynamic = place(b"".join(struct.pack("<QQ", *entry) for entry in entries))
    size = len(entries) * 16
    headers = [
        (1, 5, 0, ADDRESS, len(body)),
        (2, 6, dynamic, ADDRESS + dynamic, size),
        *([(3, 4, path, ADDRESS + path, len(interpreter) + 1)] if interpreter else []),
        *([(0x6474E551, stack, 0, 0, 0)] if stack is not None else []),
        *([(0x6474E552, 4, dynamic, ADDRESS + dynamic, size)] if relro else []),
    ]
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    body[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, type_, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0
    )
    for position, (kind, flags, offset, address, length) in enumerate(headers):
        start = 64 + 56 * position
        body[start : start + 56] = struct.pack(
            "<IIQQQQQQ", kind, flags, offset, address, address, length, length, 8
        )
    return bytes(body)
