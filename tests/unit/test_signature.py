"""Upstream's signatures: good ones name the signer, wrong ones stop the source."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from longrun import signature
from longrun.errors import SourceError, SpecError
from longrun.model import Signature
from longrun.signature import NOT_CHECKED, VERIFIED, check

ASC = Signature(kind="asc", url="https://upstream.example/a.tar.asc", keyring="upstream.asc")
SIGSTORE = Signature(
    kind="sigstore",
    url="https://upstream.example/a.tar.sigstore",
    identity="releaser@upstream.example",
    issuer="https://issuer.example",
)


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A key made for these tests."""

    home: Path
    fingerprint: str

    def run(self, *arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "-u", self.fingerprint]
        return subprocess.run([*command, *arguments], check=True, capture_output=True).stdout

    def export(self, *, armor: bool = True) -> bytes:
        return self.run(*(["--armor"] if armor else []), "--export", self.fingerprint)

    def sign(self, file: Path, into: Path) -> None:
        self.run("--armor", "--output", str(into), "--detach-sign", str(file))


def make_signer(home: Path, name: str) -> Signer:
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
    subprocess.run(
        [*gpg, "--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never"],
        check=True,
        capture_output=True,
    )
    listed = subprocess.run([*gpg, "--with-colons", "-k"], check=True, capture_output=True)
    lines = listed.stdout.decode().splitlines()
    fingerprint = next(line.split(":")[9] for line in lines if line.startswith("fpr:"))
    return Signer(home=home, fingerprint=fingerprint)


@pytest.fixture(scope="module")
def signers() -> Iterator[tuple[Signer, Signer]]:
    """Upstream and a stranger; in a short path, for gpg-agent's socket."""
    if not (shutil.which("gpg") and shutil.which("gpgv")):
        pytest.skip("gpg is not installed")
    with tempfile.TemporaryDirectory(prefix="lr-", ignore_cleanup_errors=True) as short:
        both = make_signer(Path(short) / "u", "upstream"), make_signer(Path(short) / "s", "other")
        yield both
        for signer in both:
            kill = ["gpgconf", "--homedir", str(signer.home), "--kill", "gpg-agent"]
            subprocess.run(kill, check=False)


@pytest.fixture
def signed(tmp_path: Path, signers: tuple[Signer, Signer]) -> Path:
    """A directory with a.tar, a.tar.asc of upstream, and upstream's keyring."""
    (tmp_path / "a.tar").write_bytes(b"release")
    signers[0].sign(tmp_path / "a.tar", tmp_path / "a.tar.asc")
    (tmp_path / "upstream.asc").write_bytes(signers[0].export())
    return tmp_path


def check_in(directory: Path) -> signature.Verdict:
    file, detached = directory / "a.tar", directory / "a.tar.asc"
    return check(file, ASC, detached, keys=directory, name="a.tar")


def test_a_good_signature_names_the_key(signed: Path, signers: tuple[Signer, Signer]) -> None:
    verdict = check_in(signed)
    assert verdict.status == VERIFIED
    assert signers[0].fingerprint in verdict.reason


def test_binary_and_joined_keyrings(signed: Path, signers: tuple[Signer, Signer]) -> None:
    keyring = signed / "upstream.asc"
    keyring.write_bytes(signers[0].export(armor=False))
    assert check_in(signed).status == VERIFIED
    keyring.write_bytes(signers[1].export() + signers[0].export())
    assert check_in(signed).status == VERIFIED


def test_a_changed_file_is_refused(signed: Path) -> None:
    (signed / "a.tar").write_bytes(b"releasE")
    with pytest.raises(SourceError, match=r"a\.tar: its signature https.*BAD signature") as caught:
        check_in(signed)
    assert caught.value.remedy
    assert "[GNUPG:]" not in caught.value.message


def test_a_key_that_is_not_in_the_keyring_is_refused(
    signed: Path, signers: tuple[Signer, Signer]
) -> None:
    signers[1].sign(signed / "a.tar", signed / "a.tar.asc")
    with pytest.raises(SourceError, match="No public key"):
        check_in(signed)


def test_rubbish_for_a_signature_is_refused(signed: Path) -> None:
    (signed / "a.tar.asc").write_text("<html>Not found</html>")
    with pytest.raises(SourceError, match="does not fit"):
        check_in(signed)


def test_success_without_a_signer_is_no_success(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "find_tool", lambda name: "/bin/true")
    with pytest.raises(SourceError, match="no valid signature"):
        check_in(signed)


@pytest.mark.parametrize("content", [None, b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!\n"])
def test_a_keyring_that_cannot_be_read(signed: Path, content: bytes | None) -> None:
    (signed / "upstream.asc").unlink()
    if content is not None:
        (signed / "upstream.asc").write_bytes(content)
    with pytest.raises(SourceError, match=r"upstream\.asc: cannot be used as a keyring"):
        check_in(signed)


def test_without_the_tool_nothing_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "find_tool", lambda name: None)
    verdict = check_in(tmp_path)
    assert str(verdict) == f"{NOT_CHECKED} (gpgv is not installed)"


def test_an_unknown_kind_is_an_error_of_the_spec(tmp_path: Path) -> None:
    odd = Signature(kind="minisign", url="https://upstream.example/a")
    with pytest.raises(SpecError, match="kind: expected asc or sigstore, found 'minisign'"):
        check(tmp_path / "a", odd, tmp_path / "b", keys=tmp_path, name="a")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'Verified OK' >&2", VERIFIED),
        ("echo 'error: none of the expected identities matched' >&2; exit 1", "does not fit"),
        ("echo 'getting root: dial tcp: no route' >&2; exit 1", NOT_CHECKED),
    ],
)
def test_sigstore_by_a_stand_in_for_cosign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
) -> None:
    cosign = tmp_path / "cosign"
    cosign.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/argv"\n{script}\n')
    cosign.chmod(0o755)
    monkeypatch.setattr(signature, "find_tool", lambda name: str(cosign))
    files = tmp_path / "a.tar", SIGSTORE, tmp_path / "a.tar.sigstore"
    if expected == "does not fit":
        with pytest.raises(SourceError, match="does not fit: error: none of the expected"):
            check(*files, keys=tmp_path, name="a.tar")
    else:
        assert check(*files, keys=tmp_path, name="a.tar").status == expected
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[0] == "verify-blob"
    assert argv[argv.index("--certificate-identity") + 1] == "releaser@upstream.example"
    assert argv[argv.index("--certificate-oidc-issuer") + 1] == "https://issuer.example"
    assert argv[-1] == str(tmp_path / "a.tar")
