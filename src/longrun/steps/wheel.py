"""One distribution as it stands in a prefix: a wheel unpacked, its scripts and bytecode made.

The files are those below a prefix (``lib/python3.13/site-packages``, ``bin``, ...), so that a layer
is no more than links to the files of its distributions.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import posixpath
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

from installer import install as install_wheel
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry
from installer.sources import WheelFile
from installer.utils import Scheme

from longrun import elf
from longrun.errors import BuildError
from longrun.fs import sha256_file, walk
from longrun.model import Wheel
from longrun.relocate import polyglot
from longrun.steps import sdist
from longrun.steps.job import Job

# bytecode inside a wheel is left out, and made here
warnings.filterwarnings("ignore", message="Skip installing .*__pycache__")

SCRIPT = """\
import sys

from {module} import {name}

if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({attr}())
"""

COMPILE = """
import compileall, py_compile, sys
compileall.compile_dir(
    sys.argv[1], maxlevels=64, quiet=2, force=True, stripdir=sys.argv[2],
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
"""
"""Compiles what it can: some packages carry templates or old files that are no Python of today."""


def build(job: Job) -> None:
    """Install one wheel into ``job.out``; an sdist is made into a wheel first."""
    spec = job.spec
    assert isinstance(spec, Wheel)
    file = source_file(job)
    if spec.build is not None:
        file = sdist.build_wheel(job, spec, file)
    place = Place(root=job.out, version=python_version(spec.tag), name=spec.name)
    job.say("unpack")
    unpack(file, place)
    exclude(place, spec.exclude)
    clean_runpath(place, spec.clean_runpath)
    job.say("bytecode")
    compile_bytecode(job, place)
    write_record(place)
    stamp(job.out, job.epoch)
    job.known.update(place.hashes)


def source_file(job: Job) -> Path:
    """The one file of the one source."""
    (tree,) = (tree for name, tree in job.inputs.items() if name.startswith("source/"))
    (file,) = tree.iterdir()
    return file


def python_version(tag: str) -> str:
    """``cp313`` as it stands in paths: ``3.13``."""
    return f"3.{tag.removeprefix('cp3')}"


@dataclass(kw_only=True)
class Place(WheelDestination):
    """Where a wheel goes: directories of a prefix, and the hash of every file written there."""

    root: Path
    version: str
    name: str
    hashes: dict[str, str] = field(default_factory=dict)
    record: str = ""

    @property
    def packages(self) -> str:
        """The directory of installed packages, below the prefix."""
        return f"lib/python{self.version}/site-packages"

    def write_file(
        self,
        scheme: Scheme,
        path: str | os.PathLike[str],
        stream: BinaryIO,
        is_executable: bool,
    ) -> RecordEntry:
        """Write one file of the wheel; a Python script finds the interpreter beside it."""
        target = self._path(scheme, os.fspath(path))
        if scheme != "scripts":
            return self._write(target, stream, executable=is_executable)
        content = stream.read()
        first, newline, rest = content.partition(b"\n")
        if first.startswith(b"#!") and b"python" in first and newline:
            content = self._polyglot() + rest
        return self._write(target, _chunks(content), executable=True)

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        """Write the script of an entry point."""
        text = SCRIPT.format(module=module, name=attr.partition(".")[0], attr=attr)
        content = self._polyglot() + text.encode()
        return self._write(self._path("scripts", name), _chunks(content), executable=True)

    def finalize_installation(
        self,
        scheme: Scheme,
        record_file_path: str,
        records: Iterable[tuple[Scheme, RecordEntry]],
    ) -> None:
        """Note where RECORD goes: it is written when the bytecode is there, too."""
        self.record = self._path(scheme, record_file_path)

    def _polyglot(self) -> bytes:
        return polyglot(f"../bin/python{self.version}").encode()

    def _path(self, scheme: str, path: str) -> str:
        directories = {
            "purelib": self.packages,
            "platlib": self.packages,
            "headers": f"include/python{self.version}/{self.name}",
            "scripts": "bin",
            "data": "",
        }
        joined = posixpath.normpath(posixpath.join(directories[scheme], path))
        if posixpath.isabs(path) or joined.split("/")[0] == "..":
            raise BuildError(f"the wheel's {path!r} leads out of the prefix")
        return joined

    def _write(self, path: str, stream: Iterable[bytes], *, executable: bool) -> RecordEntry:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise BuildError(f"the wheel has {path} twice") from error
        with os.fdopen(descriptor, "wb") as file:
            for chunk in _read(stream):
                digest.update(chunk)
                size += file.write(chunk)
            os.fchmod(descriptor, 0o555 if executable else 0o444)
        self.hashes[path] = digest.hexdigest()
        return RecordEntry(path, Hash("sha256", encoded(digest.hexdigest())), size)


def _chunks(content: bytes) -> Iterable[bytes]:
    return (content,)


def _read(stream: Iterable[bytes]) -> Iterable[bytes]:
    """A file in large pieces, whatever its lines are."""
    read = getattr(stream, "read", None)
    return iter(lambda: read(1 << 20), b"") if read else stream


def encoded(sha256: str) -> str:
    """A hexadecimal sha256 as RECORD writes it."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)).rstrip(b"=").decode()


def unpack(file: Path, place: Place) -> None:
    """Write every file of a wheel; BuildError where it is not as its own RECORD says."""
    try:
        with WheelFile.open(file) as wheel:
            install_wheel(wheel, place, {"INSTALLER": b"longrun\n"})
            check_record(wheel, place)
    except (BadZipFile, InstallerError, ValueError, KeyError) as error:
        raise BuildError(f"{file.name}: not a valid wheel: {error}") from error


def check_record(wheel: WheelFile, place: Place) -> None:
    """BuildError where a file that was written is not the one that the wheel's RECORD lists."""
    rows = csv.reader(wheel.read_dist_info("RECORD").splitlines())
    for path, checksum, *_ in (row for row in rows if row):
        written = place.hashes.get(f"{place.packages}/{path}")
        if checksum and written and checksum != f"sha256={encoded(written)}":
            raise BuildError(f"{path} is not as the wheel's RECORD says")


def exclude(place: Place, patterns: Iterable[str]) -> None:
    """Delete what the globs match, and directories that are then empty; each must match."""
    for path in matching(place, "exclude", patterns):
        if path.is_file():
            path.unlink()
            del place.hashes[path.relative_to(place.root).as_posix()]
        elif not any(path.iterdir()):
            path.rmdir()


def clean_runpath(place: Place, patterns: Iterable[str]) -> None:
    """Let RPATH and RUNPATH of what the globs match stay in the prefix; each must match."""
    for path in matching(place, "clean_runpath", patterns):
        if elf.apply(path, elf.Edits(clean_runpath=True)):
            place.hashes[path.relative_to(place.root).as_posix()] = sha256_file(path)


def matching(place: Place, key: str, patterns: Iterable[str]) -> Iterator[Path]:
    """What a spec's globs match below site-packages, deepest first; BuildError for one in vain."""
    for pattern in patterns:
        found = sorted((place.root / place.packages).glob(pattern), reverse=True)
        if not found:
            raise BuildError(
                f"{place.name}: {key}: {pattern!r} matches no file of the wheel",
                remedy=f"mend specs/packages/{place.name}.toml",
            )
        yield from found


def compile_bytecode(job: Job, place: Place) -> None:
    """Bytecode that is valid whatever the files' times are, by the interpreter itself.

    One process and one order, as for the standard library; see ``seal.compile_bytecode``.
    """
    directory = job.out / place.packages
    if not any(path.endswith(".py") for path in place.hashes):
        return
    python = interpreter(job) / "bin" / f"python{place.version}"
    argv = [str(python), "-S", "-s", "-B", "-W", "ignore", "-c", COMPILE]
    job.run([*argv, str(directory), str(job.out)], env={"PYTHONHASHSEED": "0"})
    for path, entry in walk(job.out):
        if path.endswith(".pyc"):
            os.chmod(entry.path, 0o444)
            place.hashes[path] = sha256_file(Path(entry.path))


def interpreter(job: Job) -> Path:
    """The tree that holds the interpreter: as it was built, or relocated for an sdist."""
    (tree,) = (
        tree for name, tree in job.inputs.items() if name.startswith(("interpreter/", "prefix/"))
    )
    return tree


def write_record(place: Place) -> None:
    """RECORD, which lists every file with its hash, bytecode and scripts too."""
    target = place.root / place.record
    with target.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        for path in sorted(place.hashes):
            shown = posixpath.relpath(path, place.packages)
            checksum = f"sha256={encoded(place.hashes[path])}"
            rows.writerow((shown, checksum, (place.root / path).stat().st_size))
        rows.writerow((posixpath.relpath(place.record, place.packages), "", ""))
    target.chmod(0o444)
    place.hashes[place.record] = sha256_file(target)


def stamp(tree: Path, epoch: int) -> None:
    """Set every time to ``epoch``, in seconds since 1970."""
    for _, entry in list(walk(tree)):
        os.utime(entry.path, (epoch, epoch), follow_symlinks=False)
