"""Files elsewhere: one on a server as something to read and seek in, a directory as a server."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import requests
import requests.adapters
import urllib3

from longrun.index.metadata import BadArchive

POOL = 32
"""Connections that are kept to one host."""
TAIL = 64 << 10
"""What is asked for of a wheel's end: its directory and, as builders put it last, its metadata."""


def make_session() -> requests.Session:
    """Connections that are kept for all threads: urllib3's pools are made for that."""
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_connections=POOL, pool_maxsize=POOL)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.mount("file://", Files())
    return session


class Files(requests.adapters.BaseAdapter):
    """A static index in a directory, such as `mirror` makes, by ``file://`` address."""

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, **_: object
    ) -> requests.Response:
        path = Path(unquote(urlsplit(request.url or "").path))
        path = path / "index.html" if path.is_dir() else path
        response = requests.Response()
        response.url, response.request = request.url or "", request
        body: IO[bytes] = io.BytesIO()
        try:
            body = path.open("rb")
            response.status_code = 200
            response.headers["Content-Length"] = str(path.stat().st_size)
        except FileNotFoundError:
            response.status_code = 404
        except OSError as error:
            raise requests.exceptions.InvalidURL(f"{path}: {error.strerror}") from None
        if path.name == "index.html":
            response.headers["Content-Type"] = "text/html"
        response.raw = urllib3.HTTPResponse(body=body, preload_content=False)
        return response

    def close(self) -> None:
        pass


class Remote(io.RawIOBase):
    """A file on a server, read by ranges: its end first, as zip wants it."""

    def __init__(self, get: Callable[[int, int], tuple[bytes, int] | None]) -> None:
        self._get = get
        self._pieces: dict[int, bytes] = {}
        self._position = 0
        self.size = 0

    def begin(self) -> bool:
        """Read the end of the file; False where the server gives no ranges."""
        got = self._get(-TAIL, 0)
        if got is not None:
            content, self.size = got
            self._pieces[self.size - len(content)] = content
        return got is not None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self._position)
        if wanted <= 0:
            return 0
        for start, piece in self._pieces.items():
            if start <= self._position < start + len(piece):
                content = piece[self._position - start :][:wanted]
                break
        else:
            content = self._fetch(self._position, wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _fetch(self, start: int, wanted: int) -> bytes:
        end = min(start + max(wanted, TAIL), self.size)
        got = self._get(start, end)
        if got is None or got[1] != self.size:
            raise BadArchive("the file on the server changed while it was read")
        self._pieces[start] = got[0]
        return got[0][:wanted]
