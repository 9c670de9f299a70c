"""One OpenSearch, spoken to with the standard library: connections, TLS, credentials, retries."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import random
import ssl
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from longrun import __version__
from longrun.errors import StoreAway, TelemetryError

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""States of answers after which the same is asked again."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

LONGEST = 30.0
"""Seconds that are waited at most between two attempts."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What says who asks: the value of the header ``Authorization``; empty for nobody."""

    header: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back: a status, the content, seconds after which to ask again (0: not said)."""

    status: int
    body: bytes
    after: float = 0.0

    def json(self) -> Any:
        """The content as JSON; TelemetryError where something else answered."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise TelemetryError(
                f"this is no OpenSearch: {self.body[:200]!r}", remedy="see the URL"
            ) from None

    @property
    def reason(self) -> str:
        """Why it was refused, in OpenSearch's words."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            error = json.loads(self.body)["error"]
            if isinstance(error, dict):
                error = error["root_cause"][0] if error.get("root_cause") else error
                return f"{error['type']}: {error['reason']}"
            return str(error)
        return self.body[:200].decode("utf-8", "replace").strip()


class Search:
    """A client of a cluster, given the URLs of one or more of its nodes; for one thread."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        credentials: Credentials | None = None,
        ca_file: Path | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Look at the URLs; nothing is opened yet.

        ``timeout`` and ``patience`` are in seconds: for one answer, and for asking again while
        the cluster is busy or away.
        """
        self.credentials = credentials or Credentials()
        self.urls = [_checked(url, self.credentials) for url in urls]
        self.timeout = timeout
        self.patience = patience
        self._sleep = sleep
        self._tls = _trust(ca_file) if any(url.startswith("https:") for url in self.urls) else None
        self._at = 0
        self._open: http.client.HTTPConnection | None = None

    @property
    def url(self) -> str:
        """The node that is asked now."""
        return self.urls[self._at]

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        accept: Sequence[int] = (200, 201),
        timeout: float | None = None,
    ) -> Answer:
        """Ask with JSON, patiently; TelemetryError where the answer is none of ``accept``."""
        data = None if body is None else json.dumps(body).encode()
        answer = self.patient(lambda: self.send(method, path, data, timeout=timeout))
        if answer.status not in accept:
            raise refused(f"{method} {self.url}{path}", answer)
        return answer

    def patient(self, ask: Callable[[], Answer]) -> Answer:
        """Ask again while the cluster is busy or away, until the patience ends: StoreAway."""
        for pause in self.pauses():
            try:
                answer = ask()
            except StoreAway:
                if pause is None:
                    raise
                self._sleep(pause)
                continue
            if answer.status not in BUSY:
                return answer
            if pause is None:
                raise StoreAway(f"{self.url}: {answer.status} {answer.reason}")
            self._sleep(max(pause, min(answer.after, LONGEST)))
        raise AssertionError("unreachable")

    def pauses(self) -> Sequence[float | None]:
        """Seconds to wait after each failure, twice as long each time; None: give up."""
        pauses: list[float | None] = []
        left, pause = self.patience, 0.25
        while left > 0:
            pause = min(pause, left)
            # so that five hundred agents do not come back at one moment
            pauses.append(pause * random.uniform(0.5, 1.5))
            left -= pause
            pause = min(2 * pause, LONGEST)
        return [*pauses, None]

    def wait(self, seconds: float) -> None:
        """Let the cluster breathe."""
        self._sleep(min(seconds, LONGEST))

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        *,
        kind: str = "application/json",
        timeout: float | None = None,
    ) -> Answer:
        """Ask once; StoreAway where no node can be reached, or the answer breaks off."""
        headers = {"User-Agent": f"longrun-usage/{__version__}", "Content-Type": kind}
        if self.credentials.header:
            headers["Authorization"] = self.credentials.header
        if data is not None and len(data) > 1000:
            # sound at level 1: a bulk shrinks to a tenth, a higher one costs the console's time
            data, headers["Content-Encoding"] = gzip.compress(data, 1), "gzip"
        failure: Exception | None = None
        # a connection that was kept open may be dead, and another node may be alive
        for _ in range(len(self.urls) + 1):
            try:
                return self._ask(method, path, data, headers, timeout or self.timeout)
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise StoreAway(
                    f"{self.url}: {error.verify_message}",
                    remedy="give the authority of the laboratory as ca_file",
                ) from None
            except (OSError, http.client.HTTPException) as error:
                failure = error
                self.close()
                self._at = (self._at + 1) % len(self.urls)
        raise StoreAway(f"{self.url}: {failure or 'no answer'}")

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _ask(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], timeout: float
    ) -> Answer:
        connection = self._open = self._open or self._connect()
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        base = urlsplit(self.url).path.rstrip("/")
        connection.request(method, f"{base}{path}", body=data, headers=headers)
        response = connection.getresponse()
        after = response.headers.get("Retry-After", "")
        return Answer(
            status=response.status,
            body=response.read(),
            after=float(after) if after.isdigit() else 0.0,
        )

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, parts.port or 443, timeout=self.timeout, context=self._tls
            )
        return http.client.HTTPConnection(host, parts.port or 9200, timeout=self.timeout)


def refused(what: str, answer: Answer) -> TelemetryError:
    """The error of an answer that no patience helps against."""
    if answer.status in (401, 403):
        return StoreAway(
            f"{what}: {answer.status} {answer.reason}",
            remedy="give user and password_file, or token_file, of one who may do that",
        )
    return TelemetryError(f"{what}: {answer.status} {answer.reason}")


def read_credentials(user: str, password_file: Path | None, token_file: Path | None) -> Credentials:
    """Credentials whose secret is in a file that only its owner can read."""
    if token_file is not None:
        return Credentials(header=f"Bearer {_secret(token_file)}")
    if password_file is not None:
        pair = f"{user}:{_secret(password_file)}".encode()
        return Credentials(header=f"Basic {base64.b64encode(pair).decode()}")
    return Credentials()


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TelemetryError(f"{path}: {error}", remedy="see that it is there, as text") from None
    if mode & 0o077:
        raise TelemetryError(
            f"{path}: others can read this secret (mode {mode:04o})", remedy=f"chmod 600 {path}"
        )
    if not text.isprintable() or not text:
        raise TelemetryError(f"{path}: holds no secret", remedy="one line: the password or token")
    return text


def _checked(url: str, credentials: Credentials) -> str:
    """A URL that can be used; no password goes over a network that others read."""
    parts = urlsplit(url)
    try:
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        raise TelemetryError(
            f"{url!r} is not the URL of an OpenSearch",
            remedy="such as https://opensearch.example.org:9200; a password goes into a file",
        )
    if credentials.header and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise TelemetryError(
            f"{url}: a password would go over the network as it is", remedy="use https:"
        )
    return url.rstrip("/")


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise TelemetryError(
            f"{ca_file}: no certificates: {error}", remedy="give a file in PEM form"
        ) from None
