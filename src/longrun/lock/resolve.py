"""uv, asked which versions go together for one target, and its explanation where none do.

The answer is only names and versions; ``lock`` chooses the files and checks it against their
metadata. uv never builds anything here: what an sdist asks for is told to it (see ``Described``).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement

from longrun.errors import LongrunError, SourceError, SpecError, UnknownProject
from longrun.index.client import Index, without_logins
from longrun.lock.closure import Target
from longrun.lock.explain import Ask, Cause, read_cause
from longrun.lock.offers import Offer, newest, offers, what_there_is
from longrun.model import Package
from longrun.run import SYSTEM_PATH, outcome
from longrun.specs import near, normalised

KEPT_VARIABLES = ("HOME", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR") + tuple(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (proxy, proxy.lower())
)
"""What uv gets of the user's environment: how to reach hosts, not what to do there."""

CAUSES = 8
"""How many facts of a conflict a message lists."""


class Unsatisfiable(SpecError):
    """No versions of what the specs ask for go together for an interpreter."""

    def __init__(self, message: str, *, tag: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.tag = tag


@dataclass(frozen=True, kw_only=True)
class Described:
    """A version that is built from its sdist, with what its metadata asks for."""

    name: str
    version: str
    requires: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of uv. ``pins`` are kept where they can be, but for those of ``upgrade``.

    ``constraints`` hold whatever is asked for to these versions; ``known`` are names for "did you
    mean"; ``packages`` are those of the specs.
    """

    target: Target
    requirements: tuple[str, ...]
    packages: Mapping[str, Package] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    upgrade: frozenset[str] = frozenset()
    upgrade_all: bool = False
    described: tuple[Described, ...] = ()
    known: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Uv:
    """The resolver: uv's program, an interpreter for it to look at, its cache, the index."""

    program: Path
    python: Path
    cache: Path
    index: Index

    def resolve(self, question: Question) -> dict[str, str]:
        """The versions by name. Unsatisfiable, UnknownProject, or SourceError."""
        if not question.requirements:
            return {}
        with tempfile.TemporaryDirectory(prefix="longrun-uv-") as name:
            directory = Path(name)
            self._write(question, directory)
            status, _, complaint = outcome(
                [str(self.program), *self._arguments(question)],
                env=self.environment(),
                cwd=directory,
            )
            if status:
                raise explain(complaint, question, self.index)
            return _read_pins((directory / "out.txt").read_text(encoding="utf-8"))

    def environment(self) -> dict[str, str]:
        """The environment of uv; credentials are nowhere else."""
        addresses = [_with_login(self.index, address) for address in self.index.addresses]
        env = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        env |= {
            "PATH": SYSTEM_PATH,
            "LC_ALL": "C.UTF-8",
            "UV_CACHE_DIR": str(self.cache),
            "UV_SYSTEM_CERTS": "1",
            # as in ``index``: the first index that has a project is the only one for it
            "UV_INDEX_STRATEGY": "first-index",
            "UV_KEYRING_PROVIDER": "disabled",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        if addresses:
            # uv asks the default one last
            env |= {"UV_INDEX": " ".join(addresses[:-1]), "UV_DEFAULT_INDEX": addresses[-1]}
        named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
        if cert := self.index.cert or next(filter(None, named), ""):
            env["SSL_CERT_FILE"] = cert
        if self.index.proxy:
            env |= {"HTTP_PROXY": self.index.proxy, "HTTPS_PROXY": self.index.proxy}
        return env

    def _arguments(self, question: Question) -> Iterator[str]:
        target = question.target
        platform = target.floor.tag.removesuffix(f"_{target.floor.arch}")
        yield from ("pip", "compile", "--quiet", "--color", "never", "--no-progress")
        yield from ("--config-file", "uv.toml", "--python", str(self.python))
        yield from ("--python-version", target.python)
        yield from ("--python-platform", f"{target.floor.arch}-{platform}")
        yield from ("--no-header", "--no-annotate", "--only-binary", ":all:")
        for item in question.described:
            yield from ("--no-binary", item.name)
        if question.upgrade_all:
            yield "--upgrade"
        for name in sorted(question.upgrade):
            yield from ("--upgrade-package", name)
        yield from ("--constraints", "constraints.txt", "--output-file", "out.txt", "in.txt")

    def _write(self, question: Question, directory: Path) -> None:
        """uv's input files; an output file that is there already holds the versions to keep."""
        exact = [f"{item.name}=={item.version}" for item in question.described]
        pins = [f"{name}=={version}" for name, version in sorted(question.pins.items())]
        for name, lines in (
            ("in.txt", question.requirements),
            ("constraints.txt", (*question.constraints, *exact)),
            ("out.txt", pins),
            ("uv.toml", _dependency_metadata(question.described)),
        ):
            text = "".join(f"{line}\n" for line in lines)
            (directory / name).write_text(text, encoding="utf-8")


def _dependency_metadata(described: Iterable[Described]) -> Iterator[str]:
    """uv's settings that tell it what an sdist asks for, so that it runs none of its code."""
    for item in described:
        yield "[[dependency-metadata]]"
        yield f"name = {json.dumps(item.name)}"
        yield f"version = {json.dumps(item.version)}"
        yield f"requires-dist = {json.dumps(list(item.requires))}"


def _with_login(index: Index, address: str) -> str:
    """An address with the credentials for its host."""
    parts = urlsplit(address)
    login = index.logins.get(parts.netloc)
    if login is None:
        return address
    user = f"{quote(login.user, safe='')}:{quote(login.password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))


def _read_pins(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            requirement = Requirement(line)
            (pin,) = requirement.specifier
        except (InvalidRequirement, ValueError):
            raise SourceError(
                f"uv answers {line!r}, where a name and a version are expected",
                remedy="a distribution that is asked for by its address cannot be locked",
            ) from None
        found[normalised(requirement.name)] = pin.version
    return found


def explain(complaint: str, question: Question, index: Index) -> LongrunError:
    """uv's complaint as one error, shortened to the cause."""
    text = without_logins(complaint)
    cause = read_cause(text)
    if cause is None:
        told = " ".join(text.split()).rpartition("error: ")[2][:400]
        return SourceError(
            f"uv cannot resolve for {question.target.tag}: {told}",
            remedy="Run the command again when the package index answers.",
        )
    if cause.unknown:
        return _unknown(cause, question, index)
    for name in cause.unusable:
        if error := _no_version(name, cause, question, index):
            return error
    return _conflict(cause, question)


def _asked_by(name: str, cause: Cause, question: Question) -> str:
    """Who asks for a project, for the end of a message."""
    found = [ask.asker for ask in cause.asks if ask.asker and ask.name == name]
    if name in question.packages:
        found.insert(0, f"specs/packages/{name}.toml")
    return f"; asked for by {', '.join(dict.fromkeys(found))}" if found else ""


def _unknown(cause: Cause, question: Question, index: Index) -> LongrunError:
    name = cause.unknown
    try:
        index.project(name)
    except UnknownProject as error:
        return UnknownProject(
            f"no package {name} on the index{suggest(name, question)}"
            f"{_asked_by(name, cause, question)}",
            remedy=error.remedy,
        )
    except SourceError as error:
        return error
    return SourceError(
        f"uv does not find {name}, which the index has{_asked_by(name, cause, question)}",
        remedy="Run the command again.",
    )


def suggest(name: str, question: Question) -> str:
    """`` (did you mean ...?)`` from what is locked and from the modules that specs import."""
    for package in question.packages.values():
        modules = {module.partition(".")[0] for module in package.imports}
        if package.name != name and name.replace("-", "_") in modules:
            return f" (did you mean {package.name!r}, which has the module {name}?)"
    return near(name, sorted({*question.packages, *question.known} - {name}))


def _no_version(name: str, cause: Cause, question: Question, index: Index) -> LongrunError | None:
    """The error where the index has nothing of a project that fits; None where it has."""
    package = question.packages.get(name)
    constraint = package.constraint_for(question.target.tag) if package else ""
    build = package is not None and package.build is not None
    try:
        found = offers(index.project(name), question.target)
    except SourceError as error:
        return error
    if package and newest(found, constraint, build=build, prereleases=True) is None:
        return no_version(package, found, question.target)
    # each who asks by itself: where one gets nothing, the others do not matter
    asks = [ask for ask in cause.asks if ask.name == name and ask.asker] or [Ask("", name)]
    for ask in asks:
        allowed = str(ask.allowed)
        if newest(found, allowed, build=build, prereleases=True) is None:
            told = what_there_is(found, allowed, build=build)
            return Unsatisfiable(
                f"no version of {name}{allowed} for {question.target.title}: {told}"
                + (f"; asked for by {ask.asker}" if ask.asker else ""),
                tag=question.target.tag,
                remedy="constrain who asks for it to a version that does not",
            )
    return None


def no_version(package: Package, found: list[Offer], target: Target) -> Unsatisfiable:
    """The error for a package of which the index has nothing that its spec allows."""
    build = package.build is not None
    constraint = package.constraint_for(target.tag)
    file = f"specs/packages/{package.name}.toml"
    remedy = f"change the constraint in {file}, or leave {target.tag} out of its `interpreters`"
    if not build and any(offer.sdist for offer in found):
        remedy += ", or give it a [build] table to build the sdist"
    return Unsatisfiable(
        f"no version of {package.name}{constraint} for {target.title}: "
        f"{what_there_is(found, constraint, build=build)}; {file} asks for it",
        tag=target.tag,
        remedy=remedy,
    )


def _conflict(cause: Cause, question: Question) -> LongrunError:
    rows = [f"{ask.asker} asks for {ask.what}" for ask in cause.asks if ask.asker]
    rows += [_wish(ask, question) for ask in cause.asks if not ask.asker]
    rows = rows or [cause.text[:600]]
    shown = rows[:CAUSES] + ([f"and {len(rows) - CAUSES} more"] if len(rows) > CAUSES else [])
    pinned = [item.name for item in question.described if item.name in {a.name for a in cause.asks}]
    remedy = "change one of these constraints"
    if pinned:
        remedy += f"; ./build.py lock --upgrade {pinned[0]} may do"
    return Unsatisfiable(
        f"nothing satisfies all specs for {question.target.title}:"
        + "".join(f"\n  {row}" for row in shown),
        tag=question.target.tag,
        remedy=remedy,
    )


def _wish(ask: Ask, question: Question) -> str:
    """What uv calls our requirement: a spec's, a version of the stack, or that of an sdist."""
    for item in question.described:
        if ask.name == item.name:
            return f"{item.name} {item.version} is the version that is built from its sdist"
    if ask.name in question.packages:
        wanted = ask.what if ask.what != ask.name else f"any {ask.what}"
        return f"specs/packages/{ask.name}.toml asks for {wanted}"
    if ask.what in question.constraints:
        return f"the stack has {ask.what}"
    return f"a build asks for {ask.what}"
