"""Checks that hold for any file: paths inside, modes, links, kinds, names, shebangs."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator

from longrun.audit.check import CannotCheckError, Check
from longrun.audit.content import Leak
from longrun.audit.policy import Policy
from longrun.audit.report import ERROR, WARNING, Finding
from longrun.audit.tree import Node, Tree

_SPECIAL = (
    (stat.S_ISUID, "is setuid"),
    (stat.S_ISGID, "is setgid"),
    (stat.S_ISVTX, "has the sticky bit"),
    (stat.S_IWOTH, "is writable by everyone"),
)
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # as os.fsdecode puts bytes that are not
_CONTROL = re.compile("[\0-\x1f\x7f]")
_KINDS = {
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}


def check_readable(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every file could be read: what cannot be read was not checked either."""
    for node in tree.nodes.values():
        if node.unread:
            yield Finding(
                path=node.path,
                message=f"cannot be read: {node.unread}",
                remedy="give the auditing user the right to read it",
            )


def check_paths(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No file holds the path of where it was built, staged or stored, archives' members too."""
    if policy.forbidden is None:
        raise CannotCheckError("no build, staging or store path is given to look for")
    for node in tree.nodes.values():
        for leak in node.content.leaks:
            yield _leak_finding(node, leak)
        if node.content.archive_error:
            yield Finding(
                path=node.path,
                message=f"could not be searched inside: {node.content.archive_error}",
                remedy="leave it out of the prefix, or pack it again",
                severity=WARNING,
            )
        for label, path in policy.forbidden.items():
            if path in node.target:
                yield _leak_finding(node, Leak(label, path, "", 0, 1, node.target))


def _leak_finding(node: Node, leak: Leak) -> Finding:
    where = f"in {leak.member.removeprefix('!')} " if leak.member else ""
    times = f"{leak.count} times, first " if leak.count > 1 else ""
    remedy = "make it relative when the prefix is relocated, or keep it out where it is compiled"
    if node.path.endswith(".pyc"):
        remedy = "compile the bytecode again with the build path stripped (compileall -s)"
    elif node.content.elf:
        remedy = (
            "compile with -ffile-prefix-map and configure with final paths, or patch the source"
        )
    return Finding(
        path=node.path,
        message=f"holds the {leak.label} path {where}{times}at byte {leak.offset}: {leak.context}",
        remedy=remedy,
    )


def check_modes(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No setuid, setgid, sticky or world-writable; a sealed prefix is read-only, for everyone."""
    for node in tree.nodes.values():
        if stat.S_ISLNK(node.mode):
            continue
        for bit, message in _SPECIAL:
            if node.mode & bit:
                yield Finding(path=node.path, message=message, remedy=_chmod(node, bit))
        if policy.sealed:
            yield from _sealed_mode(node)


def _sealed_mode(node: Node) -> Iterator[Finding]:
    writable = node.mode & 0o222
    if writable & 0o220:
        yield Finding(path=node.path, message="is writable", remedy=_chmod(node, writable))
    wanted = 0o555 if stat.S_ISDIR(node.mode) else 0o444
    if node.mode & wanted != wanted:
        yield Finding(
            path=node.path,
            message=f"cannot be read by everyone: mode {stat.S_IMODE(node.mode):o}",
            remedy=f"seal the prefix with mode {wanted:o} or more",
        )


def _chmod(node: Node, bits: int) -> str:
    return f"seal it with mode {stat.S_IMODE(node.mode) & ~bits:o}"


def check_links(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Every link is relative, stays in the prefix and leads to something."""
    for node in tree.nodes.values():
        if stat.S_ISLNK(node.mode) and (fault := _link_fault(tree, node)):
            yield Finding(
                path=node.path,
                message=f"link to {node.target}: {fault}",
                remedy="make it a relative link to a file of this prefix, or leave it out",
            )


def _link_fault(tree: Tree, node: Node) -> str:
    if node.target.startswith("/"):
        return "it is absolute, so it breaks when the prefix moves"
    directory = os.path.realpath(tree.root / os.path.dirname(node.path))
    target = os.path.normpath(os.path.join(directory, node.target))
    if target != str(tree.root) and not target.startswith(f"{tree.root}/"):
        return "it leaves the prefix"
    try:
        os.stat(tree.root / node.path)
    except OSError as error:
        return "it goes round in a circle" if error.errno == errno.ELOOP else "nothing is there"
    return ""


def check_kinds(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Only files, directories and links."""
    for node in tree.nodes.values():
        kind = _KINDS.get(stat.S_IFMT(node.mode))
        if kind:
            yield Finding(path=node.path, message=f"is a {kind}", remedy="leave it out")


def check_names(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Names are UTF-8 without control characters: manifests, logs and other systems rely on it."""
    for node in tree.nodes.values():
        name = node.path.rsplit("/", 1)[-1]
        if _NOT_UTF8.search(name):
            yield Finding(path=node.path, message="its name is not UTF-8", remedy="rename it")
        elif _CONTROL.search(name):
            yield Finding(
                path=node.path, message="its name has a control character", remedy="rename it"
            )


def check_shebangs(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """Programs start with /bin/sh or /usr/bin/env, the only interpreters whose place is certain.

    In ``bin/`` even ``env python3`` is wrong: it starts the first Python of PATH, not this one.
    A file without the x bit is no program, whatever its first line says.
    """
    for node in tree.nodes.values():
        if node.content.shebang and node.mode & 0o111:
            fault = _shebang_fault(node)
            if fault:
                yield Finding(
                    path=node.path,
                    message=f"{node.content.shebang!r}: {fault}",
                    remedy="start it with the sh polyglot that finds the interpreter beside it",
                    severity=_severity(tree, node),
                )


def _shebang_fault(node: Node) -> str:
    words = node.content.shebang.removeprefix("#!").split()
    if len(node.content.shebang) > 127:
        return "kernels before 5.1 cut it after 127 bytes"
    if not words or not words[0].startswith("/"):
        return "names no absolute path"
    if words[0] == "/usr/bin/env":
        python = any(word.startswith("python") for word in words[1:])
        first = "env starts the first Python of PATH, not the one of this prefix"
        return first if python and node.path.startswith("bin/") else ""
    return "" if words[0] == "/bin/sh" else "this path may be another or missing where it runs"


def check_libtool(tree: Tree, policy: Policy) -> Iterable[Finding]:
    """No libtool archives: they hold build paths and make linkers follow them."""
    for node in tree.nodes.values():
        if node.path.endswith(".la"):
            yield Finding(
                path=node.path,
                message="is a libtool archive",
                remedy="leave it out",
                severity=_severity(tree, node),
            )


def _severity(tree: Tree, node: Node) -> str:
    """Below site-packages nobody starts or links these files, and wheels are not for us to mend."""
    return WARNING if node.path.startswith(tree.packages) else ERROR


CHECKS: dict[str, Check] = {
    "readable": check_readable,
    "paths": check_paths,
    "modes": check_modes,
    "links": check_links,
    "kinds": check_kinds,
    "names": check_names,
    "shebangs": check_shebangs,
    "libtool": check_libtool,
}
