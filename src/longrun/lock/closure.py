"""What a stack's distributions ask for, by their metadata, on the machine that it is locked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cached_property

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from longrun.errors import SourceError
from longrun.model import Floor, Interpreter
from longrun.specs import normalised

SHOWN_LICENCE = 60
SHOWN_SUMMARY = 120
OSI = "License :: OSI Approved"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is locked for: an interpreter on a floor, whatever this machine is."""

    tag: str
    python: str
    floor: Floor

    @property
    def title(self) -> str:
        """For messages: ``cp311 on manylinux_2_28_x86_64``."""
        return f"{self.tag} on {self.floor.tag}"

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment markers (PEP 508), without those that only a running machine knows."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.floor.arch,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": ".".join(self.python.split(".")[:2]),
            "sys_platform": "linux",
        }

    def takes(self, requires_python: str) -> bool:
        """Whether the interpreter is among the versions of a Requires-Python."""
        try:
            return SpecifierSet(requires_python).contains(self.python, prereleases=True)
        except InvalidSpecifier:
            return True  # as pip does with relics

    def applies(self, requirement: Requirement, extras: Iterable[str]) -> bool:
        """Whether a requirement counts here for a distribution with these extras."""
        marker = requirement.marker
        return marker is None or any(
            marker.evaluate({**self.environment, "extra": extra}) for extra in ("", *extras)
        )


def target_of(interpreter: Interpreter, floor: Floor) -> Target:
    """The target of an interpreter of a release."""
    return Target(tag=interpreter.tag, python=interpreter.version, floor=floor)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a distribution's metadata says, as far as a lock needs it."""

    requires: tuple[Requirement, ...] = ()
    licence: str = ""
    summary: str = ""


def read_facts(metadata: str, file: str) -> Facts:
    """The facts in a METADATA or PKG-INFO; SourceError, naming ``file``, where they cannot be."""
    found = HeaderParser().parsestr(metadata)
    requires = []
    for text in found.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(" ".join(text.split()))
        except InvalidRequirement as error:
            raise SourceError(f"{file}: its metadata has no valid requirement: {error}") from None
        requires.append(requirement)
    return Facts(
        requires=tuple(requires),
        licence=_licence(
            found.get("License-Expression", ""),
            found.get_all("Classifier", []),
            found.get("License", ""),
        ),
        summary=_line(found.get("Summary", ""), SHOWN_SUMMARY),
    )


def _licence(expression: str, classifiers: Iterable[str], text: str) -> str:
    """A licence in a few words: the expression, the classifiers, or the text's first line."""
    if expression.strip():
        return _line(expression, SHOWN_LICENCE * 2)
    names = [
        line.rpartition(" :: ")[2]
        for line in classifiers
        if line.startswith("License :: ") and line.strip() != OSI
    ]
    if names:
        return ", ".join(sorted(set(names)))
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "" if first.strip().upper() == "UNKNOWN" else _line(first, SHOWN_LICENCE)


def _line(text: str, limit: int) -> str:
    """One line without control characters, cut at a word where it is too long."""
    words = "".join(char if char.isprintable() else " " for char in text).split()
    line = " ".join(words)
    if len(line) <= limit:
        return line
    return line[:limit].rpartition(" ")[0].rstrip(" ,;:") + " ..."


@dataclass(frozen=True, kw_only=True)
class Closure:
    """Who asks for whom: ``asks[name][asker]`` are the versions; ``extras[name]`` what is wanted.

    Everything that the roots reach is in ``extras``, whether its facts were known or not.
    """

    extras: Mapping[str, frozenset[str]]
    asks: Mapping[str, Mapping[str, SpecifierSet]]


def close(roots: Iterable[Requirement], facts: Mapping[str, Facts], target: Target) -> Closure:
    """Follow requirements from the roots to a fixed point; extras ask for more as they are met.

    A name without facts is reached and not followed.
    """
    extras: dict[str, set[str]] = {}
    asks: dict[str, dict[str, SpecifierSet]] = {}
    waiting: list[str] = []

    def want(name: str, wanted: Iterable[str]) -> None:
        more = {normalised(extra) for extra in wanted}
        if name not in extras or not more <= extras[name]:
            extras.setdefault(name, set()).update(more)
            waiting.append(name)

    for root in roots:
        if target.applies(root, ()):
            want(normalised(root.name), root.extras)
    while waiting:
        asker = waiting.pop(0)
        found: dict[str, SpecifierSet] = {}
        for requirement in facts.get(asker, Facts()).requires:
            if target.applies(requirement, sorted(extras[asker])):
                name = normalised(requirement.name)
                found[name] = found.get(name, SpecifierSet()) & requirement.specifier
                want(name, requirement.extras)
        for name, versions in found.items():
            if name != asker:  # an extra that is made of others asks for itself
                asks.setdefault(name, {})[asker] = versions
    return Closure(
        extras={name: frozenset(wanted) for name, wanted in extras.items()},
        asks=asks,
    )


def disagreements(closure: Closure, versions: Mapping[str, str]) -> list[str]:
    """In what a resolver's versions and the distributions' own metadata do not agree."""
    found = []
    for name in sorted(closure.extras.keys() - versions.keys()):
        askers = ", ".join(sorted(closure.asks.get(name, {}))) or "a spec"
        found.append(f"{name} is missing, which {askers} asks for")
    found += [
        f"nothing asks for {name} {versions[name]}"
        for name in sorted(versions.keys() - closure.extras.keys())
    ]
    for name, askers_of in sorted(closure.asks.items()):
        for asker, allowed in sorted(askers_of.items()):
            if name in versions and not allowed.contains(Version(versions[name]), prereleases=True):
                found.append(f"{asker} asks for {name}{allowed}, not {versions[name]}")
    return found
