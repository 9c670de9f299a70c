"""The lock of one interpreter: versions from uv, files from the index, all held against metadata.

What did not change keeps its recorded file and sha256; an index that shows other bytes under the
same name is an error, never a new hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from longrun.errors import SourceError, SpecError
from longrun.index.client import File, Index, in_parallel
from longrun.lock.closure import Closure, Facts, Target, close, disagreements, read_facts, target_of
from longrun.lock.offers import Choice, newest, offers
from longrun.lock.resolve import Described, Question, Unsatisfiable, Uv, no_version
from longrun.model import SDIST, Distribution, Interpreter, Lock, Package, Release
from longrun.specs import normalised
from longrun.tags import best_tag


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a lock is made of: an interpreter's packages, the lock before, what may move.

    ``thorough`` compares what stays with the index, too.
    """

    release: Release
    interpreter: Interpreter
    packages: Mapping[str, Package]
    before: Lock | None = None
    upgrade: frozenset[str] = frozenset()
    upgrade_all: bool = False
    thorough: bool = True

    @property
    def target(self) -> Target:
        """The interpreter on the release's floor."""
        return target_of(self.interpreter, self.release.floor)

    def stays(self, name: str) -> bool:
        """Whether a locked version is kept where that is possible."""
        return not self.upgrade_all and name not in self.upgrade

    def old(self, name: str) -> Distribution | None:
        """What was locked of a name, for the stack or for builds."""
        before = (*self.before.distribution, *self.before.build) if self.before else ()
        return next((dist for dist in before if dist.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A new lock, and what a maintainer should know of what stays in it."""

    lock: Lock
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """One distribution on its way into a lock: which file, and what its metadata says."""

    name: str
    version: str
    file: str
    size: int
    sha256: str
    tag: str
    facts: Facts = field(default_factory=Facts)


def make_lock(order: Order, index: Index, uv: Uv) -> Made:
    """Resolve, choose, check. SpecError or SourceError; nothing is written."""
    described = describe_sdists(order, index)
    stack = keep(order, described, index, uv) or resolve(order, described, index, uv)
    closure = close(_roots(order.packages), _facts(stack), order.target)
    build, asks = pin_build(order, index, uv, stack)
    lock = Lock(
        release=order.release.name,
        interpreter=order.target.tag,
        python=order.target.python,
        platform=order.target.floor.tag,
        distribution=_distributions(stack, closure.extras, _merged(closure.asks, asks, stack)),
        build=_distributions(build, {}, asks),
    )
    return Made(lock=lock, warnings=tuple(warn(lock, index)) if order.thorough else ())


def resolve(
    order: Order, described: tuple[Described, ...], index: Index, uv: Uv
) -> dict[str, Pinned]:
    """The whole stack, resolved; what was locked is only a preference."""
    versions = uv.resolve(_question(order, described))
    stack = pin(versions, order, index)
    closure = close(_roots(order.packages), _facts(stack), order.target)
    _require_agreement(closure, versions, order)
    return stack


def keep(
    order: Order, described: tuple[Described, ...], index: Index, uv: Uv
) -> dict[str, Pinned] | None:
    """The stack as it was locked with what is new or to be moved, where nothing else has to move.

    uv then looks at a few projects only, or is not asked at all. None where that does not go, or
    where something older than the newest would come of it.
    """
    target = (order.target.python, order.target.floor.tag)
    if order.before is None or order.upgrade_all:
        return None
    if (order.before.python, order.before.platform) != target:
        return None
    loose = _loose(order)
    versions = {d.name: d.version for d in order.before.distribution if d.name not in loose}
    if loose:
        question = replace(
            _question(order, described),
            requirements=tuple(loose.values()),
            constraints=tuple(f"{name}=={version}" for name, version in versions.items()),
            pins={},
        )
        try:
            found = uv.resolve(question)
        except Unsatisfiable:
            return None
        if any(_has_newer(name, found[name], order, index) for name in loose):
            return None
        versions |= found
    stack = pin(versions, order, index)
    closure = close(_roots(order.packages), _facts(stack), order.target)
    stack = {name: item for name, item in stack.items() if name in closure.extras}
    agrees = not disagreements(closure, {name: item.version for name, item in stack.items()})
    return stack if agrees else None


def _loose(order: Order) -> dict[str, str]:
    """What the lock before does not satisfy, and what is to be upgraded, as requirements."""
    locked = {dist.name: dist for dist in order.before.distribution} if order.before else {}
    found = {}
    for name, package in order.packages.items():
        dist, constraint = locked.get(name), package.constraint_for(order.target.tag)
        good = dist and _allows(constraint, dist.version) and {*package.extras} <= {*dist.extras}
        if not good or name in order.upgrade:
            found[name] = f"{_with_extras(package)}{constraint}"
    return found | {name: name for name in order.upgrade if name in locked and name not in found}


def _has_newer(name: str, version: str, order: Order, index: Index) -> bool:
    package = order.packages.get(name)
    constraint = package.constraint_for(order.target.tag) if package else ""
    found = offers(index.project(name), order.target)
    best = newest(found, constraint, build=_can_build(name, order))
    return best is not None and best.version > Version(version)


def question_for(order: Order, index: Index) -> Question:
    """What uv is asked for the whole stack."""
    return _question(order, describe_sdists(order, index))


def _question(order: Order, described: tuple[Described, ...]) -> Question:
    before = order.before.distribution if order.before else ()
    return Question(
        target=order.target,
        requirements=tuple(
            f"{_with_extras(package)}{package.constraint_for(order.target.tag)}"
            for package in order.packages.values()
        ),
        packages=order.packages,
        pins={dist.name: dist.version for dist in before},
        upgrade=order.upgrade,
        upgrade_all=order.upgrade_all,
        described=described,
        known=tuple(dist.name for dist in before),
    )


def _with_extras(package: Package) -> str:
    return package.name + (f"[{','.join(package.extras)}]" if package.extras else "")


def _roots(packages: Mapping[str, Package]) -> list[Requirement]:
    return [Requirement(_with_extras(package)) for package in packages.values()]


def _facts(pinned: Mapping[str, Pinned]) -> dict[str, Facts]:
    return {name: item.facts for name, item in pinned.items()}


def describe_sdists(order: Order, index: Index) -> tuple[Described, ...]:
    """Which version of each package is built from its sdist, and what its metadata asks for.

    It is settled before uv is asked: uv would build one version after the other to see what each
    asks for, back to the first (five minutes for xtrack).
    """
    packages = [package for package in order.packages.values() if package.build]
    found = in_parallel(lambda package: _describe(package, order, index), packages)
    return tuple(item for item in found if item is not None)


def _describe(package: Package, order: Order, index: Index) -> Described | None:
    name, constraint = package.name, package.constraint_for(order.target.tag)
    old = order.old(name)
    if old and order.stays(name) and old.tag == SDIST and _allows(constraint, old.version):
        version, facts = old.version, _read_kept(old, index)
    else:
        found = offers(index.project(name), order.target)
        best = newest(found, constraint, build=True)
        if best is None:
            raise no_version(package, found, order.target)
        choice = best.choice(build=True)
        if choice is None or choice.tag != SDIST:
            return None  # there is a wheel by now
        version, facts = str(best.version), _read(choice.file, index)
    requires = tuple(str(requirement) for requirement in facts.requires)
    return Described(name=name, version=version, requires=requires)


def _allows(constraint: str, version: str) -> bool:
    return SpecifierSet(constraint).contains(version, prereleases=True)


def pin(versions: Mapping[str, str], order: Order, index: Index) -> dict[str, Pinned]:
    """The file of each version, and what its metadata says; in parallel."""
    names = sorted(versions)
    found = in_parallel(lambda name: _pin(name, versions[name], order, index), names)
    return dict(zip(names, found, strict=True))


def _pin(name: str, version: str, order: Order, index: Index) -> Pinned:
    old = order.old(name)
    if old and _still_good(old, version, order):
        if order.thorough:
            check_hash(old, index)
        return Pinned(
            name=name,
            version=old.version,
            file=old.file,
            size=old.size,
            sha256=old.sha256,
            tag=old.tag,
            facts=_read_kept(old, index),
        )
    chosen = choose(name, version, order, index)
    return Pinned(
        name=name,
        version=version,
        file=chosen.file.name,
        size=index.size(chosen.file),
        sha256=chosen.file.sha256,
        tag=chosen.tag,
        facts=_read(chosen.file, index),
    )


def _still_good(old: Distribution, version: str, order: Order) -> bool:
    """Whether the recorded file is the one of this version, and fits the target."""
    if Version(old.version) != Version(version):
        return False
    if old.tag == SDIST:
        return _can_build(old.name, order)
    best = best_tag(old.file, order.target.tag, order.target.floor)
    return best is not None and best[1] == old.tag


def _can_build(name: str, order: Order) -> bool:
    return name in order.packages and order.packages[name].build is not None


def choose(name: str, version: str, order: Order, index: Index) -> Choice:
    """The best file of a version; SpecError where there is none for the target, or it is yanked."""
    found = offers(index.project(name), order.target)
    offer = next((offer for offer in found if offer.version == Version(version)), None)
    if offer is None:
        raise SourceError(f"uv answers {name} {version}, which the index does not list")
    choice = offer.choice(build=_can_build(name, order))
    if choice is None:
        raise SpecError(
            f"{name} {version} {offer.lacks()}, and {order.target.title} is locked"
            f"{_wanted(name, order)}",
            remedy="constrain it to a version that has one",
        )
    if choice.file.yanked is not None:
        raise SpecError(
            f"{name} {version} is yanked: {choice.file.yanked or 'no reason given'}"
            f"{_wanted(name, order)}",
            remedy="constrain it to another version",
        )
    if not choice.file.sha256:
        raise SourceError(f"the index gives no sha256 for {choice.file.name}")
    return choice


def _wanted(name: str, order: Order) -> str:
    return f"; specs/packages/{name}.toml wants it" if name in order.packages else ""


def check_hash(old: Distribution, index: Index) -> None:
    """SourceError where the index has other bytes under the name of a locked file."""
    for file in index.project(old.name):
        if file.name == old.file and file.sha256 and file.sha256 != old.sha256:
            raise SourceError(
                f"hash mismatch: {old.file} is locked with sha256 {old.sha256}, and the index "
                f"shows {file.sha256}",
                remedy="find out who changed the file; nothing was written",
            )


def warn(lock: Lock, index: Index) -> Iterable[str]:
    """What became of locked files on the index since."""
    for dist in (*lock.distribution, *lock.build):
        listed = {file.name: file for file in index.project(dist.name)}
        file = listed.get(dist.file)
        where = f"{lock.interpreter}: {dist.name} {dist.version}"
        if file is None:
            yield f"{where}: {dist.file} is not on the index any more"
        elif file.yanked is not None:
            yield f"{where} was yanked since it was locked: {file.yanked or 'no reason given'}"


def _read(file: File, index: Index) -> Facts:
    return read_facts(index.metadata(file), file.name)


def _read_kept(dist: Distribution, index: Index) -> Facts:
    """The facts of a locked file: from the cache, and else from the index."""
    if text := index.recall(dist.sha256):
        return read_facts(text, dist.file)
    for file in index.project(dist.name):
        if file.name == dist.file:
            return _read(replace(file, sha256=dist.sha256), index)
    raise SourceError(
        f"{dist.file} is locked, and the index does not list it any more",
        remedy=f"./build.py lock --upgrade {dist.name}",
    )


def _require_agreement(closure: Closure, versions: Mapping[str, str], order: Order) -> None:
    if found := disagreements(closure, versions):
        shown = "".join(f"\n  {line}" for line in found[:8])
        raise SourceError(
            f"what uv resolved for {order.target.tag} does not agree with the distributions' own "
            f"metadata:{shown}",
            remedy="an index whose metadata differ from its files does this; else tell the "
            "maintainers of Longrun",
        )


Asks = Mapping[str, Mapping[str, SpecifierSet]]


def pin_build(
    order: Order, index: Index, uv: Uv, stack: Mapping[str, Pinned]
) -> tuple[dict[str, Pinned], Asks]:
    """What builds need besides the stack, and who of builds asks for whom."""
    built = [order.packages[name] for name, item in stack.items() if item.tag == SDIST]
    roots = {
        package.name: [
            requirement
            for requirement in map(Requirement, package.build.requires if package.build else ())
            if order.target.applies(requirement, ())
        ]
        for package in built
    }
    wanted = [requirement for items in roots.values() for requirement in items]
    facts = _facts(stack)
    closure = close(wanted, facts, order.target)
    pinned: dict[str, Pinned] = {}
    if closure.extras.keys() - stack.keys() or _misfit(wanted, stack):
        versions = uv.resolve(_build_question(order, wanted, stack))
        pinned = pin({k: v for k, v in versions.items() if k not in stack}, order, index)
        closure = close(wanted, facts | _facts(pinned), order.target)
        _require_agreement(closure, versions, order)
    asks = {name: dict(closure.asks.get(name, {})) for name in closure.extras}
    for asker, requirements in roots.items():
        for requirement in requirements:
            askers = asks[normalised(requirement.name)]
            askers[asker] = askers.get(asker, SpecifierSet()) & requirement.specifier
    return pinned, asks


def _misfit(wanted: Iterable[Requirement], stack: Mapping[str, Pinned]) -> bool:
    """Whether a build wants other versions than the stack's; uv then explains it."""
    return any(
        normalised(requirement.name) in stack
        and not _allows(str(requirement.specifier), stack[normalised(requirement.name)].version)
        for requirement in wanted
    )


def _build_question(
    order: Order, wanted: Iterable[Requirement], stack: Mapping[str, Pinned]
) -> Question:
    before = order.before.build if order.before else ()
    return Question(
        target=order.target,
        requirements=tuple(str(requirement) for requirement in wanted),
        constraints=tuple(f"{name}=={item.version}" for name, item in stack.items()),
        pins={dist.name: dist.version for dist in before},
        upgrade=order.upgrade,
        upgrade_all=order.upgrade_all,
    )


def _merged(asks: Asks, build: Asks, stack: Mapping[str, Pinned]) -> Asks:
    """Who asks for whom in the stack, with what only builds have that asks for it, too."""
    return {
        name: {
            **{asker: at for asker, at in build.get(name, {}).items() if asker not in stack},
            **asks.get(name, {}),
        }
        for name in stack
    }


def _distributions(
    pinned: Mapping[str, Pinned], extras: Mapping[str, frozenset[str]], asks: Asks
) -> tuple[Distribution, ...]:
    return tuple(
        Distribution(
            name=name,
            version=item.version,
            file=item.file,
            size=item.size,
            sha256=item.sha256,
            tag=item.tag,
            licence=item.facts.licence,
            summary=item.facts.summary,
            extras=tuple(sorted(extras.get(name, ()))),
            required_by={who: str(at) for who, at in sorted(asks.get(name, {}).items())},
        )
        for name, item in sorted(pinned.items())
    )
