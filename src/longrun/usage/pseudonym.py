"""Pseudonyms: who it was is forgotten, that it was the same person is not.

A pseudonym is ``u-`` and 12 hex digits of an HMAC of the user's name. Its key never leaves the
agent's state. After the retention, when no event is left that was named with it, it is made
anew: then nobody, not even root, can tell who had an older pseudonym. A site that wants a user to
have one pseudonym everywhere hands out one key, and replaces it when it likes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path

from longrun.errors import TelemetryError
from longrun.fs import write_atomic
from longrun.usage.config import DAY

PSEUDONYM = re.compile(r"u-[0-9a-f]{12}")


class Pseudonyms:
    """The pseudonyms of one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def name(self, user: str) -> str:
        """The pseudonym of a user; a pseudonym stays what it is."""
        if PSEUDONYM.fullmatch(user):
            return user
        digest = hmac.new(self._key, user.encode("utf-8", "replace"), hashlib.sha256)
        return f"u-{digest.hexdigest()[:12]}"


def open_pseudonyms(file: Path, retention: float | None, *, now: float | None = None) -> Pseudonyms:
    """The pseudonyms of a key file, which is made where it is missing or older than so many days.

    Without a retention the file is a site's own: it has to be there, and is not replaced.
    TelemetryError where others can read the file, or it is none of ours.
    """
    now = time.time() if now is None else now
    found = _read(file)
    if retention is None:
        if found is None:
            raise TelemetryError(
                f"{file}: not found", remedy="copy the pseudonym.key of another machine there"
            )
    elif found is None or now - found[0] > retention * DAY:
        found = (now, secrets.token_bytes(32))
        text = json.dumps({"made": found[0], "key": found[1].hex()}) + "\n"
        write_atomic(file, text, mode=0o600)
    assert found is not None
    return Pseudonyms(found[1])


def _read(file: Path) -> tuple[float, bytes] | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TelemetryError(f"{file}: {error.strerror}", remedy="remove it, or mend it") from error
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            raise TelemetryError(
                f"{file}: others can read it, and so find the users behind pseudonyms",
                remedy=f"remove {file}; the agent makes a new key, and new pseudonyms",
            )
        try:
            document = json.loads(opened.read(4096))
            made, key = float(document["made"]), bytes.fromhex(document["key"])
        except (ValueError, KeyError, TypeError) as error:
            raise TelemetryError(
                f"{file}: not a key of pseudonyms", remedy=f"remove {file}"
            ) from error
    if len(key) < 16:
        raise TelemetryError(f"{file}: the key is too short", remedy=f"remove {file}")
    return made, key
