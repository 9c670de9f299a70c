"""What is attached to an image in a registry: its bill of materials, its signature.

An artifact is a manifest that names the image's as its ``subject`` (OCI 1.1). A registry without
the list of those that do, has one in an index under the tag ``sha256-<digest>`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longrun.errors import SourceError
from longrun.oci.client import Client, NotFound
from longrun.oci.image import descriptor
from longrun.oci.model import EMPTY, INDEX, MANIFEST, canonical_json, digest_of
from longrun.oci.read import DIGEST, SMALL, descriptors, texts
from longrun.oci.reference import Credentials, Reference
from longrun.oci.registry import (
    connect,
    get_blob,
    get_manifest,
    memory_blob,
    put_blob,
    put_manifest,
)

TITLE = "org.opencontainers.image.title"
NOTHING = b"{}"
LARGEST = 64 << 20
"""Bytes of one attached file; it is kept in memory."""


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of an artifact."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What is attached: ``kind`` is its media type, such as application/vnd.cyclonedx+json."""

    digest: str
    kind: str
    annotations: Mapping[str, str] = field(default_factory=dict)


def attach(
    reference: Reference,
    kind: str,
    files: tuple[File, ...],
    *,
    annotations: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
) -> Artifact:
    """Attach files to the image that a reference names; the same ones twice are attached once."""
    client = connect(reference, credentials)
    subject = get_manifest(client, reference.wanted)
    blobs = [memory_blob(file.media_type, file.content) for file in files]
    for blob, body in (memory_blob(EMPTY, NOTHING), *blobs):
        put_blob(client, blob, body)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": _named(EMPTY, NOTHING),
            "layers": [
                {**descriptor(blob), "annotations": {TITLE: file.name}}
                for (blob, _), file in zip(blobs, files, strict=True)
            ],
            "subject": _named(subject.media_type, subject.content),
            "annotations": dict(annotations or {}),
        }
    )
    made = Artifact(digest=digest_of(manifest), kind=kind, annotations=dict(annotations or {}))
    answer = put_manifest(client, manifest, MANIFEST, made.digest)
    if answer.headers.get("OCI-Subject") != subject.digest:
        _list_under_tag(client, subject.digest, made, len(manifest))
    return made


def attached(
    reference: Reference, kind: str = "", *, credentials: Credentials | None = None
) -> tuple[Artifact, ...]:
    """What is attached to an image, of one kind or of all; () where there is nothing."""
    client = connect(reference, credentials)
    digest = reference.digest or get_manifest(client, reference.tag).digest
    found = (
        Artifact(
            digest=str(entry.get("digest")),
            kind=str(entry.get("artifactType", "")),
            annotations=texts(entry, "annotations", f"{reference}: what is attached"),
        )
        for entry in _referrers(client, digest)
    )
    return tuple(artifact for artifact in found if not kind or artifact.kind == kind)


def fetch(
    reference: Reference, artifact: Artifact, *, credentials: Credentials | None = None
) -> tuple[File, ...]:
    """The files of an artifact, each checked against its digest."""
    client = connect(reference, credentials)
    content = get_manifest(client, artifact.digest).content
    where = f"{reference}: the artifact {artifact.digest}"
    _, layers = descriptors(content, where)
    document = json.loads(content)
    wanted = reference.digest or get_manifest(client, reference.tag).digest
    subject = document.get("subject")
    if not isinstance(subject, dict) or subject.get("digest") != wanted:
        raise SourceError(f"{where} belongs to another image")
    titles = [texts(entry, "annotations", where).get(TITLE, "") for entry in document["layers"]]
    return tuple(
        File(name=title, media_type=media_type, content=get_blob(client, digest, size, LARGEST))
        for (media_type, digest, size), title in zip(layers, titles, strict=True)
    )


def _referrers(client: Client, digest: str) -> list[dict[str, Any]]:
    """What refers to a manifest, by the registry's list, else by the one under the tag."""
    path = f"referrers/{digest}"
    with client.send("GET", path, what="referrers", ok=(200, 404, 405)) as response:
        listed = response.status_code == 200
        content = client.read(response, SMALL, "referrers") if listed else b""
    if not listed:
        try:
            content = get_manifest(client, _tag(digest)).content
        except NotFound:
            return []
    try:
        entries = json.loads(content)["manifests"]
        return [entry for entry in entries if DIGEST.fullmatch(str(entry["digest"]))]
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{client.reference}: the list of what is attached is damaged") from None


def _list_under_tag(client: Client, subject: str, artifact: Artifact, size: int) -> None:
    """Add an artifact to the index under the tag that stands in for the registry's own list."""
    entry = {
        "mediaType": MANIFEST,
        "digest": artifact.digest,
        "size": size,
        "artifactType": artifact.kind,
        "annotations": dict(artifact.annotations),
    }
    entries = [e for e in _referrers(client, subject) if e.get("digest") != artifact.digest]
    entries = sorted([*entries, entry], key=lambda entry: str(entry["digest"]))
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    put_manifest(client, canonical_json(index), INDEX, _tag(subject))


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _named(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
