"""``image-verify``: who signed an image, and whether all of it is what was signed."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from longrun import sign
from longrun.errors import LongrunError, SourceError
from longrun.oci import attach
from longrun.oci.client import RegistryError
from longrun.oci.image import writing
from longrun.oci.model import digest_of
from longrun.oci.read import name_of, open_image, verify
from longrun.oci.reference import Reference, parse_reference
from longrun.oci.registry import connect, find_digest, find_image, pull
from longrun.sign import Attachment, BadSignature, NotSigned, Payload, Signed, Signer
from longrun.term import paint
from longrun.verbs.context import Context
from longrun.verbs.image import signed_files

SIGNED, ABSENT = "signed", "not there"
"""What is found of a file that was signed with an image."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An image that is what somebody signed."""

    where: str
    digest: str
    payload: Payload
    signer: Signer
    files: Mapping[str, str]
    layers: int = 0


def run(root: Path, arguments: argparse.Namespace) -> int:
    """Verify an image in a registry or an archive; 0, or an error that says what is wrong."""
    sign.check_tool()
    sign.check_allowed(arguments.allowed_signers)
    path = Path(arguments.image)
    if path.exists() or path.suffix == ".tar":
        verdict = verify_archive(path, arguments.allowed_signers, arguments.identity)
    else:
        place = Context(root).config.cache
        reference = parse_reference(arguments.image)
        verdict = verify_pushed(reference, place, arguments.allowed_signers, arguments.identity)
    print(json.dumps(document(verdict), indent=1) if arguments.json else text(verdict))
    return 0


def verify_archive(path: Path, allowed: Path, identity: str) -> Verdict:
    """Verify an archive with the signature beside it."""
    image, where = open_image(path), os.path.relpath(path)
    signed = Signed(payload=_beside(path, 0), signature=_beside(path, 1))
    payload, signer = sign.check(signed, image.digest, allowed, where=where, identity=identity)
    name = name_of(path)
    if name and name != payload.name:
        raise BadSignature(
            f"{where}: is called {name}, and was signed as {payload.name}", remedy=sign.UNUSABLE
        )
    files = {each.name: _file_beside(path, each) for each in payload.attachments}
    verify(image)
    return Verdict(
        where=where,
        digest=image.digest,
        payload=payload,
        signer=signer,
        files=files,
        layers=len(image.layers),
    )


def _beside(path: Path, which: int) -> bytes:
    """The payload or the signature of an archive; NotSigned where there is none."""
    file = signed_files(path)[which]
    if not file.is_file():
        raise NotSigned(
            f"{os.path.relpath(path)}: is not signed: there is no {file.name} beside it",
            remedy="copy it from where the archive is from, or sign: ./build.py image --sign KEY",
        )
    return file.read_bytes()


def _file_beside(path: Path, wanted: Attachment) -> str:
    file = path.with_name(wanted.name)
    if not file.is_file():
        return ABSENT
    if digest_of(file.read_bytes()) != wanted.digest:
        raise BadSignature(
            f"{os.path.relpath(file)}: is not the file that was signed with the image",
            remedy="copy it again from where the archive is from",
        )
    return SIGNED


def verify_pushed(reference: Reference, place: Path, allowed: Path, identity: str) -> Verdict:
    """Verify an image in a registry; its layers are pulled to below ``place``, and not kept."""
    at = _found(reference)
    verdict = _signed(reference, at, allowed, identity)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="image-verify-", dir=place)
    with scratch as directory:
        image = pull(at, Path(directory) / "image")
        verify(image)
    return replace(verdict, layers=len(image.layers))


def _found(reference: Reference) -> Reference:
    """The image by its digest; SourceError where tag and digest are given, and do not agree."""
    client = connect(reference)
    digest = find_image(client).digest
    now = find_digest(client, reference.tag) if reference.tag and reference.digest else ""
    if now not in ("", reference.digest):
        raise SourceError(
            f"{reference}: the tag stands for {now} now: it was moved",
            remedy=f"ask who moved it; {reference.at(reference.digest)} is the one of the digest",
        )
    return reference.at(digest)


def _signed(reference: Reference, at: Reference, allowed: Path, identity: str) -> Verdict:
    """The first signature that counts; else the error of the first, or NotSigned."""
    errors: list[LongrunError] = []
    for artifact in attach.attached(at, sign.KIND):
        try:
            signed = _parts(at, attach.fetch(at, artifact))
            payload, signer = sign.check(
                signed, at.digest, allowed, where=str(reference), identity=identity
            )
            _check_name(reference, at, payload)
            files = {each.name: _file_attached(at, each) for each in payload.attachments}
        except (SourceError, RegistryError) as error:
            errors.append(error)
        else:
            return Verdict(
                where=str(reference), digest=at.digest, payload=payload, signer=signer, files=files
            )
    if errors:
        raise errors[0]
    raise NotSigned(
        f"{reference}: nobody signed it ({at.digest})",
        remedy="do not use it, unless you know who pushed it; who releases images signs them with "
        "./build.py image --sign KEY --push REGISTRY",
    )


def _parts(at: Reference, files: tuple[attach.File, ...]) -> Signed:
    content = {file.media_type: file.content for file in files}
    if not {sign.PAYLOAD, sign.SSHSIG} <= set(content):
        raise BadSignature(
            f"{at}: what is attached as a signature is none", remedy=f"tell who runs {at.host}"
        )
    return Signed(payload=content[sign.PAYLOAD], signature=content[sign.SSHSIG])


def _check_name(reference: Reference, at: Reference, payload: Payload) -> None:
    """BadSignature where a tag stands for an image that was signed under another name.

    Who asks by digest knows which image it is, whatever a copy of it is called.
    """
    if reference.digest:
        return
    repository, _, tag = payload.name.rpartition(":")
    same = f"/{reference.repository}".endswith(f"/{repository}") and reference.tag == tag
    if not same:
        raise BadSignature(
            f"{reference}: stands for the image that was signed as {payload.name}: the tag was "
            "moved, or the image copied under another name",
            remedy=f"if {payload.name} is what you want, take it by its digest: {at}",
        )


def _file_attached(at: Reference, wanted: Attachment) -> str:
    """Whether the file is attached to the image; BadSignature where only others of its kind are."""
    found = attach.attached(at, wanted.kind)
    for artifact in found:
        if wanted.digest in (digest_of(file.content) for file in attach.fetch(at, artifact)):
            return SIGNED
    if not found:
        return ABSENT
    raise BadSignature(
        f"{at}: what is attached as {wanted.kind} is not {wanted.name}, which was signed",
        remedy=f"do not rely on it; tell who runs {at.host}",
    )


def document(verdict: Verdict) -> dict[str, object]:
    """A verdict for scripts."""
    payload, signer = verdict.payload, verdict.signer
    return {
        "schema": 1,
        "image": verdict.where,
        "digest": verdict.digest,
        "name": payload.name,
        "release": payload.release,
        "layers": verdict.layers,
        "signer": {"identity": signer.identity, "key": signer.key},
        "files": dict(verdict.files),
    }


def text(verdict: Verdict) -> str:
    """A verdict for people."""
    payload = verdict.payload
    lines = [
        f"{paint('green', '✔')} {verdict.where}  signed by {verdict.signer}",
        f"  {payload.name} of release {payload.release}, {verdict.digest}",
        f"  {verdict.layers} layers, each as its digest says",
        *(f"  {name}: {state}" for name, state in verdict.files.items()),
    ]
    return "\n".join(lines)
