"""Upstream's signatures, checked where the tool that checks them is installed.

A source's identity is its sha256; a signature says in addition that upstream made it. So a missing
tool or signature file is recorded and stops nothing, while a signature that does not fit stops the
source: the sha256 in the spec is then of something that upstream did not sign.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from dataclasses import dataclass
from pathlib import Path

from longrun.errors import BuildError, SourceError, SpecError
from longrun.model import Signature
from longrun.run import find_tool, output

VERIFIED = "verified"
NOT_CHECKED = "not checked"
BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
END = "-----END PGP PUBLIC KEY BLOCK-----"
TOOLS = {"asc": "gpgv", "sigstore": "cosign"}
NO_ROOT = ("tuf", "dial tcp", "no such host")  # cosign needs its service for the trusted root


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a signature: ``status`` is VERIFIED, by whom, or NOT_CHECKED, and why not.

    There is no status for a failed check: that is a SourceError.
    """

    status: str
    reason: str

    def __str__(self) -> str:
        return f"{self.status} ({self.reason})"


def not_checked(reason: str) -> Verdict:
    """The verdict where nothing could be checked."""
    return Verdict(status=NOT_CHECKED, reason=reason)


def missing_tool(signature: Signature) -> str:
    """The program that this signature needs and the machine lacks; empty where it is there."""
    if signature.kind not in TOOLS:
        raise SpecError(
            f"signature {signature.url}: kind: expected {' or '.join(TOOLS)}, "
            f"found {signature.kind!r}"
        )
    tool = TOOLS[signature.kind]
    return "" if find_tool(tool) else tool


def check(file: Path, signature: Signature, detached: Path, *, keys: Path, name: str) -> Verdict:
    """Check ``file`` against its detached signature, with the keyring below ``keys``.

    ``name`` is what errors call the file: while it is checked it is still a part. Raises
    SourceError where the signature is not that of the file or not of the expected signer.
    """
    if tool := missing_tool(signature):
        return not_checked(f"{tool} is not installed")
    try:
        if signature.kind == "asc":
            return _check_asc(file, keys / signature.keyring, detached)
        return _check_sigstore(file, signature, detached)
    except BuildError as error:
        if signature.kind == "sigstore" and any(word in error.message for word in NO_ROOT):
            return not_checked("cosign cannot reach the service that holds its trusted root")
        raise SourceError(
            f"{name}: its signature {signature.url} does not fit: {_gist(error.message)}",
            remedy="Do not use the file. Compare it and its sha256 with what upstream publishes.",
        ) from error


def _gist(text: str) -> str:
    """What a tool printed, without its status lines, on one line."""
    printed = text.partition(" failed: ")[2] or text  # output() begins with the program's path
    lines = (line.removeprefix("gpgv: ").strip() for line in printed.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("[GNUPG:]"))


def _check_asc(file: Path, keyring: Path, detached: Path) -> Verdict:
    """gpgv trusts every key of the keyring it is given, and reads no other."""
    with tempfile.TemporaryDirectory(prefix="longrun-gpgv-") as home:
        binary = Path(home) / "keyring.gpg"
        binary.write_bytes(_binary_keyring(keyring))
        printed = output(
            # status and messages on one stream: output() gives only one back
            [str(find_tool("gpgv")), "--homedir", home, "--keyring", str(binary)]
            + ["--status-fd", "1", "--logger-fd", "1", str(detached), str(file)]
        )
    signers = [line.split()[2] for line in printed.splitlines() if " VALIDSIG " in line]
    if not signers:
        raise BuildError(f"no valid signature in {detached.name}")
    return Verdict(status=VERIFIED, reason=f"OpenPGP key {', '.join(signers)}")


def _binary_keyring(keyring: Path) -> bytes:
    """A keyring as gpgv reads it; keys are stored armoured, which gpgv does not take."""
    try:
        content = keyring.read_bytes()
        return _unarmoured(content.decode("ascii")) if content.startswith(b"-----") else content
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        raise SourceError(
            f"{keyring}: cannot be used as a keyring: {error}",
            remedy="Export upstream's keys into it: gpg --armor --export FINGERPRINT",
        ) from error


def _unarmoured(text: str) -> bytes:
    """The bytes of every key block in an armoured text (RFC 4880, 6.2); checksums are not kept."""
    keys = b""
    for block in text.split(BEGIN)[1:]:
        lines = block.partition(END)[0].strip("\r\n").splitlines()
        blank = next((at for at, line in enumerate(lines) if not line.strip()), -1)
        body = [line for line in lines[blank + 1 :] if not line.startswith("=")]
        keys += base64.b64decode("".join(body), validate=True)
    return keys


def _check_sigstore(file: Path, signature: Signature, bundle: Path) -> Verdict:
    output(
        [str(find_tool("cosign")), "verify-blob", "--bundle", str(bundle), "--new-bundle-format"]
        + ["--certificate-identity", signature.identity]
        + ["--certificate-oidc-issuer", signature.issuer, str(file)]
    )
    return Verdict(status=VERIFIED, reason=f"sigstore identity {signature.identity}")
