"""A registry on loopback that misbehaves as a test tells it; the real one is in the slow tests."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Handler = Callable[["Answer"], None]


class Answer(BaseHTTPRequestHandler):
    """One request; ``reply`` answers it, ``usual`` as a registry would."""

    protocol_version = "HTTP/1.1"
    registry: Registry

    def reply(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: int, error: str = "UNKNOWN", message: str = "") -> None:
        body = json.dumps({"errors": [{"code": error, "message": message}]}).encode()
        self.reply(code, body, Content_Type="application/json")

    def drop(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True
        self.connection.close()

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self) -> None:
        registry, path = self.registry, urlsplit(self.path).path
        registry.asked.append((self.command, self.path, dict(self.headers)))
        for (method, part), handlers in registry.does.items():
            if method == self.command and part in self.path and handlers:
                handlers.pop(0)(self)
                return
        self.usual(path)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def usual(self, path: str) -> None:
        registry, name = self.registry, path.rpartition("/")[2]
        if path == "/v2/" or self.command == "DELETE":
            self.reply(200 if path == "/v2/" else 204)
        elif self.command in ("GET", "HEAD"):
            kind = "manifests" if "/manifests/" in path else "blobs"
            found = registry.manifests.get(name) if kind == "manifests" else None
            blob = registry.blobs.get(name) if kind == "blobs" else None
            if found:
                self.reply(200, found[1], Content_Type=found[0], Docker_Content_Digest=of(found[1]))
            elif blob is not None:
                self.reply(200, blob)
            else:
                self.refuse(404, "MANIFEST_UNKNOWN", "not here")
        elif self.command == "POST":
            self.reply(202, Location="/v2/uploads/one")
        elif self.command == "PATCH":
            registry.upload += self.body()
            self.reply(202, Location="/v2/uploads/one?state=secret")
        elif "/manifests/" in path:
            content, kind = self.body(), self.headers["Content-Type"]
            registry.manifests[name] = registry.manifests[of(content)] = (kind, content)
            self.reply(201, Docker_Content_Digest=of(content), **registry.tells)
        else:
            content, registry.upload = registry.upload + self.body(), b""
            wanted = parse_qs(urlsplit(self.path).query)["digest"][0]
            if of(content) == wanted:
                registry.blobs[wanted] = content
            self.reply(201) if of(content) == wanted else self.refuse(400, "DIGEST_INVALID")

    def log_message(self, *_: object) -> None:
        pass


class Registry:
    """What it has, what it was asked, and what it does instead: by method and part of the path."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.does: dict[tuple[str, str], list[Handler]] = {}
        self.tells: dict[str, str] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.upload = b""
        answer = type("Bound", (Answer,), {"registry": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), answer)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # what a dropped connection comes to
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def name(self, tag: str = "2026.1") -> str:
        return f"{self.host}/longrun/ci:{tag}"

    def count(self, method: str, part: str = "") -> int:
        return sum(asked == method and part in path for asked, path, _ in self.asked)


@contextmanager
def running() -> Iterator[Registry]:
    registry = Registry()
    try:
        yield registry
    finally:
        registry.server.shutdown()
        registry.server.server_close()


def of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
