"""Checks of executables and shared objects: what they need, where they look, what they show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from longrun import elf
from longrun.audit.check import CannotCheckError, Check
from longrun.audit.loading import ORIGIN, inside
from longrun.audit.policy import LOADERS, PEP600_LIBRARIES, Policy, version
from longrun.audit.report import ERROR, WARNING, Finding, Highest
from longrun.audit.tree import Node, Tree

_TRACKED = ("GLIBC", "GLIBCXX", "CXXABI")
# Markers instead of versions: what each asks of glibc (elf/Versions of glibc's source)
_MARKERS = {
    "GLIBC_ABI_DT_RELR": "2.36",
    "GLIBC_ABI_GNU_TLS": "2.42",
    "GLIBC_ABI_GNU2_TLS": "2.42",
    "GLIBC_ABI_DT_X86_64_PLT": "2.42",
}
_LINKER_SYMBOLS = ("_init", "_fini", "_edata", "_end", "__bss_start")
# Parts of libstdc++ that have names instead of numbers, and are as old as any floor
_UNNUMBERED = ("CXXABI_FLOAT128", "CXXABI_TM_1", "CXXABI_LDBL_1.3", "GLIBCXX_LDBL_3.4")


_SHOWN = 3


def check_elf(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every ELF file can be read, is for the floor's processor and names the ABI's loader.

    Some wheels carry libraries for several machines and load the one that fits. That a wheel is
    for another one is what ``tags`` finds.
    """
    arch = policy.floor.arch if policy.floor else own_arch(tree)
    for node in tree.nodes.values():
        found = node.content.elf
        if node.content.elf_error:
            yield Finding(
                path=node.path,
                message=node.content.elf_error.removeprefix(f"{node.path}: "),
                remedy="build or fetch this file again; it cannot be loaded as it is",
                severity=_if_ours(tree, node) if node.content.elf_other else ERROR,
            )
        elif found and arch and elf.MACHINES.get(found.machine) != arch:
            name = elf.MACHINES.get(found.machine, f"e_machine {found.machine}")
            yield Finding(
                path=node.path,
                message=f"is for {name}, the prefix is for {arch}",
                remedy="build it with the release's target, or take the wheel of this processor",
                severity=_if_ours(tree, node),
            )
        elif found and arch and found.interpreter not in ("", LOADERS[arch]):
            yield Finding(
                path=node.path,
                message=f"asks for the dynamic linker {found.interpreter}",
                remedy=f"link it with --dynamic-linker={LOADERS[arch]}",
            )


def _if_ours(tree: Tree, node: Node) -> str:
    """The severity of what only who builds a file can mend: wheels are taken as they are."""
    return WARNING if tree.is_packaged(node.path) else ERROR


def own_arch(tree: Tree) -> str:
    """The processor of the interpreter itself."""
    node = tree.nodes.get(f"bin/python{tree.python}")
    return elf.MACHINES.get(node.content.elf.machine, "") if node and node.content.elf else ""


def check_versions(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No symbol version is newer than the floor has (PEP 600)."""
    limits = policy.limits()
    if not limits:
        raise CannotCheckError("no floor is given to compare with")
    for node, kind, names in _version_needs(tree):
        if kind in limits:
            used = not tree.is_packaged(node.path) or node.path in tree.loads.imported
            yield from _version_findings(node, names, f"{kind}_{limits[kind]}", used=used)


def _version_findings(
    node: Node, names: list[str], highest: str, *, used: bool
) -> Iterator[Finding]:
    limit = version(_split(highest)[1])
    numbers = {name: version(_split(name)[1]) for name in names}
    private = [name for name in names if not numbers[name] and name not in _UNNUMBERED]
    newer = [name for name in names if numbers[name] > limit]
    # wheels carry helpers and plugins that only some systems can load, and do without
    severity = ERROR if used else WARNING
    unused = "" if used else "; nothing that is imported needs this file"
    if private:
        yield Finding(
            path=node.path,
            message=f"needs {', '.join(private)}: not a public interface of any version{unused}",
            remedy="find what links against it (readelf -V) and build that without it",
            severity=severity,
        )
    if newer:
        newer.sort(key=lambda name: numbers[name], reverse=True)
        yield Finding(
            path=node.path,
            message=f"needs {', '.join(newer)}; the floor has {highest}{unused}",
            remedy="compile it with the release's toolchain, or take a wheel for an older platform",
            severity=severity,
        )


def _version_needs(tree: Tree) -> Iterator[tuple[Node, str, list[str]]]:
    """By file and kind, symbol versions wanted of the system; bundled libraries have theirs."""
    bundled = {path.rpartition("/")[2] for path in tree.nodes} - PEP600_LIBRARIES
    for node, found in tree.objects():
        kinds: dict[str, list[str]] = {}
        for library, names in found.versions.items():
            # a libstdc++ that one wheel brings is not there for the others
            if library not in bundled and (node.path, library) not in tree.loads.found:
                for name in names:
                    kinds.setdefault(_split(name)[0], []).append(name)
        for kind, names_ in kinds.items():
            yield node, kind, names_


def _split(name: str) -> tuple[str, str]:
    """``GLIBC_2.28`` as kind and number; markers count as the version that brought them."""
    kind, _, number = name.partition("_")
    return kind, _MARKERS.get(name, number)


def highest_versions(tree: Tree) -> Mapping[str, Highest]:
    """The highest version of each kind that any file needs, and the file."""
    best: dict[str, Highest] = {}
    for node, kind, names in _version_needs(tree):
        number = max((_split(name)[1] for name in names), key=version)
        known = version(best[kind].version) if kind in best else ()
        if version(number) > known:
            best[kind] = Highest(version=number, path=node.path)
    return {kind: best[kind] for kind in _TRACKED if kind in best}


def check_needed(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every needed library is on the allow list, or is in the prefix where it will be found."""
    if policy.needed is None:
        raise CannotCheckError("no list of allowed libraries is given")
    bundled = {path.rpartition("/")[2]: path for path in tree.nodes if ".so" in path}
    of_wheels: dict[tuple[str, bool], list[tuple[str, str]]] = defaultdict(list)
    for path, library in sorted(tree.loads.missing):
        packaged = tree.is_packaged(path)
        if library in (policy.needed_packages if packaged else policy.needed):
            continue
        if packaged:
            of_wheels[_part(tree, path), library in bundled].append((path, library))
        else:
            yield _needed_finding(path, library, bundled.get(library, ""))
    for (part, there), pairs in of_wheels.items():
        yield _needed_of_wheel(part, pairs, bundled if there else {})


def _part(tree: Tree, path: str) -> str:
    """The package below site-packages that a file is part of: what people know a wheel by."""
    if not path.startswith(tree.packages):
        return path
    return tree.packages + path.removeprefix(tree.packages).split("/")[0]


def _needed_finding(path: str, library: str, elsewhere: str) -> Finding:
    if elsewhere:
        return Finding(
            path=path,
            message=f"needs {library}; {elsewhere} is in the prefix, but no RUNPATH leads there",
            remedy="give it a RUNPATH of $ORIGIN",
        )
    return Finding(
        path=path,
        message=f"needs {library}, which neither the prefix nor every system has",
        remedy="link it statically, or bundle it and set a RUNPATH of $ORIGIN",
    )


def _needed_of_wheel(
    part: str, pairs: list[tuple[str, str]], bundled: Mapping[str, str]
) -> Finding:
    """What a wheel takes for granted: Qt's need a desktop, and some packages load libraries first.

    Listed by library, since that is what an administrator installs.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for path, library in pairs:
        files[library].append(path)
    of_one = len({path for path, _ in pairs}) == 1
    names = [
        library if of_one else f"{library} ({_files(paths)})"
        for library, paths in sorted(files.items())
    ]
    place = pairs[0][0] if of_one else part
    if bundled:
        where = bundled[pairs[0][1]]
        return Finding(
            path=place,
            message=f"needs {', '.join(names)}; {where} is in the prefix, but no RUNPATH leads "
            "there, so it works only after something else has loaded it",
            remedy="test that its package loads the library first",
            severity=WARNING,
        )
    return Finding(
        path=place,
        message=f"expects of the system what not every system has: {', '.join(names)}",
        remedy="install these where it is used, or leave out the files that need them",
        severity=WARNING,
    )


def _files(paths: list[str]) -> str:
    return paths[0].rpartition("/")[2] if len(paths) == 1 else f"{len(paths)} files"


def check_runpath(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """RPATH and RUNPATH only lead from the file's own place to places inside the prefix.

    Wheels too: whoever may write to the directory that one names could put libraries there.
    """
    faults: dict[str, list[str]] = defaultdict(list)
    for node, found in tree.objects():
        for kind, value in (("RPATH", found.rpath), ("RUNPATH", found.runpath)):
            for entry in value.split(":") if value else ():
                if inside(node.path, entry) is None:
                    faults[f"{kind} {entry!r} {_runpath_fault(entry)}"].append(node.path)
    for fault, paths in faults.items():
        yield from _by_package(
            tree,
            paths,
            fault,
            "link without it, or have the spec of its package take it out",
            severity=ERROR,
        )


def _runpath_fault(entry: str) -> str:
    if not entry:
        return "is empty: libraries would be taken from the current directory"
    if not ORIGIN.fullmatch(entry):
        return "is not relative to $ORIGIN: another machine has other files there, or none"
    return "leads out of the prefix"


def check_exports(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No symbol of a statically linked library is visible to the rest of the process.

    A second copy of such a library in the process, from a wheel or the system, would bind to it.
    Shared libraries that wheels bundle export what they are for, so below site-packages only
    extension modules are looked at.
    """
    for node, found in tree.objects():
        names = [symbol.name for symbol in found.exports]
        packages = node.path.startswith(tree.packages)
        module = any(name.startswith("PyInit_") for name in names)
        if packages and not module:
            continue
        for library, pattern in policy.foreign_symbols.items():
            foreign = [name for name in names if pattern.match(name)]
            if foreign:
                yield Finding(
                    path=node.path,
                    message=f"exports {len(foreign)} symbols of {library}, {_some(foreign)}",
                    remedy="link it with a version script: { global: PyInit_*; local: *; };",
                    severity=WARNING if packages else ERROR,
                )
        if node.path.startswith(f"{tree.library}/lib-dynload/"):
            yield from _other_exports(node, names, policy)


def _other_exports(node: Node, names: list[str], policy: Policy) -> Iterator[Finding]:
    """An extension module has to show its init function and nothing else."""
    patterns = policy.foreign_symbols.values()
    other = [
        name
        for name in names
        if not name.startswith("PyInit")  # PyInitU_ too: PEP 489, names that are not ASCII
        and name not in _LINKER_SYMBOLS
        and not any(pattern.match(name) for pattern in patterns)
    ]
    if other:
        yield Finding(
            path=node.path,
            message=f"exports {len(other)} symbols besides PyInit_, {_some(other)}",
            remedy="link it with a version script: { global: PyInit_*; local: *; };",
            severity=WARNING,
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"such as {shown}" if len(names) > _SHOWN else shown


def check_execstack(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No file makes the stack executable; glibc 2.41 refuses to dlopen one that does."""
    for node, found in tree.objects():
        if found.executable_stack:
            reason = "has no PT_GNU_STACK" if found.stack_flags is None else "PT_GNU_STACK has X"
            yield Finding(
                path=node.path,
                message=f"makes the stack executable: {reason}",
                remedy="link with -z noexecstack; assembler files need a .note.GNU-stack section",
            )


def check_relro(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """The dynamic linker's tables become read-only after relocation."""
    weak = [node.path for node, found in tree.objects() if found.dynamic and not found.relro]
    yield from _by_package(tree, weak, "has no PT_GNU_RELRO", "link with -z relro")


def check_bind_now(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """All symbols are bound at load, so a missing one is seen at once and the GOT is read-only."""
    weak = [node.path for node, found in tree.objects() if found.dynamic and not found.bind_now]
    yield from _by_package(tree, weak, "is not BIND_NOW", "link with -z now")


def _by_package(
    tree: Tree, paths: list[str], message: str, remedy: str, *, severity: str = WARNING
) -> Iterator[Finding]:
    """One error per file; of wheels, one finding per package: most of its files are alike."""
    of_wheels: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if tree.is_packaged(path):
            of_wheels[_part(tree, path)].append(path)
        else:
            yield Finding(path=path, message=message, remedy=remedy)
    for part, files in of_wheels.items():
        names = [path.removeprefix(f"{part}/") for path in files[:_SHOWN]]
        several = f"{message} ({len(files)} files, such as {', '.join(names)})"
        yield Finding(
            path=files[0] if len(files) == 1 else part,
            message=message if len(files) == 1 else several,
            remedy=remedy,
            severity=severity,
        )


def check_textrel(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No relocation writes to code: SELinux denies it, and pages would not be shared."""
    for node, found in tree.objects():
        if found.textrel:
            yield Finding(
                path=node.path,
                message="has relocations in its code (TEXTREL)",
                remedy="compile all that goes into it with -fPIC",
            )


CHECKS: dict[str, Check] = {
    "elf": check_elf,
    "versions": check_versions,
    "needed": check_needed,
    "runpath": check_runpath,
    "exports": check_exports,
    "execstack": check_execstack,
    "relro": check_relro,
    "bind-now": check_bind_now,
    "textrel": check_textrel,
}
