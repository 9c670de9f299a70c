"""A native library: source to static archives, headers and .pc files, below no fixed prefix."""

from __future__ import annotations

import re
import shutil
import string
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from longrun.errors import BuildError
from longrun.model import Build, Library
from longrun.steps.job import Job
from longrun.steps.toolchain import build_triple, environment
from longrun.unpack import unpack

CFLAGS = "-O2 -g0 -fvisibility=hidden"

REMOVED = ("bin", "sbin", "share/doc", "share/gtk-doc", "share/info", "share/man", "**/*.la")
"""What no later step reads."""

SOURCE = "source"

RELOCATABLE = "${pcfiledir}/../.."


def build(job: Job) -> None:
    """Build one library into ``job.out``; BuildError says which part of it failed."""
    spec = job.spec
    assert isinstance(spec, Library)
    env = {**environment(job), "CFLAGS": CFLAGS, "CXXFLAGS": CFLAGS}
    source = unpack_source(job, spec)
    run_commands(job, spec.build, source, env)
    flatten(job.out)
    remove(job.out, (*REMOVED, *spec.build.remove))
    relocate_pkgconfig(job.out)
    keep_licences(source, spec.build.licences, job.out / "share/licenses" / spec.name)
    check_expected(spec.name, job.out, spec.build.expects)
    check_paths(spec.name, job.out, (job.work, job.out))
    set_modes(job.out)


def unpack_source(job: Job, spec: Library) -> Path:
    """The unpacked and patched source."""
    source = job.work / SOURCE
    unpack(job.source(spec.name), source)
    for patch in job.patches:
        job.say(f"patch {patch.name}")
        job.run(["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch"], cwd=source, stdin=patch)
    return source


def run_commands(job: Job, build: Build, source: Path, env: Mapping[str, str]) -> None:
    """The spec's commands, with their placeholders filled in."""
    values = placeholders(job)
    more = {name: expand(value, values) for name, value in build.env.items()}
    for command in build.commands:
        argv = [expand(word, values) for word in command]
        job.say(" ".join(command))
        job.run(argv, cwd=source / build.directory, env={**env, **more})


def placeholders(job: Job) -> dict[str, str]:
    """What a spec's commands may name in braces; see ``model.Build``."""
    return {
        "out": str(job.out),
        "arch": job.floor.arch,
        "triple": job.floor.triple,
        "host": build_triple(),
        "deps": str(job.work / "deps"),
        "source": str(job.work / SOURCE),
        "python": sys.executable,
    }


def expand(text: str, values: Mapping[str, str]) -> str:
    """Fill in the placeholders of one word; BuildError for one that there is not."""
    parts: list[str] = []
    try:
        for literal, name, _, _ in string.Formatter().parse(text):
            parts.append(literal)
            if name is not None:
                parts.append(values[name])
    except KeyError as error:
        known = ", ".join(f"{{{name}}}" for name in sorted(values))
        raise BuildError(
            f"{text}: unknown placeholder {{{error.args[0]}}}; known: {known}"
        ) from None
    except ValueError as error:
        raise BuildError(f"{text}: {error}", remedy="write {{ and }} for braces") from None
    return "".join(parts)


def flatten(out: Path) -> None:
    """Move what was installed below ``usr`` to the top, and delete the rest (``/etc``, ...)."""
    for path in out.iterdir():
        if path.name != "usr":
            _delete(path)
    usr = out / "usr"
    if not usr.is_dir():
        raise BuildError("nothing was installed below {out}/usr")
    # a library may install usr/usr; the name must be free before its content moves up
    aside = usr.rename(out / ".installed")
    for path in aside.iterdir():
        path.rename(out / path.name)
    aside.rmdir()


def remove(tree: Path, patterns: Iterable[str]) -> None:
    """Delete what the globs match, and directories that are empty then."""
    for pattern in patterns:
        for path in sorted(tree.glob(pattern)):
            _delete(path)
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def relocate_pkgconfig(tree: Path) -> None:
    """Make every .pc file find its tree from where it is itself."""
    for directory in ("lib/pkgconfig", "share/pkgconfig"):
        for path in sorted((tree / directory).glob("*.pc")):
            path.write_text(relocated(path.read_text(encoding="utf-8")), encoding="utf-8")


def relocated(text: str) -> str:
    """The text of a .pc file with its prefix, and paths that repeat the prefix, made relative."""
    if not re.search(r"(?m)^prefix\s*=", text):
        text = f"prefix=/usr\n{text}"
    text = re.sub(r"(?m)^prefix\s*=.*$", f"prefix={RELOCATABLE}", text)
    usr = r"(?m)(^|[=\s]|-[IL])/usr(?=/(?:include|lib|share)\b|\s*$)"
    return re.sub(usr, r"\g<1>${prefix}", text)


def keep_licences(source: Path, patterns: Iterable[str], into: Path) -> None:
    """Copy the licence files of the source; BuildError where a glob matches none."""
    into.mkdir(parents=True)
    for pattern in patterns:
        found = sorted(path for path in source.glob(pattern) if path.is_file())
        if not found:
            raise BuildError(f"licence file {pattern} is not in the source")
        for path in found:
            shutil.copyfile(path, into / path.name)


def check_expected(name: str, tree: Path, expected: Iterable[str]) -> None:
    """BuildError that names every expected path which is not there."""
    missing = [path for path in expected if not (tree / path).exists()]
    if missing:
        raise BuildError(f"{name}: the build did not install {', '.join(missing)}")


def check_paths(name: str, tree: Path, directories: Iterable[Path]) -> None:
    """BuildError that names a file which holds the path of a build directory.

    Such a file differs from machine to machine, and carries the path into every prefix.
    """
    needles = [str(directory).encode() for directory in directories]
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        for needle in needles:
            if needle in content:
                where = path.relative_to(tree)
                raise BuildError(f"{name}: {where} holds the build path {needle.decode()}")


def set_modes(tree: Path) -> None:
    """Give everything the mode that it would have with the umask 022, whatever the user's is."""
    for path in sorted(tree.rglob("*")):
        if not path.is_symlink():
            program = path.is_dir() or path.stat().st_mode & 0o111
            path.chmod(0o755 if program else 0o644)
