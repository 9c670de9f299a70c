"""A package index on loopback that a test fills with tiny distributions; uv asks it for real."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from web import Site, page, serve
from wheel_maker import make_wheel

NATIVE = "{tag}-{tag}-manylinux_2_28_x86_64"
NEWER = "{tag}-{tag}-manylinux_2_34_x86_64"


@dataclass
class Shelf:
    """Distributions by project; each ``put`` also renews the project's page."""

    site: Site
    directory: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.site.url}/simple"

    def put(
        self,
        name: str,
        version: str = "1.0",
        *,
        requires: Iterable[str] = (),
        extras: Iterable[str] = (),
        tag: str = "py3-none-any",
        python: str = "",
        yanked: str | None = None,
        licence: str = "MIT",
        files: dict[str, str] | None = None,
    ) -> bytes:
        """A wheel, and a link to it on the page of its project."""
        module = name.replace("-", "_")
        metadata = [f"Summary: What {name} is.", f"License-Expression: {licence}"]
        metadata += [f"Requires-Dist: {text}" for text in requires]
        metadata += [f"Provides-Extra: {extra}" for extra in extras]
        wheel = make_wheel(
            self.directory,
            module,
            version,
            files=files or {f"{module}/__init__.py": ""},
            metadata="\n".join(metadata) + "\n",
            tag=tag,
        )
        content = wheel.read_bytes()
        self.link(name, wheel.name, content, python=python, yanked=yanked)
        return content

    def put_sdist(
        self, name: str, version: str = "1.0", *, requires: Iterable[str] = (), build: str = ""
    ) -> bytes:
        """A source whose setup.py must never run: it would leave a file called RAN."""
        stem = f"{name}-{version}"
        info = f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\nSummary: From source.\n"
        members = {
            "setup.py": f"open({str(self.directory / 'RAN')!r}, 'w')\nraise SystemExit(1)\n",
            "PKG-INFO": info + "".join(f"Requires-Dist: {text}\n" for text in requires),
        }
        if build:
            members["pyproject.toml"] = f"[build-system]\nrequires = {build}\n"
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for path, text in members.items():
                member = tarfile.TarInfo(f"{stem}/{path}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        self.link(name, f"{stem}.tar.gz", raw.getvalue())
        return raw.getvalue()

    def link(
        self,
        name: str,
        file: str,
        content: bytes,
        *,
        python: str = "",
        yanked: str | None = None,
        sha256: str = "",
    ) -> None:
        """A link on a project's page; ``sha256`` is told in place of the true one."""
        digest = sha256 or hashlib.sha256(content).hexdigest()
        more = f' data-requires-python="{python.replace(">", "&gt;")}"' if python else ""
        more += f' data-yanked="{yanked}"' if yanked is not None else ""
        row = f'<a href="/files/{file}#sha256={digest}"{more}>{file}</a>'
        self.rows.setdefault(name, {})[file] = row
        self.site.does[f"/files/{file}"] = serve(content)
        self._page(name)

    def yank(self, name: str, file: str, reason: str) -> None:
        """Withdraw a file."""
        row = self.rows[name][file]
        self.rows[name][file] = row.replace("<a ", f'<a data-yanked="{reason}" ')
        self._page(name)

    def remove(self, name: str, file: str) -> None:
        """Take a file from its page."""
        del self.rows[name][file]
        self._page(name)

    def _page(self, name: str) -> None:
        links = "".join(self.rows[name].values())
        self.site.does[f"/simple/{name}/"] = page(f"<!DOCTYPE html><html>{links}</html>")

    def asked(self, name: str) -> int:
        """How often the page of a project was asked for."""
        return sum(path == f"/simple/{name}/" for path, _ in self.site.asked)
