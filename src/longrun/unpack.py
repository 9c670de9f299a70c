"""Unpack an archive that was written by somebody else: tar, zip (wheels) and deb, in-process.

A source is pinned by its sha256, which says that it is the reviewed file and not that it is a good
one. So every member is checked before a byte of it is written, and the tree appears whole or not at
all. The checks go beyond tarfile's ``data`` filter, which knows neither zip nor deb, nor sizes.
"""

from __future__ import annotations

import bz2
import calendar
import gzip
import io
import lzma
import os
import secrets
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from longrun.errors import SourceError

CHUNK = 1 << 20
GRACE = (
    32 << 20
)  # below this many bytes no ratio is suspicious: a file of zeros is a fair test file
HEADER_BYTES = 1 << 20  # longest extended tar header; tarfile reads one into memory at once
ZSTD_WINDOW = 1 << 27  # what the zstd program itself accepts without --long
ZIP_EPOCH = 315532800  # 1980-01-01, the first day that a zip file can name

MAGIC = {
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"!<arch>\n": "ar",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an honest source stays below; the largest here (zig's wheel) is an eighth of it."""

    total: int = 4 << 30
    members: int = 200_000
    ratio: int = 100


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One entry of an archive, whatever its format; ``kind`` is file, dir, symlink or hardlink."""

    name: str
    kind: str
    size: int = 0
    executable: bool = False
    mtime: int = 0
    target: str = ""


class _Refused(Exception):
    """Why a member is not unpacked; becomes a SourceError that names archive and member."""

    def __init__(self, why: str, *, member: str = "") -> None:
        super().__init__(why)
        self.member = member


def unpack(archive: Path, into: Path, *, limits: Limits = Limits()) -> None:
    """Unpack ``archive`` into ``into``, which is absent or empty.

    A tar file's single top directory is left out; wheels, other zips and debs keep their layout.
    Modes become 0644 or 0755, times are the archive's. Raises SourceError, naming archive and
    member, for whatever is unsafe, damaged or beyond ``limits``; then ``into`` is as it was before.
    """
    if into.is_symlink() or (into.exists() and (not into.is_dir() or any(into.iterdir()))):
        raise SourceError(
            f"{archive.name}: cannot be unpacked: {into} is there and is not an empty directory",
            remedy=f"Remove {into}.",
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    try:
        with _explained(archive):
            tree = _Tree(beside / "tree", packed=archive.stat().st_size, limits=limits)
            with archive.open("rb") as file:
                strip = _unpack_into(tree, file)
            tree.finish(strip=strip).rename(into)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Turn what goes wrong inside into a SourceError that names the archive and the member."""
    damage = (
        EOFError,
        UnicodeError,
        ValueError,
        NotImplementedError,
        RecursionError,  # tarfile, in a chain of extended headers
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
    )
    try:
        yield
    except _Refused as error:
        member = f"{error.member!r}: " if error.member else ""
        raise SourceError(
            f"{archive.name}: {member}{error}",
            remedy="Nothing was unpacked. Compare the file with upstream's own before it is used.",
        ) from None
    except damage as error:
        raise SourceError(
            f"{archive.name}: damaged or cut short: {error}",
            remedy="Nothing was unpacked. Fetch the file again, or correct its sha256 in the spec.",
        ) from error
    except OSError as error:  # gzip and bz2 report damage so, and so does a full disk
        raise SourceError(
            f"{archive.name}: cannot be unpacked: {error}",
            remedy="Nothing was unpacked. See to the disk, or fetch the file again.",
        ) from error


def _unpack_into(tree: _Tree, file: IO[bytes]) -> bool:
    """Unpack by content, not by name; return whether a single top directory is left out."""
    kind = _kind(file)
    if kind == "zip":
        _unpack_zip(tree, file)
    elif kind == "ar":
        _unpack_tar(tree, _deb_data(file))
    else:
        _unpack_tar(tree, file)
    return kind not in ("zip", "ar")


def _kind(file: IO[bytes]) -> str:
    """What the file holds, by its first bytes: a key of MAGIC's values, or ``tar``."""
    head = file.read(512)
    file.seek(0)
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    raise _Refused("not a tar (plain, gz, bz2, xz, zst), zip, wheel or deb file")


class _Tree:
    """The tree being written, and what is known of it; every check on a member is here."""

    def __init__(self, root: Path, *, packed: int, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.allowed = min(limits.total, max(GRACE, packed * limits.ratio))
        self.packed = packed
        self.unpacked = 0
        self.kinds: dict[str, str] = {}
        self.folded: set[str] = set()
        self.folded_links: set[str] = set()
        self.times: dict[str, int] = {}
        root.mkdir(0o755)
        root.chmod(0o755)

    def add(self, member: _Member, content: IO[bytes] | None = None) -> None:
        """Check one member and write it; raises _Refused."""
        try:
            name = _safe_name(member.name)
            if name:
                self._add(name, member, content)
        except _Refused as refused:
            raise _Refused(str(refused), member=refused.member or member.name) from None
        except (tarfile.ReadError, zlib.error, EOFError, zipfile.BadZipFile) as error:
            raise _Refused(f"damaged or cut short: {error}", member=member.name) from error

    def _add(self, name: str, member: _Member, content: IO[bytes] | None) -> None:
        if member.kind == "dir":
            self._directory(name)
            self.times[name] = member.mtime
            return
        self._parents(name)
        self._claim(name, member.kind)
        path = self.root / name
        if member.kind == "symlink":
            if not member.target or "\0" in member.target:
                raise _Refused(f"is a link to nothing that can be: {member.target!r}")
            path.symlink_to(member.target)
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        elif member.kind == "hardlink":
            self._hardlink(path, member.target)
        else:
            assert content is not None
            self._file(path, member, content)

    def _claim(self, name: str, kind: str) -> None:
        """Note a new name; on a file system that folds case, no two may meet in a link."""
        if name in self.kinds:
            raise _Refused(f"is in the archive twice, as {self.kinds[name]} and as {kind}")
        fold = name.casefold()
        if fold in self.folded_links or (kind == "symlink" and fold in self.folded):
            raise _Refused("differs only in case from another member, and one of them is a link")
        self.kinds[name] = kind
        self.folded.add(fold)
        if kind == "symlink":
            self.folded_links.add(fold)
        if len(self.kinds) > self.limits.members:
            raise _Refused(f"is one of more than {self.limits.members} members")

    def _directory(self, name: str) -> None:
        if self.kinds.get(name) == "dir":
            return
        self._parents(name)
        self._claim(name, "dir")
        path = self.root / name
        path.mkdir()
        path.chmod(0o755)  # whatever the umask is

    def _parents(self, name: str) -> None:
        """Make the directories above ``name``; none may be a link or a file made earlier."""
        above = name.rpartition("/")[0]
        if not above or self.kinds.get(above) == "dir":
            return
        if above in self.kinds:
            raise _Refused(f"lies below {above!r}, which is a {self.kinds[above]}")
        self._directory(above)

    def _file(self, path: Path, member: _Member, content: IO[bytes]) -> None:
        """Write a regular file, counting what really comes and not what the header promises."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        written = 0
        with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            while chunk := content.read(CHUNK):
                written += len(chunk)
                self.count(len(chunk))
                file.write(chunk)
            if written != member.size:
                raise _Refused(f"damaged or cut short: {written} of {member.size} bytes")
            os.fchmod(file.fileno(), 0o755 if member.executable else 0o644)
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _hardlink(self, path: Path, target: str) -> None:
        try:
            existing = _safe_name(target)
        except _Refused as refused:
            raise _Refused(f"is a hard link to {target!r}, which {refused}") from None
        if self.kinds.get(existing) not in ("file", "hardlink"):
            raise _Refused(f"is a hard link to {target!r}, which is no file before it")
        os.link(self.root / existing, path, follow_symlinks=False)

    def count(self, number: int) -> None:
        """Count unpacked bytes; raises _Refused beyond what the limits allow."""
        self.unpacked += number
        if self.unpacked > self.allowed:
            raise _Refused(
                f"unpacks to more than {self.allowed} bytes from {self.packed} packed ones "
                f"(at most {self.limits.total}, and {self.limits.ratio} to 1)"
            )

    def finish(self, *, strip: bool) -> Path:
        """Set times and check where the links lead, now that all is there; return the final tree.

        It gets a name that the archive's author could not know: a link that goes out of the tree
        and comes back in by name would point elsewhere once the tree has its real name.
        """
        for name, mtime in self.times.items():
            os.utime(self.root / name, (mtime, mtime))
        tops = [name for name in self.kinds if "/" not in name]
        top = tops[0] if strip and len(tops) == 1 and self.kinds[tops[0]] == "dir" else ""
        final = (self.root / top).rename(self.root.with_name(secrets.token_hex(16)))
        real = os.path.realpath(final)
        for name, kind in self.kinds.items():
            if kind == "symlink":
                path = final / (name.removeprefix(f"{top}/") if top else name)
                end = os.path.realpath(path)
                if not (end + "/").startswith(real + "/"):
                    target = str(path.readlink())
                    raise _Refused(f"is a link that leads outside: {target!r}", member=name)
        return final


def _safe_name(name: str) -> str:
    """The name as a clean relative path, empty for the top itself; raises _Refused."""
    if "\0" in name:
        raise _Refused("has a NUL byte in its name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _Refused("has a name that is not UTF-8") from None
    if name.startswith("/"):
        raise _Refused("is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _Refused("leads upwards (..)")
    return "/".join(parts)


class _StrictInfo(tarfile.TarInfo):
    """A tar header that is whole: tarfile takes a damaged or missing one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros: the real end
                raise
            raise tarfile.ReadError(str(error) or "no header where one must be") from None

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """The entry point that tarfile names for subclasses; it reads these headers whole."""
        extended = (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )
        if self.type in extended and self.size > HEADER_BYTES:
            raise _Refused(f"has an extended header of {self.size} bytes", member=self.name)
        return cast(tarfile.TarInfo, super()._proc_member(tar))  # type: ignore[misc]


def _unpack_tar(tree: _Tree, file: IO[bytes]) -> None:
    stream = _decompressed(file)
    with tarfile.open(
        fileobj=stream,
        mode="r|",
        bufsize=CHUNK,
        tarinfo=_StrictInfo,
        encoding="utf-8",
        errors="surrogateescape",
    ) as tar:
        for info in tar:
            tree.add(_tar_member(info), tar.extractfile(info) if info.isreg() else None)
    while chunk := stream.read(CHUNK):  # padding, and the checksum behind it
        tree.count(len(chunk))


def _tar_member(info: tarfile.TarInfo) -> _Member:
    kinds = {
        tarfile.REGTYPE: "file",
        tarfile.AREGTYPE: "file",
        tarfile.CONTTYPE: "file",
        tarfile.DIRTYPE: "dir",
        tarfile.SYMTYPE: "symlink",
        tarfile.LNKTYPE: "hardlink",
    }
    if info.type not in kinds or info.issparse():
        special = {tarfile.CHRTYPE: "character device", tarfile.BLKTYPE: "block device"}
        special |= {tarfile.FIFOTYPE: "FIFO", tarfile.GNUTYPE_SPARSE: "sparse file"}
        what = special.get(info.type, "sparse file" if info.issparse() else f"type {info.type!r}")
        raise _Refused(f"is no file, directory or link but a {what}", member=info.name)
    return _Member(
        name=info.name,
        kind=kinds[info.type],
        size=info.size,
        executable=bool(info.mode & 0o111),
        mtime=_sane_time(info.mtime),
        target=info.linkname,
    )


def _sane_time(seconds: float) -> int:
    """A time that every file system can hold."""
    return int(min(max(seconds, 0), 0xFFFFFFFF))


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """The tar file inside the compression that the first bytes show."""
    kind = _kind(file)
    if kind == "gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if kind == "bz2":
        return cast(IO[bytes], bz2.BZ2File(file))
    if kind == "xz":
        return cast(IO[bytes], lzma.LZMAFile(file))
    if kind == "zst":
        import zstandard  # only here: an environment without it still unpacks the rest

        reader: Any = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        return cast(IO[bytes], reader.stream_reader(file, read_across_frames=True))
    if kind != "tar":
        raise _Refused(f"holds {kind} where a tar file is expected")
    return file


def _unpack_zip(tree: _Tree, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            member = _zip_member(archive, info)
            if member.kind == "file":
                with archive.open(info) as content:
                    tree.add(member, content)
            else:
                tree.add(member)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    name = info.orig_filename  # filename is cut at a NUL byte
    if not (name.isascii() or info.flag_bits & 0x800):
        raise _Refused("has a name that is not UTF-8", member=name)
    if info.flag_bits & 0x1:
        raise _Refused("is encrypted", member=name)
    mode = info.external_attr >> 16
    kind, target = "dir" if name.endswith("/") else "file", ""
    if stat.S_ISLNK(mode):
        if info.file_size > os.pathconf("/", "PC_PATH_MAX"):
            raise _Refused("is a link with an endless target", member=name)
        kind, target = "symlink", archive.read(info).decode()
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _Refused("is no file, directory or link but a device or FIFO", member=name)
    try:
        mtime = calendar.timegm(info.date_time)  # a zip file knows no time zone
    except (ValueError, OverflowError):
        mtime = ZIP_EPOCH
    return _Member(
        name=name,
        kind=kind,
        size=info.file_size,
        executable=bool(mode & 0o111),
        mtime=_sane_time(mtime),
        target=target,
    )


def _deb_data(file: IO[bytes]) -> IO[bytes]:
    """The one ``data.tar.*`` of a Debian package; control files are not unpacked."""
    found = [
        (start, size) for name, start, size in _ar_members(file) if name.startswith("data.tar")
    ]
    if len(found) != 1:
        raise _Refused(f"is no Debian package: {len(found)} members are called data.tar.*")
    start, size = found[0]
    return cast(IO[bytes], io.BufferedReader(_Window(file, start=start, size=size), CHUNK))


def _ar_members(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each member of an ar archive (deb(5): 60-byte headers, even)."""
    end = file.seek(0, os.SEEK_END)
    position = file.seek(8)
    while position < end:
        file.seek(position)
        header = file.read(60)
        digits = header[48:58].strip()
        if len(header) < 60 or header[58:] != b"`\n" or not digits.isdigit():
            raise _Refused(f"damaged or cut short: no ar header at byte {position}")
        start, size = position + 60, int(digits)
        if start + size > end:
            raise _Refused("damaged or cut short: the last member is not whole")
        yield header[:16].decode("ascii").rstrip(" /"), start, size
        position = start + size + size % 2


class _Window(io.RawIOBase):
    """A part of an open file, read as a file of its own."""

    def __init__(self, file: IO[bytes], *, start: int, size: int) -> None:
        super().__init__()
        self.file = file
        self.start = start
        self.size = size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.position)
        chunk = self.file.read(max(0, min(len(buffer), self.size - self.position)))
        buffer[: len(chunk)] = chunk
        self.position += len(chunk)
        return len(chunk)
