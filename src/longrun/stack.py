"""The stack of one interpreter: what each layer holds, and that specs and lock agree on it.

Everything in a lock is a package with a spec, or was accepted to come along with one; a lock that
says anything else is refused before a step is planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from longrun.errors import SpecError, UsageError
from longrun.model import SDIST, Distribution, Floor, Interpreter, Lock, Package, Release
from longrun.specs import Specs, near, normalised
from longrun.tags import best_tag, tags_of


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A lock and the packages that it was made for; ``file`` names the lock in errors."""

    release: Release
    tag: str
    packages: Mapping[str, Package]
    lock: Lock
    file: str

    def find(self, name: str) -> Distribution | None:
        """The locked distribution of a normalised name."""
        return next((dist for dist in self.lock.distribution if dist.name == name), None)

    def has(self, names: Iterable[str]) -> bool:
        """Whether all these distributions are locked."""
        return all(self.find(name) for name in names)

    def requires(self) -> dict[str, list[str]]:
        """Who asks for whom: each distribution's own requirements, by name."""
        found: dict[str, list[str]] = {dist.name: [] for dist in self.lock.distribution}
        for dist in self.lock.distribution:
            for name in dist.required_by:
                found.setdefault(name, []).append(dist.name)
        return found

    def layers_of(self, name: str) -> tuple[str, ...]:
        """The layers that hold a distribution, in the release's order."""
        return self._layers.get(name, ())

    def members(self, layer: str) -> tuple[Distribution, ...]:
        """What a layer holds, with the layers that it includes and all that comes along."""
        return self._members[layer]

    @cached_property
    def _members(self) -> Mapping[str, tuple[Distribution, ...]]:
        """What each layer holds, found once: tables ask for it by every distribution."""
        edges = self.requires()
        found = {}
        for layer in self.release.layers:
            layers = included(self.release, layer)
            roots = [package.name for package in self.packages.values() if package.layer in layers]
            names = reach(roots, edges)
            found[layer] = tuple(dist for dist in self.lock.distribution if dist.name in names)
        return found

    @cached_property
    def _layers(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for layer, members in self._members.items():
            for dist in members:
                found[dist.name] = (*found.get(dist.name, ()), layer)
        return found

    def build_closure(self, package: Package) -> tuple[Distribution, ...]:
        """What the build of an sdist needs: the stack's own where it has it."""
        if package.build is None:
            return ()
        known = {dist.name: dist for dist in (*self.lock.build, *self.lock.distribution)}
        requires: dict[str, list[str]] = {}
        for dist in known.values():
            for name in dist.required_by:
                requires.setdefault(name, []).append(dist.name)
        roots = build_roots(package)
        for name in roots:
            if name not in known:
                raise SpecError(
                    f"specs/packages/{package.name}.toml: build.requires: {name} is not in "
                    f"{self.file}",
                    remedy="./build.py lock",
                )
        names = reach(roots, requires)
        return tuple(dist for name, dist in sorted(known.items()) if name in names)


def build_roots(package: Package) -> tuple[str, ...]:
    """What the build of a package's sdist needs itself, by normalised name."""
    requires = package.build.requires if package.build else ()
    return tuple(normalised(Requirement(text).name) for text in requires)


def included(release: Release, layer: str) -> tuple[str, ...]:
    """A layer and all that it builds on."""
    return tuple(
        reach([layer], {name: list(item.includes) for name, item in release.layers.items()})
    )


def reach(roots: Iterable[str], edges: Mapping[str, list[str]]) -> dict[str, None]:
    """Everything that can be reached from the roots, in the order in which it is met."""
    found: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += edges.get(name, [])
    return found


def choose_layers(release: Release, names: Iterable[str]) -> tuple[str, ...]:
    """The named layers of a release; ``all`` is every one."""
    known = list(release.layers)
    chosen: dict[str, None] = {}
    for name in names:
        if name != "all" and name not in known:
            raise UsageError(
                f"release {release.name} has no layer {name!r}{near(name, known)}",
                remedy=f"its layers: {', '.join(known)}; or all",
            )
        chosen |= dict.fromkeys(known if name == "all" else [name])
    return tuple(chosen)


def packages_for(packages: Mapping[str, Package], release: Release, tag: str) -> dict[str, Package]:
    """The packages of an interpreter; SpecError where one is in a layer that there is not."""
    for package in packages.values():
        if package.layer not in release.layers:
            known = list(release.layers)
            raise SpecError(
                f"specs/packages/{package.name}.toml: layer: expected one of "
                f"{', '.join(known)}, found {package.layer!r}{near(package.layer, known)}"
            )
    return {name: package for name, package in packages.items() if package.is_for(tag)}


def load_stack(specs: Specs, release: Release, interpreter: Interpreter) -> Stack:
    """The stack of an interpreter, held against its specs; SpecError where they disagree."""
    file = specs.lock_path(release.name, interpreter.tag).relative_to(specs.root).as_posix()
    lock = specs.lock(release.name, interpreter.tag)
    if lock is None:
        raise SpecError(f"{file}: there is no such lock yet", remedy="./build.py lock")
    packages = packages_for(specs.packages, release, interpreter.tag)
    return check_stack(release, interpreter, packages, lock, file)


def check_stack(
    release: Release,
    interpreter: Interpreter,
    packages: Mapping[str, Package],
    lock: Lock,
    file: str,
) -> Stack:
    """A lock held against the packages of its interpreter, whether it is on disk yet or not.

    ``file`` names the lock in errors; SpecError where they disagree.
    """
    stack = Stack(release=release, tag=interpreter.tag, packages=packages, lock=lock, file=file)
    _check_target(stack, interpreter, release.floor)
    for package in packages.values():
        _check_package(stack, package)
    _check_arrivals(stack)
    for dist in (*lock.distribution, *lock.build):
        _check_distribution(stack, dist, release.floor)
    return stack


def _check_target(stack: Stack, interpreter: Interpreter, floor: Floor) -> None:
    lock = stack.lock
    for key, found, expected in (
        ("release", lock.release, stack.release.name),
        ("interpreter", lock.interpreter, stack.tag),
        ("python", lock.python, interpreter.version),
        ("platform", lock.platform, floor.tag),
    ):
        if found != expected:
            raise SpecError(
                f"{stack.file}: {key}: resolved for {found!r}, and the specs say {expected!r}",
                remedy="./build.py lock",
            )


def _check_package(stack: Stack, package: Package) -> None:
    file = f"specs/packages/{package.name}.toml"
    dist = stack.find(package.name)
    if dist is None:
        raise SpecError(f"{file}: {package.name} is not in {stack.file}", remedy="./build.py lock")
    constraint = package.constraint_for(stack.tag)
    if not SpecifierSet(constraint).contains(dist.version, prereleases=True):
        raise SpecError(
            f"{file}: asks for {package.name}{constraint}, and {stack.file} has {dist.version}",
            remedy="./build.py lock",
        )
    if missing := set(package.extras) - set(dist.extras):
        raise SpecError(
            f"{file}: extras: {', '.join(sorted(missing))} not in {stack.file}",
            remedy="./build.py lock",
        )


def _check_arrivals(stack: Stack) -> None:
    """Nothing came in by itself, and nothing is there that nobody asks for."""
    for dist in unaccepted(stack):
        raise SpecError(
            f"{stack.file}: {dist.name} {dist.version} is no package of specs/packages, and no "
            f"spec accepts it under `brings` ({asked_by(dist)})",
            remedy="./build.py lock shows what comes along; --accept NAME lets it in",
        )
    reached = reach(stack.packages, stack.requires())
    for dist in stack.lock.distribution:
        if dist.name not in reached:
            raise SpecError(
                f"{stack.file}: nothing asks for {dist.name} {dist.version}",
                remedy="./build.py lock takes it out",
            )


def unaccepted(stack: Stack) -> list[Distribution]:
    """What a lock holds that is neither a package nor accepted as brought along by one."""
    packages = stack.packages.values()
    accepted = {name for package in packages for name in package.brings}
    building = {name for package in packages for name in build_roots(package)}
    unknown = [
        dist
        for dist in (*stack.lock.distribution, *stack.lock.build)
        if dist.name not in stack.packages and dist.name not in accepted
    ]
    return [d for d in unknown if d in stack.lock.distribution or d.name not in building]


def asked_by(dist: Distribution) -> str:
    """Who asks for a distribution, for a message."""
    return f"asked for by {', '.join(dist.required_by)}" if dist.required_by else "nobody asks"


def _check_distribution(stack: Stack, dist: Distribution, floor: Floor) -> None:
    where = f"{stack.file}: {dist.name} {dist.version}"
    if len(dist.sha256) != 64 or set(dist.sha256) - set("0123456789abcdef"):
        raise SpecError(f"{where}: sha256: expected 64 hexadecimal digits, found {dist.sha256!r}")
    if "/" in dist.file or dist.file.startswith("."):
        raise SpecError(f"{where}: file: expected a file name, found {dist.file!r}")
    for name, constraint in dist.required_by.items():
        if not SpecifierSet(constraint).contains(dist.version, prereleases=True):
            raise SpecError(
                f"{where} does not fit: {name} asks for {dist.name}{constraint}",
                remedy="./build.py lock",
            )
    if dist.tag == SDIST:
        _check_sdist(stack, dist)
    elif best_tag(dist.file, stack.tag, floor) is None:
        raise SpecError(
            f"{where}: {dist.file} is for {_platforms(dist.file)}, not for {stack.tag} on "
            f"{floor.tag}; {_wanted_by(stack, dist)}",
            remedy="lock a version that has a wheel for the floor",
        )


def _check_sdist(stack: Stack, dist: Distribution) -> None:
    package = stack.packages.get(dist.name)
    if package is None or package.build is None:
        raise SpecError(
            f"{stack.file}: {dist.name} {dist.version} has no wheel, only {dist.file}, and no spec "
            f"says how it is built; {_wanted_by(stack, dist)}",
            remedy=f"give specs/packages/{dist.name}.toml a [build] table",
        )


def _platforms(file: str) -> str:
    return ", ".join(sorted(str(tag) for tag in tags_of(file))) or "no known platform"


def _wanted_by(stack: Stack, dist: Distribution) -> str:
    if dist.name in stack.packages:
        return f"specs/packages/{dist.name}.toml wants it"
    return asked_by(dist)
