"""Small container images, written by the Python that runs the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from longrun.oci.image import pack
from longrun.oci.layer import Member, write_layer
from longrun.oci.model import Image, ImageConfig, LayerBlob, Packed

EPOCH = 1_793_577_600
CREATED = "2026-11-02T00:00:00Z"
NOISE = bytes((i * i * 31 + (i >> 7)) % 251 for i in range(1 << 16))


def compress(arguments: list[str]) -> None:
    """A compressor: here the Python of the tests stands in for a built one."""
    subprocess.run([sys.executable, "-I", "-S", *arguments], check=True)


def make_layer(place: Path, title: str, *members: Member, content: bytes = b"") -> LayerBlob:
    """A layer with the given members, else with one file of this content."""
    place.mkdir(parents=True, exist_ok=True)
    wanted = members or (Member(path=f"opt/{title}/file", content=content or title.encode()),)
    return write_layer(
        wanted, place / f"{title}.tar.gz", title=title, epoch=EPOCH, compress=compress
    )


def make_config(**changes: object) -> ImageConfig:
    """A configuration with something in every field."""
    fields: dict[str, object] = {
        "created": CREATED,
        "user": "1000:1000",
        "env": {"PATH": "/opt/python/bin:/usr/bin", "LC_ALL": "C.UTF-8"},
        "entrypoint": ("/opt/python/bin/python3.13",),
        "command": ("-V",),
        "workdir": "/work",
        "labels": {"org.opencontainers.image.version": "2026.1"},
        "healthcheck": ("/opt/python/bin/python3.13", "-c", "import numpy"),
    }
    return ImageConfig(**(fields | changes))  # type: ignore[arg-type]


def make_image(place: Path, *titles: str, contents: dict[str, bytes] | None = None) -> Packed:
    """An image with a layer for each title; ``contents`` says what is in some of them."""
    layers = tuple(
        make_layer(place, title, content=(contents or {}).get(title, b""))
        for title in titles or ("base", "python", "rest")
    )
    annotations = {"org.opencontainers.image.version": "2026.1"}
    return pack(Image(config=make_config(), layers=layers, annotations=annotations))
