"""What a site says about itself: mirrors, cache, parallelism. None of it changes an output."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from longrun.errors import SpecError

SYSTEM_FILE = Path("/etc/longrun/config.toml")

AUTO, CONTAINER, BUBBLEWRAP = "auto", "container", "bubblewrap"
"""What may run checks in other systems: an engine where one answers, an engine, or none."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A site's configuration, with every default filled in.

    ``archives`` are base addresses of Debian archives (a source's ``pool`` paths are joined to
    them), ``mirrors`` are HTTP directories that hold sources by file name or by sha256. ``index``
    are the addresses of the Python package index (``https://host/simple``; ``file:///directory``),
    in place of those that pip is configured with. ``jobs`` is 0 where the machine decides.
    ``engine`` says what runs checks in other systems: ``auto``, ``container`` or ``bubblewrap``.
    ``signing_key`` is the key that images are signed with, None where they are not.
    ``file`` is the file that was read, or where one would be.
    """

    archives: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    cache: Path
    jobs: int = 0
    engine: str = AUTO
    signing_key: Path | None = None
    file: Path


KEYS = tuple(field.name for field in fields(Config) if field.name != "file")


def load_config(environ: Mapping[str, str], *, system: Path = SYSTEM_FILE) -> Config:
    """The configuration from $LONGRUN_CONFIG, the user's file or the system's, first found.

    Raises SpecError, naming file and key, for what is unknown or of the wrong type.
    """
    file = _config_file(environ, system)
    table = _read(file) if file.is_file() else {}
    _refuse_unknown(file, table)
    return Config(
        archives=_addresses(file, table, "archives"),
        mirrors=_addresses(file, table, "mirrors"),
        index=_addresses(file, table, "index", of=is_index_address),
        cache=_cache(file, table, environ),
        jobs=_jobs(file, table),
        engine=_engine(file, table),
        signing_key=_path(file, table, "signing_key", environ),
        file=file,
    )


def _config_file(environ: Mapping[str, str], system: Path) -> Path:
    if named := environ.get("LONGRUN_CONFIG"):
        file = Path(named).absolute()
        if not file.is_file():
            raise SpecError(
                f"{file}: there is no such file",
                remedy="Correct or unset the environment variable LONGRUN_CONFIG.",
            )
        return file
    user = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "longrun" / "config.toml"
    return system if system.is_file() and not user.is_file() else user


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """A base directory; the XDG specification says to ignore a relative one."""
    value = Path(environ.get(variable, ""))
    return value if value.is_absolute() else _home(environ) / default


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{file}: not TOML: {error}", remedy="Correct the file.") from error
    except OSError as error:
        raise SpecError(f"{file}: cannot be read: {error.strerror}") from error


def _refuse_unknown(file: Path, table: Mapping[str, Any]) -> None:
    for key in table:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise SpecError(
                f"{file}: {key}: unknown key{guess}",
                remedy=f"The keys are {', '.join(KEYS)}.",
            )


def _wrong(file: Path, key: str, expected: str, found: object) -> SpecError:
    return SpecError(f"{file}: {key}: expected {expected}, found {found!r}")


def _addresses(
    file: Path, table: Mapping[str, Any], key: str, *, of: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise _wrong(file, key, "a list of http or https addresses", value)
    for number, address in enumerate(value):
        if not isinstance(address, str) or not (of or is_address)(address):
            raise _wrong(file, f"{key}[{number}]", "an http or https address", address)
        if urlsplit(address).username is not None:
            # it would end up in logs, error messages and provenance
            raise SpecError(
                f"{file}: {key}[{number}]: expected an address without user and password",
                remedy="Put them into ~/.netrc, which is read for every host.",
            )
    return tuple(address.rstrip("/") for address in value)


def is_address(text: str) -> bool:
    """Whether a text is an http or https address of some host."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def is_index_address(text: str) -> bool:
    """Whether a text is an address that a package index may have; a directory has one, too."""
    return is_address(text) or text.startswith("file:///")


def _cache(file: Path, table: Mapping[str, Any], environ: Mapping[str, str]) -> Path:
    if named := environ.get("LONGRUN_CACHE"):
        return Path(named).absolute()
    path = _path(file, table, "cache", environ)
    return path or _xdg(environ, "XDG_CACHE_HOME", ".cache") / "longrun"


def _path(
    file: Path, table: Mapping[str, Any], key: str, environ: Mapping[str, str]
) -> Path | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, str) and value.startswith("~/"):
        return _home(environ) / value[2:]
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise _wrong(file, key, "a path that begins with / or ~/", value)
    return Path(value)


def _jobs(file: Path, table: Mapping[str, Any]) -> int:
    value = table.get("jobs", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(file, "jobs", "a whole number, 0 for as many as there are processors", value)
    return value


def _engine(file: Path, table: Mapping[str, Any]) -> str:
    value = table.get("engine", AUTO)
    if value not in (AUTO, CONTAINER, BUBBLEWRAP):
        raise _wrong(file, "engine", f"{AUTO!r}, {CONTAINER!r} or {BUBBLEWRAP!r}", value)
    return str(value)
