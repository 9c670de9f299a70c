"""uv's explanation of why nothing goes together, shortened to the causes.

uv proves it step by step, with what follows from each pair of facts; kept here are the facts alone:
who asks for what. A sentence that is not understood is left out; where none is, uv's own words
stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from longrun.specs import normalised

NAME = r"[A-Za-z0-9][\w.-]*(?:\[[\w,.-]+\])?"
RANGE = r"(?:[<>=!~]=?=?[^\s,]+)(?:,[<>=!~]=?=?[^\s,]+)*"

SENTENCE = re.compile(r"(?:^|(?<=\s))(?:And because|Because) ")
CONCLUSION = re.compile(r",? ?we can conclude that .*")
DEPENDS = re.compile(
    rf"(?:all versions of )?(?P<asker>{NAME}(?:{RANGE})?) depends? on "
    rf"(?:(?:one|all|any) of: )?(?P<what>{NAME}(?:{RANGE})?(?: {NAME}{RANGE})*)"
)
REQUIRES = re.compile(rf"you require (?P<what>{NAME}(?:{RANGE})?(?: and {NAME}(?:{RANGE})?)*)")
UNKNOWN = re.compile(rf"({NAME}) was not found in the package registry")
UNUSABLE = (
    re.compile(rf"({NAME})(?:{RANGE})?(?: {NAME}{RANGE})* (?:has|have) no (?:usable )?wheels"),
    re.compile(rf"no versions? of ({NAME})"),
    re.compile(rf"only (?:the following versions of )?({NAME})(?:{RANGE})? (?:is|are) available"),
    re.compile(rf"({NAME})(?:{RANGE})? depends? on Python"),
    re.compile(rf"({NAME})(?:{RANGE})?(?: {NAME}{RANGE})* (?:was|were) yanked"),
)


@dataclass(frozen=True)
class Ask:
    """``asker`` (a name, perhaps with versions; empty for the specs) asks for ``what``."""

    asker: str
    what: str

    @property
    def name(self) -> str:
        """The project that is asked for."""
        return project(self.what)

    @property
    def allowed(self) -> SpecifierSet:
        """The versions that are asked for; all where uv tells several ranges."""
        ranges = re.findall(rf"{NAME}({RANGE})", self.what)
        try:
            return SpecifierSet(ranges[0] if len(ranges) == 1 else "")
        except InvalidSpecifier:
            return SpecifierSet()


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What uv says, taken apart; ``text`` is its own words on one line."""

    text: str
    asks: tuple[Ask, ...]
    unknown: str
    unusable: tuple[str, ...]


def project(requirement: str) -> str:
    """The normalised name in a requirement, without extras."""
    match = re.match(r"[A-Za-z0-9][\w.-]*", requirement)
    return normalised(match[0]) if match else requirement


def read_cause(complaint: str) -> Cause | None:
    """uv's complaint taken apart; None where it is about something else than versions."""
    text = " ".join(complaint.split())
    if "No solution found" not in text:
        return None
    cause = text.partition("cause: ")[2].partition(" hint: ")[0]
    premises = [CONCLUSION.sub("", part) for part in SENTENCE.split(cause)]
    unknown = UNKNOWN.search(cause)
    return Cause(
        text=cause,
        asks=tuple(dict.fromkeys(ask for part in premises for ask in _asks(part))),
        unknown=project(unknown[1]) if unknown else "",
        unusable=tuple(dict.fromkeys(name for part in premises for name in _unusable(part))),
    )


def _asks(premise: str) -> Iterator[Ask]:
    for match in DEPENDS.finditer(premise):
        if not match["what"].startswith("Python"):
            yield Ask(match["asker"], match["what"].rstrip(",."))
    for match in REQUIRES.finditer(premise):
        for part in match["what"].split(" and "):
            if part not in ("all", "only", "because", "the", "you", "there", "any", "one"):
                yield Ask("", part.rstrip(",."))


def _unusable(premise: str) -> Iterator[str]:
    for pattern in UNUSABLE:
        yield from (project(match[1]) for match in pattern.finditer(premise))
