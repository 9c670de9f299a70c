"""Images to and from a registry, by the OCI distribution specification: every digest is kept.

What is pushed are the bytes that were written; what is pulled has the digests that it was named
by, or is not there at all.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from longrun import download, fs
from longrun.errors import BuildError, SourceError, UsageError
from longrun.oci.client import (
    REACH,
    TOO_LARGE,
    TRIES,
    Body,
    Client,
    NotFound,
    RegistryError,
    TagTaken,
    wait,
)
from longrun.oci.image import blob_path, write_layout, writing
from longrun.oci.model import (
    CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Blob,
    Packed,
    digest_of,
)
from longrun.oci.read import (
    SMALL,
    assemble,
    choose,
    descriptors,
    is_index,
    is_manifest,
    open_image,
)
from longrun.oci.reference import Credentials, Reference, find_credentials

ACCEPT = ", ".join((MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX))
PIECE = 16 << 20
"""Bytes of one request, where a proxy before the registry refuses larger ones."""
CONFIGS = (CONFIG, "application/vnd.docker.container.image.v1+json")

Progress = Callable[[str, int, int], None]
"""Called with a blob's digest, the bytes of it that are over the line, and its size."""


def _quiet(digest: str, done: int, size: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push came to: the image's digest, and what became of its bytes.

    ``sent`` bytes went over the line, ``mounted`` ones came from another repository of the
    registry, ``present`` ones were there.
    """

    digest: str
    sent: int = 0
    mounted: int = 0
    present: int = 0


@dataclass(frozen=True, kw_only=True)
class Found:
    """A manifest as a registry has it."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Its digest, which was checked."""
        return digest_of(self.content)


def connect(reference: Reference, credentials: Credentials | None = None) -> Client:
    """A client for a repository; who asks is looked for where nobody is given."""
    return Client(
        reference=reference,
        credentials=credentials or find_credentials(reference.host, os.environ),
    )


def push(
    image: Packed,
    reference: Reference,
    *,
    credentials: Credentials | None = None,
    overwrite: bool = False,
    mount: tuple[str, ...] = (),
    progress: Progress = _quiet,
) -> Pushed:
    """Push an image under a tag, or by digest where the reference has no tag.

    Blobs that the registry has are not sent; those that the repositories ``mount`` of the same
    registry have are asked for there. The manifest comes last, so nobody sees an image without its
    layers. TagTaken where the tag stands for other content, unless ``overwrite``.
    """
    client = connect(reference, credentials)
    if reference.digest and reference.digest != image.digest:
        raise client.error(f"the image to push has another digest, {image.digest}")
    if not overwrite:
        check_tag(client, image.digest)
    counts = {"sent": 0, "mounted": 0, "present": 0}
    for blob, body in _blobs(image):
        counts[put_blob(client, blob, body, mount=mount, progress=progress)] += blob.size
    if not overwrite:
        check_tag(client, image.digest)  # again: a push takes minutes
    put_manifest(client, image.manifest, image.media_type, reference.tag or image.digest)
    return Pushed(digest=image.digest, **counts)


def check_push(reference: Reference, credentials: Credentials | None = None) -> None:
    """Ask a registry whether it would take an image, before there is one.

    An upload is begun and given up, since only that asks for the right to push; RegistryError
    where nobody answers or it is no registry, Denied without the right.
    """
    client = connect(reference, credentials)
    with client.send("GET", "/v2/", what="its API", ok=(200, 404)) as response:
        if response.status_code == 404:
            raise client.error("what answers is no registry: it has no /v2/", remedy=REACH)
    location = _begin(client, "blobs/uploads/", "asking to push")
    if location is None:
        return
    with (
        contextlib.suppress(RegistryError, NotFound, download.Transient),  # they forget it anyway
        client.send("DELETE", location, what="upload", ok=(202, 204), tries=1),
    ):
        pass


def check_tag(client: Client, digest: str) -> None:
    """TagTaken where the reference's tag stands for another digest than this."""
    tag = client.reference.tag
    found = find_digest(client, tag) if tag else ""
    if found and found != digest:
        raise client.error(
            f"the tag is taken: it stands for {found}, and this image is {digest}",
            remedy="push under another tag, or say that it may be replaced",
            kind=TagTaken,
        )


def find_digest(client: Client, name: str) -> str:
    """The digest of a manifest, by tag or digest; empty where there is none."""
    try:
        return get_manifest(client, name).digest
    except NotFound:
        return ""


def get_manifest(client: Client, name: str) -> Found:
    """A manifest, checked against the digest it is asked for by, or that the registry names."""
    path, what = f"manifests/{name}", f"manifest {name}"
    with client.send("GET", path, what=what, headers={"Accept": ACCEPT}) as response:
        content = client.read(response, SMALL, what)
        told = response.headers.get("Docker-Content-Digest", "")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    found = digest_of(content)
    wanted = name if name.startswith("sha256:") else told
    if wanted.startswith("sha256:") and found != wanted:
        raise SourceError(
            f"{client.reference}: the manifest {wanted} has the digest {found}: it was tampered "
            "with, or damaged",
            remedy=f"do not use it; tell who runs {client.reference.host}",
        )
    return Found(content=content, media_type=media_type)


def put_manifest(client: Client, content: bytes, media_type: str, name: str) -> requests.Response:
    """Put a manifest under a tag or its digest; the registry's answer, for its headers."""
    digest = digest_of(content)
    with client.send(
        "PUT",
        f"manifests/{name}",
        what=f"manifest {digest}",
        ok=(200, 201, 202),
        headers={"Content-Type": media_type},
        body=lambda: contextlib.nullcontext(content),
    ) as response:
        told = response.headers.get("Docker-Content-Digest", digest)
    if told != digest:
        raise client.error(f"it keeps the manifest {digest} as {told}")
    return response


def put_blob(
    client: Client,
    blob: Blob,
    body: Body,
    *,
    mount: tuple[str, ...] = (),
    progress: Progress = _quiet,
) -> str:
    """See to it that the registry has a blob; "present", "mounted" or "sent"."""
    what = f"blob {blob.digest}"
    with client.send("HEAD", f"blobs/{blob.digest}", what=what, ok=(200, 404)) as response:
        if response.status_code == 200:
            progress(blob.digest, blob.size, blob.size)
            return "present"
    for repository in mount:
        path = f"blobs/uploads/?mount={blob.digest}&from={repository}"
        if _begin(client, path, what) is None:
            progress(blob.digest, blob.size, blob.size)
            return "mounted"
    for failures in range(1, TRIES + 1):
        try:
            # what broke a long request may let shorter ones pass
            _upload(client, blob, body, progress, pieces=failures > 1)
        except download.Transient as error:
            if failures == TRIES:
                raise client.tired(what, error) from None
            wait(failures, error)
        else:
            break
    return "sent"


def _begin(client: Client, path: str, what: str) -> str | None:
    """Begin an upload: the address that it goes to, or None where the blob is there now."""
    with client.send("POST", path, what=what, ok=(201, 202), body=_nothing) as response:
        location = response.headers.get("Location", "")
        if response.status_code == 201:
            return None
    if not location:
        raise client.error(f"{what}: it does not say where to upload to")
    return client.address(location)


def _upload(client: Client, blob: Blob, body: Body, progress: Progress, *, pieces: bool) -> None:
    """One try to send a blob: as one request, or in pieces. Raises Transient."""
    what = f"upload of blob {blob.digest}"
    location = _begin(client, "blobs/uploads/", what)
    if location is None:
        return
    if pieces:
        location = _send_pieces(client, location, blob, body, progress)
    with client.send(
        "PUT",
        f"{location}{'&' if '?' in location else '?'}digest={blob.digest}",
        what=what,
        ok=(201, 204, *(() if pieces else (TOO_LARGE,))),
        headers={"Content-Type": "application/octet-stream"},
        body=_nothing if pieces else lambda: _watched(blob, body, progress),
        tries=1,
    ) as response:
        too_large = response.status_code == TOO_LARGE
    if too_large:
        raise download.Transient("a proxy does not let so large a request pass")


def _send_pieces(client: Client, location: str, blob: Blob, body: Body, progress: Progress) -> str:
    """Send a blob in several requests; the address at which the upload is finished."""
    begin = 0
    with body() as file:
        while piece := file.read(PIECE):
            end = begin + len(piece)
            with client.send(
                "PATCH",
                location,
                what=f"upload of blob {blob.digest}",
                ok=(202, 204),
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{begin}-{end - 1}",
                },
                body=lambda piece=piece: contextlib.nullcontext(piece),  # type: ignore[misc]
                tries=1,
            ) as response:
                location = client.address(response.headers.get("Location", location))
            progress(blob.digest, end, blob.size)
            begin = end
    return location


def _nothing() -> contextlib.AbstractContextManager[bytes]:
    return contextlib.nullcontext(b"")


class _Watched:
    """A file that tells how much of it has been read."""

    def __init__(self, file: Any, blob: Blob, progress: Progress) -> None:
        self._file, self._blob, self._progress = file, blob, progress
        self._done = 0

    def __len__(self) -> int:
        return self._blob.size

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        self._done += len(content)
        if content:
            self._progress(self._blob.digest, self._done, self._blob.size)
        return content


@contextlib.contextmanager
def _watched(blob: Blob, body: Body, progress: Progress) -> Iterator[_Watched]:
    with body() as file:
        yield _Watched(file, blob, progress)


def _blobs(image: Packed) -> Iterator[tuple[Blob, Body]]:
    """What an image is made of but its manifest; a layer that is there twice comes once."""
    for layer in {layer.digest: layer for layer in image.layers}.values():
        yield layer, layer.open
    yield memory_blob(CONFIG, image.config)


def memory_blob(media_type: str, content: bytes) -> tuple[Blob, Body]:
    """Bytes as a blob that is in no file, and how to read them."""
    blob = Blob(
        media_type=media_type, digest=digest_of(content), size=len(content), path=Path(os.devnull)
    )
    return blob, lambda: contextlib.nullcontext(io.BytesIO(content))


def pull(
    reference: Reference,
    out: Path,
    *,
    credentials: Credentials | None = None,
    architecture: str = "amd64",
    progress: Progress = _quiet,
) -> Packed:
    """Pull an image into the OCI layout ``out``, which must not be there.

    Everything is checked against its digest while it comes; the directory appears by one rename,
    when all is there. Where anything fails, nothing is left.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already", remedy="name a directory that is not")
    client = connect(reference, credentials)
    found = find_image(client, architecture)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            image = _fetch(client, found, stage, progress)
            write_layout(image, stage, (str(reference),) if reference.tag else ())
            stage.chmod(0o755)
            stage.rename(out)
        finally:
            fs.remove_tree(stage)
    return open_image(out)


def find_image(client: Client, architecture: str = "amd64") -> Found:
    """The manifest of the image that a client's reference names, for one processor."""
    reference = client.reference
    found = get_manifest(client, reference.wanted)
    if is_index(found.media_type):
        found = get_manifest(client, choose(found.content, architecture, str(reference)))
    if not is_manifest(found.media_type):
        raise SourceError(f"{reference}: is no image, but {found.media_type or 'something else'}")
    return found


def _fetch(client: Client, found: Found, stage: Path, progress: Progress) -> Packed:
    """Fetch configuration and layers to where a layout has them."""
    where = f"{client.reference}: the manifest"
    config, layers = descriptors(found.content, where)
    if config[0] not in CONFIGS:
        raise SourceError(f"{client.reference}: is no image, but an artifact with {config[0]}")
    needed, free = sum(size for _, _, size in layers), shutil.disk_usage(stage).free
    if needed > free:
        raise BuildError(
            f"{stage.parent}: {needed} bytes of layers, and room for {free}",
            remedy="make room there, or pull to another place",
        )
    (stage / "blobs/sha256").mkdir(parents=True)
    content = get_blob(client, config[1], config[2])
    blobs = []
    for media_type, digest, size in layers:
        blob = Blob(media_type=media_type, digest=digest, size=size, path=stage / blob_path(digest))
        _download(client, blob, progress)
        blobs.append(blob)
    return assemble(found.content, found.media_type, content, blobs, where)


def _download(client: Client, blob: Blob, progress: Progress) -> None:
    """Fetch a layer into its file: resumed where the line drops, checked against its digest."""
    with download.locked_part(blob.path) as part:
        try:
            download.download(
                client.address(f"blobs/{blob.digest}"),
                part,
                sha256=blob.digest.removeprefix("sha256:"),
                size=blob.size,
                unreachable=client.unreachable,
                progress=lambda done, size: progress(blob.digest, done, size),
                ask=client.ask,
            )
        except download.Mismatch as error:
            raise SourceError(
                f"{client.reference}: the layer {blob.digest}: {error}",
                remedy=f"do not use this image; tell who runs {client.reference.host}",
            ) from None
        except download.Failed as error:
            raise client.failed(f"the layer {blob.digest}", error) from None


def get_blob(client: Client, digest: str, size: int, limit: int = SMALL) -> bytes:
    """A small blob, checked; of more than ``limit`` bytes it is refused."""
    what = f"blob {digest}"
    with client.send("GET", f"blobs/{digest}", what=what) as response:
        content = client.read(response, min(size, limit), what)
    if digest_of(content) != digest:
        raise SourceError(
            f"{client.reference}: the blob {digest} has the digest {digest_of(content)}",
            remedy=f"do not use it; tell who runs {client.reference.host}",
        )
    return content
