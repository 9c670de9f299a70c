"""Seal a prefix: what is not shipped goes, bytecode and markers come; then nothing can change."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from longrun.errors import BuildError
from longrun.fs import walk
from longrun.relocate import Layout, layout

MARKER = "share/longrun/prefix.json"
"""Says what a prefix is, to people and to programs that find one."""

README = "README.txt"
"""CPython's own note in site-packages: all that may be there."""

EXTERNALLY_MANAGED = """\
[externally-managed]
Error=This Python is shared by everyone on this machine. It is read-only and was
 proven as a whole, so nothing can be installed into it.

 Make a virtual environment and install there:

     python{version} -m venv my-env
     my-env/bin/python -m pip install some-package

 A package that every control room needs belongs into the distribution itself:
 ask its maintainers, or add a package specification and open a merge request.
"""


class Run(Protocol):
    """Starts a program, as ``steps.job.Run`` does."""

    def __call__(
        self, argv: list[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None: ...


def seal(
    prefix: Path,
    *,
    exclude: Iterable[str],
    marker: Mapping[str, str],
    hook: tuple[str, str],
    epoch: int,
    run: Run,
) -> None:
    """Make a relocated prefix final.

    ``exclude`` are globs below the prefix that are not shipped, ``marker`` becomes the file
    ``MARKER``, ``hook`` is the name and the text of the start-up hook, ``epoch`` is the time stamp
    of everything, in seconds since 1970. ``run`` starts the prefix's own interpreter, which
    compiles the bytecode. BuildError where something is in the base's site-packages.
    """
    here = layout(prefix)
    prune(prefix, exclude)
    check_site_packages(here)
    mark(here, marker)
    name, text = hook
    (here.stdlib / name).write_text(text, encoding="utf-8")
    compile_bytecode(here, run)
    stamp(prefix, epoch)


def prune(prefix: Path, exclude: Iterable[str]) -> None:
    """Delete what the globs match, links that then point nowhere, and empty directories."""
    for pattern in exclude:
        for path in sorted(prefix.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for path in sorted(prefix.rglob("*"), reverse=True):
        if path.is_symlink():
            if not path.exists():
                path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def check_site_packages(here: Layout) -> None:
    """BuildError where anything is installed in the base: pip comes with each environment."""
    found = sorted(path.name for path in (here.stdlib / "site-packages").glob("*"))
    installed = [name for name in found if name != README]
    if installed:
        raise BuildError(f"the base's site-packages hold {', '.join(installed)}")


def mark(here: Layout, marker: Mapping[str, str]) -> None:
    """Write what refuses installations (PEP 668) and what says which prefix this is."""
    text = EXTERNALLY_MANAGED.format(version=here.version)
    (here.stdlib / "EXTERNALLY-MANAGED").write_text(text, encoding="utf-8")
    path = here.prefix / MARKER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(marker), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def compile_bytecode(here: Layout, run: Run) -> None:
    """Compile the standard library to bytecode that is valid whatever the files' times are.

    One process and one order: the bytes that marshal writes depend on which strings were shared
    before. The paths inside are relative; an import puts in those of the file that it found.
    """
    for cache in sorted(here.stdlib.rglob("__pycache__")):
        shutil.rmtree(cache)
    compile_file(here, here.stdlib, run)


def compile_file(here: Layout, source: Path, run: Run) -> None:
    """Compile one source, or all of a directory, with the prefix's own interpreter."""
    python = here.prefix / "bin" / f"python{here.version}"
    argv = [str(python), "-s", "-B", "-W", "ignore", "-m", "compileall", "-q", "-j", "1"]
    argv += ["--invalidation-mode", "unchecked-hash", "-s", str(here.prefix), str(source)]
    # not -I: that would ignore the seed, on which the order of constant sets depends
    run(argv, cwd=here.prefix, env={"PYTHONHASHSEED": "0"})


def stamp(prefix: Path, epoch: int) -> None:
    """Take away every write bit and set every time; the prefix's own directory stays as it is.

    Executable are programs and shared libraries, wherever CPython's installation put other bits.
    """
    for name, entry in list(walk(prefix)):
        if not entry.is_symlink():
            directory = entry.is_dir(follow_symlinks=False)
            os.chmod(entry.path, 0o555 if directory or _executable(name, entry) else 0o444)
        os.utime(entry.path, (epoch, epoch), follow_symlinks=False)
    os.utime(prefix, (epoch, epoch))


def _executable(name: str, entry: os.DirEntry[str]) -> bool:
    if name.startswith("bin/"):
        return True
    mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
    return bool(mode & 0o100) and ".so" in entry.name
