"""A site for pipelines: a package index on loopback that takes uploads, in a network of its own.

    unshare --net python site.py INDEX COMMAND...

serves the wheels and sdists in INDEX at ``ADDRESS`` for as long as COMMAND runs, and ends with its
status. It works as a site's index does (PEP 503 pages, uploads of twine with a name and a
password), and there is nothing else that could be asked.
"""

from __future__ import annotations

import base64
import email
import email.policy
import fcntl
import hashlib
import html
import http.server
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

ADDRESS = "http://127.0.0.1:8080"
"""Always free: nobody else is in this network."""

USER, PASSWORD = "uploader", "beam-on-target"

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def normalized(name: str) -> str:
    """A project's name as an index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project(file: str) -> str:
    """The project of a wheel or an sdist, by the name of the file."""
    return normalized(file.split("-")[0])


class Index(http.server.BaseHTTPRequestHandler):
    """Pages of a directory of files; what is uploaded goes there."""

    def __init__(self, directory: Path, *arguments: object) -> None:
        self.directory = directory
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """A project's page, or a file."""
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "files" and (self.directory / Path(name).name).is_file():
            return self.answer(200, (self.directory / Path(name).name).read_bytes(), lasting=True)
        files = [f for f in sorted(os.listdir(self.directory)) if project(f) == name]
        if kind != "simple" or not files:
            return self.answer(404)
        return self.answer(200, self.page(files).encode())

    def page(self, files: list[str]) -> str:
        links = (
            f'<a href="/files/{html.escape(f)}#sha256={self.digest(f)}">{html.escape(f)}</a>'
            for f in files
        )
        return "<!DOCTYPE html><html><body>" + "\n".join(links)

    def digest(self, file: str) -> str:
        return hashlib.sha256((self.directory / file).read_bytes()).hexdigest()

    def do_POST(self) -> None:
        """An upload, of somebody who may; nothing is replaced."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {secret}":
            return self.answer(403)
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + body, policy=email.policy.HTTP)
        (content,) = (part for part in form.iter_parts() if part.get_filename())
        out = self.directory / Path(content.get_filename()).name
        if out.exists():
            return self.answer(409)
        out.write_bytes(content.get_payload(decode=True))
        return self.answer(200)

    def answer(self, status: int, content: bytes = b"", *, lasting: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "binary/octet-stream" if lasting else "text/html")
        if lasting:  # another file would have another name
            self.send_header("Cache-Control", "max-age=31536000, immutable")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the command has the terminal."""


def raise_loopback() -> None:
    """A new network has its loopback down."""
    with socket.socket() as some:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(some, SIOCGIFFLAGS, request))
        fcntl.ioctl(some, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def main(directory: str, *command: str) -> int:
    """Serve, and run the command."""
    raise_loopback()
    handler = partial(Index, Path(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 8080), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
