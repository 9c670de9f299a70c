"""Archives made to do harm are refused, and leave nothing behind; honest ones arrive whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from longrun.errors import SourceError
from longrun.unpack import Limits, unpack

STAMP = 1_700_000_000
DEFAULT = Limits()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mtime = kind, STAMP
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


def tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], **options: object) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", **options) as archive:  # type: ignore[call-overload]
        for item in members:
            info, content = item if isinstance(item, tuple) else (item, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def wheel(*members: tuple[str, bytes] | tuple[str, bytes, int]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, *mode in members:
            info = zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6))
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode[0] if mode else 0o100644) << 16
            archive.writestr(info, content)
    return raw.getvalue()


def ar(*members: tuple[str, bytes]) -> bytes:
    raw = b"!<arch>\n"
    for name, content in members:
        raw += f"{name:<16}{STAMP:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        raw += content + b"\n" * (len(content) % 2)
    return raw


def deb(data: bytes) -> bytes:
    return ar(("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz/", data))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory with a file beside it that no archive may touch."""
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def put(room: Path, content: bytes, *, name: str = "a.tar", limits: Limits = DEFAULT) -> Path:
    archive = room / name
    archive.write_bytes(content)
    unpack(archive, room / "tree", limits=limits)
    return room / "tree"


def refused(room: Path, content: bytes, *, limits: Limits = DEFAULT) -> str:
    """The message of the refusal; nothing may be left of the attempt."""
    with pytest.raises(SourceError) as caught:
        put(room, content, name="evil.tar", limits=limits)
    assert [path.name for path in room.iterdir()] == ["evil.tar"]
    assert sorted(path.name for path in room.parent.iterdir()) == ["outside", "room"]
    assert (room.parent / "outside").read_text() == "mine"
    assert caught.value.message.startswith("evil.tar: ")
    assert caught.value.remedy
    return caught.value.message


HONEST = (member("top/a"), b"text"), (member("top/bin/run", mode=0o4775), b"#!")


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        lzma.compress,
        zstandard.compress,
        bz2.compress,
    ],
    ids=["plain", "gz", "xz", "zst", "bz2"],
)
def test_every_compression_and_the_single_top_is_left_out(
    room: Path, pack: Callable[[bytes], bytes]
) -> None:
    tree = put(room, pack(tar(*HONEST)))
    assert (tree / "a").read_text() == "text"
    assert sorted(path.name for path in tree.iterdir()) == ["a", "bin"]
    assert [path.name for path in room.iterdir() if path.name.startswith(".")] == []


def test_modes_are_two_and_setuid_is_dropped_and_times_kept(room: Path) -> None:
    old = os.umask(0o077)
    try:
        tree = put(room, tar(member("top", tarfile.DIRTYPE, mode=0o700), *HONEST))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tree / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE((tree / "bin/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "bin").stat().st_mode) == 0o755
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert (tree / "a").stat().st_mtime == tree.stat().st_mtime == STAMP


def test_the_umask_does_not_count(room: Path) -> None:
    old = os.umask(0o077)
    try:
        tree = put(room, wheel(("d/a", b"")))
    finally:
        os.umask(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tree, tree / "d")] == [0o755, 0o755]


def test_links_inside_are_kept(room: Path) -> None:
    inside = tar(*HONEST, link("top/lib/l", "../a"), link("top/d", "bin"), hard("top/h", "top/a"))
    tree = put(room, inside)
    assert (tree / "lib/l").readlink() == Path("../a")
    assert (tree / "lib/l").read_text() == "text"
    assert (tree / "d/run").exists()
    assert (tree / "h").stat().st_ino == (tree / "a").stat().st_ino


def test_several_tops_stay(room: Path) -> None:
    tree = put(room, tar((member("./x/a"), b"1"), (member("y"), b"2")))
    assert sorted(path.name for path in tree.iterdir()) == ["x", "y"]


def test_a_wheel_keeps_layout_modes_and_times(room: Path) -> None:
    tree = put(room, wheel(("pkg/zig", b"ELF", 0o100755), ("pkg/a.py", b"1"), ("pkg/e/", b"")))
    assert (tree / "pkg/zig").stat().st_mode & 0o777 == 0o755
    assert (tree / "pkg/a.py").stat().st_mode & 0o777 == 0o644
    assert (tree / "pkg/a.py").stat().st_mtime == 1767323046  # 2026-01-02T03:04:06Z
    assert (tree / "pkg/e").is_dir()


def test_a_wheel_with_a_link_inside(room: Path) -> None:
    tree = put(room, wheel(("a.so.1", b"x"), ("a.so", b"a.so.1", 0o120777)))
    assert (tree / "a.so").readlink() == Path("a.so.1")


def test_a_deb_gives_its_data_and_keeps_its_layout(room: Path) -> None:
    tree = put(room, deb(lzma.compress(tar((member("./usr/share/a"), b"proto")))))
    assert (tree / "usr/share/a").read_text() == "proto"


def test_an_empty_directory_may_be_there_and_a_full_one_not(room: Path) -> None:
    (room / "tree").mkdir()
    tree = put(room, tar(*HONEST))
    with pytest.raises(SourceError, match="not an empty directory"):
        put(room, tar(*HONEST))
    assert (tree / "a").read_text() == "text"


def test_file_names_that_differ_in_case_are_two_files(room: Path) -> None:
    """As in the headers of Linux, which zig ships."""
    tree = put(room, tar((member("t/xt_MARK.h"), b"1"), (member("t/xt_mark.h"), b"2")))
    assert len(list(tree.iterdir())) == 2


HOSTILE = {
    "absolute": (tar(member("/etc/x")), r"'/etc/x': is an absolute path"),
    "upwards": (tar(member("a/../../outside")), r"leads upwards"),
    "upwards-inside": (tar(member("a/../b")), r"leads upwards"),
    "link-absolute": (tar(link("top/l", "/etc/passwd")), r"'top/l'.*leads outside: '/etc/passwd'"),
    "link-up": (tar(link("top/l", "../../outside")), r"leads outside"),
    "link-to-parent": (tar(link("l", "..")), r"leads outside"),
    # by its text it stays inside, but s is a way up: p/q/s/.. is above the top
    "link-by-link": (
        tar((member("x"), b""), link("p/q/s", "../.."), link("p/q/t", "s/../outside")),
        r"'p/q/t'.*leads outside",
    ),
    # inside the archive, outside of what is left when the top is left out
    "link-out-of-top": (tar((member("top/a"), b""), link("top/l", "../x")), r"leads outside"),
    "link-by-top": (tar((member("top/a"), b""), link("top/l", "../top/a")), r"leads outside"),
    # "tree" is what the directory is called while it is written
    "link-by-name": (tar((member("a"), b""), link("l", "../tree/a")), r"leads outside"),
    "link-by-final-name": (tar(link("d/l", "../../tree/d/a")), r"leads outside"),
    "link-nul": (tar(member("l", tarfile.SYMTYPE, pax_headers={"linkpath": "a\0b"})), r"nothing"),
    "link-empty": (tar(link("l", "")), r"link to nothing"),
    "through-link": (
        tar(link("d", "."), (member("d/x"), b"")),
        r"'d/x': lies below 'd', which is a symlink",
    ),
    "through-link-dir": (tar(link("d", "."), member("d", tarfile.DIRTYPE)), r"'d': is .* twice"),
    "through-link-link": (tar(link("d", "."), link("d/x", "y")), r"lies below 'd'"),
    "through-file": (tar((member("d"), b""), (member("d/x"), b"")), r"lies below 'd'.*file"),
    "twice": (tar((member("a"), b"1"), (member("a"), b"2")), r"'a': is in the archive twice"),
    "twice-spelt": (tar((member("a"), b"1"), (member(".//a"), b"2")), r"twice"),
    "file-becomes-link": (tar((member("a"), b"1"), link("a", "b")), r"twice, as file and as sym"),
    "link-becomes-file": (tar(link("a", "b"), (member("a"), b"1")), r"twice"),
    "case-link-file": (tar(link("A", "."), (member("a"), b"1")), r"differs only in case"),
    "case-file-link": (tar((member("a"), b"1"), link("A", "b")), r"differs only in case"),
    "case-through": (tar(link("D", "."), (member("d/x"), b"1")), r"'d/x'.*differs only in case"),
    "hardlink-out": (tar(hard("a", "../outside")), r"hard link to '../outside', which leads up"),
    "hardlink-absolute": (tar(hard("a", "/etc/passwd")), r"hard link.*absolute"),
    "hardlink-to-later": (tar(hard("a", "b"), (member("b"), b"")), r"no file before it"),
    "hardlink-to-link": (tar(link("l", "x"), hard("a", "l")), r"no file before it"),
    "device": (tar(member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)), r"character device"),
    "block": (tar(member("sda", tarfile.BLKTYPE)), r"block device"),
    "fifo": (tar(member("pipe", tarfile.FIFOTYPE)), r"'pipe': is no file.*FIFO"),
    "sparse": (tar(member("s", tarfile.GNUTYPE_SPARSE)), r"sparse"),
    "sparse-pax": (
        tar(member("s", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"})),
        r"'s'.*sparse",
    ),
    "nul": (
        tar(member("x", pax_headers={"path": "a\0b"}), format=tarfile.PAX_FORMAT),
        r"NUL byte",
    ),
    "not-utf8": (
        tar(member("a\udcff"), format=tarfile.GNU_FORMAT, errors="surrogateescape"),
        r"not UTF-8",
    ),
    "endless-header": (
        tar(member("x" * (2 << 20)), format=tarfile.PAX_FORMAT),
        r"extended header of \d+ bytes",
    ),
    "header-chain": (
        b"".join(member("x", tarfile.XGLTYPE).tobuf() for _ in range(5000)) + bytes(1024),
        r"recursion",
    ),
    "not-an-archive": (b"<!DOCTYPE html><title>Sign in</title>", r"not a tar"),
    "nothing": (b"", r"not a tar"),
    "zip-upwards": (wheel(("../outside", b"x")), r"leads upwards"),
    "zip-absolute": (wheel(("/outside", b"x")), r"absolute"),
    "zip-link": (wheel(("l", b"../outside", 0o120777)), r"'l'.*leads outside"),
    "zip-through-link": (wheel(("l", b".", 0o120777), ("l/x", b"")), r"lies below 'l'"),
    "zip-fifo": (wheel(("p", b"", 0o010644)), r"FIFO"),
    "zip-nul": (wheel(("aXb.py", b"")).replace(b"aXb.py", b"a\0b.py"), r"NUL byte"),
    "zip-not-utf8": (wheel(("aXb.py", b"")).replace(b"aXb.py", b"a\xffb.py"), r"not UTF-8"),
    "zip-bad-utf8": (wheel(("aéb.py", b"")).replace("é".encode(), b"\xff\xff"), r"damaged"),
    "zip-encrypted": (
        wheel(("a", b"")).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
        r"encrypted",
    ),
    "zip-long-link": (wheel(("l", b"x" * 9999, 0o120777)), r"endless target"),
    "deb-link": (deb(tar(link("./usr/l", "/etc/passwd"))), r"leads outside"),
    "deb-without-data": (ar(("debian-binary", b"2.0\n")), r"no Debian package"),
    "deb-with-two": (ar(("data.tar", tar()), ("data.tar.xz", tar())), r"2 members"),
    "deb-of-zip": (deb(wheel(("a", b""))), r"zip where a tar"),
    "deb-cut-in-padding": (deb(tar((member("a"), b"")))[:-5000], r"not whole"),
    "deb-bad-magic": (deb(tar()).replace(b"`\n", b"??"), r"no ar header at byte 8"),
    "deb-bad-header": (deb(tar())[:-9000] + b"rubbish" * 2000, r"damaged|cut short"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(room: Path, name: str) -> None:
    content, message = HOSTILE[name]

    assert re.search(message, refused(room, content))


BIG = os.urandom(300_000)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "content",
    [
        tar((member("t/a"), BIG), (member("t/b"), BIG[:1000])).rstrip(b"\0"),
        gzip.compress(tar((member("t/a"), BIG))),
        lzma.compress(tar((member("t/a"), BIG))),
        zstandard.compress(tar((member("t/a"), BIG))),
        wheel(("a", BIG)),
        deb(lzma.compress(tar((member("a"), BIG)))),
    ],
    ids=["tar", "gz", "xz", "zst", "zip", "deb"],
)
def test_an_archive_cut_short_is_refused(room: Path, content: bytes, keep: float) -> None:
    assert "damaged or cut short" in refused(room, content[: int(len(content) * keep)])


def test_a_tar_that_ends_between_members_is_refused(room: Path) -> None:
    """tarfile takes this for the end, and a damaged header too."""
    whole = tar((member("t/a"), b"x" * 512), (member("t/b"), b"y" * 512))
    assert "cut short" in refused(room, whole[:1024])


def test_a_damaged_header_is_not_taken_for_the_end(room: Path) -> None:
    whole = tar((member("t/a"), b"x" * 512), (member("t/b"), b"y" * 512))
    assert "damaged" in refused(room, whole[:1024] + b"Z" + whole[1025:])


def test_a_checksum_that_differs_behind_the_last_member(room: Path) -> None:
    packed = gzip.compress(tar((member("t/a"), b"x")))
    assert "evil.tar" in refused(room, packed[:-8] + b"\0\0\0\0" + packed[-4:])


def test_a_zip_with_a_wrong_crc(room: Path) -> None:
    content = wheel(("a", BIG))
    assert "CRC" in refused(room, content[:5000] + b"Zz" + content[5002:])


def test_a_zip_whose_sizes_do_not_agree(room: Path) -> None:
    """The checksum is of what is there, so only the size tells."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("a", b"12345")
    five_of_five, five_of_nine = struct.pack("<II", 5, 5), struct.pack("<II", 5, 9)
    content = raw.getvalue().replace(five_of_five, five_of_nine)
    assert "'a': damaged or cut short: 5 of 9 bytes" in refused(room, content)


def test_bombs_by_ratio_total_and_count(room: Path) -> None:
    zeros = bytes(40 << 20)
    for packed in (gzip.compress(tar((member("t/z"), zeros))), wheel(("z", zeros))):
        assert "100 to 1" in refused(room, packed)
        (room / "evil.tar").unlink()
    total = refused(room, tar((member("t/a"), BIG)), limits=Limits(total=1000))
    assert "'t/a': unpacks to more than 1000 bytes" in total
    (room / "evil.tar").unlink()
    many = tar(*(member(f"t/{number}") for number in range(20)))
    assert "more than 10 members" in refused(room, many, limits=Limits(members=10))
    (room / "evil.tar").unlink()
    deep = tar(member("d/" * 50 + "x"))
    assert "more than 10 members" in refused(room, deep, limits=Limits(members=10))


def test_zeros_behind_the_end_are_counted(room: Path) -> None:
    padded = gzip.compress(tar(*HONEST) + bytes(40 << 20))
    assert "100 to 1" in refused(room, padded)


def test_a_failing_disk_leaves_nothing(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longrun.unpack.os.fchmod", full)
    assert "No space left on device" in refused(room, tar(*HONEST))
