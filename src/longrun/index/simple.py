"""Pages of a Python package index: the simple repository API as HTML (PEP 503) and JSON (PEP 691).

A page of a large project has thousands of links and a lock reads hundreds of pages, so links are
found by one regular expression: 60 times as fast as a parser that makes a tree.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
JSON_TYPES = ("application/vnd.pypi.simple.v1+json", "application/json")
HTML_TYPES = ("application/vnd.pypi.simple.v1+html", "text/html", "application/xhtml+xml")

SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz", ".tar.z", ".tar")
ENDINGS = (".whl", *SDISTS, ".egg", ".exe", ".msi", ".rpm", ".dmg", ".deb")
"""What files of a project end with; the last few are relics that nobody installs."""

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TAG = re.compile(r"""<(a|base|meta)\s((?:[^"'>]++|"[^"]*+"|'[^']*+')*+)>""", re.IGNORECASE)
ATTRIBUTE = re.compile(r"""([^\s=<>"'/]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""")
HTML = re.compile(r"<(!doctype\s+html|html|body|head|title)\b", re.IGNORECASE)


class NoPage(Exception):
    """Why what came is not the page of a project on a package index."""


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a project, as an index tells of it; only a lock's sha256 says what is in it.

    ``sha256`` is empty and ``size`` 0 where the index does not say. ``version`` is as in the file
    name. ``yanked`` is None, or why the file was withdrawn, which may be empty. ``metadata`` says
    whether the metadata can be had by itself, beside the file (PEP 658).
    """

    name: str
    url: str
    sha256: str = ""
    version: str = ""
    requires_python: str = ""
    yanked: str | None = None
    size: int = 0
    metadata: bool = False

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.name.endswith(".whl")

    @property
    def is_sdist(self) -> bool:
        """Whether it is an sdist, by its name."""
        return self.name.lower().endswith(SDISTS)


def read_page(content: bytes, *, kind: str, url: str, project: str) -> tuple[File, ...]:
    """The files on a project's page. ``kind`` is its Content-Type, ``url`` where it was found.

    Raises NoPage, with the reason.
    """
    media = kind.partition(";")[0].strip().lower()
    if media in JSON_TYPES:
        return tuple(_read_json(content, url, project))
    if media in HTML_TYPES or not media:
        return _read_html(content.decode("utf-8", "replace"), url, project)
    raise NoPage(f"it answers with {media}, and not with a page of a package index")


def _read_html(text: str, url: str, project: str) -> tuple[File, ...]:
    if "<!--" in text:
        text = COMMENT.sub("", text)
    links: list[dict[str, str]] = []
    base = ""
    for tag, inner in TAG.findall(text):
        found = {
            name.lower(): html.unescape(double or single or bare)
            for name, double, single, bare in ATTRIBUTE.findall(inner)
        }
        if tag in ("a", "A"):
            links.append(found)
        elif tag.lower() == "base" and not base:
            base = found.get("href", "")
        elif found.get("name", "").lower() == "pypi:repository-version":
            _check_version(found.get("content", ""))
    join = _Join(urljoin(url, base) if base else url)
    version = _Version(project)
    files = tuple(file for link in links if (file := _from_link(link, join, version)))
    if not files and (links or not HTML.search(text) or "<form" in text.lower()):
        raise NoPage("it answers with something that is not a page of a package index")
    return files


def _from_link(link: Mapping[str, str], join: _Join, version: _Version) -> File | None:
    """The file that a link leads to; None where it leads elsewhere."""
    address, _, fragment = link.get("href", "").partition("#")
    name = unquote(address.partition("?")[0].rpartition("/")[2])
    if not name.lower().endswith(ENDINGS):
        return None
    beside = link.get("data-core-metadata", link.get("data-dist-info-metadata"))
    return File(
        name=name,
        url=join(address),
        sha256=_sha256(fragment),
        version=version(name),
        requires_python=link.get("data-requires-python", ""),
        yanked=link.get("data-yanked"),
        metadata=beside not in (None, "false"),
    )


def _sha256(fragment: str) -> str:
    for part in fragment.split("&"):
        if part.startswith("sha256="):
            return part[7:].lower()
    return ""


def _read_json(content: bytes, url: str, project: str) -> Iterator[File]:
    try:
        page = json.loads(content)
        _check_version(str(page.get("meta", {}).get("api-version", "1.0")))
        join, version = _Join(url), _Version(project)
        for row in page["files"]:
            yield _from_row(row, join, version)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoPage(f"its JSON is not that of a package index ({error!r})") from None


def _from_row(row: Mapping[str, Any], join: _Join, version: _Version) -> File:
    yanked = row.get("yanked", False)
    beside = row.get("core-metadata", row.get("dist-info-metadata", False))
    name = str(row["filename"])
    return File(
        name=name,
        url=join(str(row["url"]).partition("#")[0]),
        sha256=str(row.get("hashes", {}).get("sha256", "")).lower(),
        version=version(name),
        requires_python=row.get("requires-python") or "",
        yanked=None if yanked is False else yanked if isinstance(yanked, str) else "",
        size=int(row.get("size") or 0),
        metadata=beside is not False and beside is not None,
    )


def _check_version(version: str) -> None:
    """PEP 629: a client must not guess what a later major version means."""
    major = version.partition(".")[0].strip()
    if major != "1":
        raise NoPage(f"it speaks version {version!r} of the repository API, and only 1 is known")


class _Join:
    """Joins a page's links to its address, without credentials; what they begin with, once."""

    def __init__(self, base: str) -> None:
        self._base = without_login(base)
        self._known: dict[str, str] = {}

    def __call__(self, address: str) -> str:
        if "@" in address:
            return without_login(urljoin(self._base, address))
        if address.startswith(("https://", "http://")):
            return address
        if address.startswith(("//", "./")) or ":" in address:
            return urljoin(self._base, address)
        cut = address.rfind("../") + 3 if "../" in address else address.startswith("/")
        head = address[:cut]
        if head not in self._known:
            self._known[head] = urljoin(self._base, head + "x")[:-1]
        return self._known[head] + address[cut:]


class _Version:
    """Finds the version in the name of a project's file."""

    def __init__(self, project: str) -> None:
        name = "[-_.]+".join(map(re.escape, re.split(r"[-_.]+", project)))
        self._sdist = re.compile(rf"{name}-(.+)", re.IGNORECASE)

    def __call__(self, file: str) -> str:
        if file.endswith((".whl", ".egg")):
            parts = file.split("-", 2)
            return parts[1] if len(parts) == 3 else ""
        for ending in SDISTS:
            if file.lower().endswith(ending):
                stem = file[: -len(ending)]
                match = self._sdist.fullmatch(stem)
                return match[1] if match else stem.rpartition("-")[2]
        return ""


def without_login(url: str) -> str:
    """An address without user and password."""
    if "@" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def shown(url: str) -> str:
    """An address as messages may show it: no user, no password, no token in a query."""
    return without_login(url).partition("?")[0].partition("#")[0]
