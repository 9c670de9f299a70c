"""A layer for machines that have no prefix of ours: files with which pip and uv install the same.

A lock names no address, since a technical network's index is not the public one; what is exported
bears those of the index that it was exported for. All bytes follow from specs, locks and index.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import tomli_w
from packaging.markers import Marker
from packaging.pylock import Package, PackageSdist, PackageWheel, Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from longrun.errors import SpecError
from longrun.index.client import Index, in_parallel
from longrun.model import SDIST, Distribution, Release
from longrun.stack import Stack

WIDTH = 100


def pylock(stack: Stack, layer: str, index: Index) -> str:
    """A layer of one interpreter as ``pylock.toml`` (PEP 751), with the index's file addresses.

    Raises SourceError where the index has not got a file, or another one of that name.
    """
    members = stack.members(layer)
    urls = in_parallel(lambda dist: _url(index, dist), members)
    names = {dist.name for dist in members}
    requires = {name: sorted(set(them) & names) for name, them in stack.requires().items()}
    minor = _minor(stack.tag)
    lock = Pylock(
        lock_version=Version("1.0"),
        environments=[Marker(_environment(stack, minor))],
        requires_python=SpecifierSet(f"=={minor}.*"),
        created_by="longrun",
        packages=[
            _package(dist, url, requires[dist.name])
            for dist, url in zip(members, urls, strict=True)
        ],
    )
    lock.validate()
    return tomli_w.dumps(dict(lock.to_dict()))


def _url(index: Index, dist: Distribution) -> str:
    return index.locate(f"{dist.name}=={dist.version}", dist.file, dist.sha256).url


def _package(dist: Distribution, url: str, requires: Iterable[str]) -> Package:
    facts = {"name": dist.file, "url": url, "size": dist.size}
    hashes = {"sha256": dist.sha256}
    is_sdist = dist.tag == SDIST
    return Package(
        name=canonicalize_name(dist.name),
        version=Version(dist.version),
        dependencies=[{"name": name} for name in requires] or None,
        sdist=PackageSdist(**facts, hashes=hashes) if is_sdist else None,  # type: ignore[arg-type]
        wheels=None if is_sdist else [PackageWheel(**facts, hashes=hashes)],  # type: ignore[arg-type]
    )


def _environment(stack: Stack, minor: str) -> str:
    arch = stack.release.floor.arch
    return (
        f"python_version == '{minor}' and implementation_name == 'cpython' and "
        f"sys_platform == 'linux' and platform_machine == '{arch}'"
    )


def requirements(stack: Stack, layer: str, *, index: str = "") -> str:
    """A layer of one interpreter as requirements with hashes, for ``pip install -r``."""
    lines = [
        f"# Longrun {stack.release.name}, layer {layer}, for CPython {_minor(stack.tag)} on "
        f"{stack.release.floor.tag} and later",
        "# made by ./build.py export; install with: pip install --no-deps -r requirements.txt",
    ]
    if index:
        lines.append(f"--index-url {index}")
    for dist in stack.members(layer):
        lines += [f"{dist.name}=={dist.version} \\", f"    --hash=sha256:{dist.sha256}"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class Metapackage:
    """A wheel without files: to install it is to install a layer."""

    name: str
    version: str
    file: str
    metadata: str
    requires_python: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The sha256 of the wheel."""
        return hashlib.sha256(self.content).hexdigest()


def metapackage(release: Release, layer: str, stacks: Iterable[Stack]) -> Metapackage:
    """The metapackage of a layer, such as ``longrun-controls==2026.1``, for some interpreters.

    It pins every distribution, for each interpreter; pip then brings them from any index.
    """
    stacks = list(stacks)
    name = canonicalize_name(f"longrun-{layer}")
    version = _version(release)
    python = _requires_python([_minor(stack.tag) for stack in stacks])
    summary = release.layers[layer].summary
    metadata = "".join(
        f"{line}\n"
        for line in (
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            f"Summary: Longrun {release.name}, layer {layer}: {summary}",
            "License: Apache-2.0",
            f"Requires-Python: {python}",
            *(f"Requires-Dist: {text}" for text in _pins(layer, stacks)),
        )
    )
    stem = f"{name.replace('-', '_')}-{version}"
    return Metapackage(
        name=name,
        version=version,
        file=f"{stem}-py3-none-any.whl",
        metadata=metadata,
        requires_python=python,
        content=_wheel(stem, metadata, release),
    )


def _version(release: Release) -> str:
    try:
        return str(Version(release.name))
    except InvalidVersion:
        raise SpecError(
            f"specs/releases/{release.name}.toml: name: expected a version as in PEP 440, which "
            f"its metapackages would have, found {release.name!r}"
        ) from None


def _pins(layer: str, stacks: list[Stack]) -> list[str]:
    """Each distribution's version; with a marker where not all interpreters have that one."""
    pins: dict[tuple[str, str], list[str]] = {}
    for stack in stacks:
        for dist in stack.members(layer):
            pins.setdefault((dist.name, dist.version), []).append(_minor(stack.tag))
    found = []
    for (name, version), minors in sorted(pins.items()):
        markers = " or ".join(f'python_version == "{minor}"' for minor in sorted(minors, key=_key))
        condition = "" if len(minors) == len(stacks) else f" ; {markers}"
        found.append(f"{name}=={version}{condition}")
    return found


def _requires_python(minors: list[str]) -> str:
    """A specifier of exactly these minor versions: with another one, nothing would be pinned."""
    numbers = sorted(_key(minor)[1] for minor in minors)
    between = [f"!=3.{n}.*" for n in range(numbers[0], numbers[-1]) if n not in numbers]
    return ",".join([f">=3.{numbers[0]}", *between, f"<3.{numbers[-1] + 1}"])


def _key(minor: str) -> tuple[int, ...]:
    return tuple(map(int, minor.split(".")))


def _minor(tag: str) -> str:
    """``3.13`` of ``cp313``."""
    return f"{tag[2]}.{tag[3:]}"


def _wheel(stem: str, metadata: str, release: Release) -> bytes:
    """A wheel with nothing but its own metadata; stored, so that no zlib makes a difference."""
    directory = f"{stem}.dist-info"
    files = {
        f"{directory}/METADATA": metadata,
        f"{directory}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: longrun\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    files[f"{directory}/RECORD"] = _record(files, f"{directory}/RECORD")
    date = time.strptime(release.date, "%Y-%m-%d")[:6]
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name, date_time=date)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, text)
    return raw.getvalue()


def _record(files: Mapping[str, str], own: str) -> str:
    lines = []
    for name, text in files.items():
        digest = hashlib.sha256(text.encode()).digest()
        value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        lines.append(f"{name},sha256={value},{len(text.encode())}\n")
    return "".join(lines) + f"{own},,\n"
