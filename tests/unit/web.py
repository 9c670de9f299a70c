"""A web server on loopback that does as a test tells it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 2048 + b"odd"  # eight chunks and a little
Handler = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A web server of which each path does as told; ``asked`` notes paths and ranges."""

    def __init__(self) -> None:
        self.does: dict[str, Handler] = {}
        self.asked: list[tuple[str, str]] = []
        self.heads: list[str] = []
        site = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers.get("Range", "")))
                site.does.get(self.path, status(404))(self)

            def do_HEAD(self) -> None:
                site.heads.append(self.path)  # a body that follows is read by nobody
                site.does.get(self.path, status(404))(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def ranges(self, path: str) -> list[str]:
        return [asked_range for asked, asked_range in self.asked if asked == path]


def status(code: int) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def serve(content: bytes, *, stop: int | None = None, shift: int = 0) -> Handler:
    """Serve with ranges; ``stop`` drops the line after so many bytes, ``shift`` lies about them."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        start, end = int(first or 0), len(content)
        if asked and not first:
            start = max(end - int(last), 0)
        elif last:
            end = min(int(last) + 1, end)
        start += shift
        if asked and start >= len(content):
            status(416)(request)
            return
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        request.send_header("Content-Length", str(end - start))
        request.end_headers()
        request.wfile.write(content[start : end if stop is None else start + stop])

    return answer


def plain(content: bytes, *, length: bool = False) -> Handler:
    """Serve without ranges, and without telling the size unless ``length``."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def page(content: str | bytes, kind: str = "text/html; charset=utf-8") -> Handler:
    """A page of a package index."""
    body = content.encode() if isinstance(content, str) else content

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def redirect(target: str) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(65536))
    except OSError:
        pass


def slow(request: BaseHTTPRequestHandler) -> None:
    """All but the last byte, then nothing."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT[:-1])
    request.wfile.flush()
    time.sleep(20)


def in_turn(*handlers: Handler) -> Handler:
    """A different answer each time; the last one stays."""
    left = list(handlers)

    def answer(request: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer
