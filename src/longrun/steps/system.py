"""A system that checks run in: the root directory that its distribution's own packages make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from longrun.errors import BuildError, SetupError, SourceError
from longrun.model import System
from longrun.run import find_tool
from longrun.steps.job import Job

DROP = ("etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/cache/*", "var/log/*")
"""What would carry something of the building machine, or of the moment."""

WITHOUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
"""What no check reads. A Java package cannot be set up where the manual's directory is missing."""


def build(job: Job, archives: Iterable[str], *, offline: bool) -> None:
    """Make ``job.out/root``; ``job.out/packages.txt`` says of which packages."""
    spec = job.spec
    assert isinstance(spec, System)
    if offline:
        raise SourceError(
            f"{spec.title}: its packages come from the network, and this run is offline",
            remedy="run it once without --offline: the root is kept",
        )
    tarball = job.work / "root.tar"
    job.say("packages")
    make(job, spec, tuple(archives), tarball)
    job.say("unpack")
    unpack(job, tarball, job.out / "root")
    tidy(job.out)


def make(job: Job, spec: System, archives: tuple[str, ...], tarball: Path) -> None:
    """Have mmdebstrap make the root of the distribution's packages, whose signatures it checks."""
    if not archives:
        raise SetupError(
            f"{spec.title}: no address of a Debian archive is known",
            remedy="name one in `archives` of Longrun's configuration",
        )
    failures = []
    for archive in archives:
        tarball.unlink(missing_ok=True)
        try:
            job.run([*command(spec), str(tarball), archive], network=True)
        except BuildError as error:
            failures.append(f"{archive}: {error.message[:200]}")
        else:
            return
    raise BuildError("no archive gave the packages: " + "; ".join(failures))


def command(spec: System) -> list[str]:
    """mmdebstrap and its options, up to where the result goes."""
    program = find_tool("mmdebstrap")
    if program is None:
        raise SetupError("mmdebstrap: not found", remedy="apt-get install mmdebstrap")
    hosts = "printf '127.0.0.1 localhost\\n' > \"$1/etc/hosts\""
    listed = 'chroot "$1" dpkg-query --show > "$1/packages.txt"'
    return [
        *(program, "--variant=essential", "--mode=auto", "--format=tar"),
        f"--components={','.join(spec.components)}",
        f"--include={','.join(spec.packages)}",
        *(f"--dpkgopt=path-exclude={path}" for path in WITHOUT),
        '--aptopt=Acquire::Retries "3"',
        f"--customize-hook={listed}",
        f"--customize-hook={hosts}",
        spec.name,
    ]


def unpack(job: Job, tarball: Path, root: Path) -> None:
    """Unpack a root without its devices, owners and set-user-id bits: it is only looked at."""
    root.mkdir()
    tar = find_tool("tar") or "tar"
    job.run(
        [
            *(tar, "--extract", f"--file={tarball}", f"--directory={root}"),
            *("--no-same-owner", "--no-same-permissions", "--exclude=./dev/*"),
        ]
    )


def tidy(out: Path) -> None:
    """Take out what differs from one making to the next, and put the list of packages beside."""
    root = out / "root"
    (root / "packages.txt").rename(out / "packages.txt")
    for pattern in DROP:
        for path in sorted(root.glob(pattern), reverse=True):
            if path.is_symlink() or path.is_file():
                path.unlink()
