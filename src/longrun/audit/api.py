"""The names that an interpreter offers, and those that it must not lose unnoticed.

A low glibc floor makes configure drop functions without a word, ``sem_clockwait`` among them. The
interpreter's build writes what it has to ``share/longrun/api.json``; a file kept beside the
interpreter's spec, ``specs/interpreters/NAME.api.toml``, says what it must have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longrun.errors import AuditError
from longrun.specs import parse_spec

API_FILE = "share/longrun/api.json"


@dataclass(frozen=True, kw_only=True)
class KeptApi:
    """Names that an interpreter must have, by module (``os``), and its ``HAVE_`` macros.

    ``reference`` says where the names come from. ``accepted`` maps a name that is known to be
    missing (``os.pidfd_open``, ``HAVE_SEM_CLOCKWAIT``) to the reason why that is accepted.
    """

    reference: str
    names: dict[str, tuple[str, ...]]
    have: tuple[str, ...]
    accepted: dict[str, str] = field(default_factory=dict)

    def qualified(self) -> set[str]:
        """All kept names: ``module.name`` and ``HAVE_`` macros."""
        return _qualified(self.names) | set(self.have)


def _qualified(names: Mapping[str, Iterable[str]]) -> set[str]:
    public = {module: [n for n in found if n[:1] != "_"] for module, found in names.items()}
    return {f"{module}.{name}" for module, found in public.items() for name in found}


def kept_api_path(root: Path, interpreter: str) -> Path:
    """Where the kept list of an interpreter is, below the checkout ``root``."""
    return root / "specs" / "interpreters" / f"{interpreter}.api.toml"


def load_kept_api(root: Path, interpreter: str) -> KeptApi | None:
    """The kept list of an interpreter; None where there is none, SpecError where it is wrong."""
    path = kept_api_path(root, interpreter)
    if not path.is_file():
        return None
    return parse_spec(path.read_text("utf-8"), KeptApi, path.relative_to(root).as_posix())


def read_api(path: Path, modules: Iterable[str]) -> set[str]:
    """Names of these modules and macros in a built ``api.json``; AuditError where it has none."""
    try:
        found = json.loads(path.read_bytes())
        names = {module: [str(n) for n in found["names"][module]] for module in modules}
        return _qualified(names) | {str(name) for name in found["have"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AuditError(f"not a list of names: {error!r}") from error
