"""Names of images in registries, and who may push them."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longrun.errors import UsageError

NAME = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<host>(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d+)?)/"
    r"(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)

VARIABLES = ("LONGRUN_REGISTRY", "CI_REGISTRY")
"""Variables that name a registry; with _USER and _PASSWORD who may push. GitLab sets the latter."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image in a registry: ``host/repository:tag``, ``…@sha256:…``, or both.

    A registry is spoken to by https, and by http only on this machine, or where the reference
    begins with ``http://``: ``plain``.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""
    plain: bool = False

    @property
    def url(self) -> str:
        """The address of the repository in the registry."""
        return f"{'http' if self.plain else 'https'}://{self.host}/v2/{self.repository}"

    @property
    def wanted(self) -> str:
        """What is asked for: the digest, which cannot change, before the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"

    def at(self, digest: str) -> Reference:
        """Another manifest of the same repository."""
        return replace(self, tag="", digest=digest)


def parse_reference(text: str) -> Reference:
    """A reference with its registry; UsageError where there is none, or neither tag nor digest."""
    found = NAME.fullmatch(text)
    host = found["host"] if found else ""
    # as docker has it: what neither looks like a host nor is this one is part of the repository
    if found is None or not (set(host) & set(".:") or host == "localhost"):
        raise UsageError(
            f"{text}: no image in a registry",
            remedy="write it as registry.example.org/group/name:tag",
        )
    if not (found["tag"] or found["digest"]):
        raise UsageError(f"{text}: no tag", remedy=f"write it as {text}:TAG")
    return Reference(
        host=host,
        repository=found["repository"],
        tag=found["tag"] or "",
        digest=found["digest"] or "",
        plain=found["scheme"] == "http" or (not found["scheme"] and is_here(host)),
    )


def is_here(host: str) -> bool:
    """Whether a host is this machine's loopback."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who asks. The secret shows in no text of this object.

    ``token`` is what ``docker login`` keeps for some registries instead of a password.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """What an Authorization header has."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def hide(self, text: str) -> str:
        """A text without the secrets, whoever put them there."""
        secrets = (self.password, self.token, self.basic.removeprefix("Basic "))
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text


def find_credentials(host: str, environment: Mapping[str, str]) -> Credentials | None:
    """Who may push to this registry: by the environment, else by what ``docker login`` wrote."""
    for name in VARIABLES:
        if environment.get(name) == host and environment.get(f"{name}_PASSWORD"):
            return Credentials(
                user=environment.get(f"{name}_USER", ""), password=environment[f"{name}_PASSWORD"]
            )
    for path in _login_files(environment):
        for kept, entry in _logins(path).items():
            if _host(kept) == host and (found := _login(path, kept, entry)):
                return found
    return None


def _login_files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where docker, then podman and skopeo, keep logins."""
    home = Path(environment.get("HOME", "/"))
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if file := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(file)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"


def _logins(path: Path) -> dict[str, Any]:
    try:
        auths = json.loads(path.read_bytes()).get("auths", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        raise UsageError(
            f"{path}: cannot be read as JSON", remedy="mend it, or remove it and log in again"
        ) from None
    return auths if isinstance(auths, dict) else {}


def _login(path: Path, host: str, entry: object) -> Credentials | None:
    """What one entry holds; nothing where a program of the desktop keeps the password."""
    if not isinstance(entry, dict):
        return None
    token = str(entry.get("identitytoken", ""))
    try:
        user, _, password = base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")
    except ValueError:
        raise UsageError(
            f"{path}: the login for {host} is damaged", remedy=f"docker login {host}"
        ) from None
    return Credentials(user=user, password=password, token=token) if password or token else None


def _host(kept: str) -> str:
    """A registry as logins name it: ``https://registry.example.org/v1/`` or the host alone."""
    return kept.partition("://")[2].partition("/")[0] or kept.partition("/")[0]
