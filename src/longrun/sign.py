"""Signatures of images, made and checked by ssh-keygen: offline, and with no key of ours.

What is signed is a payload in the form that is known as simple signing: the image's name, the
digest of its manifest, and the files that belong to it. Both are plain files, so ssh-keygen alone
checks them, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longrun.errors import BuildError, SetupError, SourceError, UsageError
from longrun.oci.attach import TITLE
from longrun.oci.image import writing
from longrun.oci.model import canonical_json, digest_of
from longrun.oci.read import DIGEST
from longrun.run import find_tool, outcome
from longrun.setup import require

NAMESPACE = "longrun-image"
"""What ssh-keygen calls the purpose of a signature: one for git, say, is none for an image."""

TYPE = "longrun image signature"
KIND = "application/vnd.longrun.image.signature.v1"
"""The kind of what is attached to an image in a registry: a payload and its signature."""

PAYLOAD = "application/vnd.longrun.image.payload.v1+json"
SSHSIG = "application/vnd.longrun.image.sshsig.v1"
TOOL = "ssh-keygen"
UNUSABLE = "do not use this image; tell who signs images at your site"


class NotSigned(SourceError):
    """Nobody signed an image."""


class BadSignature(SourceError):
    """A signature does not fit, is of something else, or of somebody who is not trusted."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that belongs to an image, such as its bill of materials."""

    kind: str
    name: str
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Payload:
    """What is signed: this name, such as ``longrun/ci:2026.1``, is the manifest of this digest."""

    name: str
    digest: str
    release: str
    created: str
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A payload's bytes and their signature, as they are kept."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signed: a name of the allowed signers, and the key as ssh-keygen names it."""

    identity: str
    key: str

    def __str__(self) -> str:
        return f"{self.identity} ({self.key})"


def attachment(kind: str, name: str, content: bytes) -> Attachment:
    """The file of these bytes."""
    return Attachment(kind=kind, name=name, digest=digest_of(content), size=len(content))


def encode(payload: Payload) -> bytes:
    """The bytes that are signed; the same payload has the same."""
    files = [
        {
            "mediaType": each.kind,
            "digest": each.digest,
            "size": each.size,
            "annotations": {TITLE: each.name},
        }
        for each in payload.attachments
    ]
    return canonical_json(
        {
            "critical": {
                "type": TYPE,
                "image": {"docker-manifest-digest": payload.digest},
                "identity": {"docker-reference": payload.name},
            },
            "optional": {
                "release": payload.release,
                "created": payload.created,
                "attachments": files,
            },
        }
    )


def decode(content: bytes, where: str) -> Payload:
    """A payload of its bytes; BadSignature where they are none, whoever signed them."""
    try:
        document = json.loads(content)
        critical, optional = document["critical"], document["optional"]
        if critical["type"] != TYPE:
            raise ValueError(f"its type is {critical['type']!r}")
        return Payload(
            name=str(critical["identity"]["docker-reference"]),
            digest=_digest(critical["image"]["docker-manifest-digest"]),
            release=str(optional["release"]),
            created=str(optional["created"]),
            attachments=tuple(_attachment(each) for each in optional["attachments"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadSignature(
            f"{where}: what is signed is not about an image: {error}", remedy=UNUSABLE
        ) from None


def _attachment(entry: Mapping[str, Any]) -> Attachment:
    name = str(entry["annotations"][TITLE])
    if name != os.path.basename(name):
        raise ValueError(f"{name!r} is no name of a file")
    return Attachment(
        kind=str(entry["mediaType"]),
        name=name,
        digest=_digest(entry["digest"]),
        size=int(entry["size"]),
    )


def _digest(text: object) -> str:
    if not isinstance(text, str) or not DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no sha256 digest")
    return text


def check_key(key: Path, *, install: bool = False) -> str:
    """The fingerprint of a key that can be signed with: a private one, or an agent's public one.

    UsageError where it is none; SetupError where ssh-keygen is missing or too old.
    """
    check_tool(install=install)
    if not key.is_file():
        raise UsageError(
            f"signing key {key}: no such file",
            remedy="name a private key, or the public one (.pub) of a key that ssh-agent holds",
        )
    status, told, said = _keygen("-l", "-f", str(key))
    if status:
        raise UsageError(
            f"signing key {key}: {_gist(said)}", remedy="make one: ssh-keygen -t ed25519 -f FILE"
        )
    return told.split()[1]


def check_tool(*, install: bool = False) -> None:
    """See to it that ssh-keygen is there and knows signatures, or raise SetupError."""
    require([TOOL], install=install)
    _keygen("-Y", "find-principals")  # without more it does nothing


def sign(payload: bytes, key: Path, before: bytes = b"") -> bytes:
    """The signature of a payload; BuildError where the key cannot be used.

    ``before`` is kept where it is one of this payload by this key: some kinds of keys never sign
    twice alike, and a second signature would be attached to an image that has one.
    """
    if before and check_key(key) in _signing_key(Signed(payload=payload, signature=before)):
        return before
    with _files({"payload": payload}) as place:
        file = place / "payload"
        status, _, said = _keygen("-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(file))
        if status:
            raise BuildError(
                f"signing key {key}: {_gist(said)}",
                remedy="without a terminal: a key without a passphrase, or the public key (.pub) "
                "of one that ssh-agent holds; a private key is for its owner alone (chmod 600)",
            )
        return (place / "payload.sig").read_bytes()


def check(
    signed: Signed, digest: str, allowed: Path, *, where: str, identity: str = ""
) -> tuple[Payload, Signer]:
    """What was signed, and by whom; BadSignature unless it is the manifest of this digest.

    ``allowed`` is a file of allowed signers (ssh-keygen(1)); of all in it that have the key the
    first counts, or only ``identity``.
    """
    key = _signing_key(signed)
    if not key:
        raise BadSignature(
            f"{where}: its signature does not fit what is signed: one of both was tampered with, "
            "or damaged",
            remedy=UNUSABLE,
        )
    signer = Signer(identity=_identity(signed, allowed, where, key, identity), key=key)
    payload = decode(signed.payload, where)
    if payload.digest != digest:
        raise BadSignature(
            f"{where}: is {digest}, and the signature is of another image, {payload.digest}",
            remedy=UNUSABLE,
        )
    return payload, signer


def check_allowed(allowed: Path) -> None:
    """UsageError where the file of allowed signers cannot be read."""
    try:
        allowed.read_bytes()
    except OSError as error:
        raise UsageError(
            f"allowed signers {allowed}: {error.strerror}",
            remedy=f'each line of it: NAME namespaces="{NAMESPACE}" ssh-ed25519 AAAA... '
            "(ssh-keygen(1), ALLOWED SIGNERS)",
        ) from None


def _signing_key(signed: Signed) -> str:
    """The key that made a signature; empty where the signature does not fit."""
    status, told, _ = _checked(signed, "check-novalidate", "-n", NAMESPACE)
    return told.strip().partition(" signature with ")[2] if status == 0 else ""


def _identity(signed: Signed, allowed: Path, where: str, key: str, wanted: str) -> str:
    """Who of the allowed signers has the key; BadSignature where nobody has, or not ``wanted``."""
    _, told, said = _checked(signed, "find-principals", "-f", str(allowed))
    for name in [wanted] if wanted else told.splitlines():
        words = ("verify", "-f", str(allowed), "-I", name, "-n", NAMESPACE)
        status, _, said = _checked(signed, *words)
        if status == 0:
            return name
    if wanted and told:
        reason = f"which is {', '.join(told.splitlines())}'s in {allowed}, not {wanted}'s"
    else:
        why = _gist(said)
        reason = f"which {allowed} does not allow{why and f': {why}'}"
    raise BadSignature(
        f"{where}: signed with the {key}, {reason}",
        remedy="do not use this image, unless who signs images at your site confirms that key; "
        "then it belongs into that file",
    )


def _checked(signed: Signed, what: str, *words: str) -> tuple[int, str, str]:
    """What ssh-keygen says of a signature."""
    with _files({"payload": signed.payload, "signature": signed.signature}) as place:
        words = (*words, "-s", str(place / "signature"))
        return _keygen("-Y", what, *words, stdin=place / "payload")


@contextlib.contextmanager
def _files(contents: Mapping[str, bytes]) -> Iterator[Path]:
    """A directory with these files for as long as ssh-keygen needs them."""
    with contextlib.ExitStack() as stack:
        with writing(Path(tempfile.gettempdir())):
            made = tempfile.TemporaryDirectory(prefix="longrun-sign-")
            place = Path(stack.enter_context(made))
            for name, content in contents.items():
                (place / name).write_bytes(content)
        yield place


def _keygen(*words: str, stdin: Path | None = None) -> tuple[int, str, str]:
    status, told, said = outcome([find_tool(TOOL) or TOOL, *words], stdin=stdin)
    if "unknown option" in said or "Unsupported operation" in said:
        raise SetupError(
            f"{find_tool(TOOL)} is too old: it knows no signatures",
            remedy="OpenSSH 8.2 or later has them: Debian 11, EL 9; sign and verify there",
        )
    return status, told, said


def _gist(said: str) -> str:
    """What ssh-keygen says, on one line, without what only frames it."""
    lines = [line.strip() for line in said.splitlines()]
    return "; ".join(line for line in lines if line and "@@@" not in line)
