"""Images: the JSON that names their layers, and how they are written to disk."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from longrun import fs
from longrun.errors import BuildError
from longrun.oci.model import (
    CONFIG,
    INDEX,
    MANIFEST,
    Blob,
    Image,
    ImageConfig,
    Packed,
    canonical_json,
    digest_of,
)

LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})
TAG = "org.opencontainers.image.ref.name"
NAME = "io.containerd.image.name"
SECOND = 1_000_000_000
"""Docker counts times of a health check in nanoseconds."""


def pack(image: Image) -> Packed:
    """The image as bytes, the same ones each time."""
    config = canonical_json(config_document(image))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [descriptor(layer) for layer in image.layers],
    }
    if image.annotations:
        manifest["annotations"] = dict(image.annotations)
    return Packed(
        manifest=canonical_json(manifest), media_type=MANIFEST, config=config, layers=image.layers
    )


def config_document(image: Image) -> dict[str, Any]:
    """The image's configuration: what engines call the image itself."""
    created = image.config.created
    return {
        "architecture": image.config.architecture,
        "os": "linux",
        "created": created,
        "config": _run_document(image.config),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in image.layers]},
        "history": [{"created": created, "created_by": layer.title} for layer in image.layers],
    }


def _run_document(config: ImageConfig) -> dict[str, Any]:
    """How a container is started; what is empty is left out."""
    document = {
        "User": config.user,
        "Env": [f"{name}={value}" for name, value in sorted(config.env.items())],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "WorkingDir": config.workdir,
        "Labels": dict(config.labels),
        "Healthcheck": _healthcheck(config.healthcheck),
    }
    return {name: value for name, value in document.items() if value}


def _healthcheck(command: tuple[str, ...]) -> dict[str, Any]:
    if not command:
        return {}
    return {
        "Test": ["CMD", *command],
        "Interval": 30 * SECOND,
        "Timeout": 10 * SECOND,
        "Retries": 3,
    }


def descriptor(blob: Blob) -> dict[str, Any]:
    """How one blob is named in another."""
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def index_document(image: Packed, references: tuple[str, ...]) -> dict[str, Any]:
    """The index of a layout with this one image.

    It has one entry, as programs that are told no name want it, so it can have one name: the first.
    """
    entry: dict[str, Any] = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.manifest),
    }
    if references:
        entry["annotations"] = {NAME: references[0], TAG: tag_of(references[0])}
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}


def tag_of(reference: str) -> str:
    """The tag of a name such as ``longrun/ci:2026.1-py313``; ``latest`` where it has none."""
    return reference.rpartition("/")[2].partition("@")[0].partition(":")[2] or "latest"


def write_archive(image: Packed, out: Path, references: tuple[str, ...] = ()) -> None:
    """Write one tar that is an OCI layout and what ``docker load`` takes: the same bytes each time.

    ``references`` are names with tags. Docker takes all of them, others the first. The tar itself
    is not compressed: layers are, and one that several images share stays the same bytes in it.
    """
    with writing(out), staged(out) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in _documents(image, references).items():
                _add(tar, name, len(content), io.BytesIO(content))
            for layer in _distinct(image):
                with layer.open() as file:
                    _add(tar, blob_path(layer.digest), layer.size, file)
        temporary.rename(out)


def write_layout(image: Packed, directory: Path, references: tuple[str, ...] = ()) -> None:
    """Write an OCI layout as a directory, made if need be; files of layers get a further name."""
    with writing(directory):
        for layer in _distinct(image):
            _link(layer, directory / blob_path(layer.digest))
        documents = _documents(image, references)
        documents["index.json"] = documents.pop("index.json")  # last: it says what is there
        for name, content in documents.items():
            if name != "manifest.json":
                fs.write_atomic(directory / name, content)


def _link(layer: Blob, target: Path) -> None:
    """Put a layer into a layout; one that is within an archive is copied out of it."""
    if layer.path == target:
        return
    if layer.path.stat().st_size == layer.size:
        fs.link_atomic(layer.path, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with layer.open() as source, staged(target) as temporary:
        with temporary.open("wb") as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
        temporary.rename(target)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A file beside the target that is removed, unless it was renamed into place."""
    temporary = target.with_name(f".{target.name}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """What the system says against writing there, such as a full disk, as a BuildError."""
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"{place}: cannot be written: {error.strerror or error}",
            remedy="make room there, or write to another place",
        ) from error


def blob_path(digest: str) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/{digest.replace(':', '/')}"


def _documents(image: Packed, references: tuple[str, ...]) -> dict[str, bytes]:
    """All files of a layout but the layers, and the list that ``docker load`` looks for."""
    loaded = {
        "Config": blob_path(image.config_digest),
        "RepoTags": list(references),
        "Layers": [blob_path(layer.digest) for layer in image.layers],
    }
    return {
        "oci-layout": LAYOUT,
        "index.json": canonical_json(index_document(image, references)),
        "manifest.json": b"[" + canonical_json(loaded) + b"]",
        blob_path(image.digest): image.manifest,
        blob_path(image.config_digest): image.config,
    }


def _distinct(image: Packed) -> list[Blob]:
    """The layers sorted by digest; one that is there twice is written once."""
    found: Mapping[str, Blob] = {layer.digest: layer for layer in image.layers}
    return [found[digest] for digest in sorted(found)]


def _add(tar: tarfile.TarFile, name: str, size: int, file: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    tar.addfile(member, file)
