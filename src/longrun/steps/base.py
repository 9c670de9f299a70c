"""The base of images: the packages of a Debian suite, as one layer whose digest is locked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from longrun.errors import BuildError, SetupError, SourceError
from longrun.model import BasePlan
from longrun.oci.layer import compress_layer
from longrun.run import find_tool
from longrun.steps.blob import BLOB, compressor, write
from longrun.steps.job import Job

LISTS = {
    "extract": 'for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb --show "$deb"; done',
    "apt": 'dpkg-query --admindir="$1/var/lib/dpkg" --show',
}
"""How the packages of a variant are listed, name and version."""

HOOKS = (
    # what would carry something of the building machine, or of the moment
    'rm -rf "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/machine-id "$1"/etc/apt/sources.list',
    'rm -rf "$1"/var/log/* "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/lib/dpkg/*-old',
    # without maintainers' scripts there is neither a bundle of authorities nor a user
    'mkdir -p "$1/etc/ssl/certs" "$1/tmp" "$1/run" "$1/proc" "$1/sys" "$1/home/longrun"',
    'chmod 1777 "$1/tmp"; chown 1000:1000 "$1/home/longrun"',
    'bundle="$1/etc/ssl/certs/ca-certificates.crt"; test -s "$bundle" ||'
    ' cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$bundle"',
    'test -s "$1/etc/passwd" || echo "root:x:0:0:root:/root:/sbin/nologin" > "$1/etc/passwd"',
    'test -s "$1/etc/group" || echo "root:x:0:" > "$1/etc/group"',
    'echo "longrun:x:1000:1000:Longrun:/home/longrun:/bin/sh" >> "$1/etc/passwd"',
    'echo "longrun:x:1000:" >> "$1/etc/group"',
    'test -e "$1/etc/nsswitch.conf" || echo "hosts: files dns" > "$1/etc/nsswitch.conf"',
)
"""What is done to the root before it becomes a layer; ``$1`` is where it is. No data is in them."""

WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
"""What no container reads; licences stay."""


def build(job: Job, archives: Iterable[str], *, offline: bool) -> None:
    """Make the layer, ``packages.json``, and hold it against its lock; BuildError for another."""
    spec = job.spec
    assert isinstance(spec, BasePlan)
    if offline:
        raise SourceError(
            f"base {spec.base.name}: its packages come from the network, and this run is offline",
            remedy="run it once without --offline: the base is kept",
        )
    tarball = job.work / "root.tar"
    job.say("packages")
    make(job, spec, tuple(archives), tarball)
    packages = read_packages(job.work / "packages.txt")
    (job.out / "packages.json").write_text(json.dumps(packages, indent=1, sort_keys=True) + "\n")
    job.say("compress")
    blob = compress_layer(
        tarball,
        job.out / BLOB,
        title=f"base {spec.base.name}",
        compress=compressor(job, spec.compressor),
    )
    if spec.digest and blob.diff_id != spec.digest:
        raise BuildError(
            f"base {spec.base.name} is no longer what its lock says: {difference(spec, packages)}",
            remedy=f"./build.py base {spec.base.name} takes what the archive has now",
        )
    write(job.out, blob)


def make(job: Job, spec: BasePlan, archives: tuple[str, ...], tarball: Path) -> None:
    """Have mmdebstrap make the root of the distribution's packages, whose signatures it checks."""
    program = find_tool("mmdebstrap")
    if program is None:
        raise SetupError("mmdebstrap: not found", remedy="apt-get install mmdebstrap")
    failures = []
    for archive in archives:
        tarball.unlink(missing_ok=True)
        try:
            job.run([*command(job, spec, program), str(tarball), archive], network=True)
        except BuildError as error:
            failures.append(f"{archive}: {error.message[:200]}")
        else:
            return
    raise BuildError("no archive gave the packages: " + "; ".join(failures or ["none is known"]))


def command(job: Job, spec: BasePlan, program: str) -> list[str]:
    """mmdebstrap and its options, up to where the result goes."""
    base = spec.base
    hook = "--extract-hook" if base.variant == "extract" else "--customize-hook"
    listed = f'{hook}={{ {LISTS[base.variant]}; }} > "$1/packages.txt"'
    return [
        *(program, f"--variant={base.variant}", "--mode=auto", "--format=tar"),
        "--skip=output/dev",
        f"--components={','.join(base.components)}",
        f"--include={','.join(base.packages)}",
        *(f"--dpkgopt=path-exclude={path}" for path in WITHOUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Acquire::Retries "3"',
        listed,
        f"{hook}=download /packages.txt {job.work / 'packages.txt'}",
        f'{hook}=rm "$1/packages.txt"',
        *(f"{hook}={text}" for text in HOOKS),
        base.suite,
    ]


def read_packages(listed: Path) -> dict[str, str]:
    """Packages with their versions, of what dpkg-query shows."""
    rows = (line.split() for line in listed.read_text().splitlines() if line.strip())
    return {row[0].partition(":")[0]: row[1] if len(row) > 1 else "" for row in rows}


def difference(spec: BasePlan, packages: Mapping[str, str]) -> str:
    """What differs from the lock, in words."""
    changed = [
        f"{name} {spec.locked.get(name, 'absent')} -> {packages.get(name, 'absent')}"
        for name in sorted({*spec.locked, *packages})
        if spec.locked.get(name) != packages.get(name)
    ]
    if not changed:
        return "the same packages give other bytes"
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return ", ".join(changed[:5]) + more
