"""The ELF reader on made files, on hostile ones, and against readelf on this system's own."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from elf_maker import ADDRESS, make_elf

from longrun import elf
from longrun.errors import AuditError

DT_NULL, DT_NEEDED, DT_STRSZ = 0, 1, 10
DT_GNU_HASH, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFEF5, 0x6FFFFFFE, 0x6FFFFFFF


def parse(data: bytes) -> elf.Elf:
    return elf.parse(data, "sample.so")


def dynamic_offset(data: bytes, tag: int) -> int:
    """Where the value of a dynamic entry is."""
    start = struct.unpack_from("<Q", data, 64 + 56 + 8)[0]
    while (found := struct.unpack_from("<Q", data, start)[0]) != tag:
        assert found, f"no dynamic entry {tag}"
        start += 16
    return int(start) + 8


def patched(data: bytes, offset: int, fmt: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(fmt, changed, offset, value)
    return bytes(changed)


def table_offset(data: bytes, tag: int) -> int:
    return int(struct.unpack_from("<Q", data, dynamic_offset(data, tag))[0]) - ADDRESS


FULL = make_elf(
    interpreter="/lib64/ld-linux-x86-64.so.2",
    needed=("libc.so.6", "libm.so.6"),
    soname="libsample.so.1",
    rpath="/build/lib",
    runpath="$ORIGIN/../lib",
    versions={"libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.28"), "libm.so.6": ("GLIBC_2.27",)},
    imports=("malloc",),
    hidden=("internal",),
    exports=("PyInit_sample", "sqlite3_open"),
)


@pytest.mark.parametrize("hash_", ["gnu", "sysv"])
def test_reads_what_the_dynamic_linker_reads(hash_: str) -> None:
    found = parse(make_elf(needed=("libc.so.6",), exports=("a", "b"), imports=("c",), hash_=hash_))
    assert found.exports == (elf.Symbol("a", "func"), elf.Symbol("b", "func"))
    assert (found.machine, found.type, found.needed) == (62, elf.ET_DYN, ("libc.so.6",))


def test_reads_names_paths_and_versions() -> None:
    found = parse(FULL)
    assert found.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert found.soname == "libsample.so.1"
    assert found.needed == ("libc.so.6", "libm.so.6")
    assert (found.rpath, found.runpath) == ("/build/lib", "$ORIGIN/../lib")
    assert found.versions == {
        "libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.28"),
        "libm.so.6": ("GLIBC_2.27",),
    }


def test_hidden_and_undefined_symbols_are_not_exported() -> None:
    assert [symbol.name for symbol in parse(FULL).exports] == ["PyInit_sample", "sqlite3_open"]


def test_symbols_are_read_only_where_one_of_interest_can_be() -> None:
    assert elf.parse(FULL, "x", exporting=b"PyInit").exports == parse(FULL).exports
    assert elf.parse(FULL, "x", exporting=b"PyMOD").exports == ()


def test_files_for_other_machines_are_not_damaged() -> None:
    with pytest.raises(elf.OtherElfError, match="not a 64-bit"):
        parse(FULL[:4] + b"\x01" + FULL[5:])


def test_without_a_hash_table_nothing_is_exported() -> None:
    assert parse(make_elf(exports=("a",), hash_="")).exports == ()


@pytest.mark.parametrize(
    ("field", "made", "expected"),
    [
        ("bind_now", {"bind_now": True}, True),
        ("bind_now", {"bind_now": False}, False),
        ("relro", {"relro": True}, True),
        ("relro", {"relro": False}, False),
        ("textrel", {"textrel": True}, True),
        ("textrel", {}, False),
        ("executable_stack", {"stack": 6}, False),
        ("executable_stack", {"stack": 7}, True),
        ("executable_stack", {"stack": None}, True),
    ],
)
def test_hardening(field: str, made: dict[str, int], expected: bool) -> None:
    assert getattr(parse(make_elf(**made)), field) is expected  # type: ignore[arg-type]


def test_flags_1_now_counts_as_bind_now() -> None:
    data = make_elf(bind_now=True)
    offset = dynamic_offset(data, 30)
    data = patched(patched(data, offset - 8, "<Q", 0x6FFFFFFB), offset, "<Q", 1)
    assert parse(data).bind_now


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n",
        b"\x7fELF\x01\x01" + bytes(100),  # 32 bits
        b"\x7fELF\x02\x02" + bytes(100),  # big-endian
    ],
)
def test_what_is_no_elf64_file_is_refused(data: bytes) -> None:
    with pytest.raises(elf.ElfError, match=r"sample\.so"):
        parse(data)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.so"
    empty.touch()
    with pytest.raises(elf.ElfError, match="empty"):
        elf.read(empty)
    assert issubclass(elf.ElfError, AuditError)


def test_every_truncation_is_an_error_or_reads() -> None:
    refused = 0
    for length in range(len(FULL)):
        try:
            parse(FULL[:length])
        except elf.ElfError:
            refused += 1
    assert refused > 0.9 * len(FULL)


def test_random_damage_raises_nothing_but_elf_errors() -> None:
    generator = random.Random(2)
    messages = set()
    start = time.monotonic()
    for _ in range(2000):
        data = bytearray(FULL)
        for _ in range(generator.randint(1, 6)):
            data[generator.randrange(4, len(data))] = generator.choice((0, 1, 0x7F, 0xFF))
        try:
            parse(bytes(data))
        except elf.ElfError as error:
            messages.add(error.message.split(":")[0])
    assert messages == {"sample.so"}
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**40, 5000])
@pytest.mark.parametrize("tag", [DT_STRSZ, DT_GNU_HASH, DT_VERNEED, DT_NEEDED])
def test_values_outside_the_file(tag: int, value: int) -> None:
    with pytest.raises(elf.ElfError, match="damaged"):
        parse(patched(FULL, dynamic_offset(FULL, tag), "<Q", value))


def test_a_huge_number_of_version_needs_ends() -> None:
    data = patched(FULL, dynamic_offset(FULL, DT_VERNEEDNUM), "<Q", 2**64 - 1)
    assert parse(data).versions == parse(FULL).versions


def test_a_version_chain_that_runs_on_ends_in_an_error() -> None:
    entry = table_offset(FULL, DT_VERNEED)
    endless = patched(FULL, entry + 12, "<I", 1)  # vn_next: one byte on, again and again
    endless = patched(endless, dynamic_offset(endless, DT_VERNEEDNUM), "<Q", 2**32)
    with pytest.raises(elf.ElfError):
        parse(endless + bytes(range(1, 256)) * 1000)


def with_table(data: bytes, tag: int, table: bytes) -> bytes:
    """The file with another table for a dynamic entry, appended and mapped."""
    address = ADDRESS + len(data)
    data = patched(data, dynamic_offset(data, tag), "<Q", address)
    return patched(data, 64 + 32, "<Q", len(data) + len(table)) + table


def test_more_versions_than_any_file_has() -> None:
    table = struct.pack("<HHIII", 1, 0xFFFF, 0, 16, 0)
    table += struct.pack("<IHHII", 0, 0, 0, 0, 16) * 0xFFFF
    with pytest.raises(elf.ElfError, match="more than 10000 symbol versions"):
        parse(with_table(FULL, DT_VERNEED, table))


def test_a_gnu_hash_chain_without_end() -> None:
    table = struct.pack("<IIIIQI", 1, 1, 1, 0, 0, 1) + b"\2" * 4_000_000
    start = time.monotonic()
    with pytest.raises(elf.ElfError, match="more symbols than the file"):
        parse(with_table(FULL, DT_GNU_HASH, table))
    assert time.monotonic() - start < 2


def test_huge_bucket_count() -> None:
    with pytest.raises(elf.ElfError, match="buckets"):
        parse(patched(FULL, table_offset(FULL, DT_GNU_HASH), "<I", 2**32 - 1))


def test_names_that_never_end_cost_no_memory() -> None:
    # many symbols, all with the same very long name: 24 bytes each would become 60 kB each
    data = make_elf(exports=("x" * 60_000,) + tuple(f"s{i}" for i in range(3000)))
    symbols = table_offset(data, 6)
    changed = bytearray(data)
    (long,) = struct.unpack_from("<I", data, symbols + 24)
    for position in range(1, 3002):
        struct.pack_into("<I", changed, symbols + 24 * position, long)
    with pytest.raises(elf.ElfError, match="names"):
        parse(bytes(changed))


def test_a_name_longer_than_any_path() -> None:
    with pytest.raises(elf.ElfError, match="does not end"):
        parse(make_elf(needed=("x" * 70_000,)))


def test_too_many_dynamic_entries() -> None:
    data = make_elf(needed=("libc.so.6",) * 10_001)
    with pytest.raises(elf.ElfError, match="dynamic entries"):
        parse(data)


# -- edits ------------------------------------------------------------------------------------


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def test_clear_runpath_removes_entry_and_string(tmp_path: Path) -> None:
    path = write(tmp_path / "a.so", FULL)
    assert elf.apply(path, elf.Edits(clear_runpath=True)) is True
    before, after = parse(FULL), elf.read(path)
    assert (after.rpath, after.runpath) == ("", "")
    assert (after.needed, after.versions) == (before.needed, before.versions)
    assert (after.exports, after.soname) == (before.exports, before.soname)
    data = path.read_bytes()
    assert b"/build/lib" not in data
    assert b"$ORIGIN" not in data
    assert len(data) == len(FULL)
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]


def test_clear_runpath_keeps_a_name_that_shares_its_tail(tmp_path: Path) -> None:
    data = make_elf(runpath="/build/libdemo.so", needed=("/build/libdemo.so"[7:],))
    # as a linker merges tails: DT_NEEDED points into the RUNPATH string
    strings = table_offset(data, 5)
    runpath = struct.unpack_from("<Q", data, dynamic_offset(data, 29))[0]
    assert data[strings + runpath :].startswith(b"/build/libdemo.so\0")
    data = patched(data, dynamic_offset(data, DT_NEEDED), "<Q", runpath + 7)
    path = write(tmp_path / "a.so", data)
    assert elf.apply(path, elf.Edits(clear_runpath=True))
    assert elf.read(path).needed == ("libdemo.so",)
    assert b"/build" not in path.read_bytes()


def test_clear_runpath_keeps_a_string_that_is_used_whole(tmp_path: Path) -> None:
    data = make_elf(runpath="libc.so.6", needed=("libc.so.6",))
    path = write(tmp_path / "a.so", data)
    assert elf.apply(path, elf.Edits(clear_runpath=True))
    assert elf.read(path).needed == ("libc.so.6",)
    assert elf.read(path).runpath == ""


def test_clear_runpath_keeps_the_name_of_an_imported_symbol(tmp_path: Path) -> None:
    data = make_elf(imports=("malloc",), runpath="/build/malloc")
    runpath = struct.unpack_from("<Q", data, dynamic_offset(data, 29))[0]
    data = patched(data, table_offset(data, 6) + 24, "<I", runpath + len("/build/"))
    path = write(tmp_path / "a.so", data)
    assert elf.apply(path, elf.Edits(clear_runpath=True))
    assert b"\0malloc\0" in path.read_bytes()[table_offset(data, 5) + runpath :]
    assert b"/build" not in path.read_bytes()


def test_clear_execstack(tmp_path: Path) -> None:
    path = write(tmp_path / "a.so", make_elf(stack=7))
    assert elf.apply(path, elf.Edits(clear_execstack=True)) is True
    assert elf.read(path).stack_flags == 6


def test_clear_execstack_needs_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.so", make_elf(stack=None))
    with pytest.raises(elf.ElfError, match="PT_GNU_STACK") as caught:
        elf.apply(path, elf.Edits(clear_execstack=True))
    assert "noexecstack" in caught.value.remedy


def test_nothing_to_do_touches_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.so", make_elf())
    inode = path.stat().st_ino
    assert elf.apply(path, elf.Edits(clear_runpath=True, clear_execstack=True)) is False
    assert path.stat().st_ino == inode


def test_a_damaged_file_is_left_alone(tmp_path: Path) -> None:
    data = patched(FULL, dynamic_offset(FULL, 29), "<Q", 2**40)
    path = write(tmp_path / "a.so", data)
    with pytest.raises(elf.ElfError):
        elf.apply(path, elf.Edits(clear_runpath=True))
    assert path.read_bytes() == data


# -- against readelf --------------------------------------------------------------------------


def system_files() -> list[Path]:
    directories = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
    found = {
        Path(os.path.realpath(path))
        for directory in directories
        for path in Path(directory).glob("lib[a-m]*.so.?")
    }
    files = sorted(path for path in found if path.is_file())
    return [path for path in files if path.open("rb").read(4) == elf.MAGIC][:25]


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")
def test_agrees_with_readelf() -> None:
    files = system_files()
    assert files, "no shared library found to compare"
    for path in files:
        shown = subprocess.run(
            ["readelf", "-W", "-d", "-V", "-l", "--dyn-syms", str(path)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found = elf.read(path)
        assert list(found.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", shown), path
        assert [found.soname] == (re.findall(r"\(SONAME\).*\[(.*)\]", shown) or [""]), path
        assert found.bind_now == bool(re.search(r"BIND_NOW|Flags:.*\bNOW\b", shown)), path
        assert found.relro == ("GNU_RELRO" in shown), path
        versions = re.findall(r"  Name: (\S+)  Flags: .*Version: \d+", shown)
        assert sorted(v for names in found.versions.values() for v in names) == sorted(
            versions[-sum(map(len, found.versions.values())) :] if found.versions else []
        ), path
        defined = re.findall(
            r"^ +\d+: \S+ +\S+ \S+ +(?:GLOBAL|WEAK|UNIQUE|<OS specific>: 10) +"
            r"(?:DEFAULT|PROTECTED) +(?!UND)\S+ (\S+)",
            shown,
            re.M,
        )
        expected = sorted(name.split("@")[0] for name in defined)
        assert sorted(symbol.name for symbol in found.exports) == expected, path
