"""The names that an interpreter offers, and those that it must not lose unnoticed.

A low glibc floor makes configure drop functions without a word, ``sem_clockwait`` among them. The
interpreter's build writes what it has to ``share/longrun/api.json``; a file kept beside the
interpreter's spec, ``specs/interpreters/NAME.api.toml``, says what it must have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longrun.errors import AuditError
from longrun.specs import parse_spec

API_FILE = "share/longrun/api.json"


@dataclass(frozen=True, kw_only=True)
class KeptApi:
    """Names that an interpreter must have, by module (``os``), and its ``HAVE_`` macros.

    ``reference`` says where the names come from. ``accepted`` maps a name that is known to be
    missing (``os.close_range``, ``HAVE_SEM_CLOCKWAIT``) to the reason why that is accepted.
    """

    reference: str
    modules: dict[str, tuple[str, ...]]
    have: tuple[str, ...]
    accepted: dict[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """All kept names: ``module.name`` and ``HAVE_`` macros."""
        return qualified(self.modules) | set(self.have)


def qualified(modules: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Names by module as ``module.name``."""
    return {f"{module}.{name}" for module, names in modules.items() for name in names}


def kept_api_path(root: Path, interpreter: str) -> Path:
    """Where the kept list of an interpreter is, below the checkout ``root``."""
    return root / "specs" / "interpreters" / f"{interpreter}.api.toml"


def load_kept_api(root: Path, interpreter: str) -> KeptApi | None:
    """The kept list of an interpreter; None where there is none, SpecError where it is wrong."""
    path = kept_api_path(root, interpreter)
    if not path.is_file():
        return None
    return parse_spec(path.read_text("utf-8"), KeptApi, path.relative_to(root).as_posix())


def read_api(path: Path) -> set[str]:
    """The names in a built interpreter's ``api.json``; AuditError where it is not of that form."""
    try:
        found = json.loads(path.read_bytes())
        modules = {name: tuple(names) for name, names in found["modules"].items()}
        return qualified(modules) | {str(name) for name in found["have"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(f"{path}: not a list of names: {error!r}") from error
