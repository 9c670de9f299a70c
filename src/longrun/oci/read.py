"""Images that are there: opened and checked, down to what each layer unpacks to.

Whatever is read may have been tampered with: a name is believed once its digest is, and nothing
is written anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from longrun.errors import SourceError
from longrun.oci.image import NAME, blob_path
from longrun.oci.model import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Blob,
    Image,
    ImageConfig,
    LayerBlob,
    Packed,
)

CHUNK = 1 << 20
SMALL = 4 << 20
"""The most bytes of a manifest, an index or a configuration; registries have the same limit."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Place:
    """Where blobs are: a layout's directory or archive, and where each file in it begins."""

    path: Path
    files: Mapping[str, tuple[Path, int, int]]
    """By name: the file it is in, its first byte there, its size."""

    def blob(self, media_type: str, digest: str, size: int) -> Blob:
        """A blob that is there with the right size; its content is not looked at."""
        name = blob_path(digest)
        if name not in self.files:
            raise SourceError(f"{self.path}: the blob {digest} is missing", remedy=AGAIN)
        path, offset, found = self.files[name]
        if found != size:
            raise SourceError(
                f"{self.path}: the blob {digest} has {found} bytes, and {size} are named",
                remedy=AGAIN,
            )
        return Blob(media_type=media_type, digest=digest, size=size, path=path, offset=offset)

    def small(self, name: str) -> bytes:
        """The content of a small file."""
        if name not in self.files:
            raise SourceError(f"{self.path}: no {name}: this is no OCI image", remedy=AGAIN)
        path, offset, size = self.files[name]
        if size > SMALL:
            raise SourceError(f"{self.path}: {name} has {size} bytes: too many")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


T = TypeVar("T")

AGAIN = "write the image again, or copy it again from where it came from"


def open_image(path: Path) -> Packed:
    """The one image of a layout, a directory or a tar; the digests of its documents are checked.

    Layers are there and have the right size; ``verify`` reads them. SourceError names what is
    wrong: the file, the blob, what was expected.
    """
    place = _directory(path) if path.is_dir() else _archive(path)
    index = _document(place.small("index.json"), f"{path}: index.json")
    entries = _list(index, "manifests", f"{path}: index.json")
    if len(entries) != 1:
        raise SourceError(f"{path}: index.json names {len(entries)} images, not one")
    blob = place.blob(*_descriptor(entries[0], f"{path}: index.json"))
    return packed(place, _content(place, blob), blob.media_type)


def name_of(path: Path) -> str:
    """The name with a tag that a layout has for its one image; empty where it has none."""
    place = _directory(path) if path.is_dir() else _archive(path)
    where = f"{path}: index.json"
    index = _document(place.small("index.json"), where)
    names = [
        texts(entry, "annotations", where).get(NAME, "")
        for entry in _list(index, "manifests", where)
        if isinstance(entry, dict)
    ]
    return names[0] if len(names) == 1 else ""


def packed(place: Place, manifest: bytes, media_type: str) -> Packed:
    """The image of a manifest that has been checked."""
    where = f"{place.path}: the manifest"
    config, layers = descriptors(manifest, where)
    content = _content(place, place.blob(*config))
    return assemble(manifest, media_type, content, [place.blob(*layer) for layer in layers], where)


def assemble(
    manifest: bytes, media_type: str, config: bytes, layers: list[Blob], where: str
) -> Packed:
    """An image of its checked parts; SourceError where configuration and layers do not agree."""
    document = _document(config, where)
    diff_ids = _list(_part(document, "rootfs", dict, where), "diff_ids", where)
    if len(diff_ids) != len(layers) or not all(DIGEST.fullmatch(str(d)) for d in diff_ids):
        raise SourceError(f"{where}: {len(layers)} layers, but {len(diff_ids)} in its rootfs")
    return Packed(
        manifest=manifest,
        media_type=media_type,
        config=config,
        layers=tuple(
            LayerBlob(
                media_type=blob.media_type,
                digest=blob.digest,
                size=blob.size,
                path=blob.path,
                offset=blob.offset,
                diff_id=str(diff_id),
                title=title,
            )
            for blob, diff_id, title in zip(
                layers, diff_ids, _titles(document, len(layers), where), strict=True
            )
        ),
    )


def image_of(image: Packed) -> Image:
    """An image's configuration, layers and annotations: what a base is, to append layers to."""
    where = f"the configuration {image.config_digest}"
    document = _document(image.config, where)
    run = _part(document, "config", dict, where)
    health = _part(run, "Healthcheck", dict, where)
    manifest = _document(image.manifest, f"the manifest {image.digest}")
    return Image(
        config=ImageConfig(
            created=_part(document, "created", str, where),
            architecture=_part(document, "architecture", str, where),
            user=_part(run, "User", str, where),
            env=_variables(_words(run, "Env", where)),
            entrypoint=_words(run, "Entrypoint", where),
            command=_words(run, "Cmd", where),
            workdir=_part(run, "WorkingDir", str, where),
            labels=texts(run, "Labels", where),
            healthcheck=_words(health, "Test", where)[1:],
        ),
        layers=image.layers,
        annotations=texts(manifest, "annotations", f"the manifest {image.digest}"),
    )


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    split = (pair.partition("=") for pair in pairs)
    return {name: value for name, _, value in split}


def verify(image: Packed) -> None:
    """Read every layer: its digest, and that of what it unpacks to. SourceError names the layer."""
    for layer in image.layers:
        packed_digest, plain_digest = _digests(layer)
        if packed_digest != layer.digest:
            raise SourceError(
                f"{layer.path}: the layer {layer.digest} ({layer.title}) has the digest "
                f"{packed_digest}",
                remedy=AGAIN,
            )
        if plain_digest != layer.diff_id:
            raise SourceError(
                f"{layer.path}: the layer {layer.digest} ({layer.title}) unpacks to "
                f"{plain_digest}, and the configuration names {layer.diff_id}",
                remedy=AGAIN,
            )


def _digests(layer: LayerBlob) -> tuple[str, str]:
    """The digests of a layer as it is and unpacked, read once; the second may be a complaint."""
    whole, plain = hashlib.sha256(), hashlib.sha256()
    gzip = layer.media_type.endswith("gzip")
    unpacker, complaint = zlib.decompressobj(16 + zlib.MAX_WBITS), ""
    with layer.open() as file:
        while chunk := file.read(CHUNK):
            whole.update(chunk)
            try:
                while gzip and chunk and not complaint:
                    plain.update(unpacker.decompress(chunk))
                    chunk = unpacker.unused_data
                    if unpacker.eof:  # gzip allows several members one after the other
                        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
            except zlib.error as error:
                complaint = f"nothing ({error})"
            if not gzip:
                plain.update(chunk)
    return f"sha256:{whole.hexdigest()}", complaint or f"sha256:{plain.hexdigest()}"


def descriptors(
    manifest: bytes, where: str
) -> tuple[tuple[str, str, int], list[tuple[str, str, int]]]:
    """What a manifest names, each as media type, digest and size: configuration and layers."""
    document = _document(manifest, where)
    config = _descriptor(document.get("config"), where)
    return config, [_descriptor(entry, where) for entry in _list(document, "layers", where)]


def _descriptor(entry: object, where: str) -> tuple[str, str, int]:
    """Media type, digest and size of a descriptor."""
    if not isinstance(entry, dict):
        raise SourceError(f"{where}: a blob is named by {entry!r}, which is no descriptor")
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        # such as "sha256:../../etc/passwd"
        raise SourceError(f"{where}: {digest!r} is no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise SourceError(f"{where}: the blob {digest} has no size")
    return str(entry.get("mediaType", "")), digest, size


def choose(index: bytes, architecture: str, where: str) -> str:
    """The digest of the manifest for a processor, of a list with one for each."""
    for entry in _list(_document(index, where), "manifests", where):
        platform = _part(entry, "platform", dict, where) if isinstance(entry, dict) else {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return _descriptor(entry, where)[1]
    raise SourceError(f"{where}: no image for linux on {architecture}")


def is_index(media_type: str) -> bool:
    """Whether a manifest is a list of manifests, one for each processor."""
    return media_type in (INDEX, DOCKER_INDEX)


def is_manifest(media_type: str) -> bool:
    """Whether it is an image's own."""
    return media_type in (MANIFEST, DOCKER_MANIFEST)


def _document(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise SourceError(f"{where}: no JSON: {error}", remedy=AGAIN) from None
    if not isinstance(document, dict):
        raise SourceError(f"{where}: an object was expected")
    return cast(dict[str, Any], document)


def _list(document: dict[str, Any], key: str, where: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise SourceError(f"{where}: `{key}`: a list was expected")
    return value


def _part(document: dict[str, Any], key: str, kind: type[T], where: str) -> T:
    """What is under a key; what is missing or null is as good as empty."""
    value = document.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise SourceError(f"{where}: `{key}`: {kind.__name__} was expected")
    return value


def _words(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    words = _part(document, key, list, where)
    if not all(isinstance(word, str) for word in words):
        raise SourceError(f"{where}: `{key}`: a list of str was expected")
    return tuple(words)


def texts(document: dict[str, Any], key: str, where: str) -> dict[str, str]:
    """Names with values, such as labels."""
    found = _part(document, key, dict, where)
    if not all(isinstance(value, str) for value in found.values()):
        raise SourceError(f"{where}: `{key}`: values of str were expected")
    return found


def _titles(config: dict[str, Any], layers: int, where: str) -> list[str]:
    """What made each layer; other builders may keep no history."""
    history = _part(config, "history", list, where)
    if not all(isinstance(entry, dict) for entry in history):
        raise SourceError(f"{where}: `history`: a list of dict was expected")
    titles = [str(e.get("created_by", "")) for e in history if not e.get("empty_layer")]
    return titles if len(titles) == layers else [""] * layers


def _content(place: Place, blob: Blob) -> bytes:
    """A small blob's content, checked."""
    content = place.small(blob_path(blob.digest))
    found = hashlib.sha256(content).hexdigest()
    if f"sha256:{found}" != blob.digest:
        raise SourceError(
            f"{place.path}: the blob {blob.digest} has the digest sha256:{found}", remedy=AGAIN
        )
    return content


def _directory(path: Path) -> Place:
    """A layout's directory; only plain files below it count."""
    names = ["index.json", *(f"blobs/sha256/{p.name}" for p in path.glob("blobs/sha256/*"))]
    files = [(name, path / name) for name in names]
    return Place(
        path,
        {
            name: (file, 0, file.stat().st_size)
            for name, file in files
            if file.is_file() and not file.is_symlink()
        },
    )


def _archive(path: Path) -> Place:
    """A layout's tar; names in it are looked up and never become paths.

    tarfile itself finds an archive that ends too early.
    """
    files: dict[str, tuple[Path, int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name.startswith("/") or ".." in name.split("/"):
                    raise SourceError(f"{path}: it has a member {name!r}, which leaves it")
                if member.isfile() and name in files:
                    raise SourceError(f"{path}: it has {name} twice")
                if member.isfile():
                    files[name] = (path, member.offset_data, member.size)
    except FileNotFoundError:
        raise SourceError(f"{path}: not found", remedy="give the path of an image") from None
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"{path}: cannot be read as a tar: {error}", remedy=AGAIN) from None
    return Place(path, files)
