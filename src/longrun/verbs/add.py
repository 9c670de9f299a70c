"""``add``: a package comes into the stack, with its spec, its locks and all that it brings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from longrun.errors import LongrunError, SourceError, SpecError, UnknownProject, UsageError
from longrun.lock.closure import Target, target_of
from longrun.lock.contents import build_requires, modules_of
from longrun.lock.lockfile import Moves
from longrun.lock.make import Made
from longrun.lock.offers import Offer, newest, offers, what_there_is
from longrun.lock.resolve import Question, Unsatisfiable, suggest
from longrun.lock.specfile import new_spec
from longrun.model import SDIST, Distribution, FromSdist, Lock, Package
from longrun.plan import choose_interpreters
from longrun.specs import near, normalised
from longrun.stack import reach
from longrun.verbs.desk import (
    Desk,
    Proposal,
    arrival_lines,
    finish,
    open_desk,
    propose,
    require_made,
    tell,
)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the command line asks for."""

    name: str
    extras: tuple[str, ...]
    constraint: str
    layer: str
    tags: tuple[str, ...]
    why: str
    owner: str
    sdist: bool


def add(root: Path, arguments: argparse.Namespace) -> int:
    """Take a package in for every interpreter, or for those that are named."""
    desk = open_desk(root, arguments)
    wish = read_wish(desk, arguments)
    package = find_package(desk, wish)
    made = desk.make({**desk.specs.packages, wish.name: package}, thorough=False)
    locks = {tag: item.lock for tag, item in require_all(made, wish).items()}
    package = describe(desk, wish, package, locks)
    proposal = propose_package(desk, package, made)
    tell(proposal, arguments)
    proposal.check()
    return finish(proposal, arguments)


def read_wish(desk: Desk, arguments: argparse.Namespace) -> Wish:
    """The command line, held against the specs; UsageError where it does not go."""
    try:
        requirement = Requirement(arguments.requirement)
    except InvalidRequirement as error:
        raise UsageError(
            f"{arguments.requirement!r}: expected a name, with extras and versions if any",
            remedy="such as 'psycopg[binary]>=3,<4'",
        ) from error
    if requirement.url or requirement.marker:
        raise UsageError(f"{arguments.requirement!r}: neither address nor marker can be locked")
    name = normalised(requirement.name)
    if name in desk.specs.packages:
        raise UsageError(
            f"{name} has a spec already: specs/packages/{name}.toml",
            remedy="edit it, then ./build.py lock",
        )
    layers = list(desk.release.layers)
    if arguments.layer not in layers:
        raise UsageError(
            f"release {desk.release.name} has no layer {arguments.layer!r}"
            f"{near(arguments.layer, layers)}",
            remedy=f"its layers: {', '.join(layers)}",
        )
    versions = arguments.python or list(desk.release.interpreters)
    chosen = choose_interpreters(desk.specs, desk.release, versions)
    return Wish(
        name=name,
        extras=tuple(sorted(normalised(extra) for extra in requirement.extras)),
        constraint=str(requirement.specifier),
        layer=arguments.layer,
        tags=tuple(tag for tag in desk.interpreters if tag in {item.tag for item in chosen}),
        why=arguments.why,
        owner=arguments.owner,
        sdist=arguments.sdist,
    )


def find_package(desk: Desk, wish: Wish) -> Package:
    """The package as far as it must be known to resolve; an error where the index has nothing."""
    try:
        files = desk.index.project(wish.name)
    except UnknownProject as error:
        raise _unknown(desk, wish, error) from None
    found = {
        tag: offers(files, target_of(desk.interpreters[tag], desk.release.floor))
        for tag in wish.tags
    }
    missing = {tag: rows for tag, rows in found.items() if not _best(rows, wish)}
    if missing:
        raise _not_to_be_had(desk, wish, found, missing)
    return Package(
        name=wish.name,
        layer=wish.layer,
        why=wish.why,
        owner=wish.owner,
        constraint=wish.constraint,
        interpreters=() if set(wish.tags) == set(desk.interpreters) else wish.tags,
        extras=wish.extras,
        imports=(),
        build=_build(desk, wish, found),
    )


def _best(rows: list[Offer], wish: Wish, *, sdist: bool | None = None) -> Offer | None:
    build = wish.sdist if sdist is None else sdist
    return newest(rows, wish.constraint, build=build)


def _build(desk: Desk, wish: Wish, found: Mapping[str, list[Offer]]) -> FromSdist | None:
    """How it is built, where an interpreter gets it from its sdist."""
    for rows in found.values():
        best = _best(rows, wish)
        choice = best.choice(build=wish.sdist) if best else None
        if choice and choice.tag == SDIST:
            return FromSdist(requires=build_requires(desk.index, choice.file))
    return None


def _unknown(desk: Desk, wish: Wish, error: UnknownProject) -> UnknownProject:
    locked = (lock.distribution for lock in desk.before.values() if lock)
    question = Question(
        target=Target(tag="", python="", floor=desk.release.floor),
        requirements=(),
        packages=desk.specs.packages,
        known=tuple(dist.name for rows in locked for dist in rows),
    )
    return UnknownProject(
        f"no package {wish.name} on the index{suggest(wish.name, question)}", remedy=error.remedy
    )


def _not_to_be_had(
    desk: Desk, wish: Wish, found: Mapping[str, list[Offer]], missing: Mapping[str, list[Offer]]
) -> LongrunError:
    tag, rows = next(iter(missing.items()))
    target = target_of(desk.interpreters[tag], desk.release.floor)
    message = (
        f"no version of {wish.name}{wish.constraint} for {target.title}: "
        f"{what_there_is(rows, wish.constraint, build=wish.sdist)}"
    )
    good = [other for other in wish.tags if other not in missing]
    sdist = _best(rows, wish, sdist=True)
    choice = sdist.choice(build=True) if sdist else None
    if choice is None or choice.tag != SDIST:
        return Unsatisfiable(message, tag=tag, remedy=_for_the_others(wish, good))
    requires = ", ".join(build_requires(desk.index, choice.file)) or "nothing"
    remedy = f"--sdist writes that into [build] of specs/packages/{wish.name}.toml"
    return Unsatisfiable(
        f"{message}; {choice.file.name} can be built, which needs {requires}",
        tag=tag,
        remedy=f"{remedy}; or {_for_the_others(wish, good)}" if good else remedy,
    )


def _for_the_others(wish: Wish, tags: list[str]) -> str:
    """The remedy where some interpreters can have it."""
    if not tags:
        return "another constraint, or another package"
    chosen = " ".join(f"--python 3.{tag.removeprefix('cp3')}" for tag in tags)
    return f"./build.py add {wish.name} --layer {wish.layer} {chosen} takes it for these alone"


def require_all(made: Mapping[str, Made | LongrunError], wish: Wish) -> dict[str, Made]:
    """All locks; where only some interpreters can have the package, the error says which."""
    failed = [tag for tag, item in made.items() if isinstance(item, Unsatisfiable)]
    good = [tag for tag in wish.tags if isinstance(made[tag], Made)]
    if failed and good:
        error = made[failed[0]]
        assert isinstance(error, Unsatisfiable)
        raise Unsatisfiable(error.message, tag=error.tag, remedy=_for_the_others(wish, good))
    return require_made(made)


def describe(desk: Desk, wish: Wish, package: Package, locks: Mapping[str, Lock]) -> Package:
    """The package with what its metadata and its file tell: why, and modules to import."""
    dist = _locked(wish, locks)
    files = [file for file in desk.index.project(wish.name) if file.name == dist.file]
    if not files:
        raise SourceError(f"{dist.file} is locked, and the index does not list it")
    return replace(
        package,
        why=wish.why or dist.summary or "Nobody wrote yet why it is here.",
        imports=modules_of(desk.index, files[0], wish.name),
    )


def _locked(wish: Wish, locks: Mapping[str, Lock]) -> Distribution:
    rows = (dist for tag in wish.tags for dist in locks[tag].distribution)
    return next(dist for dist in rows if dist.name == wish.name)


def propose_package(
    desk: Desk, package: Package, made: Mapping[str, Made | LongrunError]
) -> Proposal:
    """The proposal, in which the new package brings what arrives with it; nothing else may."""
    packages = dict(sorted({**desk.specs.packages, package.name: package}.items()))
    ready = require_made(made)
    reached = {name for item in ready.values() for name in _brought(item.lock, package)}
    proposal = propose(
        desk,
        packages,
        ready,
        Moves(packages=packages),
        accept=lambda name: name in reached,
        prefer=package.name,
    )
    if refused := proposal.settlement.refused:
        raise SpecError(
            "the locks were not what the specs say; besides, there come along"
            + "".join(f"\n  {line}" for line in arrival_lines(refused, packages)),
            remedy="./build.py lock, first",
        )
    text = new_spec(proposal.settlement.packages[package.name])
    return replace(proposal, new_specs={package.name: text})


def _brought(lock: Lock, package: Package) -> set[str]:
    edges: dict[str, list[str]] = {}
    for dist in (*lock.distribution, *lock.build):
        for asker in dist.required_by:
            edges.setdefault(asker, []).append(dist.name)
    return set(reach([package.name], edges))
