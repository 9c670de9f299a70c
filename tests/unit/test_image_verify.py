"""``image-verify`` on archives, and on a registry that was tampered with."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from oci_maker import NOISE, make_image
from oci_registry import running
from sign_maker import NAMES, allow, make_key

from longrun.errors import BuildError, LongrunError, UsageError
from longrun.oci.attach import File, attach
from longrun.oci.image import write_archive
from longrun.oci.model import Packed
from longrun.oci.reference import parse_reference
from longrun.oci.registry import push
from longrun.sign import (
    KIND,
    PAYLOAD,
    SSHSIG,
    BadSignature,
    NotSigned,
    Payload,
    Signed,
    attachment,
    encode,
    sign,
)
from longrun.verbs.image_verify import run

NAME = "longrun/ci:2026.1"
BILL, SBOM = "ci.cdx.json", "application/vnd.cyclonedx+json"
CONTENT = b'{"bomFormat": "CycloneDX"}'


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """Nobody's login, a cache of its own, no pauses."""
    monkeypatch.setattr("longrun.oci.client.time.sleep", lambda seconds: None)
    monkeypatch.setattr("longrun.download.pause", lambda failures: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "CI_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Packed:
    return make_image(tmp_path_factory.mktemp("layers"), contents={"python": NOISE})


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Packed:
    return make_image(tmp_path_factory.mktemp("other"), "base")


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture
def allowed(tmp_path, key) -> Path:
    return allow(tmp_path / "allowed", key)


@pytest.fixture
def registry():
    with running() as made:
        yield made


@pytest.fixture
def verify(tmp_path, allowed, capsys):
    """Runs the verb; what it prints."""

    def call(image, identity: str = "", json: bool = False) -> str:
        arguments = Namespace(
            image=str(image), allowed_signers=allowed, identity=identity, json=json
        )
        assert run(tmp_path, arguments) == 0
        return str(capsys.readouterr().out)

    return call


@pytest.fixture
def refused(verify):
    """The error that the verb ends with; no layer is left anywhere."""

    def call(image, identity: str = "") -> LongrunError:
        with pytest.raises(LongrunError) as caught:
            verify(image, identity)
        assert caught.value.exit_code == 4
        assert caught.value.remedy
        return caught.value

    return call


def signed(image: Packed, key: Path, name: str = NAME) -> Signed:
    content = encode(
        Payload(
            name=name,
            digest=image.digest,
            release="2026.1",
            created="2026-11-02T00:00:00Z",
            attachments=(attachment(SBOM, BILL, CONTENT),),
        )
    )
    return Signed(payload=content, signature=sign(content, key))


def put(registry, image: Packed, *what: Signed, bill: bytes = CONTENT, tag: str = "2026.1") -> str:
    """Push an image with what belongs to it; its reference."""
    reference = parse_reference(registry.name(tag))
    push(image, reference, overwrite=True)
    if bill:
        attach(reference, SBOM, (File(name=BILL, media_type=SBOM, content=bill),))
    for each in what:
        parts = (
            File(name="payload", media_type=PAYLOAD, content=each.payload),
            File(name="sig", media_type=SSHSIG, content=each.signature),
        )
        attach(reference, KIND, parts)
    return str(reference)


def test_a_pushed_image_is_what_was_signed(registry, image, key, verify, tmp_path):
    told = verify(put(registry, image, signed(image, key)))
    first, second, *_ = told.splitlines()
    assert registry.name() in first
    assert f"signed by {NAMES[0]} (ED25519 key SHA256:" in first
    assert image.digest in second
    assert f"{BILL}: signed" in told
    assert list((tmp_path / "cache").iterdir()) == []


def test_for_scripts(registry, image, key, verify):
    told = json.loads(verify(put(registry, image, signed(image, key)), json=True))
    assert told["schema"] == 1
    assert (told["digest"], told["name"], told["layers"]) == (image.digest, NAME, 3)
    assert told["signer"]["identity"] == NAMES[0]
    assert told["files"] == {BILL: "signed"}


def test_by_digest_a_copy_may_have_any_name(registry, image, key, verify, refused):
    put(registry, image, signed(image, key, name="longrun/gui:2026.1"))
    at = f"{registry.host}/longrun/ci@{image.digest}"
    assert "longrun/gui:2026.1 of release 2026.1" in verify(at)
    assert isinstance(refused(registry.name()), BadSignature)


def test_an_image_that_nobody_signed(registry, image, refused):
    error = refused(put(registry, image))
    assert isinstance(error, NotSigned)
    assert image.digest in error.message
    assert "--sign KEY" in error.remedy


def test_a_key_that_is_not_allowed(registry, image, refused, tmp_path):
    stranger = make_key(tmp_path / "stranger")
    error = refused(put(registry, image, signed(image, stranger)))
    assert "does not allow" in error.message


def test_of_two_signatures_one_that_is_allowed_is_enough(registry, image, key, verify, tmp_path):
    stranger = make_key(tmp_path / "stranger")
    verify(put(registry, image, signed(image, stranger), signed(image, key)))
    verify(put(registry, image, signed(image, key), signed(image, stranger)))


def test_only_the_named_one_counts(registry, image, key, verify, refused):
    reference = put(registry, image, signed(image, key))
    verify(reference, NAMES[1])
    assert "not bob's" in refused(reference, "bob").message


def test_a_signature_that_was_tampered_with(registry, image, key, refused):
    good = signed(image, key)
    bad = replace(good, payload=good.payload.replace(b"2026.1", b"2026.9"))
    assert "does not fit" in refused(put(registry, image, bad)).message


def test_the_signature_of_another_image(registry, image, other, key, refused):
    error = refused(put(registry, image, signed(other, key)))
    assert other.digest in error.message
    assert image.digest in error.message


def test_no_room_to_pull_to(registry, image, key, verify, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(BuildError, match="cannot be written"):
        verify(put(registry, image, signed(image, key)))


def test_what_is_attached_as_a_signature_and_is_none(registry, image, refused):
    reference = put(registry, image)
    attach(
        parse_reference(reference), KIND, (File(name="x", media_type="text/plain", content=b"x"),)
    )
    assert "is none" in refused(reference).message


def test_a_tag_that_was_moved_to_another_signed_image(registry, image, other, key, refused):
    put(registry, image, signed(image, key))
    put(registry, other, signed(other, key, name="longrun/ci:2025.2"), tag="2025.2")
    registry.manifests["2026.1"] = registry.manifests["2025.2"]
    error = refused(registry.name())
    assert "signed as longrun/ci:2025.2: the tag was moved" in error.message
    assert other.digest in error.remedy


def test_a_tag_that_does_not_stand_for_the_digest_any_more(registry, image, other, key, refused):
    put(registry, image, signed(image, key))
    registry.manifests["2026.1"] = (other.media_type, other.manifest)
    error = refused(f"{registry.name()}@{image.digest}")
    assert f"stands for {other.digest} now" in error.message
    assert image.digest in error.remedy


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_an_image_that_was_tampered_with(registry, image, key, refused, which, tmp_path):
    reference = put(registry, image, signed(image, key))
    if which == "manifest":
        evil = image.manifest.replace(b'"2026.1"', b'"2026.6"')
        registry.manifests[image.digest] = (image.media_type, evil)
        reference = f"{registry.host}/longrun/ci@{image.digest}"
        digest = image.digest
    else:
        digest = image.config_digest if which == "config" else image.layers[1].digest
        registry.blobs[digest] = b"\0" * len(registry.blobs[digest])
    error = refused(reference)
    assert digest in error.message
    assert "do not use" in error.remedy
    assert not any((tmp_path / "cache").glob("*"))


def test_a_bill_that_is_not_the_one_that_was_signed(registry, image, key, verify, refused):
    reference = put(registry, image, signed(image, key), bill=b"{}")
    assert BILL in refused(reference).message
    put(registry, image)  # beside the other, the right one
    assert f"{BILL}: signed" in verify(reference)


def test_a_bill_that_is_not_there_is_told(registry, image, key, verify):
    assert f"{BILL}: not there" in verify(put(registry, image, signed(image, key), bill=b""))


@pytest.fixture
def archive(tmp_path, image, key) -> Path:
    """An archive with all that belongs to it."""
    path = tmp_path / "dist/ci.oci.tar"
    path.parent.mkdir()
    write_archive(image, path, (NAME,))
    path.with_name(BILL).write_bytes(CONTENT)
    write(path, signed(image, key))
    return path


def write(path: Path, what: Signed) -> None:
    path.with_name("ci.payload.json").write_bytes(what.payload)
    path.with_name("ci.sig").write_bytes(what.signature)


def test_an_archive_is_what_was_signed(archive, verify, image):
    told = verify(archive)
    assert f"signed by {NAMES[0]}" in told
    assert image.digest in told
    assert f"{BILL}: signed" in told
    archive.with_name(BILL).unlink()
    assert f"{BILL}: not there" in verify(archive)


def test_an_archive_without_a_signature(archive, refused):
    archive.with_name("ci.sig").unlink()
    error = refused(archive)
    assert isinstance(error, NotSigned)
    assert "no ci.sig beside it" in error.message


def test_an_archive_with_a_layer_that_was_tampered_with(archive, refused, image):
    content = archive.read_bytes()
    at = content.index(image.layers[1].path.read_bytes()) + 40
    archive.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert image.layers[1].digest in refused(archive).message


def test_an_archive_with_another_image(archive, refused, other):
    write_archive(other, archive, (NAME,))
    assert re.search(f"is {other.digest}, .*another image", refused(archive).message)


def test_an_archive_under_another_name(archive, refused, image):
    write_archive(image, archive, ("longrun/ci:2027.1",))
    assert "is called longrun/ci:2027.1, and was signed as" in refused(archive).message


def test_an_archive_with_another_bill(archive, refused):
    archive.with_name(BILL).write_text("{}")
    assert "is not the file that was signed" in refused(archive).message


def test_an_archive_that_is_not_there(refused, tmp_path):
    assert "not found" in refused(tmp_path / "none.oci.tar").message


def test_what_is_no_image(verify):
    with pytest.raises(UsageError, match="no image in a registry"):
        verify("longrun")
