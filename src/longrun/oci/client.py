"""Requests to a registry: https, who asks, tries again, and errors that say what it refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import requests.adapters

from longrun import download
from longrun.errors import BuildError, SetupError, SourceError
from longrun.oci.reference import Credentials, Reference, is_here

TRIES = download.TRIES
LONGEST_PAUSE = 60.0
"""Seconds: a registry that wants us to wait longer is told to us as busy."""
TIMEOUT = (download.CONNECT_SECONDS, 300.0)
"""Seconds to connect, and until it answers: it may hash gigabytes before that."""

Headers = Mapping[str, str]
Body = Callable[[], contextlib.AbstractContextManager[Any]]
"""Opens what is sent, anew for each try."""


class RegistryError(BuildError):
    """A registry cannot be reached, or does not do what it is asked for."""


class Denied(RegistryError):
    """The registry does not let this user do this."""


class NotFound(SourceError):
    """The registry has no such image, or no such blob."""


class TagTaken(RegistryError):
    """The tag stands for other content, and nobody said that it may be replaced."""


class _Authorization(requests.auth.AuthBase):
    """A header. As a header alone, requests would replace it by what is in the user's netrc."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


@dataclass(kw_only=True)
class Client:
    """One repository of one registry.

    A registry says in its first answer how it wants to know who asks; what is answered to that is
    kept for the next requests.
    """

    reference: Reference
    credentials: Credentials | None = None
    unreachable: download.Unreachable = field(default_factory=download.Unreachable)
    _session: requests.Session = field(default_factory=requests.Session)
    _authorization: str = ""

    @contextlib.contextmanager
    def send(
        self,
        method: str,
        path: str,
        *,
        what: str,
        ok: tuple[int, ...] = (200,),
        headers: Headers | None = None,
        body: Body | None = None,
        tries: int = TRIES,
    ) -> Iterator[requests.Response]:
        """The registry's answer, its body not read yet. ``path`` is below the repository's address.

        What may pass is tried again; with one try it is the caller's Transient. ``what`` says in
        errors what was asked for. Statuses not in ``ok`` are a RegistryError, Denied or NotFound.
        """
        url = self.address(path)
        for failures in range(1, tries + 1):
            with contextlib.ExitStack() as stack:
                try:
                    response = stack.enter_context(self._respond(method, url, headers or {}, body))
                    if response.status_code not in ok:
                        self._refused(response, what)
                except download.Transient as error:
                    if tries == 1:
                        raise
                    if failures == tries:
                        raise self.tired(what, error) from None
                    wait(failures, error)
                except download.Failed as error:
                    raise self.failed(what, error) from None
                else:
                    yield response
                    return

    def read(self, response: requests.Response, limit: int, what: str) -> bytes:
        """A small body; RegistryError where it is larger or the connection breaks."""
        content = b""
        try:
            for chunk in download.chunks(response):
                content += chunk
                if len(content) > limit:
                    raise self.error(f"{what}: more than {limit} bytes")
        except download.Transient as error:
            raise self.error(f"{what}: {error}") from None
        return content

    def address(self, path: str) -> str:
        """An address of this repository, or one that the registry itself gave.

        Refused where that would take what we send off an encrypted connection.
        """
        if not urlsplit(path).scheme and not path.startswith("/v2/"):
            return f"{self.reference.url}/{path}"
        url = urljoin(self.reference.url, path)
        target = urlsplit(url)
        here = target.netloc == self.reference.host or is_here(target.netloc)
        if target.scheme != "https" and not (self.reference.plain and here):
            raise self.error(
                "it sends us on to an address without https",
                remedy="the proxy before the registry must pass X-Forwarded-Proto on to it",
            )
        return url

    def ask(self, url: str, *, headers: Headers, **_: Any) -> requests.Response:
        """As ``requests.get``, with what this registry wants: for ``download``."""
        response = self._request("GET", url, dict(headers), None)
        if response.status_code in (401, 403, 404):
            self._refused(response, f"blob {url.rpartition('/')[2]}")
        if response.status_code in download.TRANSIENT_STATUS:
            busy = _busy(response)
            response.close()
            if isinstance(busy, Busy) and busy.seconds is not None:
                time.sleep(busy.seconds)
            raise busy
        return response

    def tired(self, what: str, error: download.Transient) -> RegistryError:
        """The error where something did not come through, however often it was tried."""
        return self.error(f"{what}: {error} (tried {TRIES} times)", remedy=remedy_of(error))

    def failed(self, what: str, error: download.Failed) -> RegistryError:
        """The error where there is no use in trying again."""
        return self.error(f"{what}: {error}", remedy=remedy_of(error))

    def error(
        self, message: str, *, remedy: str = "", kind: type[RegistryError] = RegistryError
    ) -> RegistryError:
        """An error that names image and registry, without secrets."""
        text = f"{self.reference}: {message}"
        return kind(self.credentials.hide(text) if self.credentials else text, remedy=remedy)

    def _respond(
        self, method: str, url: str, headers: Headers, body: Body | None
    ) -> contextlib.AbstractContextManager[requests.Response]:
        """One try; raises Failed where the host cannot be reached, else Transient."""

        def ask(url: str, *, headers: dict[str, str], **_: Any) -> requests.Response:
            return self._request(method, url, headers, body)

        return download.respond(url, dict(headers), self.unreachable, ask)

    def _request(
        self, method: str, url: str, headers: dict[str, str], body: Body | None
    ) -> requests.Response:
        """Ask; where the registry wants to know who does, tell it and ask again."""
        response = self._ask(method, url, headers, body)
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status_code != 401 or not challenge or not self._is_ours(url):
            return response
        response.close()
        self._authorization = self._answer(challenge)
        return self._ask(method, url, headers, body)

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: Body | None
    ) -> requests.Response:
        with body() if body else contextlib.nullcontext() as data:
            return self._session.request(
                method,
                url,
                headers={**download.HEADERS, **headers},
                data=data,
                stream=True,
                timeout=TIMEOUT,
                verify=certificates(),
                auth=_Authorization(self._authorization if self._is_ours(url) else ""),
                allow_redirects=method in ("GET", "HEAD"),
            )

    def _is_ours(self, url: str) -> bool:
        """Whether an address is the registry's own, and not a store that it sends us to."""
        return urlsplit(url).netloc == self.reference.host

    def _answer(self, challenge: str) -> str:
        """The Authorization that is asked for (RFC 9110; Distribution's token specification)."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self.credentials and self.credentials.password:
            return self.credentials.basic
        if scheme.lower() != "bearer":
            raise self._denied(f"it wants to know who asks ({scheme})")
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        return f"Bearer {self._token(wanted)}"

    def _token(self, wanted: dict[str, str]) -> str:
        """A token for what is asked for, from where the registry says."""
        realm = self.address(wanted.pop("realm", "/v2/token"))
        auth, form = "", None
        if self.credentials and self.credentials.token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.credentials.token,
                "client_id": "longrun",
                **wanted,
            }
        elif self.credentials:
            auth = self.credentials.basic
        with self._session.request(
            "POST" if form else "GET",
            realm,
            params=None if form else wanted,
            data=form,
            auth=_Authorization(auth),
            timeout=TIMEOUT,
            verify=certificates(),
            allow_redirects=False,
        ) as response:
            if response.status_code in download.TRANSIENT_STATUS:
                raise _busy(response)
            if response.status_code != 200:
                raise self._denied(f"{urlsplit(realm).netloc} gives no token")
            try:
                document = response.json()
                return str(document.get("token") or document["access_token"])
            except (ValueError, KeyError, AttributeError):
                raise self.error(f"{urlsplit(realm).netloc} gives no token: no JSON") from None

    def _refused(self, response: requests.Response, what: str) -> None:
        """Raise what a status means."""
        with response:
            if response.status_code in download.TRANSIENT_STATUS:
                raise _busy(response)
            reason = f"{what}: HTTP {response.status_code}{self._reason(response)}"
            if response.status_code in (401, 403):
                raise self._denied(reason)
            if response.status_code == 404:
                raise NotFound(self.error(reason).message, remedy="look at name and tag")
            remedy = SMALLER if response.status_code == TOO_LARGE else TELL
            raise self.error(reason, remedy=remedy)

    def _reason(self, response: requests.Response) -> str:
        """What a registry says in words: code and message of its first error."""
        if response.request.method == "HEAD":
            return ""
        try:
            first = next(download.chunks(response), b"")
            (error, *_) = json.loads(first)["errors"]
            return f" {error.get('code', '')}: {error.get('message', '')}"
        except (ValueError, KeyError, TypeError, AttributeError, download.Transient):
            return ""

    def _denied(self, reason: str) -> RegistryError:
        user = self.credentials.user if self.credentials else ""
        host = self.reference.host
        return self.error(
            f"{reason}; asked as {user or 'nobody'}",
            remedy=f"docker login {host}, or set LONGRUN_REGISTRY={host} with "
            "LONGRUN_REGISTRY_USER and LONGRUN_REGISTRY_PASSWORD",
            kind=Denied,
        )


TOO_LARGE = 413
REACH = (
    "look at the name and the network; a proxy is in HTTPS_PROXY, and in NO_PROXY who needs none"
)
TRUST = (
    "SSL_CERT_FILE=FILE names the certificates (PEM) of the site's own authority; or add it to "
    "those that the machine trusts (docs/how-to/trust-a-private-ca.md)"
)
PLAIN = "write http:// before the name if the registry has no TLS, and nobody else is on that line"
LATER = "try again later: what is there already is not sent again"
TELL = "tell who runs the registry: its log says more"
SMALLER = "let larger requests pass in the proxy before it (nginx: client_max_body_size 0)"


def remedy_of(error: Exception) -> str:
    """What to do about a registry that cannot be reached, or does not answer as it should."""
    said = str(error).upper().replace(" ", "_")
    if "CERTIFICATE" in said:
        return TRUST
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER_FAILURE" in said:
        return PLAIN
    return REACH if "REACHED" in said or "ANSWER_WITHIN" in said else LATER


class Busy(download.Transient):
    """The registry wants us to come again later; ``seconds`` is when, if it says so."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


def wait(failures: int, error: download.Transient) -> None:
    """Wait before the next try: as long as the registry says, else the longer the more failed."""
    if isinstance(error, Busy) and error.seconds is not None:
        time.sleep(error.seconds)
    else:
        download.pause(failures)


def _busy(response: requests.Response) -> Exception:
    """Try again, or not: where a registry wants that much later, it is an error now."""
    told = response.headers.get("Retry-After", "")
    seconds = float(told) if told.isdigit() else None  # a date is answered with our own pauses
    if seconds is not None and seconds > LONGEST_PAUSE:
        return download.Failed(f"HTTP {response.status_code}: busy for {seconds:g} s")
    return Busy(f"HTTP {response.status_code}", seconds)


STORES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where Debian and EL keep the authorities that a machine trusts; engines read the same."""


def certificates() -> str | bool:
    """The file of the authorities that count: a site's own, the machine's, else requests' own."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if file := os.environ.get(name):
            if not Path(file).exists():
                raise SetupError(f"{name}={file}: no such file", remedy=f"mend or unset {name}")
            return file
    return next((store for store in STORES if Path(store).exists()), True)
