"""Reads ELF64 little-endian files from their bytes, and edits them in place; executes none.

Everything is found through the program headers and the dynamic segment, which are what the kernel
and the dynamic linker use; section headers may be stripped or lie. Sources: the System V gABI,
chapters "Object Files" and "Program Loading and Dynamic Linking"; the Linux Standard Base for
symbol versions (``.gnu.version_r``) and ``PT_GNU_STACK``; glibc's ``elf/elf.h``.

Files may be truncated or hostile: each offset is checked, each chain only goes forward, and what
does not fit is an ``ElfError`` that names the file.
"""

from __future__ import annotations

import mmap
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from longrun import fs
from longrun.errors import AuditError

MAGIC = b"\x7fELF"
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
MACHINES = {62: "x86_64", 183: "aarch64"}
"""``e_machine`` to the processor's name in platform tags."""

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_PT_GNU_STACK, _PT_GNU_RELRO = 0x6474E551, 0x6474E552
_PF_X = 1
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 0, 1, 4, 5, 6, 10
_DT_SONAME, _DT_RPATH, _DT_TEXTREL, _DT_BIND_NOW, _DT_RUNPATH, _DT_FLAGS = 14, 15, 22, 24, 29, 30
_DT_GNU_HASH, _DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFFB
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = (0x6FFFFFFC + i for i in range(4))
_DF_TEXTREL, _DF_BIND_NOW, _DF_1_NOW = 4, 8, 1
_EXPORTED_BINDINGS = (1, 2, 10)  # STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE
_EXPORTED_VISIBILITIES = (0, 3)  # STV_DEFAULT, STV_PROTECTED
_SECTION_AND_FILE = (3, 4)
_SYMBOL_TYPES = {0: "notype", 1: "object", 2: "func", 6: "tls", 10: "ifunc"}
# Bounds that no real file comes near, so that a hostile one costs neither time nor memory.
_MOST_ENTRIES = 10_000  # of the dynamic array, and symbol versions; libstdc++ defines about 60
_LONGEST_NAME = 1 << 16

_HEADER = struct.Struct("<16sHHIQQQIHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<QQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_EXPORT = struct.Struct("<IBBH16x")  # the same without address and size
_VERNEED = struct.Struct("<HHIII")
_VERNAUX = struct.Struct("<IHHII")
_VERDEF = struct.Struct("<HHHHIII")
_VERDAUX = struct.Struct("<II")

Buffer = bytes | bytearray | mmap.mmap


class ElfError(AuditError):
    """Not an ELF64 little-endian file, or one whose parts do not fit together."""


class OtherElfError(ElfError):
    """An ELF file, but for machines of another word size or byte order."""


class Symbol(NamedTuple):
    """A symbol that other objects can bind to; ``type`` is ``func``, ``object``, ``tls`` ..."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Elf:
    """What one ELF file asks of, and offers to, the dynamic linker.

    ``runpath`` and ``rpath`` are the colon-separated strings as they stand, "" where absent;
    ``versions`` maps a needed library to the symbol versions wanted of it (``GLIBC_2.28``).
    ``stack_flags`` is None where there is no ``PT_GNU_STACK``, which glibc takes for executable.
    """

    machine: int
    type: int
    interpreter: str = ""
    soname: str = ""
    rpath: str = ""
    runpath: str = ""
    needed: tuple[str, ...] = ()
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exports: tuple[Symbol, ...] = ()
    dynamic: bool = False
    bind_now: bool = False
    relro: bool = False
    textrel: bool = False
    stack_flags: int | None = None

    @property
    def executable_stack(self) -> bool:
        """Whether loading this file makes the process's stacks executable."""
        return self.stack_flags is None or bool(self.stack_flags & _PF_X)


class _Segment(NamedTuple):
    type: int
    flags: int
    offset: int
    address: int
    physical: int
    size: int
    memory: int
    align: int


@dataclass(frozen=True, kw_only=True)
class _Image:
    """A file's bytes with its program headers, and every read checked."""

    data: Buffer
    name: str
    machine: int
    type: int
    headers: int
    segments: tuple[_Segment, ...]

    def fail(self, what: str) -> ElfError:
        return ElfError(f"{self.name}: damaged ELF file: {what}")

    def take(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise self.fail(f"{what} at {offset} ({size} bytes) is outside the file")
        return bytes(self.data[offset : offset + size])

    def offset(self, address: int, what: str) -> int:
        for segment in self.segments:
            inside = segment.type == _PT_LOAD and 0 <= address - segment.address < segment.size
            if inside:
                return address - segment.address + segment.offset
        raise self.fail(f"{what} at address {address:#x} is in no loaded segment")

    def find(self, type_: int) -> _Segment | None:
        return next((segment for segment in self.segments if segment.type == type_), None)


def read(path: Path) -> Elf:
    """Read one file; ElfError where it is no ELF64 little-endian file or is damaged."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # mmap refuses an empty file
            raise ElfError(f"{path}: not an ELF file: it is empty") from error
        with data:
            return parse(data, str(path))


def parse(data: Buffer, name: str, *, exporting: bytes = b"") -> Elf:
    """Read an ELF file from its bytes; ``name`` is for error messages.

    ``exports`` are left empty where no symbol's name holds ``exporting``: a big C++ library has
    ten thousands of them, which is most of the work.
    """
    image = _image(data, name)
    stack = image.find(_PT_GNU_STACK)
    interpreter = image.find(_PT_INTERP)
    path = image.take(interpreter.offset, interpreter.size, "PT_INTERP") if interpreter else b""
    common = Elf(
        machine=image.machine,
        type=image.type,
        interpreter=_text(path.rstrip(b"\0")),
        relro=image.find(_PT_GNU_RELRO) is not None,
        stack_flags=stack.flags if stack else None,
    )
    entries = _dynamic(image)
    return _with_dynamic(common, image, entries, exporting) if entries else common


def _image(data: Buffer, name: str) -> _Image:
    if bytes(data[:4]) != MAGIC:
        raise ElfError(f"{name}: not an ELF file")
    if len(data) < 64:
        raise ElfError(f"{name}: damaged ELF file: it ends inside the header")
    ident, type_, machine, _, _, offset, _, _, _, size, count = _HEADER.unpack(
        bytes(data[: _HEADER.size])
    )
    if ident[4:6] != b"\x02\x01":
        raise OtherElfError(f"{name}: not a 64-bit little-endian ELF file")
    if count and size != _SEGMENT.size:
        raise ElfError(f"{name}: damaged ELF file: program headers of {size} bytes")
    table = data[offset : offset + count * _SEGMENT.size]
    if len(table) != count * _SEGMENT.size:
        raise ElfError(f"{name}: damaged ELF file: program headers are outside the file")
    segments = tuple(_Segment(*values) for values in _SEGMENT.iter_unpack(bytes(table)))
    return _Image(
        data=data, name=name, machine=machine, type=type_, headers=offset, segments=segments
    )


def _dynamic(image: _Image) -> list[tuple[int, int]]:
    """Entries of the dynamic array, without the terminating DT_NULL."""
    segment = image.find(_PT_DYNAMIC)
    if segment is None:
        return []
    size = segment.size - segment.size % _DYNAMIC.size
    entries = []
    for tag, value in _DYNAMIC.iter_unpack(image.take(segment.offset, size, "PT_DYNAMIC")):
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
        if len(entries) > _MOST_ENTRIES:
            raise image.fail(f"more than {_MOST_ENTRIES} dynamic entries")
    return entries


def _with_dynamic(
    common: Elf, image: _Image, entries: list[tuple[int, int]], exporting: bytes
) -> Elf:
    tags = dict(entries)
    strings = _strings(image, tags)
    flags, flags_1 = tags.get(_DT_FLAGS, 0), tags.get(_DT_FLAGS_1, 0)

    def string(tag: int) -> str:
        return _string(image, strings, tags[tag]) if tag in tags else ""

    return Elf(
        machine=common.machine,
        type=common.type,
        interpreter=common.interpreter,
        relro=common.relro,
        stack_flags=common.stack_flags,
        dynamic=True,
        needed=tuple(_string(image, strings, v) for tag, v in entries if tag == _DT_NEEDED),
        soname=string(_DT_SONAME),
        rpath=string(_DT_RPATH),
        runpath=string(_DT_RUNPATH),
        bind_now=_DT_BIND_NOW in tags or bool(flags & _DF_BIND_NOW or flags_1 & _DF_1_NOW),
        textrel=_DT_TEXTREL in tags or bool(flags & _DF_TEXTREL),
        versions=_version_needs(image, tags, strings),
        exports=tuple(_exports(image, tags, strings, exporting)),
    )


def _strings(image: _Image, tags: dict[int, int]) -> bytes:
    if _DT_STRTAB not in tags:
        return b""
    return image.take(
        image.offset(tags[_DT_STRTAB], "DT_STRTAB"), tags.get(_DT_STRSZ, 0), "string table"
    )


def _string(image: _Image, strings: bytes, index: int) -> str:
    end = strings.find(b"\0", index, index + _LONGEST_NAME)
    if end < 0:
        raise image.fail(f"string {index} is outside the string table or does not end")
    return _text(strings[index:end])


def _text(value: bytes) -> str:
    # names are bytes; this keeps them printable, and JSON writable, whatever a file holds
    return value.decode("utf-8", "backslashreplace")


def _version_entries(image: _Image, tags: dict[int, int]) -> Iterator[tuple[int, list[int]]]:
    """Per needed library: the string index of its file name, and those of the versions."""
    count = tags.get(_DT_VERNEEDNUM, 0)
    if _DT_VERNEED not in tags or not count:
        return
    offset, seen = image.offset(tags[_DT_VERNEED], "DT_VERNEED"), 0
    for _ in range(min(count, _MOST_ENTRIES)):
        _, aux_count, file, aux, following = _VERNEED.unpack(
            image.take(offset, _VERNEED.size, "version need")
        )
        names, at = [], offset + aux
        for _ in range(aux_count):
            _, _, _, name, step = _VERNAUX.unpack(image.take(at, _VERNAUX.size, "version"))
            names.append(name)
            seen += 1
            if seen > _MOST_ENTRIES:
                raise image.fail(f"more than {_MOST_ENTRIES} symbol versions")
            if not step:
                break
            at += step
        yield file, names
        if not following:
            return
        offset += following


def _version_needs(
    image: _Image, tags: dict[int, int], strings: bytes
) -> dict[str, tuple[str, ...]]:
    needs: dict[str, tuple[str, ...]] = {}
    for file, names in _version_entries(image, tags):
        library = _string(image, strings, file)
        found = tuple(_string(image, strings, name) for name in names)
        needs[library] = needs.get(library, ()) + found
    return needs


def _symbol_table(image: _Image, tags: dict[int, int]) -> bytes:
    if _DT_SYMTAB not in tags:
        return b""
    size = _symbol_count(image, tags) * _SYMBOL.size
    return image.take(image.offset(tags[_DT_SYMTAB], "DT_SYMTAB"), size, "symbol table")


def _symbol_count(image: _Image, tags: dict[int, int]) -> int:
    """Nothing in the dynamic segment says how many symbols there are; the hash tables do.

    Without either table the dynamic linker finds no symbol, so there is nothing to export.
    """
    if _DT_HASH in tags:
        offset = image.offset(tags[_DT_HASH], "DT_HASH")
        _, chains = struct.unpack("<II", image.take(offset, 8, "hash table"))
        return int(chains)
    if _DT_GNU_HASH not in tags:
        return 0
    offset = image.offset(tags[_DT_GNU_HASH], "DT_GNU_HASH")
    buckets, first, bloom, _ = struct.unpack("<IIII", image.take(offset, 16, "GNU hash table"))
    offset += 16 + 8 * bloom
    table = image.take(offset, 4 * buckets, "GNU hash buckets")
    last = max((bucket for (bucket,) in struct.iter_unpack("<I", table)), default=0)
    if last < first:
        return int(first)
    # the last bucket's chain ends at the first value with its low bit set: that is the last symbol
    chain = offset + 4 * buckets + 4 * (last - first)
    while not image.take(chain, 4, "GNU hash chain")[0] & 1:
        chain += 4
        last += 1
        if last * _SYMBOL.size > len(image.data):
            raise image.fail("GNU hash chain has more symbols than the file")
    return int(last) + 1


def _exports(
    image: _Image, tags: dict[int, int], strings: bytes, exporting: bytes
) -> Iterator[Symbol]:
    table = _symbol_table(image, tags)
    if exporting not in strings:
        return
    # names may share their tails, but their sum stays near the size of the string table
    budget = 16 * len(strings) + _LONGEST_NAME
    # the libraries of one prefix have a million symbols: this loop calls no function it can avoid
    for start, info, other, section in _EXPORT.iter_unpack(table):
        if not section or other & 3 not in _EXPORTED_VISIBILITIES:
            continue
        kind = info & 15
        if info >> 4 not in _EXPORTED_BINDINGS or kind in _SECTION_AND_FILE:
            continue
        end = strings.find(b"\0", start, start + _LONGEST_NAME)
        if end < 0:
            raise image.fail(f"string {start} is outside the string table or does not end")
        budget -= end - start
        if budget < 0:
            raise image.fail("symbol names are longer than the string table allows")
        name = strings[start:end].decode("utf-8", "backslashreplace")
        yield Symbol(name, _SYMBOL_TYPES.get(kind) or str(kind))


@dataclass(frozen=True, kw_only=True)
class Edits:
    """What to change in a file; sizes and addresses stay as they are.

    ``clean_runpath`` takes out the entries of RPATH and RUNPATH that do not begin with ``$ORIGIN``.
    """

    clear_runpath: bool = False
    clean_runpath: bool = False
    clear_execstack: bool = False


def apply(path: Path, edits: Edits) -> bool:
    """Apply edits to a file, staged beside it and renamed; False where nothing was to be done.

    Removing DT_RPATH and DT_RUNPATH also wipes their strings, as far as no other name shares
    them. ElfError where the file is damaged, or has no PT_GNU_STACK that could be cleared.
    """
    before = path.read_bytes()
    data = bytearray(before)
    image = _image(data, str(path))
    if edits.clear_runpath:
        _clear_runpath(image, data)
    if edits.clean_runpath:
        _clean_runpath(image, data)
    if edits.clear_execstack:
        _clear_execstack(image, data)
    if data == before:
        return False
    parse(data, f"{path} (edited)")
    fs.write_atomic(path, bytes(data), mode=stat.S_IMODE(path.stat().st_mode))
    return True


def _clear_execstack(image: _Image, data: bytearray) -> None:
    for position, segment in enumerate(image.segments):
        if segment.type == _PT_GNU_STACK:
            where = image.headers + position * _SEGMENT.size
            data[where : where + _SEGMENT.size] = _SEGMENT.pack(
                *segment._replace(flags=segment.flags & ~_PF_X)
            )
            return
    raise ElfError(
        f"{image.name}: no PT_GNU_STACK header to clear",
        remedy="link it again with -z noexecstack",
    )


def _clear_runpath(image: _Image, data: bytearray) -> None:
    entries = _dynamic(image)
    kept = [entry for entry in entries if entry[0] not in (_DT_RPATH, _DT_RUNPATH)]
    segment = image.find(_PT_DYNAMIC)
    if segment is None or kept == entries:
        return
    packed = b"".join(_DYNAMIC.pack(*entry) for entry in kept)
    size = _DYNAMIC.size * len(entries)
    data[segment.offset : segment.offset + size] = packed.ljust(size, b"\0")
    tags = dict(kept)
    strings = _strings(image, tags)
    used = _used_strings(image, kept, strings)
    base = image.offset(tags[_DT_STRTAB], "DT_STRTAB")
    for tag, index in entries:
        if tag in (_DT_RPATH, _DT_RUNPATH):
            _string(image, strings, index)  # refuses an index outside the table
            end = strings.index(b"\0", index)
            # a linker lets one string be another's tail: what follows a used start has to stay
            shared = {start for start in used if start < end and _end(strings, start) == end}
            stop = min((start for start in shared if start > index), default=end)
            if not any(start <= index for start in shared):
                data[base + index : base + stop] = bytes(stop - index)


def _clean_runpath(image: _Image, data: bytearray) -> None:
    entries = _dynamic(image)
    tags = dict(entries)
    strings = _strings(image, tags) if _DT_STRTAB in tags else b""
    for tag, index in entries:
        if tag not in (_DT_RPATH, _DT_RUNPATH):
            continue
        places = _string(image, strings, index).split(":")
        kept = [place for place in places if place == "$ORIGIN" or place.startswith("$ORIGIN/")]
        if not kept:
            _clear_runpath(image, data)
        elif kept != places:
            end = strings.index(b"\0", index)
            used = _used_strings(image, entries, strings)
            if any(index < start <= end and _end(strings, start) == end for start in used):
                raise image.fail("its RPATH is also part of another name, so it cannot be mended")
            base = image.offset(tags[_DT_STRTAB], "DT_STRTAB")
            data[base + index : base + end] = ":".join(kept).encode().ljust(end - index, b"\0")


def _end(strings: bytes, start: int) -> int:
    return strings.find(b"\0", start)


def _used_strings(image: _Image, entries: list[tuple[int, int]], strings: bytes) -> set[int]:
    """Where the strings start that anything but the removed entries refers to."""
    tags = dict(entries)
    used = {value for tag, value in entries if tag in (_DT_NEEDED, _DT_SONAME)}
    for file, names in _version_entries(image, tags):
        used |= {file, *names}
    used |= set(_version_definitions(image, tags))
    used |= {values[0] for values in _SYMBOL.iter_unpack(_symbol_table(image, tags))}
    return {start for start in used if start < len(strings)}


def _version_definitions(image: _Image, tags: dict[int, int]) -> Iterator[int]:
    if _DT_VERDEF not in tags:
        return
    offset, seen = image.offset(tags[_DT_VERDEF], "DT_VERDEF"), 0
    for _ in range(min(tags.get(_DT_VERDEFNUM, 0), _MOST_ENTRIES)):
        values = _VERDEF.unpack(image.take(offset, _VERDEF.size, "version definition"))
        count, aux, following = values[3], values[5], values[6]
        at = offset + aux
        for _ in range(count):
            name, step = _VERDAUX.unpack(image.take(at, _VERDAUX.size, "version name"))
            yield name
            seen += 1
            if seen > _MOST_ENTRIES:
                raise image.fail(f"more than {_MOST_ENTRIES} version names")
            if not step:
                break
            at += step
        if not following:
            return
        offset += following
