"""Checks of installed distributions: what their metadata says is held against what is there."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from longrun.audit.check import CannotCheckError, Check, require_python
from longrun.audit.distributions import Distribution, Metadata, MetadataError, Recorded
from longrun.audit.elf_checks import own_arch
from longrun.audit.policy import Policy
from longrun.audit.report import ERROR, WARNING, Finding
from longrun.audit.tree import Node, Tree, is_cached, source_of
from longrun.seal import MARKER, README

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_VERSION_IN_C = re.compile(rb'^#define PY_VERSION\s+"([^"+]+)', re.M)
_VERSION = re.compile(r"3\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
_REINSTALL = "install the distribution again, from its wheel"
# What a RECORD need not list: itself and its signatures (PyPA's "Recording installed projects")
_UNLISTED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_ALLOWED = (README,)
_OLDEST_GLIBC = {"x86_64": 5}  # manylinux1; all other processors began with manylinux2014
_FIRST_OF_OTHERS = 17
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_SHOWN = 3


# -- requires: all that is asked for is there ---------------------------------------------------


def check_requires(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """What each distribution requires of others, and of Python, is there in a version that fits."""
    require_python(tree)
    if not tree.distributions:
        return
    if not _full_version(tree):
        raise CannotCheckError("the interpreter's full version is not known")
    if not _arch(tree, policy):
        raise CannotCheckError("the interpreter's processor is not known")
    environment = _environment(tree, policy)
    yield from _unread(tree)
    yield from _twice(tree)
    yield from _python_conflicts(tree, environment)
    yield from _unsatisfied(tree, environment)


def _unread(tree: Tree) -> Iterator[Finding]:
    for distribution in tree.distributions:
        try:
            metadata = distribution.metadata
        except MetadataError as error:
            yield Finding(
                path=distribution.metadata_path,
                message=f"cannot be read: {error}",
                remedy=_REINSTALL,
            )
            continue
        for field in metadata.unread:
            yield Finding(
                path=distribution.metadata_path,
                message=f"cannot be checked: {field}",
                remedy="take a newer version of it; installers refuse or ignore such a line",
                severity=WARNING,
            )


def _twice(tree: Tree) -> Iterator[Finding]:
    by_name: dict[str, list[Distribution]] = defaultdict(list)
    for distribution in tree.distributions:
        by_name[distribution.name].append(distribution)
    for name, found in by_name.items():
        if len(found) > 1:
            labels = ", ".join(distribution.label for distribution in found)
            yield Finding(
                path=found[-1].path,
                message=f"{name} is installed {len(found)} times: {labels}",
                remedy="remove all but one, with the files in its RECORD",
            )


def _python_conflicts(tree: Tree, environment: Mapping[str, str]) -> Iterator[Finding]:
    python = environment["python_full_version"]
    for distribution, metadata in _readable(tree):
        if metadata.python and not metadata.python.contains(python, prereleases=True):
            yield Finding(
                path=distribution.metadata_path,
                message=f"{distribution.label} needs Python {metadata.python}, found {python}",
                remedy="take a version of it for this interpreter",
            )


def _unsatisfied(tree: Tree, environment: Mapping[str, str]) -> Iterator[Finding]:
    there = {distribution.name: metadata for distribution, metadata in _readable(tree)}
    names = {distribution.name for distribution in tree.distributions}
    for distribution, extra, requirement in _active(tree, environment):
        wanted = _canonical(requirement)
        asking = distribution.label + (f" with the extra {extra}" if extra else "")
        if wanted not in names:
            yield Finding(
                path=distribution.metadata_path,
                message=f"{asking} requires {requirement.name}, which is not there",
                remedy=f"install {_wanted(requirement)} too",
            )
        elif wanted in there and not requirement.specifier.contains(
            there[wanted].version, prereleases=True
        ):
            found = there[wanted].version
            yield Finding(
                path=distribution.metadata_path,
                message=f"{asking} needs {_wanted(requirement)}, found {found}",
                remedy="choose versions that agree: constrain one of them and resolve again",
            )


def _active(
    tree: Tree, environment: Mapping[str, str]
) -> Iterator[tuple[Distribution, str, Requirement]]:
    """What is required in this environment, with the extra that asks for it.

    Which extras a person asked for is recorded nowhere: those count that another distribution
    asks for, and what these bring along.
    """
    from packaging.utils import canonicalize_name

    by_name = {d.name: (d, metadata.requires) for d, metadata in _readable(tree)}
    queue = [(name, "") for name in by_name]
    seen = set(queue)
    for name, extra in queue:  # grows while it is gone through
        distribution, requires = by_name[name]
        for requirement in requires:
            if _holds(requirement, environment, extra):
                yield distribution, extra, requirement
                wanted = _canonical(requirement)
                asked = {(wanted, canonicalize_name(extra)) for extra in requirement.extras}
                new = sorted(pair for pair in asked - seen if pair[0] in by_name)
                queue += new
                seen.update(new)


def _holds(requirement: Requirement, environment: Mapping[str, str], extra: str) -> bool:
    """Whether a requirement counts under an extra, and not without it already."""
    marker = requirement.marker
    if marker is None:
        return not extra
    without = marker.evaluate({**environment, "extra": ""})
    return not without and marker.evaluate({**environment, "extra": extra}) if extra else without


def _readable(tree: Tree) -> Iterator[tuple[Distribution, Metadata]]:
    for distribution in tree.distributions:
        try:
            yield distribution, distribution.metadata
        except MetadataError:
            continue


def _canonical(requirement: Requirement) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(requirement.name)


def _wanted(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _environment(tree: Tree, policy: Policy) -> dict[str, str]:
    """What markers are evaluated in (PEP 508): the prefix's interpreter, not this one."""
    full = _full_version(tree) or tree.python
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": _arch(tree, policy),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": tree.python.rstrip("t"),
        "sys_platform": "linux",
    }


def _full_version(tree: Tree) -> str:
    """Such as ``3.13.5``: from Longrun's marker, else from CPython's header; "" where unknown."""
    for found in (_marked_version(tree), _header_version(tree)):
        if _VERSION.fullmatch(found) and found.startswith(f"{tree.python.rstrip('t')}."):
            return found
    return ""


def _marked_version(tree: Tree) -> str:
    try:
        found = json.loads((tree.root / MARKER).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(found.get("version", "")) if isinstance(found, dict) else ""


def _header_version(tree: Tree) -> str:
    try:
        text = (tree.root / f"include/python{tree.python}/patchlevel.h").read_bytes()
    except OSError:
        return ""
    found = _VERSION_IN_C.search(text)
    return found[1].decode("ascii", "replace") if found else ""


def _arch(tree: Tree, policy: Policy) -> str:
    return policy.floor.arch if policy.floor else own_arch(tree)


# -- tags: all is for this interpreter and this floor -------------------------------------------


def check_tags(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every distribution came as a wheel for this interpreter and for a platform of the floor."""
    require_python(tree)
    if not tree.distributions:
        return
    if policy.floor is None:
        raise CannotCheckError("no floor is given to compare with")
    platforms = _platforms(policy.floor.arch, policy.floor.glibc)
    fitting = _tags(tree.python, platforms)
    local = _tags(tree.python, [f"linux_{policy.floor.arch}"])
    for distribution in tree.distributions:
        try:
            tags = distribution.tags
        except MetadataError as error:
            yield _no_tags(distribution, error, policy)
            continue
        if tags & fitting:
            continue
        if tags & local:
            yield Finding(
                path=f"{distribution.path}/WHEEL",
                message=f"{distribution.label} was built locally, not for distribution: "
                f"{_some(tags)}",
                remedy="take its wheel from an index, or build it for the floor (auditwheel)",
                severity=WARNING,
            )
        else:
            yield _not_fitting(tree, policy, distribution)


def _no_tags(distribution: Distribution, error: MetadataError, policy: Policy) -> Finding:
    return Finding(
        path=distribution.path if distribution.is_old else f"{distribution.path}/WHEEL",
        message=f"does not tell what {distribution.label} was built for: {error}",
        remedy=_REINSTALL,
        # other installers than those of wheels leave it out
        severity=ERROR if policy.sealed else WARNING,
    )


def _not_fitting(tree: Tree, policy: Policy, distribution: Distribution) -> Finding:
    environment = _environment(tree, policy)
    asking = sorted(
        {d.label for d, _, r in _active(tree, environment) if _canonical(r) == distribution.name}
    )
    floor = policy.floor.tag if policy.floor else ""
    return Finding(
        path=f"{distribution.path}/WHEEL",
        message=f"{distribution.label} is for {_some(distribution.tags)}, the prefix is Python "
        f"{tree.python} on {floor}; required by {', '.join(asking) or 'nothing here'}",
        remedy="take an older version that has a wheel for the floor, or build it from source",
    )


def _platforms(arch: str, glibc: str) -> list[str]:
    """Platform tags of a floor and of all that is older (PEP 600), with their old names."""
    newest = int(glibc.split(".")[1])
    oldest = _OLDEST_GLIBC.get(arch, _FIRST_OF_OTHERS)
    found = []
    for minor in range(newest, oldest - 1, -1):
        found.append(f"manylinux_2_{minor}_{arch}")
        if minor in _LEGACY:
            found.append(f"{_LEGACY[minor]}_{arch}")
    return found


def _tags(python: str, platforms: list[str]) -> frozenset[str]:
    from packaging.tags import compatible_tags, cpython_tags

    number = (3, int(python.removeprefix("3.").rstrip("t")))
    interpreter = f"cp3{number[1]}"
    abis = [interpreter + "t" * python.endswith("t")]
    return frozenset(
        str(tag)
        for tags in (
            cpython_tags(number, abis, platforms),
            compatible_tags(number, interpreter, platforms),
        )
        for tag in tags
    )


# -- records: each file belongs to one distribution, and is what it was -------------------------


def check_records(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every RECORD tells the truth, and every file below site-packages is in exactly one."""
    require_python(tree)
    if not tree.distributions:
        return
    for distribution in tree.distributions:
        yield from _record_findings(tree, policy, distribution)
    yield from _shared(tree)
    yield from _unrecorded(tree, policy)


def _record_findings(tree: Tree, policy: Policy, distribution: Distribution) -> Iterator[Finding]:
    try:
        record = distribution.record
    except MetadataError as error:
        yield Finding(
            path=distribution.path if distribution.is_old else f"{distribution.path}/RECORD",
            message=f"does not tell which files are of {distribution.label}: {error}",
            remedy=_REINSTALL,
            severity=ERROR if policy.sealed or "RECORD" in distribution.files else WARNING,
        )
        return
    faults: dict[str, list[str]] = defaultdict(list)
    for line in record:
        if fault := _record_fault(tree, line):
            faults[fault].append(line.path)
    for fault, paths in faults.items():
        place = _place(paths, f"{distribution.path}/RECORD")
        yield Finding(
            path=place,
            message=f"{_named(paths, place)} in the RECORD of {distribution.label}: {fault}",
            remedy=_REINSTALL,
            severity=WARNING if fault == _OTHER_HASH else ERROR,
        )


_OTHER_HASH = "a hash other than sha256 is not compared"


def _record_fault(tree: Tree, line: Recorded) -> str:
    """What is wrong with one file, in words that are the same for all files alike."""
    node = tree.nodes.get(line.path)
    bytecode = is_cached(line.path)
    if line.path.startswith(("/", "../")):
        return "outside the prefix"
    if line.path.startswith(f"{tree.library}/") and not line.path.startswith(tree.packages):
        return "in the interpreter's own library"
    if node is None:
        # caches come and go: who seals compiles again
        return "" if bytecode else "not there"
    if not node.is_file:
        return "no file"
    if bytecode or node.unread:
        return ""
    if line.size >= 0 and line.size != node.size:
        return "of another size"
    return _hash_fault(node, line)


def _hash_fault(node: Node, line: Recorded) -> str:
    if not line.hash:
        return ""
    if not line.hash.startswith("sha256="):
        return _OTHER_HASH
    return "" if line.agrees(node.content.sha256) else "changed after it was installed"


def _shared(tree: Tree) -> Iterator[Finding]:
    """Files of several distributions. The same bytes in each do no harm until one is removed."""
    faults: dict[tuple[tuple[str, ...], bool], list[str]] = defaultdict(list)
    for path, found in tree.owners.items():
        labels = tuple(sorted({distribution.label for distribution, _ in found}))
        if len(labels) > 1 and not is_cached(path):
            hashes = {line.hash for _, line in found}
            faults[labels, len(hashes) == 1 and "" not in hashes].append(path)
    for (labels, same), paths in faults.items():
        alike = ", with the same content" if same else ", with different content"
        place = _place(paths, tree.packages)
        yield Finding(
            path=place,
            message=f"{_named(paths, place)} in the RECORDs of {' and '.join(labels)}{alike}",
            remedy="keep one of the distributions: of such files, the last one installed stays",
            severity=WARNING if same else ERROR,
        )


def _unrecorded(tree: Tree, policy: Policy) -> Iterator[Finding]:
    told = {f"{d.path}/" for d in tree.distributions if not _has_record(d)}
    surplus: dict[str, list[str]] = defaultdict(list)
    for node in tree.nodes.values():
        if node.path.startswith(tree.packages) and not stat.S_ISDIR(node.mode):
            part = node.path.removeprefix(tree.packages).partition("/")[0]
            place = f"{tree.packages}{part}"
            if f"{place}/" not in told and not _is_recorded(tree, node):
                surplus[place].append(node.path)
    for paths in surplus.values():
        place = _place(paths, tree.packages)
        yield Finding(
            path=place,
            message=f"{_named(paths, place)} in the RECORD of no distribution",
            remedy="remove it, or install what it belongs to from a wheel",
            severity=ERROR if policy.sealed else WARNING,
        )


def _has_record(distribution: Distribution) -> bool:
    try:
        return bool(distribution.record)
    except MetadataError:
        return False


def _is_recorded(tree: Tree, node: Node) -> bool:
    if node.path in tree.owners or node.path.removeprefix(tree.packages) in _ALLOWED:
        return True
    directory, _, name = node.path.rpartition("/")
    if name in _UNLISTED and directory.endswith(".dist-info"):
        return True
    return is_cached(node.path) and source_of(node.path) in tree.owners


def _place(paths: list[str], otherwise: str) -> str:
    """What a finding of several files is about: the one file, or the directory of all."""
    if any(path.startswith(("/", "..")) for path in paths):
        return otherwise.rstrip("/")
    return (paths[0] if len(paths) == 1 else os.path.commonpath(paths)) or otherwise.rstrip("/")


def _named(paths: list[str], place: str) -> str:
    if paths == [place]:
        return "is"
    if len(paths) == 1:
        return f"{paths[0]} is"
    return f"{len(paths)} files, such as {', '.join(sorted(paths)[:_SHOWN])}, are"


def _some(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:_SHOWN]) + (" ..." if len(found) > _SHOWN else "")


# -- pth: what runs, or is searched, at every start of the interpreter --------------------------


def check_pth(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No .pth file of site-packages adds a path outside the prefix; those that run code are told.

    ``site`` executes lines that start with ``import``, and takes all others as paths.
    """
    require_python(tree)
    for node in tree.nodes.values():
        directory, _, name = node.path.rpartition("/")
        if name.endswith(".pth") and f"{directory}/" == tree.packages and node.content.text:
            yield from _pth_findings(tree, node, node.content.text)


def _pth_findings(tree: Tree, node: Node, text: bytes) -> Iterator[Finding]:
    owner = " and ".join(sorted(d.label for d, _ in tree.owners.get(node.path, ())))
    code = []
    for line in text.decode("utf-8-sig", "backslashreplace").splitlines():
        if line.startswith(("import ", "import\t")):
            code.append(line)
        elif line.strip() and not line.startswith("#") and _leaves(tree, line.rstrip()):
            yield Finding(
                path=node.path,
                message=f"of {owner or 'no distribution'} adds {line.rstrip()}, "
                "which is outside the prefix",
                remedy="install what is there as a wheel; an editable installation has no place",
            )
    if code:
        yield Finding(
            path=node.path,
            message=f"of {owner or 'no distribution'} runs code at every start of the "
            f"interpreter: {code[0][:100]}",
            remedy="look at what it does; no package needs it to be imported",
            severity=WARNING,
        )


def _leaves(tree: Tree, line: str) -> bool:
    path = os.path.normpath(os.path.join(tree.packages, line))
    return path.startswith("/") or path.split("/")[0] == ".."


CHECKS: dict[str, Check] = {
    "requires": check_requires,
    "tags": check_tags,
    "records": check_records,
    "pth": check_pth,
}
