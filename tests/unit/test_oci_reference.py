"""Names of images in registries, and whose password goes where."""

from __future__ import annotations

import base64
import json

import pytest

from longrun.errors import UsageError
from longrun.oci.reference import Credentials, find_credentials, is_here, parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("registry.example.org/a/b:1", "https://registry.example.org/v2/a/b"),
        ("registry.example.org:5000/a:1", "https://registry.example.org:5000/v2/a"),
        ("http://registry.example.org/a:1", "http://registry.example.org/v2/a"),
        ("localhost/a:1", "http://localhost/v2/a"),
        ("localhost:5000/a:1", "http://localhost:5000/v2/a"),
        ("127.0.0.1:5000/a:1", "http://127.0.0.1:5000/v2/a"),
        ("[::1]:5000/a:1", "http://[::1]:5000/v2/a"),
        ("https://localhost:5000/a:1", "https://localhost:5000/v2/a"),
        ("10.0.0.1:5000/a:1", "https://10.0.0.1:5000/v2/a"),
    ],
)
def test_http_only_here_or_where_told(text, url):
    assert parse_reference(text).url == url


def test_the_parts_of_a_reference():
    reference = parse_reference(f"r.example.org:5/longrun/ci-gui:2026.1-py313@{DIGEST}")
    assert (reference.host, reference.repository) == ("r.example.org:5", "longrun/ci-gui")
    assert (reference.tag, reference.digest) == ("2026.1-py313", DIGEST)
    assert reference.wanted == DIGEST
    assert str(reference) == f"r.example.org:5/longrun/ci-gui:2026.1-py313@{DIGEST}"
    assert str(reference.at(DIGEST)) == f"r.example.org:5/longrun/ci-gui@{DIGEST}"


@pytest.mark.parametrize(
    "text",
    [
        "longrun/ci:2026.1",  # which registry?
        "r.example.org/Upper:1",
        "r.example.org/a:",
        "r.example.org/a b:1",
        "r.example.org/../a:1",
        "user:secret@r.example.org/a:1",
        "r.example.org/a@sha256:12",
        "",
    ],
)
def test_what_is_no_reference_says_how_one_looks(text):
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert "registry.example.org/group/name:tag" in caught.value.remedy


def test_a_reference_without_a_tag_is_refused():
    with pytest.raises(UsageError, match="no tag"):
        parse_reference("r.example.org/a")


@pytest.mark.parametrize("host", ["127.9.9.9", "localhost:80", "[::1]:80"])
def test_this_machine(host):
    assert is_here(host)


@pytest.mark.parametrize("host", ["localhost.example.org", "127.0.0.1.example.org", "10.0.0.1:80"])
def test_another_machine(host):
    assert not is_here(host)


def login(place, host="r.example.org", pair="op:pw", **more):
    path = place / ".docker/config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(pair.encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth, **more}}}))
    return {"HOME": str(place)}


@pytest.mark.parametrize(
    "kept", ["r.example.org", "https://r.example.org", "https://r.example.org/v1/"]
)
def test_the_login_of_docker(tmp_path, kept):
    environment = login(tmp_path, kept)
    assert find_credentials("r.example.org", environment) == Credentials(user="op", password="pw")
    assert find_credentials("other.example.org", environment) is None
    assert find_credentials("r.example.org:5000", environment) is None


def test_a_password_with_a_colon_and_an_identity_token(tmp_path):
    environment = login(tmp_path, pair="op:p:w", identitytoken="t")
    found = find_credentials("r.example.org", environment)
    assert (found.password, found.token) == ("p:w", "t")


def test_the_environment_comes_first_and_for_its_registry_alone(tmp_path):
    environment = login(tmp_path) | {
        "CI_REGISTRY": "r.example.org",
        "CI_REGISTRY_USER": "ci",
        "CI_REGISTRY_PASSWORD": "job",
    }
    assert find_credentials("r.example.org", environment).user == "ci"
    assert find_credentials("other.example.org", environment) is None


def test_podmans_login_is_found_too(tmp_path):
    login(tmp_path)
    environment = {"HOME": "/none", "REGISTRY_AUTH_FILE": str(tmp_path / ".docker/config.json")}
    assert find_credentials("r.example.org", environment).user == "op"


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_login_names_the_file_and_not_what_is_in_it(tmp_path, text):
    environment = login(tmp_path)
    (tmp_path / ".docker/config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"config\.json"):
        find_credentials("r.example.org", environment)


def test_a_password_that_is_no_base64_is_not_shown(tmp_path):
    environment = login(tmp_path)
    path = tmp_path / ".docker/config.json"
    path.write_text(json.dumps({"auths": {"r.example.org": {"auth": "secret!"}}}))
    with pytest.raises(UsageError, match="damaged") as caught:
        find_credentials("r.example.org", environment)
    assert "secret" not in caught.value.message


def test_secrets_show_nowhere():
    who = Credentials(user="op", password="beam-on", token="tok-en")
    text = f"{who} {who!r} " + who.hide(f"beam-on tok-en {who.basic}")
    assert not {"beam-on", "tok-en", who.basic} & set(text.split())
