"""What a check is: a function that gives findings, or says why it cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from longrun.audit.policy import Policy
from longrun.audit.report import Finding
from longrun.audit.tree import Tree

Check = Callable[[Tree, Policy], Iterable[Finding]]


class CannotCheckError(Exception):
    """A check lacks what it compares with; the text is the reason that the report gives."""
