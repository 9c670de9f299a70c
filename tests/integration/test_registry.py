"""Images pushed to and pulled from Debian's own registry, attacked on both sides of the line."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import ROOT
from programs import attempt, call
from registry_server import PASSWORD, USER, Registry, serve, with_password

sys.path.append(str(ROOT / "tests" / "unit"))  # behind all others: it has a conftest, too

from oci_maker import NOISE, make_image

from longrun.errors import BuildError, SourceError, UsageError
from longrun.oci import client as client_module
from longrun.oci import registry as registry_module
from longrun.oci.attach import File, attach, attached, fetch
from longrun.oci.client import Denied, NotFound, RegistryError, TagTaken
from longrun.oci.model import Packed
from longrun.oci.read import open_image, verify
from longrun.oci.reference import Credentials, parse_reference
from longrun.oci.registry import check_push, pull, push

OPERATOR = Credentials(user=USER, password=PASSWORD)
SBOM = "application/vnd.cyclonedx+json"


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "CI_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with serve(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Packed:
    return make_image(tmp_path / "layers", contents={"python": NOISE * 8})


def size(image: Packed) -> int:
    """The bytes of an image but its manifest."""
    return sum(layer.size for layer in image.layers) + len(image.config)


def skopeo(*words: str) -> str:
    """Debian's skopeo; it looks for a configuration in HOME, and for none there."""
    return call("skopeo", *words, env={"HOME": "/"})


def left_in(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_there_and_back_with_the_same_digest(registry, image, tmp_path):
    reference = parse_reference(registry.name())
    pushed = push(image, reference)
    assert pushed.digest == image.digest
    assert pushed.sent == size(image)
    assert registry.file(image.digest).read_bytes() == image.manifest
    back = pull(reference, tmp_path / "out")
    verify(back)
    assert (back.manifest, back.config) == (image.manifest, image.config)
    assert left_in(tmp_path / "out") == ["blobs", "index.json", "oci-layout"]


def test_skopeo_sees_the_same_image(registry, image):
    push(image, parse_reference(registry.name()))
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.name()}"))
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == [layer.digest for layer in image.layers]
    assert seen["Labels"] == {"org.opencontainers.image.version": "2026.1"}


def test_what_skopeo_pushed_is_pulled(registry, image, tmp_path):
    from longrun.oci.image import write_archive

    write_archive(image, tmp_path / "image.tar", ("longrun/ci:2026.1",))
    source = f"docker-archive:{tmp_path / 'image.tar'}"
    skopeo(
        *("copy", "--insecure-policy", "--dest-tls-verify=false", "--format=v2s2"),
        *(source, f"docker://{registry.name()}"),
    )
    back = pull(parse_reference(registry.name()), tmp_path / "out")
    verify(back)
    assert back.config_digest == image.config_digest


def test_the_second_push_sends_nothing(registry, image):
    reference = parse_reference(registry.name())
    push(image, reference)
    again = push(image, reference)
    assert (again.sent, again.present) == (0, size(image))


def test_a_change_of_one_layer_sends_that_layer(registry, image, tmp_path):
    push(image, parse_reference(registry.name()))
    contents = {"python": NOISE * 8, "rest": b"changed"}
    changed = make_image(tmp_path / "changed", contents=contents)
    pushed = push(changed, parse_reference(registry.name(tag="2026.2")))
    assert pushed.sent == changed.layers[2].size + len(changed.config)


def test_layers_are_mounted_from_another_repository(registry, image):
    push(image, parse_reference(registry.name("longrun/runtime")))
    other = parse_reference(registry.name("longrun/ci"))
    pushed = push(image, other, mount=("longrun/none", "longrun/runtime"))
    assert (pushed.sent, pushed.mounted) == (0, size(image))


def test_progress_tells_each_blob_to_its_end(registry, image, tmp_path):
    told: dict[str, list[tuple[int, int]]] = {}

    def progress(digest, done, size):
        told.setdefault(digest, []).append((done, size))

    push(image, parse_reference(registry.name()), progress=progress)
    assert set(told) == {layer.digest for layer in image.layers} | {image.config_digest}
    assert all(steps[-1][0] == steps[-1][1] for steps in told.values())
    told.clear()
    pull(parse_reference(registry.name()), tmp_path / "out", progress=progress)
    assert told[image.layers[1].digest][-1] == (image.layers[1].size,) * 2


def test_a_blob_goes_in_pieces_too(registry, image, monkeypatch, tmp_path):
    """What the registry keeps is right, whatever the pieces."""
    monkeypatch.setattr(registry_module, "PIECE", 1000)
    upload = registry_module._upload
    monkeypatch.setattr(
        registry_module, "_upload", lambda *args, pieces: upload(*args, pieces=True)
    )
    push(image, parse_reference(registry.name()))
    verify(pull(parse_reference(registry.name()), tmp_path / "out"))


def test_by_digest_without_a_tag(registry, image, tmp_path):
    reference = parse_reference(f"{registry.host}/longrun/ci@{image.digest}")
    push(image, reference)
    assert pull(reference, tmp_path / "out").digest == image.digest


def test_a_taken_tag_is_not_replaced_unless_told(registry, image, tmp_path):
    reference = parse_reference(registry.name())
    push(image, reference)
    other = make_image(tmp_path / "other", "base")
    with pytest.raises(TagTaken) as caught:
        push(other, reference)
    assert image.digest in caught.value.message
    assert other.digest in caught.value.message
    assert "another tag" in caught.value.remedy
    assert not registry.file(other.config_digest).exists()  # refused before anything was sent
    assert push(other, reference, overwrite=True).digest == other.digest


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_what_was_tampered_with_in_the_registry_is_refused(registry, image, tmp_path, which):
    reference = parse_reference(registry.name())
    push(image, reference)
    digests = {
        "layer": image.layers[1].digest,
        "config": image.config_digest,
        "manifest": image.digest,
    }
    registry.tamper(digests[which])
    (tmp_path / "place").mkdir()
    with pytest.raises((SourceError, BuildError)) as caught:
        pull(reference, tmp_path / "place/out")
    # the registry itself refuses to give a manifest that is not what its digest says
    assert which == "manifest" or digests[which] in caught.value.message
    assert left_in(tmp_path / "place") == []


def test_a_tampered_manifest_that_is_still_json_is_refused(registry, image, tmp_path):
    reference = parse_reference(f"{registry.host}/longrun/ci@{image.digest}")
    push(image, reference)
    evil = image.manifest.replace(b'"2026.1"', b'"2026.6"')
    registry.file(image.digest).write_bytes(evil)
    with pytest.raises((SourceError, BuildError)):
        pull(reference, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tampered_local_layer_is_refused_by_the_registry(registry, image):
    layer = image.layers[1]
    content = bytearray(layer.path.read_bytes())
    content[-1] ^= 1
    layer.path.write_bytes(content)
    with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
        push(image, parse_reference(registry.name()))
    assert layer.digest in caught.value.message
    with pytest.raises(NotFound):
        pull(parse_reference(registry.name()), layer.path.parent / "out")


def test_a_truncated_local_layer_is_not_sent(registry, image):
    layer = image.layers[1]
    layer.path.write_bytes(layer.path.read_bytes()[:-5])
    with pytest.raises(SourceError, match=layer.digest):
        push(image, parse_reference(registry.name()))


def test_a_manifest_without_its_layers_is_refused(registry, image):
    client = registry_module.connect(parse_reference(registry.name()))
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        registry_module.put_manifest(client, image.manifest, image.media_type, "2026.1")


def test_what_is_not_there_is_said_so(registry, image, tmp_path):
    with pytest.raises(NotFound, match=r"2026\.1") as caught:
        pull(parse_reference(registry.name()), tmp_path / "out")
    assert "name and tag" in caught.value.remedy
    push(image, parse_reference(registry.name()))
    shutil.rmtree(registry.file(image.layers[0].digest).parent)
    with pytest.raises(SourceError, match=image.layers[0].digest):
        pull(parse_reference(registry.name()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_there_is_not_touched(registry, image, tmp_path):
    push(image, parse_reference(registry.name()))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        pull(parse_reference(registry.name()), tmp_path / "out")


def test_a_full_disk_leaves_nothing(registry, tmp_path):
    if attempt("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted(tmp_path)).returncode:
        pytest.skip("no right to mount")
    try:
        # the room there is just enough for the layer by its size, not for the rest
        image = make_image(tmp_path / "layers", "one", contents={"one": noise(60_000)})
        push(image, parse_reference(registry.name()))
        with pytest.raises(BuildError, match=r"No space left|room for") as caught:
            pull(parse_reference(registry.name()), tmp_path / "small/out")
        assert "make room" in caught.value.remedy
        assert left_in(tmp_path / "small") == []
        larger = make_image(tmp_path / "larger", "one", contents={"one": noise(90_000)})
        push(larger, parse_reference(registry.name()), overwrite=True)
        with pytest.raises(BuildError, match="room for"):
            pull(parse_reference(registry.name()), tmp_path / "small/out")
        assert left_in(tmp_path / "small") == []
    finally:
        call("umount", tmp_path / "small")


def mounted(place: Path) -> Path:
    (place / "small").mkdir()
    return place / "small"


def noise(length: int) -> bytes:
    """Bytes that do not compress."""
    blocks = (hashlib.sha256(str(n).encode()).digest() for n in range(length // 32))
    return b"".join(blocks)


def test_a_bill_of_materials_and_a_signature_are_attached(registry, image, tmp_path):
    reference = parse_reference(registry.name())
    push(image, reference)
    sbom = File(name="sbom.json", media_type=SBOM, content=b'{"bomFormat": "CycloneDX"}')
    signature = File(name="image.sig", media_type="text/plain", content=b"-----BEGIN SSH")
    made = attach(reference, SBOM, (sbom,), annotations={"version": "2026.1"})
    attach(reference, "application/vnd.longrun.signature", (signature,))
    assert attach(reference, SBOM, (sbom,), annotations={"version": "2026.1"}) == made
    assert len(attached(reference)) == 2
    (found,) = attached(reference, SBOM)
    assert found == made
    assert fetch(reference, found) == (sbom,)
    # the image itself is what it was
    assert pull(reference, tmp_path / "out").digest == image.digest
    # this registry has no list of its own, so it is under the tag that the specification names
    tag = image.digest.replace(":", "-")
    raw = skopeo(
        *("inspect", "--raw", "--tls-verify=false"),
        f"docker://{registry.name(tag=tag)}",
    )
    assert made.digest in raw


def test_an_attached_file_that_was_tampered_with_is_refused(registry, image):
    reference = parse_reference(registry.name())
    push(image, reference)
    content = b"a signature"
    made = attach(reference, "sig", (File(name="s", media_type="text/plain", content=content),))
    registry.tamper(f"sha256:{hashlib.sha256(content).hexdigest()}")
    with pytest.raises(SourceError, match="has the digest"):
        fetch(reference, made)


def test_nothing_is_attached_to_a_new_image(registry, image):
    reference = parse_reference(registry.name())
    push(image, reference)
    assert attached(reference) == ()


def test_an_artifact_of_another_image_is_refused(registry, image, tmp_path):
    one, two = parse_reference(registry.name()), parse_reference(registry.name(tag="2"))
    push(image, one)
    push(make_image(tmp_path / "two", "base"), two)
    made = attach(one, "sig", (File(name="s", media_type="text/plain", content=b"x"),))
    with pytest.raises(SourceError, match="another image"):
        fetch(two, made)


def test_an_artifact_is_no_image(registry, image, tmp_path):
    reference = parse_reference(registry.name())
    push(image, reference)
    made = attach(reference, "sig", (File(name="s", media_type="text/plain", content=b"x"),))
    with pytest.raises(SourceError, match="an artifact"):
        pull(reference.at(made.digest), tmp_path / "out")


def test_a_password_is_asked_for_and_never_shown(tmp_path, image):
    with serve(tmp_path / "registry", with_password(tmp_path / "registry")) as registry:
        reference = parse_reference(registry.name())
        for who in (None, Credentials(user=USER, password="wrong-secret")):
            with pytest.raises(Denied) as caught:
                push(image, reference, credentials=who)
            told = f"{caught.value.message} {caught.value.remedy} {who!r}"
            assert registry.host in told
            assert "docker login" in told
            assert "wrong-secret" not in told
        assert push(image, reference, credentials=OPERATOR).sent == size(image)
        assert PASSWORD not in registry.log.read_text()


def test_who_may_not_push_is_told_before_there_is_an_image(tmp_path):
    with serve(tmp_path / "registry", with_password(tmp_path / "registry")) as registry:
        reference = parse_reference(registry.name())
        for who in (None, Credentials(user=USER, password="wrong-secret")):
            with pytest.raises(Denied) as caught:
                check_push(reference, who)
            assert "docker login" in caught.value.remedy
            assert "wrong-secret" not in caught.value.message
        check_push(reference, OPERATOR)
        # what was begun was given up; this registry leaves an empty directory of it
        assert not list(registry.storage.rglob("_uploads/*/data"))
        assert not list(registry.storage.rglob("_uploads/*/startedat"))


def test_the_login_of_docker_is_used(tmp_path, image, monkeypatch):
    with serve(tmp_path / "registry", with_password(tmp_path / "registry")) as registry:
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        login = tmp_path / "home/.docker/config.json"
        login.parent.mkdir(parents=True)
        login.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
        push(image, parse_reference(registry.name()))
        login.unlink()
        monkeypatch.setenv("CI_REGISTRY", registry.host)
        monkeypatch.setenv("CI_REGISTRY_USER", USER)
        monkeypatch.setenv("CI_REGISTRY_PASSWORD", PASSWORD)
        pull(parse_reference(registry.name()), tmp_path / "out")


def test_a_registry_that_went_away_is_said_so(tmp_path, image):
    with serve(tmp_path / "registry") as registry:
        reference = parse_reference(registry.name())
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        push(image, reference)
    assert "network" in caught.value.remedy


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that no machine trusts by itself."""
    place = tmp_path / "keys"
    place.mkdir()
    call(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-keyout", place / "key.pem", "-out", place / "cert.pem", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
    )
    return place


def test_https_with_an_authority_of_the_site(tmp_path, image, keys, monkeypatch):
    tls = f"  tls: {{certificate: {keys / 'cert.pem'}, key: {keys / 'key.pem'}}}\n"
    with serve(tmp_path / "registry", tls=tls) as registry:
        reference = parse_reference(f"https://{registry.name()}")
        with pytest.raises(RegistryError) as caught:
            push(image, reference)
        assert "self-signed certificate" in caught.value.message
        assert "SSL_CERT_FILE=FILE" in caught.value.remedy
        assert "authority" in caught.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(keys / "cert.pem"))
        push(image, reference)
        assert pull(reference, tmp_path / "out").digest == image.digest


class Tokens:
    """A token service as GitLab has one: it knows the operator and signs what he may do."""

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        self.scopes: list[str] = []
        service = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                allowed = self.headers.get("Authorization") == OPERATOR.basic
                service.scopes += query.get("scope", [])
                token = service.token(query.get("scope", [])) if allowed else ""
                body = json.dumps({"token": token}).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def token(self, scopes: list[str]) -> str:
        """A signed token (Distribution's token specification, RS256)."""
        certificate = (self.keys / "cert.pem").read_text()
        der = "".join(certificate.splitlines()[1:-1])
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (one.split(":") for s in scopes for one in s.split())
        ]
        now = int(time.time())
        claims = {"iss": "tests", "sub": USER, "aud": "here", "jti": "1", "access": access}
        claims |= {"exp": now + 60, "nbf": now - 60, "iat": now}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        signed = ".".join(url64(json.dumps(part).encode()) for part in (header, claims))
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.keys / "key.pem")]
        done = subprocess.run(argv, input=signed.encode(), check=True, capture_output=True)
        return f"{signed}.{url64(done.stdout)}"


def url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_a_token_is_fetched_for_each_thing_that_is_done(tmp_path, image, keys):
    tokens = Tokens(keys)
    auth = (
        f"auth: {{token: {{realm: '{tokens.url}', service: here, issuer: tests, "
        f"rootcertbundle: {keys / 'cert.pem'}}}}}\n"
    )
    try:
        with serve(tmp_path / "registry", auth) as registry:
            reference = parse_reference(registry.name())
            with pytest.raises(Denied) as caught:
                push(image, reference, credentials=Credentials(user=USER, password="wrong"))
            assert "wrong" not in caught.value.message
            push(image, reference, credentials=OPERATOR)
            pull(reference, tmp_path / "out", credentials=OPERATOR)
            other = parse_reference(registry.name("longrun/other"))
            assert push(image, other, credentials=OPERATOR, mount=("longrun/ci",)).mounted
    finally:
        tokens.server.shutdown()
        tokens.server.server_close()
    assert any("push" in scope for scope in tokens.scopes)


def test_nothing_is_left_of_a_pull_that_was_interrupted(registry, image, tmp_path):
    push(image, parse_reference(registry.name()))
    (tmp_path / "place").mkdir()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(parse_reference(registry.name()), tmp_path / "place/out", progress=interrupt)
    assert left_in(tmp_path / "place") == []


def test_what_was_pulled_is_pushed_elsewhere_with_the_same_digest(registry, image, tmp_path):
    push(image, parse_reference(registry.name()))
    pull(parse_reference(registry.name()), tmp_path / "out")
    pushed = push(open_image(tmp_path / "out"), parse_reference(registry.name("other/name")))
    assert pushed.digest == image.digest
    assert client_module.TRIES > 1
