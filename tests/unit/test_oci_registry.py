"""What a registry does wrong: tried again, refused, or told so that somebody can mend it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from oci_maker import NOISE, make_image
from oci_registry import of, running

from longrun import download
from longrun.errors import SetupError, SourceError
from longrun.oci import client as client_module
from longrun.oci import registry as registry_module
from longrun.oci.attach import File, attach, attached, fetch
from longrun.oci.client import Client, Denied, NotFound, RegistryError, TagTaken, certificates
from longrun.oci.model import INDEX
from longrun.oci.read import verify
from longrun.oci.reference import Credentials, parse_reference
from longrun.oci.registry import pull, push

SECRET = "beam-on-target"
OPERATOR = Credentials(user="operator", password=SECRET)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No pauses, but a note of how long each would have been; nobody's login."""
    pauses: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", pauses.append)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "CI_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    return pauses


@pytest.fixture
def registry():
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return make_image(tmp_path_factory.mktemp("layers"), contents={"python": NOISE * 4})


@pytest.fixture
def reference(registry):
    return parse_reference(registry.name())


def refuse(code, error="UNKNOWN", message="", **headers):
    def answer(request):
        request.body()
        body = json.dumps({"errors": [{"code": error, "message": message}]}).encode()
        request.reply(code, body, **headers)

    return answer


def drop(request):
    request.drop()


def test_there_and_back(registry, reference, image, tmp_path):
    push(image, reference)
    back = pull(reference, tmp_path / "out")
    verify(back)
    assert back.digest == image.digest


def test_the_manifest_comes_last(registry, reference, image):
    push(image, reference)
    changes = [path for method, path, _ in registry.asked if method in ("PUT", "PATCH")]
    assert "/manifests/2026.1" in changes[-1]
    assert not any("/manifests/" in path for path in changes[:-1])


def test_a_busy_registry_is_waited_for_as_long_as_it_says(registry, reference, image, quick):
    registry.does["GET", "/manifests/"] = [refuse(429, Retry_After="7")]
    registry.does["POST", ""] = [refuse(503, Retry_After="3"), refuse(502)]
    push(image, reference)
    assert quick[:2] == [7.0, 3.0]
    assert 0 < quick[2] < 5  # it did not say: our own pause


def test_a_registry_that_is_busy_for_an_hour_is_an_error_now(registry, reference, image, quick):
    registry.does["GET", "/manifests/"] = [refuse(429, Retry_After="3600")]
    with pytest.raises(RegistryError, match="busy for 3600 s") as caught:
        push(image, reference)
    assert quick == []
    assert "try again later" in caught.value.remedy


def test_a_registry_that_stays_busy_is_given_up(registry, reference, image):
    registry.does["GET", "/manifests/"] = [refuse(503)] * 99
    with pytest.raises(RegistryError, match=r"HTTP 503 \(tried 4 times\)") as caught:
        push(image, reference)
    assert registry.count("GET") == download.TRIES
    assert "try again later" in caught.value.remedy


def test_an_upload_that_breaks_is_begun_anew_in_pieces(registry, reference, image, monkeypatch):
    monkeypatch.setattr(registry_module, "PIECE", 100)
    registry.does["PUT", "/uploads/"] = [drop]
    push(image, reference)
    assert registry.count("PATCH") > 1
    assert {layer.digest for layer in image.layers} < set(registry.blobs)


def test_what_a_proxy_finds_too_large_goes_in_pieces(registry, reference, image):
    registry.does["PUT", "/uploads/"] = [refuse(413)]
    push(image, reference)
    assert registry.count("PATCH") == 1
    (headers,) = [headers for method, _, headers in registry.asked if method == "PATCH"]
    assert headers["Content-Range"] == f"0-{image.layers[0].size - 1}"


def test_a_proxy_that_lets_no_piece_pass_either_is_named(registry, reference, image):
    registry.does["PUT", "/uploads/"] = [refuse(413)]
    registry.does["PATCH", ""] = [refuse(413)]
    with pytest.raises(RegistryError, match=f"{image.layers[0].digest}: HTTP 413") as caught:
        push(image, reference)
    assert "client_max_body_size" in caught.value.remedy


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_registry_that_is_busy_while_a_layer_comes_is_not_called_tampered(
    registry, reference, image, tmp_path, code, monkeypatch
):
    monkeypatch.setattr(download, "pause", lambda failures: None)
    push(image, reference)
    registry.does["GET", image.layers[1].digest] = [refuse(code)] * download.TRIES
    with pytest.raises(RegistryError, match=f"{image.layers[1].digest}: HTTP {code}") as caught:
        pull(reference, tmp_path / "out")
    assert "try again later" in caught.value.remedy


def test_a_registry_without_room_is_said_so(registry, reference, image):
    registry.does["PUT", "/uploads/"] = [refuse(507, "DENIED", "quota exceeded")]
    with pytest.raises(RegistryError, match="HTTP 507 DENIED: quota exceeded") as caught:
        push(image, reference)
    assert "who runs the registry" in caught.value.remedy


def test_https_to_a_registry_that_has_none(registry, image):
    secure = parse_reference(f"https://{registry.name()}")
    with pytest.raises(RegistryError) as caught:
        push(image, secure)
    assert "http://" in caught.value.remedy


def test_an_upload_that_never_comes_through_names_the_blob(registry, reference, image):
    registry.does["PUT", "/uploads/"] = [drop] * 9
    with pytest.raises(RegistryError, match=image.layers[0].digest) as caught:
        push(image, reference)
    assert "tried 4 times" in caught.value.message
    assert registry.count("PUT", "/manifests/") == 0


def test_a_refused_blob_is_named_with_the_reason(registry, reference, image):
    registry.does["PUT", "/uploads/"] = [refuse(400, "BLOB_UPLOAD_INVALID", "quota exceeded")]
    with pytest.raises(RegistryError) as caught:
        push(image, reference)
    assert "BLOB_UPLOAD_INVALID: quota exceeded" in caught.value.message
    assert image.layers[0].digest in caught.value.message


def test_a_refused_manifest_is_named_with_the_reason(registry, reference, image):
    registry.does["PUT", "/manifests/"] = [refuse(400, "MANIFEST_INVALID", "no OCI here")]
    with pytest.raises(RegistryError, match=f"{image.digest}.*MANIFEST_INVALID: no OCI here"):
        push(image, reference)


def test_a_manifest_that_the_registry_rewrites_is_refused(registry, reference, image):
    other = "sha256:" + "0" * 64
    registry.does["PUT", "/manifests/"] = [
        lambda request: (request.body(), request.reply(201, Docker_Content_Digest=other))
    ]
    with pytest.raises(RegistryError, match=f"{image.digest} as {other}"):
        push(image, reference)


@pytest.mark.parametrize("code", [401, 403])
def test_who_may_not_is_told_how_to_log_in(registry, reference, image, code):
    registry.does["POST", ""] = [refuse(code, "DENIED", f"password {SECRET} is wrong")] * 9
    with pytest.raises(Denied) as caught:
        push(image, reference, credentials=OPERATOR)
    assert "asked as operator" in caught.value.message
    assert f"docker login {registry.host}" in caught.value.remedy
    assert SECRET not in f"{caught.value.message} {caught.value.remedy}"


def test_a_tag_that_is_taken_while_we_push_is_not_replaced(registry, reference, image, tmp_path):
    other = make_image(tmp_path, "base")

    def taken(request):
        registry.manifests["2026.1"] = (other.media_type, other.manifest)
        request.reply(202, Location="/v2/uploads/one")

    registry.does["POST", ""] = [taken]
    with pytest.raises(TagTaken) as caught:
        push(image, reference)
    assert other.digest in caught.value.message
    assert image.digest in caught.value.message
    assert registry.count("PUT", "/manifests/") == 0


def test_a_password_goes_to_who_asks_for_it_and_is_not_taken_from_netrc(
    registry, reference, image, tmp_path, monkeypatch
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login x password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    registry.does["GET", "/manifests/"] = [refuse(401, WWW_Authenticate='Basic realm="x"')]
    push(image, reference, credentials=OPERATOR)
    sent = [headers.get("Authorization") for _, _, headers in registry.asked]
    assert sent[0] is None
    assert set(sent[1:]) == {OPERATOR.basic}


def test_no_password_goes_to_where_a_layer_is_kept(registry, reference, image, tmp_path):
    push(image, reference)
    layer = image.layers[1].digest
    with running() as store:
        store.blobs[layer] = registry.blobs[layer]
        target = f"http://{store.host}/v2/x/blobs/{layer}"
        registry.does["GET", "/manifests/"] = [refuse(401, WWW_Authenticate='Basic realm="x"')]
        registry.does["GET", layer] = [lambda request: request.reply(307, Location=target)]
        verify(pull(reference, tmp_path / "out", credentials=OPERATOR))
        assert registry.asked[-1][2]["Authorization"] == OPERATOR.basic
        ((_, _, headers),) = store.asked
    assert "Authorization" not in headers


def test_a_token_service_without_https_gets_no_password(registry, image):
    secure = Client(reference=parse_reference("https://r.example.org/a:1"), credentials=OPERATOR)
    for address in ("http://r.example.org/token", "http://tokens.example.org/token"):
        with pytest.raises(RegistryError, match="without https"):
            secure.address(address)
    assert secure.address("/v2/uploads/1?x=2") == "https://r.example.org/v2/uploads/1?x=2"
    plain = Client(reference=parse_reference("http://r.example.org/a:1"))
    with pytest.raises(RegistryError, match="without https"):
        plain.address("http://elsewhere.example.org/token")


def test_a_layer_that_breaks_off_is_resumed(registry, reference, image, tmp_path):
    push(image, reference)
    content = registry.blobs[image.layers[1].digest]

    def half(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:100])
        request.drop()

    registry.does["GET", image.layers[1].digest] = [half, refuse(503, Retry_After="0")]
    verify(pull(reference, tmp_path / "out"))


@pytest.mark.parametrize("change", ["other bytes", "longer", "shorter"])
def test_a_layer_that_is_not_what_it_is_named_leaves_nothing(
    registry, reference, image, tmp_path, change
):
    push(image, reference)
    digest = image.layers[1].digest
    content = registry.blobs[digest]
    registry.blobs[digest] = {
        "other bytes": b"\0" * len(content),
        "longer": content + b"x",
        "shorter": content[:-1],
    }[change]
    (tmp_path / "place").mkdir()
    with pytest.raises(SourceError, match=digest) as caught:
        pull(reference, tmp_path / "place/out")
    assert registry.host in caught.value.remedy
    assert not list((tmp_path / "place").iterdir())


def test_a_manifest_that_is_not_what_was_asked_for_is_refused(registry, reference, image, tmp_path):
    push(image, reference)
    evil = image.manifest.replace(b'"2026.1"', b'"2026.6"')
    registry.manifests[image.digest] = (image.media_type, evil)
    with pytest.raises(SourceError, match=image.digest):
        pull(replace(reference, digest=image.digest), tmp_path / "out")
    registry.does["GET", "/manifests/"] = [
        lambda request: request.reply(200, evil, Docker_Content_Digest=image.digest)
    ]
    with pytest.raises(SourceError, match="tampered"):
        pull(reference, tmp_path / "out")


def test_a_path_for_a_digest_is_refused(registry, reference, image, tmp_path):
    push(image, reference)
    evil = image.manifest.replace(image.layers[0].digest.encode(), b"sha256:../../../evil")
    registry.manifests["2026.1"] = (image.media_type, evil)
    with pytest.raises(SourceError, match="no sha256 digest"):
        pull(reference, tmp_path / "out")


def test_what_is_no_registry_is_said_so(registry, reference, tmp_path):
    registry.does["GET", "/manifests/"] = [
        lambda request: request.reply(200, b"<html>", Content_Type="text/html")
    ]
    with pytest.raises(SourceError, match="is no image, but text/html"):
        pull(reference, tmp_path / "out")


def test_an_endless_manifest_is_cut_off(registry, reference, tmp_path):
    registry.does["GET", "/manifests/"] = [lambda request: request.reply(200, bytes(5 << 20))]
    with pytest.raises(RegistryError, match="more than"):
        pull(reference, tmp_path / "out")


def test_of_an_index_the_image_for_the_processor_is_taken(registry, reference, image, tmp_path):
    push(image, reference)
    entry = {"digest": image.digest, "size": len(image.manifest), "mediaType": image.media_type}
    platform = {"os": "linux", "architecture": "amd64"}
    index = json.dumps({"manifests": [{**entry, "platform": platform}]}).encode()
    registry.manifests["all"] = (INDEX, index)
    everywhere = parse_reference(registry.name("all"))
    assert pull(everywhere, tmp_path / "out").digest == image.digest
    with pytest.raises(SourceError, match="no image for linux on riscv64"):
        pull(everywhere, tmp_path / "other", architecture="riscv64")


def test_an_unknown_image_is_not_found(reference, tmp_path):
    with pytest.raises(NotFound, match=r"2026\.1.*MANIFEST_UNKNOWN: not here"):
        pull(reference, tmp_path / "out")


def test_a_registry_with_a_list_of_its_own_gets_no_tag(registry, reference, image):
    push(image, reference)
    registry.tells = {"OCI_Subject": image.digest}
    file = File(name="sbom.json", media_type="application/json", content=b"{}")
    made = attach(reference, "application/vnd.cyclonedx+json", (file,))
    assert image.digest.replace(":", "-") not in registry.manifests
    entry = {"digest": made.digest, "artifactType": made.kind, "size": 1}
    listed = json.dumps({"manifests": [entry]}).encode()
    registry.does["GET", f"/referrers/{image.digest}"] = [lambda r: r.reply(200, listed)]
    assert attached(reference) == (made,)
    assert fetch(reference, made) == (file,)


def test_a_list_that_names_a_path_is_refused(registry, reference, image):
    push(image, reference)
    listed = b'{"manifests": [{"digest": "../../other/manifests/latest"}, {"digest": 3}]}'
    registry.does["GET", "/referrers/"] = [lambda request: request.reply(200, listed)]
    assert attached(reference) == ()
    registry.does["GET", "/referrers/"] = [lambda request: request.reply(200, b"[]")]
    with pytest.raises(SourceError, match="damaged"):
        attached(reference)


def test_the_tag_keeps_what_others_attached(registry, reference, image):
    push(image, reference)
    first = attach(reference, "a", (File(name="1", media_type="t", content=b"1"),))
    second = attach(reference, "b", (File(name="2", media_type="t", content=b"2"),))
    assert sorted(attached(reference), key=lambda artifact: artifact.kind) == [first, second]
    assert of(registry.manifests[first.digest][1]) == first.digest


def test_certificates_of_a_site(tmp_path, monkeypatch):
    own = tmp_path / "ca.pem"
    own.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    assert certificates() == str(own)
    own.unlink()
    with pytest.raises(SetupError, match=r"SSL_CERT_FILE=.*ca\.pem: no such file"):
        certificates()
