"""What an index has of a project for one target: which file is taken, and why others are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from longrun.index.simple import File
from longrun.lock.closure import Target
from longrun.model import SDIST
from longrun.tags import best_tag, tags_of

SHOWN = 4
"""How many tags or platforms a message lists."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The file that is taken of a version, and its tag: a wheel's best one, or ``sdist``."""

    file: File
    tag: str


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One version of a project: all its files, and what they are worth for a target."""

    version: Version
    files: tuple[File, ...]
    target: Target

    @cached_property
    def wheels(self) -> list[tuple[int, tuple[int, str], str, File]]:
        """The wheels that fit, best first: rank, build tag, tag, file."""
        found = []
        for file in self.files:
            best = best_tag(file.name, self.target.tag, self.target.floor)
            if best:
                number, letter = _build_tag(file.name)
                found.append((best[0], (-number, letter), best[1], file))
        return sorted(found, key=lambda item: (item[0], item[1], item[3].name))

    @property
    def sdist(self) -> File | None:
        """The source distribution."""
        return next((file for file in self.files if file.is_sdist), None)

    @property
    def yanked(self) -> str | None:
        """Why the whole version was withdrawn (may be empty); None where it was not."""
        reasons = [file.yanked for file in self.files]
        return None if None in reasons else "; ".join(sorted({r for r in reasons if r}))

    @property
    def runs(self) -> bool:
        """Whether the interpreter is among those that the version is for."""
        return any(self.target.takes(file.requires_python) for file in self.files)

    def choice(self, *, build: bool) -> Choice | None:
        """The file to take; an sdist only where it can be built."""
        standing = [item for item in self.wheels if item[3].yanked is None]
        if wheels := standing or self.wheels:
            return Choice(file=wheels[0][3], tag=wheels[0][2])
        if build and self.sdist:
            return Choice(file=self.sdist, tag=SDIST)
        return None

    def fits(self, *, build: bool) -> bool:
        """Whether it can be had here."""
        return self.runs and self.yanked is None and self.choice(build=build) is not None

    def lacks(self) -> str:
        """Why it cannot be had here, to be read after its version."""
        if self.yanked is not None:
            return f"is yanked ({self.yanked or 'no reason given'})"
        if not self.runs:
            return f"needs Python {self._requires_python()}"
        if platforms := self._above_floor():
            return f"has a wheel only for {_some(platforms)}, above the floor"
        if tags := self._interpreters():
            return f"has wheels only for {_some(tags)}"
        if self.sdist:
            return "has no wheel, only an sdist"
        return f"has no wheel for {self.target.floor.tag}"

    def _requires_python(self) -> str:
        return next((f.requires_python for f in self.files if f.requires_python), "")

    def _above_floor(self) -> list[str]:
        """Platforms of the wheels that this interpreter could take, were the floor a newer one."""
        found = set()
        for file in self.files:
            for tag in tags_of(file.name):
                mine = tag.interpreter in (self.target.tag, "py3") or (
                    tag.abi == "abi3" and _minor(tag.interpreter) <= _minor(self.target.tag)
                )
                linux = tag.platform.startswith("manylinux")
                if mine and linux and tag.platform.endswith(self.target.floor.arch):
                    found.add(tag.platform)
        return sorted(found)

    def _interpreters(self) -> list[str]:
        """Interpreters that this version has a wheel for, of those on the floor's platform."""
        found = {
            tag.interpreter
            for file in self.files
            for tag in tags_of(file.name)
            if tag.platform == "any"
            or (
                tag.platform.startswith("manylinux")
                and tag.platform.endswith(self.target.floor.arch)
            )
        }
        return sorted(found, key=lambda name: (_minor(name), name))


def offers(files: Iterable[File], target: Target) -> list[Offer]:
    """The versions of a project, newest first."""
    found: dict[Version, list[File]] = {}
    for file in files:
        if file.is_wheel or file.is_sdist:
            try:
                found.setdefault(Version(file.version), []).append(file)
            except InvalidVersion:
                continue  # relics
    return [
        Offer(version=version, files=tuple(found[version]), target=target)
        for version in sorted(found, reverse=True)
    ]


def newest(
    found: Iterable[Offer], constraint: str = "", *, build: bool, prereleases: bool = False
) -> Offer | None:
    """The newest that can be had within a constraint.

    Pre-releases count where the constraint names one, or where there is nothing else: as for uv.
    """
    rows = list(found)
    allowed = SpecifierSet(constraint)
    named = any(_is_prerelease(specifier.version) for specifier in allowed)
    only = all(offer.version.is_prerelease for offer in rows)
    for offer in rows:
        if offer.version.is_prerelease and not (prereleases or named or only):
            continue
        if allowed.contains(offer.version, prereleases=True) and offer.fits(build=build):
            return offer
    return None


def _is_prerelease(version: str) -> bool:
    try:
        return Version(version).is_prerelease
    except InvalidVersion:
        return False  # such as 1.*


def what_there_is(found: list[Offer], constraint: str = "", *, build: bool) -> str:
    """For messages: the newest version that fits, and why the newest within a constraint does not.

    The interpreter is named before it.
    """
    if not found:
        return "the index has no file of it"
    best = newest(found, build=build) or newest(found, build=build, prereleases=True)
    said = f"newest that fits: {best.version}" if best else "no version fits"
    within = [o for o in found if SpecifierSet(constraint).contains(o.version, prereleases=True)]
    stable = [offer for offer in within if not offer.version.is_prerelease]
    for offer in (stable or within)[:1]:
        if not offer.fits(build=build):
            said += f"; {offer.version} {offer.lacks()}"
    return said


def _build_tag(file: str) -> tuple[int, str]:
    try:
        return tuple(parse_wheel_filename(file)[2]) or (0, "")  # type: ignore[return-value]
    except InvalidWheelFilename:
        return (0, "")


def _minor(interpreter: str) -> int:
    """``cp311`` as 11, for comparing; other interpreters as 0."""
    digits = interpreter.removeprefix("cp3")
    return int(digits) if digits.isdigit() else 0


def _some(names: list[str]) -> str:
    shown = ", ".join(names[-SHOWN:])
    return f"... {shown}" if len(names) > SHOWN else shown
