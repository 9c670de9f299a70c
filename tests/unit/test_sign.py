"""Signatures of images: what is signed, by which keys, and what ssh-keygen finds wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from sign_maker import NAMES, allow, make_key

from longrun import sign as module
from longrun.errors import BuildError, SetupError, UsageError
from longrun.sign import (
    BadSignature,
    Payload,
    Signed,
    attachment,
    check,
    check_allowed,
    check_key,
    decode,
    encode,
    sign,
)

DIGEST = f"sha256:{'1' * 64}"
PAYLOAD = Payload(
    name="longrun/ci:2026.1",
    digest=DIGEST,
    release="2026.1",
    created="2026-11-02T00:00:00Z",
    attachments=(attachment("application/json", "ci.cdx.json", b"{}"),),
)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


@pytest.fixture
def allowed(tmp_path: Path, key: Path) -> Path:
    return allow(tmp_path / "allowed", key)


@pytest.fixture
def signed(key: Path) -> Signed:
    content = encode(PAYLOAD)
    return Signed(payload=content, signature=sign(content, key))


def verified(signed: Signed, allowed: Path, identity: str = "") -> str:
    payload, signer = check(signed, DIGEST, allowed, where="ci.tar", identity=identity)
    assert payload == PAYLOAD
    return signer.identity


def test_a_payload_is_simple_signing():
    document = json.loads(encode(PAYLOAD))
    assert document["critical"] == {
        "type": "longrun image signature",
        "image": {"docker-manifest-digest": DIGEST},
        "identity": {"docker-reference": "longrun/ci:2026.1"},
    }
    assert decode(encode(PAYLOAD), "x") == PAYLOAD


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_who_signed_is_told(tmp_path, kind):
    key = make_key(tmp_path / kind, kind)
    content = encode(PAYLOAD)
    signed = Signed(payload=content, signature=sign(content, key))
    payload, signer = check(signed, DIGEST, allow(tmp_path / "allowed", key), where="ci.tar")
    assert payload == PAYLOAD
    assert str(signer) == f"{NAMES[0]} ({kind.upper()} key {check_key(key)})"


def test_ssh_keygen_alone_checks_what_is_kept(signed, allowed, tmp_path):
    (tmp_path / "sig").write_bytes(signed.signature)
    words = ("-f", allowed, "-I", NAMES[0], "-n", "longrun-image", "-s", tmp_path / "sig")
    argv = ["ssh-keygen", "-Y", "verify", *map(str, words)]
    done = subprocess.run(argv, input=signed.payload, check=True, capture_output=True)
    assert b"Good" in done.stdout


def test_a_signature_that_is_there_is_kept(tmp_path, key):
    """An ECDSA key signs differently each time; attached twice, an image would have two."""
    other = make_key(tmp_path / "ecdsa", "ecdsa")
    content = encode(PAYLOAD)
    first = sign(content, other)
    assert sign(content, other) != first
    assert sign(content, other, before=first) == first
    assert sign(content, key, before=first) != first  # another key's
    changed = encode(replace(PAYLOAD, release="2026.2"))
    assert sign(changed, other, before=first) != first
    assert sign(content, other, before=b"rubbish").startswith(b"-----BEGIN SSH SIGNATURE")


def test_the_one_who_must_have_signed(signed, allowed):
    assert verified(signed, allowed, NAMES[1]) == NAMES[1]
    with pytest.raises(BadSignature, match=rf"is {', '.join(NAMES)}'s in .*, not bob's"):
        verified(signed, allowed, "bob")


def test_a_key_that_is_not_allowed_is_named(signed, tmp_path, key):
    other = allow(tmp_path / "others", make_key(tmp_path / "other"))
    with pytest.raises(BadSignature) as caught:
        verified(signed, other)
    assert f"ED25519 key {check_key(key)}, which {other} does not allow" in caught.value.message
    assert caught.value.exit_code == 4
    assert "do not use this image" in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "reason"),
    [('namespaces="git"', "not permitted"), ('valid-before="20200101"', "expired")],
)
def test_a_key_that_is_allowed_for_something_else_only(signed, key, tmp_path, options, reason):
    with pytest.raises(BadSignature, match=reason):
        verified(signed, allow(tmp_path / "allowed", key, options))


@pytest.mark.parametrize("part", ["payload", "signature", "no signature at all"])
def test_what_was_tampered_with_does_not_fit(signed, allowed, part):
    changes = {
        "payload": {"payload": signed.payload.replace(b"2026.1", b"2026.6")},
        "signature": {"signature": re.sub(rb"\n(.)", rb"\nA", signed.signature, count=1)},
        "no signature at all": {"signature": b""},
    }
    with pytest.raises(BadSignature, match=r"ci\.tar: its signature does not fit"):
        verified(replace(signed, **changes[part]), allowed)


def test_a_signature_for_git_is_none_for_an_image(signed, allowed, key, tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(signed.payload)
    argv = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "git", file]
    subprocess.run(list(map(str, argv)), check=True, capture_output=True)
    signature = file.with_suffix(".sig").read_bytes()
    with pytest.raises(BadSignature, match="does not fit"):
        verified(replace(signed, signature=signature), allowed)


def test_the_signature_of_another_image_is_refused(signed, allowed):
    other = f"sha256:{'2' * 64}"
    with pytest.raises(BadSignature, match=f"is {other}, .* of another image, {DIGEST}"):
        check(signed, other, allowed, where="ci.tar")


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"not json",
        encode(PAYLOAD).replace(b"longrun image signature", b"atomic container signature"),
        encode(PAYLOAD).replace(DIGEST.encode(), b"sha256:../../evil"),
        encode(PAYLOAD).replace(b'"ci.cdx.json"', b'"../ci.cdx.json"'),
    ],
)
def test_what_is_signed_must_be_about_an_image(key, allowed, content):
    signed = Signed(payload=content, signature=sign(content, key))
    with pytest.raises(BadSignature, match="not about an image"):
        check(signed, DIGEST, allowed, where="ci.tar")


def test_keys_that_cannot_sign_are_said_so_first(tmp_path, key):
    with pytest.raises(UsageError, match="no such file"):
        check_key(tmp_path / "none")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(UsageError, match="is not a"):
        check_key(tmp_path / "text")
    assert check_key(key) == check_key(key.with_suffix(".pub"))


@pytest.mark.parametrize("trouble", ["passphrase", "no agent", "open to all"])
def test_a_key_that_cannot_be_used_is_named_with_the_remedy(tmp_path, key, monkeypatch, trouble):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if trouble == "passphrase":
        # as if there were no terminal to ask at
        monkeypatch.setattr(module, "find_tool", lambda name: None)
        monkeypatch.setattr(module, "TOOL", str(without_terminal(tmp_path)))
        key = make_key(tmp_path / "secret", passphrase="beam")
    elif trouble == "no agent":
        key.unlink()
        key = key.with_suffix(".pub")
    else:
        key.chmod(0o644)
    with pytest.raises(BuildError, match=re.escape(f"signing key {key}: ")) as caught:
        sign(b"payload", key)
    assert "ssh-agent" in caught.value.remedy
    assert "chmod 600" in caught.value.remedy


def without_terminal(place: Path) -> Path:
    program = place / "ssh-keygen"
    program.write_text('#!/bin/sh\nexec setsid ssh-keygen "$@"\n')
    program.chmod(0o755)
    return program


def test_a_key_in_an_agent_signs(tmp_path, key, allowed, monkeypatch):
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        while subprocess.run(["ssh-add", "-q", key], capture_output=True).returncode:
            assert agent.poll() is None, "the agent ended"
        key.unlink()
        content = encode(PAYLOAD)
        signature = sign(content, key.with_suffix(".pub"))
    finally:
        agent.terminate()
        agent.wait()
    assert verified(Signed(payload=content, signature=signature), allowed) == NAMES[0]


def test_an_old_ssh_keygen_is_said_so(tmp_path, monkeypatch, key):
    """EL 8 has OpenSSH 8.0."""
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(module, "find_tool", lambda name: str(program))
    with pytest.raises(SetupError, match="too old") as caught:
        check_key(key)
    assert "EL 9" in caught.value.remedy


def test_a_machine_without_ssh_keygen_is_told_what_to_install(monkeypatch, key):
    monkeypatch.setattr("longrun.setup.find_tool", lambda name: None)
    with pytest.raises(SetupError, match="lacks ssh-keygen") as caught:
        check_key(key)
    assert "openssh" in caught.value.remedy


def test_no_file_of_allowed_signers(tmp_path):
    with pytest.raises(UsageError, match=r"none: No such file") as caught:
        check_allowed(tmp_path / "none")
    assert 'namespaces="longrun-image"' in caught.value.remedy


def test_nothing_is_left_beside_a_key(key, signed):
    assert sorted(os.listdir(key.parent)) == ["key", "key.pub"]
