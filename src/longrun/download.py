"""Get one file from one address by HTTP: resumed, limited to its size, hashed while it comes.

A part is resumed from any address that offers the same bytes, so no validator (ETag) is kept: the
sha256 over the whole file decides, and a part made of pieces that turns out wrong is begun anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

CHUNK = 1 << 16
CONNECT_SECONDS = 8.0
READ_SECONDS = 60.0
TRIES = 4
PAUSE_SECONDS = 0.5
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
# identity: a server that compresses on the fly would send other bytes than the pinned ones
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "longrun"}

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes that there will be."""

Ask = Callable[..., requests.Response]
"""A function that is called as ``requests.get`` is."""


class Failed(Exception):
    """Why an address does not give the file; it is of no use to try it again."""


class Mismatch(Failed):
    """The address gives other bytes than the pinned ones."""


class Transient(Exception):
    """Why an address did not give the file this time; it may well do so the next time."""


@dataclass(frozen=True, kw_only=True)
class Unreachable:
    """Hosts that cannot be reached, shared by all threads of a run: one waits for all."""

    _why: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def why(self, url: str) -> str:
        """Why the host of an address is not asked any more; empty where it is."""
        with self._lock:
            return self._why.get(urlsplit(url).netloc, "")

    def mark(self, url: str, why: str) -> None:
        """Do not ask the host of this address again."""
        with self._lock:
            self._why.setdefault(urlsplit(url).netloc, why)


class Part:
    """A file that is not whole yet, with the hash of what is in it; made under ``locked_part``.

    ``pieces`` counts the requests and runs that its bytes came from.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._file.seek(0)
        self._digest = hashlib.sha256()
        while chunk := self._file.read(1 << 20):
            self._digest.update(chunk)
        self.length = self._file.tell()
        self.pieces = 1 if self.length else 0

    @property
    def sha256(self) -> str:
        """The sha256 of what is there."""
        return self._digest.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Write more; at once, so that a killed run leaves all it got."""
        self._file.write(chunk)
        self._file.flush()
        self._digest.update(chunk)
        self.length += len(chunk)

    def discard(self) -> None:
        """Forget all of it."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.length = self.pieces = 0


@contextmanager
def locked_part(path: Path) -> Iterator[Part]:
    """The part at ``path``, made if need be, for this thread of this process alone.

    The lock ends with its holder, however that ends. Who waited may find the file renamed away by
    the one before, and opens anew until the file that it locked is the one at ``path``.
    """
    while True:
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield Part(path, file)
                return


def download(
    url: str,
    part: Part,
    *,
    sha256: str,
    size: int,
    unreachable: Unreachable,
    progress: Progress,
    ask: Ask | None = None,
) -> None:
    """Complete ``part`` from ``url``, so that it holds exactly the wanted bytes.

    Transient failures are tried again with growing pauses. Raises Failed with the reason; what
    came before a dropped connection stays in the part for the next address or run. ``ask`` is as
    for ``respond``.
    """
    if part.length >= size and part.sha256 != sha256:
        part.discard()
    for last in (False, True):
        _complete(url, part, size, unreachable=unreachable, progress=progress, ask=ask)
        found, pieces = part.sha256, part.pieces
        if found == sha256:
            return
        part.discard()
        if last or pieces == 1:
            raise Mismatch(f"its sha256 is {found}, not the pinned {sha256}")


def _complete(
    url: str,
    part: Part,
    size: int,
    *,
    unreachable: Unreachable,
    progress: Progress,
    ask: Ask | None,
) -> None:
    """Ask until ``size`` bytes are there."""
    failures = 0
    while part.length < size:
        before = part.length
        try:
            _request(url, part, size, unreachable=unreachable, progress=progress, ask=ask)
        except Transient as error:
            # a line that drops now and then, but brings something each time, gets there
            failures = 1 if part.length - before >= CHUNK else failures + 1
            if failures >= TRIES:
                raise Failed(f"{error} (tried {TRIES} times)") from None
            pause(failures)


def pause(failures: int) -> None:
    """Wait before the next try, the longer the more have failed."""
    jitter = random.uniform(0.8, 1.2)
    time.sleep(PAUSE_SECONDS * 2 ** (failures - 1) * jitter)


def _request(
    url: str,
    part: Part,
    size: int,
    *,
    unreachable: Unreachable,
    progress: Progress,
    ask: Ask | None,
) -> None:
    headers = dict(HEADERS)
    if part.length:
        headers["Range"] = f"bytes={part.length}-"
    with respond(url, headers, unreachable, ask) as response:
        _accept(response, part, size)
        part.pieces += 1
        for chunk in chunks(response):
            if part.length + len(chunk) > size:
                part.discard()
                raise Mismatch(f"it sends more than the pinned {size} bytes")
            part.append(chunk)
            progress(part.length, size)
    if part.length < size:
        raise Transient(f"the connection ended after {part.length} of {size} bytes")


def _accept(response: requests.Response, part: Part, size: int) -> None:
    """Check that the answer continues the part, or begin anew; raises Failed or Transient."""
    if response.status_code == 206:
        span = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if span is None or int(span[1]) != part.length:
            part.discard()
            raise Transient("it answers with another range than the one asked for")
        total = span[2]
    elif response.status_code == 416:
        part.discard()
        raise Transient("it has no such range")
    elif response.status_code == 200:
        part.discard()  # ranges are not for every server
        total = response.headers.get("Content-Length", "*")
    elif response.status_code in TRANSIENT_STATUS:
        raise Transient(f"HTTP {response.status_code}")
    else:
        raise Failed(f"HTTP {response.status_code}")
    if total.isdigit() and int(total) != size:
        raise Mismatch(f"it has {total} bytes, and {size} are pinned")


def read_small(url: str, *, limit: int, unreachable: Unreachable) -> bytes:
    """A small file whose hash is not known, such as a signature; asked for once. Raises Failed."""
    if why := unreachable.why(url):
        raise Failed(why)
    content = b""
    try:
        with respond(url, HEADERS, unreachable) as response:
            if response.status_code != 200:
                raise Failed(f"HTTP {response.status_code}")
            for chunk in chunks(response):
                content += chunk
                if len(content) > limit:
                    raise Failed(f"it has more than {limit} bytes")
    except Transient as error:
        raise Failed(str(error)) from None
    return content


def chunks(response: requests.Response, *, decode: bool = False) -> Iterator[bytes]:
    """The body, not decoded unless asked for; raises Transient where the connection breaks."""
    try:
        yield from response.raw.stream(CHUNK, decode_content=decode)
    except urllib3.exceptions.HTTPError as error:
        raise Transient(f"the connection broke: {short(error)}") from None


@contextmanager
def respond(
    url: str, headers: dict[str, str], unreachable: Unreachable, ask: Ask | None = None
) -> Iterator[requests.Response]:
    """The answer of a host; one that cannot be reached is marked so. Raises Failed, Transient.

    ``ask`` stands in for ``requests.get``, where a host wants credentials or another method.
    """
    if why := unreachable.why(url):
        raise Failed(why)
    try:
        response = (ask or requests.get)(
            url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
        )
    except requests.RequestException as error:
        if why := _why_unreachable(error):
            unreachable.mark(url, why)
            raise Failed(why) from None
        if isinstance(error, requests.ConnectionError | requests.Timeout):
            raise Transient(f"the connection broke: {short(error)}") from None
        raise Failed(short(error)) from None
    with response:
        yield response


def _why_unreachable(error: requests.RequestException) -> str:
    """The reason where the host itself is at fault, and not this file or moment; else empty."""
    asked = urlsplit(str(error.request.url)).netloc if error.request is not None else "the host"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"{asked} does not answer within {CONNECT_SECONDS:g} s"
    inner = error.args[0] if error.args else None
    cause = getattr(inner, "reason", inner)
    refused = isinstance(cause, urllib3.exceptions.NewConnectionError)
    untrusted = isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE" in str(error)
    if refused or untrusted or isinstance(error, requests.exceptions.ProxyError):
        return f"{asked} cannot be reached: {short(cause)}"
    return ""


def short(error: object) -> str:
    """The last part of urllib3's nested messages: the part that says something."""
    return str(error).rpartition(": ")[2].strip("()'\" ") or type(error).__name__
