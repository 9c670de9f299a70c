"""What a site says about telemetry: /etc/longrun/usage.toml, with every default filled in."""

from __future__ import annotations

import difflib
import math
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longrun.errors import SpecError

SYSTEM_FILE = Path("/etc/longrun/usage.toml")
SPOOL = Path("/var/spool/longrun/usage")
STATE = Path("/var/lib/longrun/usage")
KINDS = ("parquet", "opensearch", "lines")

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """A site's configuration of the agent.

    ``spool`` is where programs leave records, ``claimed`` where the agent takes them: on the same
    file system, which is why it is beside the spool and not in ``state``. ``store`` is the kind
    of store and ``tables`` what the file says of each. ``interval`` is the time between two
    rounds in seconds. ``hold`` is the number of seconds after which a program that has not ended
    is told of. ``retention`` and ``pseudonymise_after`` are in days; 0 for the latter: at once.
    ``buffer`` is the number of bytes of events to keep for a store that is away. ``key`` is the
    file of the key of pseudonyms. ``host`` is the name of this machine in events. ``file`` is
    the file that was read, or where one would be.
    """

    spool: Path = SPOOL
    claimed: Path
    state: Path = STATE
    store: str = "parquet"
    interval: float = 60.0
    hold: float = DAY
    retention: float = 400.0
    pseudonymise_after: float = 30.0
    buffer: int = 1_000_000_000
    key: Path
    host: str
    file: Path = SYSTEM_FILE
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Options:
    """One table of a configuration file, asked for key by key.

    Every question names what is to be there, and the value where nothing is. ``finish`` refuses
    keys that nobody asked for.
    """

    def __init__(self, config: Config, table: str = "") -> None:
        self.config = config
        self._table = table
        self._values = dict(config.tables.get(table, {}))
        self._asked: list[str] = []

    def text(self, key: str, default: str | None = None, *, choices: tuple[str, ...] = ()) -> str:
        """A text that is not empty; without a default it has to be there."""
        value = self._get(key, default)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.wrong(key, "a text", value)
        if choices and value not in choices:
            raise self.wrong(key, " or ".join(map(repr, choices)), value)
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of it alone."""
        value = self._get(key, default)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(
            isinstance(v, str) and v for v in values
        ):
            raise self.wrong(key, "a list of texts", value)
        return tuple(values)

    def number(
        self, key: str, default: float | None = None, *, least: float = 0, most: float = math.inf
    ) -> float:
        """A number within bounds."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number", value)
        if not (least <= value <= most) or math.isnan(value):
            bounds = f"{least:g} or more" if most == math.inf else f"between {least:g} and {most:g}"
            raise self.wrong(key, f"a number, {bounds}", value)
        return float(value)

    def whole(
        self, key: str, default: int | None = None, *, least: int = 0, most: float = math.inf
    ) -> int:
        """A whole number within bounds."""
        value = self.number(key, default, least=least, most=most)
        if not value.is_integer():
            raise self.wrong(key, "a whole number", value)
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", value)
        return value

    def path(self, key: str, default: Path | None = None) -> Path:
        """A path that begins with ``/``."""
        value = self._get(key, default)
        if isinstance(value, Path):
            return value
        if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
            raise self.wrong(key, "a path that begins with /", value)
        return Path(os.path.normpath(value))

    def has(self, key: str) -> bool:
        """Whether the file says something about a key."""
        return key in self._values

    def wrong(self, key: str, expected: str, found: object) -> SpecError:
        """The error that names file, key, what was expected and what was found."""
        name = f"{self._table}.{key}" if self._table else key
        told = "nothing" if found is None else repr(found)
        return SpecError(
            f"{self.config.file}: {name}: expected {expected}, found {told}",
            remedy=f"mend {name} in {self.config.file}; keys and defaults are in "
            "docs/how-to/usage-telemetry.md",
        )

    def finish(self) -> None:
        """Refuse keys that nobody asked for; SpecError with the nearest one that exists."""
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                place = f" in [{self._table}]" if self._table else ""
                raise SpecError(
                    f"{self.config.file}: unknown key {key!r}{place}",
                    remedy=f"did you mean {near[0]!r}?" if near else f"remove {key!r}",
                )

    def _get(self, key: str, default: object) -> Any:
        self._asked.append(key)
        return self._values.get(key, default)


def load_config(file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration; defaults where the system's file is missing, SpecError where wrong.

    The variables LONGRUN_USAGE_SPOOL and LONGRUN_USAGE_STATE stand before the file.
    """
    named = file or _named(environ)
    return make_config(named or SYSTEM_FILE, _read(named or SYSTEM_FILE, named is None), environ)


def _named(environ: Mapping[str, str]) -> Path | None:
    value = environ.get("LONGRUN_USAGE_CONFIG", "")
    return Path(value) if value else None


def _read(file: Path, optional: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return {}
        raise SpecError(f"{file}: not found", remedy="name a file that is there") from None
    except OSError as error:
        raise SpecError(f"{file}: {error.strerror}", remedy="run this as root") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{file}: not TOML: {error}", remedy=f"mend {file}") from error


def make_config(file: Path, document: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """A configuration from what its file says."""
    top = {key: value for key, value in document.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    draft = Config(claimed=Path(), key=Path(), host="", file=file, tables={"": top})
    options = Options(draft)
    spool = options.path("spool", SPOOL)
    state = options.path("state", STATE)
    spool = Path(environ.get("LONGRUN_USAGE_SPOOL") or spool)
    state = Path(environ.get("LONGRUN_USAGE_STATE") or state)
    config = Config(
        spool=spool,
        claimed=options.path("claimed", spool.with_name(f"{spool.name}.claimed")),
        state=state,
        store=options.text("store", "parquet", choices=KINDS),
        interval=options.number("interval_seconds", 60, least=0.01, most=DAY),
        hold=options.number("hold_hours", 24, most=24 * 400) * HOUR,
        retention=options.number("retention_days", 400, least=1),
        pseudonymise_after=options.number("pseudonymise_after_days", 30),
        buffer=int(options.number("buffer_mb", 1000, least=1) * 1e6),
        key=options.path("pseudonym_key", state / "pseudonym.key"),
        host=options.text("host", _host()),
        file=file,
        tables=tables,
    )
    options.finish()
    _known_tables(config)
    return config


def _known_tables(config: Config) -> None:
    for name in config.tables:
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, 1)
            raise SpecError(
                f"{config.file}: unknown table [{name}]",
                remedy=f"did you mean [{near[0]}]?" if near else f"tables: {', '.join(KINDS)}",
            )


def _host() -> str:
    return socket.gethostname().split(".")[0].lower() or "localhost"
