"""What a check is: a function that gives findings, or says why it cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from longrun.audit.policy import Policy
from longrun.audit.report import Finding
from longrun.audit.tree import Tree

Check = Callable[[Tree, Policy], Iterable[Finding]]


class CannotCheckError(Exception):
    """A check lacks what it compares with; the text is the reason that the report gives."""


def require_python(tree: Tree) -> None:
    """CannotCheckError where a prefix has no interpreter's library, or several."""
    if not tree.python:
        raise CannotCheckError("no, or more than one, lib/python3.*/os.py is there")
