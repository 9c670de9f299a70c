"""What pip is configured with on this machine: its index, certificates, proxy, directories."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote

from longrun.config import is_address
from longrun.errors import BuildError, SetupError, SourceError
from longrun.fs import write_atomic
from longrun.run import output


def settings(python: Path) -> dict[str, str]:
    """What pip is configured with, by option; as for `pip install`, environment variables win."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in _pip(python, "config", "list").splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in found:
            try:
                found[section][option] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue  # not a setting: some warning
    return {**found["global"], **found["install"], **found[":env:"]}


def default_index(python: Path, cache: Path) -> str:
    """The index that pip takes where nothing is configured, which its help tells.

    Remembered for an environment, which never changes: it takes pip most of a second.
    """
    kept = cache / f"default-{hashlib.sha256(str(python).encode()).hexdigest()[:16]}"
    if kept.is_file() and is_address(known := kept.read_text(encoding="utf-8")):
        return known
    text = " ".join(_pip(python, "install", "--help").split())
    found = re.search(r"--index-url <url>[^(]*\(default (https?://[^\s)]+)\)", text)
    if found is None:
        raise SourceError(
            "no package index is configured, and pip does not tell its default",
            remedy="Set `index` in Longrun's configuration, or index-url in pip's.",
        )
    write_atomic(kept, found[1])
    return found[1]


def _pip(python: Path, *arguments: str) -> str:
    # wide: help texts are wrapped, and an address may have a hyphen to break at
    env = {**os.environ, "COLUMNS": "500", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        return output([str(python), "-I", "-m", "pip", *arguments], env=env)
    except (BuildError, SetupError) as error:
        last = without_logins(" ".join(error.message.split()))[:300]
        raise SourceError(
            f"pip does not tell its configuration: {last}",
            remedy="Correct pip's configuration, or set `index` in Longrun's.",
        ) from None


def without_logins(text: str) -> str:
    """A text without the credentials of the addresses in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def local_directories(links: str) -> tuple[Path, ...]:
    """The directories among pip's find-links; the others are pages, which have no hashes."""
    paths = [Path(unquote(link.removeprefix("file://"))) for link in links.split()]
    return tuple(path for path in paths if path.is_absolute() and path.is_dir())
