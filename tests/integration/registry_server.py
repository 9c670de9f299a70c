"""Debian's own registry on loopback, for as long as a test needs it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "operator", "beam-on-target"
BCRYPT = "$2b$04$/8DO7MQVOvemTViOeurOvuwLQVKXK6tNp9ah/26mZvjoOMbn04nW."
"""Of PASSWORD; what htpasswd -B writes."""


@dataclass(frozen=True)
class Registry:
    """A running registry and where it keeps what it has."""

    host: str
    storage: Path
    log: Path

    def name(self, repository: str = "longrun/ci", tag: str = "2026.1") -> str:
        return f"{self.host}/{repository}:{tag}"

    def file(self, digest: str) -> Path:
        """Where it keeps a blob's bytes."""
        value = digest.removeprefix("sha256:")
        return self.storage / f"docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data"

    def tamper(self, digest: str) -> None:
        """Change one byte of a blob behind its back."""
        content = bytearray(self.file(digest).read_bytes())
        content[len(content) // 2] ^= 1
        self.file(digest).write_bytes(content)

    def asked(self, method: str) -> int:
        """How many requests of a method it has answered."""
        return self.log.read_text().count(f'"{method} /v2/')


@contextmanager
def serve(place: Path, auth: str = "", tls: str = "") -> Iterator[Registry]:
    """Run a registry that keeps its things below ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = place / "config.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {place / 'storage'}}}}}\n"
        f"http:\n  addr: {host}\n{tls}{auth}"
    )
    log = place / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait(server, host, log)
        yield Registry(host, place / "storage", log)
    finally:
        server.terminate()
        server.wait()


def wait(server: subprocess.Popen[bytes], host: str, log: Path) -> None:
    """Wait until it listens; what it said, where it ends instead."""
    address, _, port = host.partition(":")
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((address, int(port))) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def with_password(place: Path) -> str:
    """The configuration of a registry that wants a password."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "htpasswd").write_text(f"{USER}:{BCRYPT}\n")
    return f"auth: {{htpasswd: {{realm: here, path: {place / 'htpasswd'}}}}}\n"
