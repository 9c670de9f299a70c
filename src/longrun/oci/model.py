"""The data of container images, in the words of the OCI image specification."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from longrun.errors import SourceError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Bytes with a digest (``sha256:…``), in a file: all of it, or ``size`` bytes from ``offset``.

    An archive is not compressed, so its blobs are read where they are.
    """

    media_type: str
    digest: str
    size: int
    path: Path
    offset: int = 0

    @contextmanager
    def open(self) -> Iterator[Span]:
        """The bytes to read, no more than ``size`` of them; SourceError where there are fewer."""
        with self.path.open("rb") as file:
            there = os.fstat(file.fileno()).st_size - self.offset
            if there < self.size:
                raise SourceError(
                    f"{self.path}: the blob {self.digest} has {there} bytes, not {self.size}"
                )
            file.seek(self.offset)
            yield Span(file, self.size)


class Span:
    """The next ``size`` bytes of a file as a file; ``len`` is what requests sends as length."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.size = self._left = size

    def __len__(self) -> int:
        return self.size

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, or all that are left."""
        wanted = self._left if size < 0 else min(size, self._left)
        content = self._file.read(wanted)
        self._left -= len(content)
        return content


@dataclass(frozen=True, kw_only=True)
class LayerBlob(Blob):
    """A layer: ``diff_id`` is the digest of the uncompressed tar, ``title`` names it in history."""

    diff_id: str
    title: str


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What a container of the image is started with; ``created`` is a time as RFC 3339 has it.

    ``healthcheck`` is a command, tried every 30 s; engines know it from Docker, not from OCI.
    """

    created: str
    architecture: str = "amd64"
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Image:
    """A configuration and layers, the base's first; ``annotations`` are those of the manifest."""

    config: ImageConfig
    layers: tuple[LayerBlob, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """An image as the bytes that its digests are of: what is written, pushed and pulled."""

    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[LayerBlob, ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest: what a registry knows the image by."""
        return digest_of(self.manifest)

    @property
    def config_digest(self) -> str:
        """The digest of the configuration: what engines call the image's ID."""
        return digest_of(self.config)


def digest_of(content: bytes) -> str:
    """The digest of bytes, as ``sha256:…``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """JSON of which the same content always gives the same bytes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()
