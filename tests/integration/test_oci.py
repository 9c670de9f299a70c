"""Images that a built interpreter writes, in the hands of skopeo and podman."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, open_directory
from programs import call

sys.path.append(str(ROOT / "tests" / "unit"))  # behind all others: it has a conftest, too

from oci_maker import EPOCH, make_config, make_layer

from longrun import fs
from longrun.oci.image import pack, write_archive, write_layout
from longrun.oci.layer import LEVEL, Member, tree_members, write_layer
from longrun.oci.model import Image, Packed

NAMES = ("longrun/hello:2026.1", "longrun/hello:latest")
SETTINGS = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{place}/tmp"
[containers]
log_driver = "k8s-file"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{place}/images"
runroot = "{place}/run"
"""


def test_a_built_interpreter_writes_a_prefix_twice_the_same(prefix, tmp_path):
    records = fs.scan(prefix.path)

    def write(name: str) -> Path:
        layer = write_layer(
            tree_members(prefix.path, records, "opt/longrun"),
            tmp_path / name,
            title="python",
            epoch=EPOCH,
            level=1 if name != "usual" else LEVEL,
            compress=lambda argv: call(prefix.python, "-I", "-S", *argv),  # type: ignore[arg-type,return-value]
        )
        assert layer.digest == f"sha256:{fs.sha256_file(tmp_path / name)}"
        return layer.path

    assert write("one").read_bytes() == write("two").read_bytes()
    out = tmp_path / "out"
    with tarfile.open(tmp_path / "one") as tar:
        tar.extractall(out, filter="fully_trusted")
    assert fs.tree_digest(fs.scan(out / "opt/longrun")) == fs.tree_digest(records)
    fs.remove_tree(out)


@pytest.fixture
def image(tmp_path: Path) -> Packed:
    """An image with one program and its libraries, that reads a file of another layer."""
    files = {Path("/bin/cat"), *libraries(Path("/bin/cat"))}
    members = [
        Member(path=str(file).lstrip("/"), source=file.resolve(), mode=0o755) for file in files
    ]
    base = make_layer(tmp_path, "base", *members)
    home = Member(path="home/operator", kind=fs.DIRECTORY, mode=0o700, owner=1000)
    note = Member(path="home/operator/grüße", content=b"beam is on\n", mode=0o400, owner=1000)
    more = make_layer(tmp_path, "more", home, note)
    config = make_config(
        entrypoint=("/bin/cat",), command=("grüße",), workdir="/home/operator", healthcheck=()
    )
    return pack(Image(config=config, layers=(base, more)))


def libraries(program: Path) -> list[Path]:
    words = call("ldd", program).split()
    return [Path(word) for word in words if word.startswith("/")]


@pytest.fixture
def archive(image: Packed, tmp_path: Path) -> Path:
    write_archive(image, tmp_path / "image.tar", NAMES)
    return tmp_path / "image.tar"


def skopeo(*words: str) -> str:
    return call("skopeo", "--insecure-policy", *words, env={"HOME": "/"})


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci"])
def test_skopeo_agrees_on_the_image(image, archive, tmp_path, kind):
    write_layout(image, tmp_path / "layout", NAMES)
    place = f"{kind}:{tmp_path / 'layout' if kind == 'oci' else archive}"
    raw = json.loads(skopeo("inspect", "--raw", place))
    assert raw["config"]["digest"] == image.config_digest
    seen = json.loads(skopeo("inspect", place))
    assert (seen["Created"], seen["Os"]) == ("2026-11-02T00:00:00Z", "linux")
    if kind != "docker-archive":  # skopeo unpacks its layers, and so they have other digests there
        assert seen["Digest"] == image.digest
        assert seen["Layers"] == [layer.digest for layer in image.layers]


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_skopeo_copies_the_image_out_of_the_archive(image, archive, tmp_path, kind):
    skopeo("copy", f"{kind}:{archive}", f"dir:{tmp_path / 'copy'}")
    manifest = json.loads((tmp_path / "copy/manifest.json").read_text())
    assert manifest["config"]["digest"] == image.config_digest


@pytest.fixture
def podman() -> Iterator[Callable[..., str]]:
    """Podman with directories of its own; the machine's does not notice."""
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine without preparing the machine")
    with open_directory() as place:
        (place / "containers.conf").write_text(SETTINGS.format(place=place))
        (place / "storage.conf").write_text(STORAGE.format(place=place))
        env = {
            "HOME": "/root",
            "PATH": os.environ["PATH"],
            "CONTAINERS_CONF": str(place / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        }
        try:
            yield lambda *words: call("podman", *words, env=env)
        finally:
            subprocess.run(["umount", "--lazy", place / "images/overlay"], check=False)


def test_podman_loads_the_archive_and_runs_it_read_only_as_a_user(image, archive, podman):
    assert NAMES[0] in podman("load", "--input", str(archive))
    (seen,) = json.loads(podman("image", "inspect", NAMES[0]))
    assert (seen["Id"], seen["Digest"]) == (
        image.config_digest.removeprefix("sha256:"),
        image.digest,
    )
    assert seen["User"] == "1000:1000"
    # an engine's own limits may be higher than this machine lets root set
    walls = ("--read-only", "--network=none", "--cap-drop=all", "--ulimit=nofile=1024:1024")
    assert podman("run", "--rm", *walls, "--ulimit=nproc=512:512", NAMES[0]) == "beam is on"
