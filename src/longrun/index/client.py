"""The client of a Python package index: projects, their files, and the metadata of a file.

Which index it is, the site says: in Longrun's configuration, or in pip's. What an index says of a
file helps to choose and to find it; the bytes count only by the sha256 that a lock pins.
"""

from __future__ import annotations

import bisect
import contextlib
import difflib
import hashlib
import io
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from packaging.version import InvalidVersion, Version

from longrun.config import Config, is_index_address
from longrun.download import (
    CONNECT_SECONDS,
    HEADERS,
    TRANSIENT_STATUS,
    Failed,
    Transient,
    Unreachable,
    chunks,
    pause,
    respond,
)
from longrun.errors import SourceError, SpecError, UnknownProject
from longrun.fs import write_atomic
from longrun.index import pip
from longrun.index.metadata import BadArchive, read_metadata
from longrun.index.pip import without_logins
from longrun.index.remote import TAIL, Remote, make_session
from longrun.index.simple import ACCEPT, File, NoPage, read_page, shown, without_login
from longrun.specs import normalised

__all__ = [
    "File",
    "Index",
    "UnknownProject",
    "find_index",
    "in_parallel",
    "once",
    "open_index",
    "without_logins",
]

T = TypeVar("T")
R = TypeVar("R")

THREADS = 16
TRIES = 3
READ_SECONDS = 30.0
PAGE_BYTES = 256 << 20
METADATA_BYTES = 16 << 20
IN_MEMORY = 32 << 20


PAGE_HEADERS = {**HEADERS, "Accept": ACCEPT, "Accept-Encoding": "gzip, deflate"}
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
SHA256 = re.compile(r"[0-9a-f]{64}")

DOWN = (
    "Run the command again when the package index answers, or name another one (`index` in "
    "Longrun's configuration, or index-url in pip's)."
)
NO_PAGE = (
    "Correct the address of the package index; it usually ends in /simple. A proxy that wants a "
    "login answers like this, too."
)


@dataclass(frozen=True, kw_only=True)
class Login:
    """User and password for a host."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Index:
    """The package indexes of a site as one; one object serves all threads of a run.

    ``addresses`` bear no credentials; those are in ``logins``, by host, and otherwise in the user's
    ``~/.netrc``. ``cache`` keeps metadata and sizes of files whose sha256 is known, for ever.
    ``cert`` and ``proxy`` are as pip's options. ``directories`` are local ones in which pip finds
    files, too.
    """

    addresses: tuple[str, ...]
    cache: Path
    logins: Mapping[str, Login] = field(default_factory=dict)
    cert: str = ""
    proxy: str = field(default="", repr=False)
    directories: tuple[Path, ...] = ()
    unreachable: Unreachable = field(default_factory=Unreachable)
    _pages: dict[str, tuple[File, ...]] = field(default_factory=dict, repr=False)
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)
    _busy: dict[str, threading.Lock] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _session: requests.Session = field(default_factory=make_session, repr=False)

    def project(self, name: str) -> tuple[File, ...]:
        """All files of a project, of the first index that has it; each name and sha256 once.

        Another index may not add to them: whoever can put a project of the laboratory's name on a
        public one could otherwise have it taken. Raises UnknownProject where every index answers
        that there is none, else SourceError.
        """
        name = normalised(name)
        with self._lock:
            busy = self._busy.setdefault(name, threading.Lock())
        with busy:  # whoever else asks for it meanwhile waits, and finds it remembered
            if name not in self._pages:
                self._pages[name] = self._project(name)
            return self._pages[name]

    def projects(self, names: Iterable[str]) -> dict[str, tuple[File, ...]]:
        """The files of many projects, asked for in parallel; the first error ends it."""
        wanted = list(dict.fromkeys(names))
        return dict(zip(wanted, in_parallel(self.project, wanted), strict=True))

    def locate(self, requirement: str, file: str, sha256: str) -> File:
        """The file of a ``name==version`` that is called so and has this sha256.

        Raises SourceError, saying what there is instead.
        """
        name, equal, version = requirement.partition("==")
        if not equal:
            raise SpecError(f"{file}: index: expected name==version, found {requirement!r}")
        files = self.project(name)
        index = f"the package index ({', '.join(map(shown, self.addresses))})"
        found = [item for item in files if item.name == file]
        for item in found:
            if item.sha256 in ("", sha256):
                return item
        if found:
            raise SourceError(
                f"{index} has a {file} with the sha256 {found[0].sha256}, not the pinned {sha256}",
                remedy="Find out who changed it, and take the file from elsewhere till then.",
            )
        raise SourceError(
            f"{index} has no {_instead(files, name, version, file)}",
            remedy="Take the file from elsewhere, or lock what there is: "
            f"./build.py lock --upgrade {name}",
        )

    def metadata(self, file: File) -> str:
        """The text of a file's core metadata: a wheel's METADATA, an sdist's PKG-INFO.

        Of a wheel, only the part that holds it is downloaded where the server allows that.
        """
        kept = self._kept(file, "metadata")
        if kept and kept.is_file():
            return kept.read_text(encoding="utf-8")
        text = self._metadata(file)
        if kept:
            write_atomic(kept, text)
        return text

    def recall(self, sha256: str) -> str | None:
        """The metadata of a file that was read before; no network."""
        kept = self.cache / sha256[:2] / f"{sha256}.metadata"
        return kept.read_text(encoding="utf-8") if kept.is_file() else None

    def size(self, file: File) -> int:
        """The size of a file in bytes, asked for where its page does not say it."""
        if file.size:
            return file.size
        kept = self._kept(file, "size")
        if kept and kept.is_file() and (text := kept.read_text(encoding="ascii")).isdigit():
            return int(text)
        if file.url not in self._sizes:
            self._remember_size(file, self._ask(file.url, lambda: self._size(file.url)))
        return self._sizes[file.url]

    def ask(self, url: str, *, method: str = "GET", **options: Any) -> requests.Response:
        """``requests.get`` with what this index wants: credentials, certificate, proxy."""
        login = self.logins.get(urlsplit(url).netloc)
        return self._session.request(
            method,
            url,
            auth=(login.user, login.password) if login else None,
            verify=self.cert or None,
            proxies={"http": self.proxy, "https": self.proxy} if self.proxy else None,
            **options,
        )

    def _project(self, name: str) -> tuple[File, ...]:
        if not self.addresses:
            raise SourceError(
                f"{name} cannot be looked up: no package index is configured",
                remedy="Set `index` in Longrun's configuration, or index-url in pip's.",
            )
        for address in self.addresses:
            page = self._page(f"{address.rstrip('/')}/{name}/", name)
            if page is not None:
                files: dict[tuple[str, str], File] = {}
                for file in page:
                    files.setdefault((file.name, file.sha256), file)
                return tuple(files.values())
        places = ", ".join(map(shown, self.addresses))
        raise UnknownProject(
            f"no project {name} on the package index ({places})",
            remedy="Correct the name, or configure the index that has it.",
        )

    def _page(self, url: str, name: str) -> tuple[File, ...] | None:
        """The files on a page; None where the index says that it has no such page."""

        def read() -> tuple[File, ...]:
            with self._respond(url, PAGE_HEADERS) as response:
                content = _body(response, PAGE_BYTES, decode=True)
                kind = response.headers.get("Content-Type", "")
                return read_page(content, kind=kind, url=response.url, project=name)

        try:
            return self._ask(url, read, missing=True)
        except _Missing:
            return None

    def _ask(self, url: str, request: Callable[[], R], *, missing: bool = False) -> R:
        """What a request gives, tried a few times; SourceError with address, cause, remedy.

        Where ``missing`` is set, _Missing is not made a SourceError.
        """
        for failures in range(1, TRIES + 1):
            try:
                return request()
            except Transient as error:
                why = f"{error} (tried {TRIES} times)"
                if failures < TRIES:
                    pause(failures)
                elif not isinstance(error, _Busy):
                    # each of the others that want something of it would wait as long
                    self.unreachable.mark(url, why)
            except _Refused as error:
                raise SourceError(f"{shown(url)}: {error}", remedy=_login_remedy(url)) from None
            except NoPage as error:
                raise SourceError(f"{shown(url)}: {error}", remedy=NO_PAGE) from None
            except _Missing as error:
                if missing:
                    raise
                why = str(error)
                break
            except Failed as error:
                why = str(error)
                break
        raise SourceError(f"{shown(url)}: {why}", remedy=DOWN)

    @contextmanager
    def _respond(
        self, url: str, headers: dict[str, str], *, method: str = "GET"
    ) -> Iterator[requests.Response]:
        """The answer where it is a good one; raises Failed, Transient, _Missing, _Refused."""

        def ask(url: str, **options: Any) -> requests.Response:
            options["timeout"] = (CONNECT_SECONDS, READ_SECONDS)
            return self.ask(url, method=method, allow_redirects=True, **options)

        with respond(url, headers, self.unreachable, ask) as response:
            status = response.status_code
            if status in (404, 410):
                raise _Missing(f"HTTP {status}")
            if status in (401, 403, 407):
                raise _Refused(f"HTTP {status}: it wants credentials, or other ones")
            if status in TRANSIENT_STATUS:
                raise _Busy(f"HTTP {status}")
            if status in (416, 501) and "Range" in headers:
                raise _NoRange(f"HTTP {status}")
            if status not in (200, 206):
                raise Failed(f"HTTP {status}")
            yield response

    def _metadata(self, file: File) -> str:
        if file.metadata:
            try:
                url = f"{file.url}.metadata"
                content = self._ask(url, lambda: self._read(url), missing=True)
                return content.decode("utf-8", "replace")
            except _Missing:
                pass  # some indexes promise it for every file
        if not file.is_wheel and not file.is_sdist:
            raise SourceError(f"{file.name}: neither a wheel nor an sdist: it has no metadata")
        try:
            with self.open(file) as opened:
                return read_metadata(opened, file.name).decode("utf-8", "replace")
        except BadArchive as error:
            raise SourceError(
                f"{file.name} from {shown(file.url)} cannot be read: {error}",
                remedy="The file on the package index is damaged: tell who keeps the index.",
            ) from None

    def _read(self, url: str) -> bytes:
        with self._respond(url, HEADERS) as response:
            return _body(response, METADATA_BYTES)

    def open(self, file: File) -> IO[bytes]:
        """A file of the index to read from, as little as possible of it downloaded."""
        if file.is_wheel:
            remote = Remote(
                lambda start, end: self._ask(file.url, lambda: self._range(file, start, end))
            )
            if remote.begin():
                self._remember_size(file, remote.size)
                return io.BufferedReader(remote, TAIL)
        return self._ask(file.url, lambda: self._whole(file))

    def _range(self, file: File, start: int, end: int) -> tuple[bytes, int] | None:
        """Bytes of a file and its size; the last ``-start`` bytes where ``start`` is negative.

        None where the server does not know ranges.
        """
        span = f"bytes={start}" if start < 0 else f"bytes={start}-{end - 1}"
        try:
            with self._respond(file.url, {**HEADERS, "Range": span}) as response:
                found = RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
                if response.status_code != 206 or found is None:
                    return None
                first, last, size = (int(text) for text in found.groups())
                content = _body(response, last - first + 1)
        except _NoRange:
            return None
        if len(content) != last - first + 1:
            raise Transient(
                f"the connection ended after {len(content)} of {last - first + 1} bytes"
            )
        if first != (max(size + start, 0) if start < 0 else start):
            return None
        return content, size

    def _whole(self, file: File) -> IO[bytes]:
        """A file in full, in memory or on disk; its sha256 is checked where it is known."""
        content: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        digest = hashlib.sha256()
        with self._respond(file.url, HEADERS) as response:
            for chunk in chunks(response):
                content.write(chunk)
                digest.update(chunk)
            length = response.headers.get("Content-Length", "")
        if length.isdigit() and content.tell() != int(length):
            raise Transient(f"the connection ended after {content.tell()} of {length} bytes")
        if file.sha256 and digest.hexdigest() != file.sha256:
            raise Failed(f"its sha256 is {digest.hexdigest()}, and its page says {file.sha256}")
        self._remember_size(file, content.tell())
        content.seek(0)
        return content

    def _size(self, url: str) -> int:
        try:
            with self._respond(url, HEADERS, method="HEAD") as response:
                length = response.headers.get("Content-Length", "")
                if length.isdigit() and int(length):
                    return int(length)
        except (Failed, _Missing):
            pass  # HEAD is not for every server
        with self._respond(url, {**HEADERS, "Range": "bytes=0-0"}) as response:
            found = RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if response.status_code == 206 and found:
                return int(found[3])
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else sum(map(len, chunks(response)))

    def _remember_size(self, file: File, size: int) -> None:
        self._sizes[file.url] = size
        if kept := self._kept(file, "size"):
            write_atomic(kept, str(size))

    def _kept(self, file: File, what: str) -> Path | None:
        """Where the cache has something of a file; None where nothing says which bytes it is."""
        if not SHA256.fullmatch(file.sha256):
            return None
        return self.cache / file.sha256[:2] / f"{file.sha256}.{what}"


class _Missing(Exception):
    """The server has no such page or file."""


class _Refused(Exception):
    """The server does not give it to us."""


class _Busy(Transient):
    """The server answers that it cannot answer now."""


class _NoRange(Failed):
    """The server does not give parts of this file."""


def _body(response: requests.Response, limit: int, *, decode: bool = False) -> bytes:
    """The whole body; Failed where it is larger, Transient where it is cut off."""
    content = bytearray()
    for chunk in chunks(response, decode=decode):
        content += chunk
        if len(content) > limit:
            raise Failed(f"it sends more than {limit} bytes")
    length = response.headers.get("Content-Length", "")
    encoded = "Content-Encoding" in response.headers
    if not encoded and length.isdigit() and len(content) < int(length):
        raise Transient(f"the connection ended after {len(content)} of {length} bytes")
    return bytes(content)


def _instead(files: Iterable[File], name: str, version: str, file: str) -> str:
    """What a project has not, and what it has that comes near."""
    same = [item.name for item in files if _same_version(item.version, version)]
    if same:
        near = difflib.get_close_matches(file, same, n=3, cutoff=0)
        return f"{file}; of {name} {version} it has {', '.join(near)}"
    versions = _nearest(version, {item.version for item in files})
    known = f"the nearest versions are {', '.join(versions)}" if versions else "nor any other"
    return f"{name} {version}; {known}"


def _same_version(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _nearest(version: str, known: Iterable[str]) -> list[str]:
    """The two versions before and the two after one that there is not."""
    found: dict[Version, str] = {}
    for text in known:
        with contextlib.suppress(InvalidVersion):
            found[Version(text)] = text
    try:
        wanted = Version(version)
    except InvalidVersion:
        return []
    ordered = sorted(found)
    place = bisect.bisect(ordered, wanted)
    return [found[item] for item in ordered[max(place - 2, 0) : place + 2]]


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What a function gives for each item, in their order, 16 at a time.

    The first error is raised at once: what has not begun is not done, and nobody waits for the
    rest, which may hang at a server that does not answer.
    """
    todo = list(enumerate(items))
    results: dict[int, R] = {}
    waiting: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R] | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()
    for item in todo:
        waiting.put(item)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not stopped.is_set():
                number, item = waiting.get_nowait()
                try:
                    done.put((number, function(item)))
                except BaseException as error:
                    stopped.set()
                    done.put(error)

    try:
        for _ in todo[:THREADS]:
            threading.Thread(target=work, name="index", daemon=True).start()
        while len(results) < len(todo):
            got = done.get()
            if isinstance(got, BaseException):
                raise got
            results[got[0]] = got[1]
    finally:
        stopped.set()
    return [results[number] for number in range(len(todo))]


def open_index(addresses: Iterable[str], cache: Path, **options: Any) -> Index:
    """The index at some addresses, which may bear credentials; further fields as Index has them."""
    logins: dict[str, Login] = {}
    plain: dict[str, None] = {}
    for address in addresses:
        if not is_index_address(address):
            raise SourceError(
                f"{shown(address)}: expected the http, https or file address of a package index",
                remedy="Correct `index` in Longrun's configuration, or index-url in pip's.",
            )
        parts = urlsplit(address)
        if parts.username is not None:
            host = parts.netloc.rpartition("@")[2]
            logins[host] = Login(
                user=unquote(parts.username), password=unquote(parts.password or "")
            )
        plain[without_login(address).rstrip("/")] = None
    return Index(addresses=tuple(plain), cache=cache, logins=logins, **options)


def once(make: Callable[[], Index]) -> Callable[[], Index]:
    """A function that makes an index when it is first called, whichever thread calls it.

    What failed is not tried again: three hundred sources would start pip three hundred times.
    """
    lock = threading.Lock()
    made: list[Index | SourceError] = []

    def get() -> Index:
        with lock:
            if not made:
                try:
                    made.append(make())
                except SourceError as error:
                    made.append(error)
        if isinstance(made[0], SourceError):
            raise SourceError(made[0].message, remedy=made[0].remedy)
        return made[0]

    return get


def find_index(config: Config, python: Path) -> Index:
    """The site's package index: that of Longrun's configuration, else pip's on this machine.

    ``python`` is an interpreter with pip, which knows its own files, variables and defaults.
    """
    settings = pip.settings(python)
    addresses = list(config.index)
    if not addresses and settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        own = settings.get("index-url") or pip.default_index(python, config.cache / "index")
        addresses = [own, *settings.get("extra-index-url", "").split()]
    return open_index(
        addresses,
        config.cache / "index",
        cert=settings.get("cert", ""),
        proxy=settings.get("proxy", ""),
        directories=pip.local_directories(settings.get("find-links", "")),
    )


def _login_remedy(url: str) -> str:
    return (
        f"Put user and password for {without_login(urlsplit(url).netloc)} into ~/.netrc, or into "
        "the index-url of pip's configuration."
    )
