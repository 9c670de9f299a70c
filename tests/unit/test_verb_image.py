"""``image`` where it writes and where it pushes to: told before anything is built."""

from __future__ import annotations

import errno
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from oci_maker import make_image
from oci_registry import running
from sign_maker import make_key

from longrun import fs
from longrun.errors import BuildError, UsageError
from longrun.oci import client as client_module
from longrun.oci.client import Denied, RegistryError
from longrun.oci.read import open_image
from longrun.verbs import image as module
from longrun.verbs.build import add_sums, check_dist, read_sums
from longrun.verbs.image import check_first, put, put_archive, signed_files


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(client_module.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "CI_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dist(tmp_path) -> Path:
    place = tmp_path / "dist"
    place.mkdir()
    return place


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "layers")


@pytest.fixture
def full(monkeypatch):
    """A disk that has no room for files of this name any more."""

    def fill(name: str) -> None:
        write = fs.write_atomic

        def refuse(path, *args, **options):
            if path.name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, *args, **options)

        monkeypatch.setattr(fs, "write_atomic", refuse)

    return fill


def in_order(dist: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dist, check=True)


def test_a_disk_that_is_full_when_the_sums_are_written(dist, image, full, monkeypatch):
    full("SHA256SUMS")
    with pytest.raises(BuildError, match=r"SHA256SUMS: .*No space left") as caught:
        put_archive(image, dist / "ci.oci.tar", "longrun/ci:1")
    assert "make room" in caught.value.remedy
    monkeypatch.undo()
    put_archive(image, dist / "ci.oci.tar", "longrun/ci:1")
    assert set(read_sums(dist)) == {"ci.oci.tar"}
    in_order(dist)


def test_a_sum_that_could_not_be_written_is_not_forgotten(dist, image, monkeypatch, tmp_path):
    """The archive is there, its sum is not; or worse, the sum is the one of the archive before."""
    path = dist / "ci.oci.tar"
    put_archive(image, path, "longrun/ci:1")
    other = make_image(tmp_path / "other", "base")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "sha256_file", refuse)
        with pytest.raises(OSError, match="No space"):
            put_archive(other, path, "longrun/ci:1")
    assert open_image(path).digest == other.digest
    assert read_sums(dist) == {}
    put_archive(other, path, "longrun/ci:1")
    in_order(dist)


def test_a_disk_that_is_full_when_the_bill_is_written(dist, full):
    full("ci.cdx.json")
    with pytest.raises(BuildError, match=r"ci\.cdx\.json: .*No space left"):
        put(dist / "ci.cdx.json", b"{}")


def test_what_is_right_stays_untouched(dist, image):
    path = dist / "ci.oci.tar"
    put_archive(image, path, "longrun/ci:1")
    before = path.stat().st_ino
    put_archive(image, path, "longrun/ci:1")
    assert path.stat().st_ino == before


def test_dist_is_a_file(tmp_path):
    (tmp_path / "dist").write_text("")
    with pytest.raises(BuildError, match="dist: is no directory") as caught:
        check_dist(tmp_path)
    assert "move it" in caught.value.remedy


def test_dist_may_be_a_link(tmp_path):
    check_dist(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dist").symlink_to(tmp_path / "elsewhere")
    check_dist(tmp_path)
    (tmp_path / "elsewhere").rmdir()
    with pytest.raises(BuildError, match="is no directory"):
        check_dist(tmp_path)


def test_a_damaged_list_of_sums_is_mended(dist):
    (dist / "SHA256SUMS").write_bytes(b"\n\xff\nnonsense\n")
    put(dist / "a", b"a")
    in_order(dist)


def test_sums_of_what_is_gone_go(dist):
    for name in ("a", "b"):
        put(dist / name, name.encode())
    (dist / "a").unlink()
    add_sums(dist, {})
    assert set(read_sums(dist)) == {"b"}


def test_what_belongs_to_an_image_is_found_by_any_of_its_files(dist):
    files = (dist / "ci-1.0-py313.payload.json", dist / "ci-1.0-py313.sig")
    for name in ("ci-1.0-py313.oci.tar", "ci-1.0-py313.cdx.json", "ci-1.0-py313.tar"):
        assert signed_files(dist / name) == files


@pytest.fixture
def first(tmp_path, monkeypatch):
    """Asks what ``image`` asks before it builds; the key."""
    monkeypatch.setattr(module, "Built", SimpleNamespace)
    step = SimpleNamespace(spec=SimpleNamespace(reference="longrun/ci:2026.1"))

    def call(**words) -> Path | None:
        context = SimpleNamespace(root=tmp_path, config=SimpleNamespace(signing_key=None))
        context.config.signing_key = words.pop("signing_key", None)
        given = {"push": None, "sign": None, "setup": False, **words}
        return check_first(context, (step,), Namespace(**given))

    return call


def test_the_key_is_the_options_before_the_sites(first, tmp_path):
    one, two = make_key(tmp_path / "one"), make_key(tmp_path / "two")
    assert first() is None
    assert first(signing_key=one) == one
    assert first(signing_key=one, sign=two) == two
    with pytest.raises(UsageError, match="no such file"):
        first(sign=tmp_path / "none")


def test_a_place_that_cannot_be_written_is_told_first(first, tmp_path):
    (tmp_path / "dist").write_text("")
    with pytest.raises(BuildError, match="is no directory"):
        first()


def test_a_registry_that_takes_images(first):
    with running() as registry:
        first(push=registry.host)
        assert [(method, path) for method, path, _ in registry.asked] == [
            ("GET", "/v2/"),
            ("POST", "/v2/longrun/ci/blobs/uploads/"),
            ("DELETE", "/v2/uploads/one"),
        ]


@pytest.mark.parametrize("place", ["host", "no such host", "r.example.org/Group", "r.org/a:1"])
def test_a_place_that_is_none(first, place):
    with pytest.raises(UsageError, match=f"--push {place}: ") as caught:
        first(push=place)
    assert "registry.example.org" in caught.value.remedy


def test_a_registry_that_is_not_there(first):
    with running() as registry:
        pass
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        first(push=registry.host)
    assert "network" in caught.value.remedy


def test_what_is_no_registry(first):
    with running() as registry:
        registry.does["GET", "/v2/"] = [lambda request: request.refuse(404)]
        with pytest.raises(RegistryError, match="no registry: it has no /v2/"):
            first(push=registry.host)


@pytest.mark.parametrize(("method", "code"), [("GET", 401), ("POST", 401), ("POST", 403)])
def test_who_may_not_push(first, method, code):
    with running() as registry:
        registry.does[method, "/v2/"] = [lambda request: request.refuse(code, "DENIED", "no")]
        with pytest.raises(Denied, match="asked as nobody") as caught:
            first(push=registry.host)
    assert f"docker login {registry.host}" in caught.value.remedy
