"""The closure policy: everything in a lock is a package, or was accepted to come with one.

``settle`` holds the `brings` of all packages against new locks: what came along and was accepted
before is kept, or goes to the package that brings it now; what nothing brings any more goes out;
what nobody accepted yet is an arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from longrun.model import Distribution, Lock, Package
from longrun.stack import build_roots, reach


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A distribution that nobody accepted yet; ``home`` is the package that brings it."""

    dist: Distribution
    home: str
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A name that is taken out of a package's `brings`, and why."""

    package: str
    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """Packages with their new `brings`, what was let in, what was taken out, what is refused."""

    packages: Mapping[str, Package]
    accepted: tuple[Arrival, ...]
    dropped: tuple[Dropped, ...]
    refused: tuple[Arrival, ...]


def settle(
    packages: Mapping[str, Package],
    locks: Mapping[str, Lock],
    *,
    accept: Callable[[str], bool],
    prefer: str = "",
    before: Iterable[Lock] = (),
) -> Settlement:
    """`brings` as the locks want it. ``accept`` says of a name whether it may come in now.

    What came with a package whose spec is gone was accepted there: the locks ``before`` tell. An
    arrival's home is the package ``prefer`` where that brings it, else the nearest one, and of
    several the first by name.
    """
    known = {name for package in packages.values() for name in package.brings}
    known |= {name for lock in before for name in _orphans(lock, packages)}
    brings: dict[str, set[str]] = {name: set() for name in packages}
    found: dict[str, Arrival] = {}
    for tag, lock in locks.items():
        present = {name: package for name, package in packages.items() if package.is_for(tag)}
        ways = {name: _distances(package, lock) for name, package in present.items()}
        for dist in _brought(lock, present):
            holders = [
                n for n, p in present.items() if dist.name in p.brings and dist.name in ways[n]
            ]
            homes = holders or _homes(dist.name, ways, prefer)[:1]
            for home in homes:
                brings[home].add(dist.name)
            if dist.name not in known and homes:
                tags = (*found[dist.name].tags, tag) if dist.name in found else (tag,)
                home = found[dist.name].home if dist.name in found else homes[0]
                found[dist.name] = Arrival(dist=dist, home=home, tags=tags)
    refused = [arrival for name, arrival in found.items() if not accept(name)]
    for arrival in refused:
        for names in brings.values():
            names.discard(arrival.dist.name)
    return Settlement(
        packages={
            name: replace(package, brings=_ordered(package.brings, brings[name]))
            for name, package in packages.items()
        },
        accepted=tuple(sorted((a for a in found.values() if a not in refused), key=_by_name)),
        dropped=tuple(_dropped(packages, brings)),
        refused=tuple(sorted(refused, key=_by_name)),
    )


def _by_name(arrival: Arrival) -> str:
    return arrival.dist.name


def _brought(lock: Lock, packages: Mapping[str, Package]) -> Iterable[Distribution]:
    """What is neither a package nor named by one as needed for its build."""
    declared = {name for package in packages.values() for name in build_roots(package)}
    for dist in lock.distribution:
        if dist.name not in packages:
            yield dist
    for dist in lock.build:
        if dist.name not in packages and dist.name not in declared:
            yield dist


def _orphans(lock: Lock, packages: Mapping[str, Package]) -> Iterable[str]:
    """All that a lock has because of packages that are gone from the specs."""
    gone = [d.name for d in lock.distribution if not d.required_by and d.name not in packages]
    return reach(gone, _edges(lock))


def _edges(lock: Lock) -> dict[str, list[str]]:
    edges: dict[str, list[str]] = {}
    for dist in (*lock.distribution, *lock.build):
        for asker in dist.required_by:
            edges.setdefault(asker, []).append(dist.name)
    return edges


def _distances(package: Package, lock: Lock) -> dict[str, int]:
    """How far away everything is that a package brings, or the build of its sdist."""
    edges = _edges(lock)
    found: dict[str, int] = {}
    waiting = [(package.name, 0), *((name, 1) for name in build_roots(package))]
    while waiting:
        name, distance = waiting.pop(0)
        if name not in found:
            found[name] = distance
            waiting += [(below, distance + 1) for below in edges.get(name, ())]
    return found


def _homes(name: str, ways: Mapping[str, Mapping[str, int]], prefer: str) -> list[str]:
    reaching = [package for package, way in ways.items() if name in way]
    return sorted(reaching, key=lambda package: (package != prefer, ways[package][name], package))


def _ordered(before: Iterable[str], now: set[str]) -> tuple[str, ...]:
    """The names as they stood where they stay, so that an edit is small; new ones sorted."""
    kept = [name for name in before if name in now]
    return tuple(sorted(now)) if kept == sorted(kept) else (*kept, *sorted(now - set(kept)))


def _dropped(packages: Mapping[str, Package], brings: Mapping[str, set[str]]) -> Iterable[Dropped]:
    for package in packages.values():
        for name in package.brings:
            if name in brings[package.name]:
                continue
            others = [other for other, names in brings.items() if name in names]
            if name in packages:
                why = "it has a spec of its own"
            elif others:
                why = f"{', '.join(sorted(others))} brings it now"
            else:
                why = "nothing brings it any more"
            yield Dropped(package=package.name, name=name, why=why)
