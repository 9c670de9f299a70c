"""Checks of what makes a prefix a Python: extension modules, bytecode, names, packages."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from longrun.audit.api import API_FILE, read_api
from longrun.audit.check import CannotCheckError, Check, require_python
from longrun.audit.policy import Policy
from longrun.audit.report import WARNING, Finding
from longrun.audit.tree import Node, Tree, source_of
from longrun.errors import AuditError
from longrun.hook import SOURCE, blank

# pyc flags (PEP 552): hash-based, and whether the source is looked at on import
_HASHED, _CHECKED = 1, 2
_NOT_SEALED = "the policy is not that of a sealed prefix"


def _require_sealed(tree: Tree, policy: Policy) -> None:
    require_python(tree)
    if not policy.sealed:
        raise CannotCheckError(_NOT_SEALED)


def check_modules(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """The extension modules in lib-dynload are exactly those that the spec lists."""
    require_python(tree)
    if policy.modules is None:
        raise CannotCheckError("no list of extension modules is given")
    directory = f"{tree.library}/lib-dynload"
    found: dict[str, str] = {}
    for path in tree.nodes:
        parent, _, name = path.rpartition("/")
        if parent == directory and name.endswith(".so"):
            module = name.split(".", 1)[0]
            if module in found:
                message = f"a second file of module {module}, beside {found[module]}"
                yield Finding(path=path, message=message, remedy="keep the one that was built")
            found[module] = name
    for module in sorted(policy.modules - set(found)):
        yield Finding(
            path=f"{directory}/{module}.*.so",
            message=f"the extension module {module} is missing",
            remedy="look in the interpreter's log for why it was not built or was renamed *_failed",
        )
    for module in sorted(set(found) - policy.modules):
        yield Finding(
            path=f"{directory}/{found[module]}",
            message=f"the extension module {module} is not in the spec's list",
            remedy="add it to `modules` of the interpreter's spec, or do not build it",
        )


def _bytecode(tree: Tree) -> Iterator[tuple[Node, str]]:
    """Every .pyc with the path of the source that it belongs to."""
    for node in tree.nodes.values():
        if node.content.pyc is not None:
            yield node, source_of(node.path)


def check_bytecode(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every .pyc is this interpreter's and has its source; a sealed prefix has one for each."""
    require_python(tree)
    if not tree.magic:
        raise CannotCheckError("the interpreter's magic number was not found in its importlib")
    for node, source in _bytecode(tree):
        fault = _bytecode_fault(tree, policy, node, source)
        if fault:
            yield Finding(
                path=node.path,
                message=fault,
                remedy="compile it again with this interpreter: compileall "
                "--invalidation-mode unchecked-hash",
            )
    if policy.sealed:
        yield from _missing_bytecode(tree)


def _bytecode_fault(tree: Tree, policy: Policy, node: Node, source: str) -> str:
    header = node.content.pyc or b""
    if len(header) < 16:
        return "is cut off inside its header"
    if int.from_bytes(header[:4], "little") != tree.magic:
        found, wanted = int.from_bytes(header[:2], "little"), tree.magic & 0xFFFF
        return f"is for another interpreter: magic number {found}, wanted {wanted}"
    if source not in tree.nodes:
        return f"has no source: {source} is not there"
    flags = int.from_bytes(header[4:8], "little")
    if policy.sealed and not flags & _HASHED:
        return "is valid only while its source keeps its time stamp, which archives change"
    if policy.sealed and flags & _CHECKED:
        return "reads its source at each import (checked-hash)"
    return ""


def _missing_bytecode(tree: Tree) -> Iterator[Finding]:
    tag = f"cpython-{tree.python.replace('.', '')}"
    for node in tree.nodes.values():
        path = node.path
        if not path.endswith(".py") or not path.startswith(f"{tree.library}/") or not node.is_file:
            continue
        directory, _, name = path.rpartition("/")
        cached = f"{directory}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"
        if cached not in tree.nodes and _compiles(tree, node):
            yield Finding(
                path=node.path,
                message="has no bytecode, so each start compiles it again",
                remedy="compile it when the prefix is sealed",
            )


def _compiles(tree: Tree, node: Node) -> bool:
    """Whether a source is one at all; packages ship templates and samples that are not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what others wrote, and printed as if by Longrun
            compile((tree.root / node.path).read_bytes(), node.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def check_sources(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every source is the one its bytecode was made of; nothing else sees an edited source.

    The hash (PEP 552) is siphash13 since 3.11 and was siphash24 before: this process has the first.
    """
    require_python(tree)
    if not tree.magic:
        raise CannotCheckError("the interpreter's magic number was not found in its importlib")
    if int(tree.python.removeprefix("3.").rstrip("t")) < 11:
        raise CannotCheckError("bytecode before 3.11 hashes its sources in another way")
    for node, source in _bytecode(tree):
        header = node.content.pyc or b""
        hashed = len(header) == 16 and header[4] & _HASHED
        if hashed and source in tree.nodes:
            wanted = tree.nodes[source].content.source_hash
            if wanted and header[8:16] != wanted:
                yield Finding(
                    path=source,
                    message=f"was changed after {PurePosixPath(node.path).name} was compiled; "
                    "the change has no effect",
                    remedy="put the original back, or build the prefix again with a patch",
                )


def check_api(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No function of os, time, socket, signal or select was lost to the low floor."""
    require_python(tree)
    if policy.api is None:
        raise CannotCheckError("no kept list of names is given")
    if API_FILE not in tree.nodes:
        raise CannotCheckError(f"the prefix has no {API_FILE}")
    try:
        found = read_api(tree.root / API_FILE, policy.api.names)
    except AuditError as error:
        yield Finding(path=API_FILE, message=error.message, remedy="build the interpreter again")
        return
    kept, accepted = policy.api.qualified(), policy.api.accepted
    for name in sorted(kept - found - set(accepted)):
        yield Finding(
            path=API_FILE,
            message=f"{name} is gone; {policy.api.reference} has it",
            remedy="make configure find it, or accept the loss with its reason in the .api.toml",
        )
    yield from _stale_names(found, kept, set(accepted))


def _stale_names(found: set[str], kept: set[str], accepted: set[str]) -> Iterator[Finding]:
    """What the kept list does not know cannot be missed later; what came back is not lost."""
    for name in sorted(found - kept):
        yield Finding(
            path=API_FILE,
            message=f"{name} is new; the kept list does not have it",
            remedy="add it to the kept list, so that its loss would be seen",
            severity=WARNING,
        )
    for name in sorted(accepted & found):
        yield Finding(
            path=API_FILE,
            message=f"{name} is there, but its loss is listed as accepted",
            remedy="take it out of `accepted`",
            severity=WARNING,
        )


def check_externally_managed(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """The prefix says that pip must not change it (PEP 668)."""
    _require_sealed(tree, policy)
    path = f"{tree.library}/EXTERNALLY-MANAGED"
    node = tree.nodes.get(path)
    if node is None or not node.is_file or not node.size:
        yield Finding(
            path=path,
            message="is missing or empty",
            remedy="write it when sealing, with a message that says what to do instead",
        )


def check_no_pip(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No pip in the base: packages come with the prefix, or go into a venv."""
    _require_sealed(tree, policy)
    pip = re.compile(rf"({re.escape(tree.packages)}(pip|pip-[^/]+\.dist-info)|bin/pip[\d.]*)")
    for node in tree.nodes.values():
        if pip.fullmatch(node.path):
            yield Finding(
                path=node.path,
                message="is pip, installed in the base",
                remedy="configure with --without-ensurepip, or exclude it; venvs get their own",
            )


def check_hook(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """The prefix has the start-up hook, unchanged, and its frozen ``site`` calls it."""
    require_python(tree)
    if policy.hook is None:
        raise CannotCheckError("no source of the start-up hook is given")
    path = f"{tree.library}/{SOURCE.name}"
    if not path_is_file(tree, path):
        message = "the start-up hook is missing"
        yield Finding(path=path, message=message, remedy="put it there when the prefix is sealed")
    elif blank((tree.root / path).read_text("utf-8", "replace")) != policy.hook:
        yield Finding(
            path=path,
            message="is not the start-up hook of this checkout",
            remedy="build the prefix again, or audit it with the checkout that built it",
        )
    for program in (f"bin/python{tree.python}", f"lib/libpython{tree.python}.so.1.0"):
        if path_is_file(tree, program) and not _names_hook(tree.root / program):
            yield Finding(
                path=program,
                message="its frozen site does not call the start-up hook",
                remedy="build the interpreter with the patch site-execute-the-usage-hook",
            )


def _names_hook(program: Path) -> bool:
    """Whether the hook's name is in a program: those in a frozen module are there as they are."""
    return SOURCE.stem.encode() in program.read_bytes()


def path_is_file(tree: Tree, path: str) -> bool:
    """Whether a path of the prefix is a regular file."""
    return path in tree.nodes and tree.nodes[path].is_file


CHECKS: dict[str, Check] = {
    "modules": check_modules,
    "bytecode": check_bytecode,
    "sources": check_sources,
    "api": check_api,
    "externally-managed": check_externally_managed,
    "no-pip": check_no_pip,
    "hook": check_hook,
}
