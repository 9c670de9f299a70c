"""Get the files that sources name: from a directory, or from upstream, then from mirrors.

No mirror's host is known to the project: a spec names paths inside a Debian archive, and the
archives come from the site's configuration and from the machine's own apt sources. Whatever gives
the bytes, only their size and sha256 count.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from longrun.config import Config, is_address
from longrun.download import (
    Ask,
    Failed,
    Part,
    Progress,
    Unreachable,
    download,
    locked_part,
    read_small,
)
from longrun.errors import SourceError, SpecError
from longrun.fs import sha256_file, write_atomic
from longrun.index.client import Index
from longrun.index.simple import shown
from longrun.model import Signature, Source
from longrun.signature import Verdict, check, missing_tool, not_checked

APT = Path("/etc/apt")
INDEX = "index:"
SIGNATURE_BYTES = 1 << 20


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Where mirrors are: bases of Debian archives, and flat directories of sources."""

    archives: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One place to try; ``via`` is upstream, index, archive or mirror."""

    url: str
    via: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a source's bytes came from on this machine, and what their signature says.

    ``via`` is a Candidate's, or ``directory`` for a file that was put there by hand, whose ``url``
    is empty. All this depends on the machine: a manifest that is to be the same everywhere names
    the source's own urls instead.
    """

    file: str
    sha256: str
    size: int
    url: str
    via: str
    signature: Verdict


def find_hosts(config: Config, *, apt: Path = APT) -> Hosts:
    """The hosts of the configuration, then those of the machine's apt, without duplicates."""
    archives = dict.fromkeys([*config.archives, *_apt_archives(apt)])
    return Hosts(archives=tuple(archives), mirrors=config.mirrors)


def _apt_archives(apt: Path) -> list[str]:
    """Addresses of apt's archives; those that look like the distribution's own come first."""
    parts = sorted((apt / "sources.list.d").glob("*"))
    found: list[str] = []
    for file in [apt / "sources.list", *parts]:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # absent, or readable by root alone
        if file.suffix == ".list":
            found += _one_line_uris(text)
        elif file.suffix == ".sources":
            found += _stanza_uris(text)
    usable = [url.rstrip("/") for url in found if is_address(url) and not urlsplit(url).username]
    return sorted(usable, key=lambda url: "debian" not in urlsplit(url).path)


def _one_line_uris(text: str) -> list[str]:
    """Addresses in one-line style (sources.list(5)); a suite that ends in / has no pool."""
    line = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+\S*[^/\s](?:\s|$)", re.M)
    return line.findall(text)


def _stanza_uris(text: str) -> list[str]:
    """Addresses in deb822 style (sources.list(5))."""
    found: list[str] = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = dict(re.findall(r"(?m)^([\w-]+):[ \t]*(.*)$", unfolded))
        values = {name.lower(): value.split() for name, value in fields.items()}
        flat = all(suite.endswith("/") for suite in values.get("suites", []))
        if values.get("enabled", ["yes"]) != ["no"] and not flat:
            found += values.get("uris", [])
    return found


def _in_archives(hosts: Hosts, pool: Iterable[str]) -> list[str]:
    """The addresses of pool paths in every known archive."""
    return [f"{archive}/{quote(p, safe='/+~')}" for archive in hosts.archives for p in pool]


def candidates(source: Source, hosts: Hosts) -> list[Candidate]:
    """Every place to try, best first: upstream, the package index, archives, mirrors."""
    places = [Candidate(url=url, via="upstream") for url in source.urls]
    if source.index:
        places.append(Candidate(url=INDEX + source.index, via="index"))
    places += [Candidate(url=url, via="archive") for url in _in_archives(hosts, source.pool)]
    for mirror in hosts.mirrors:
        places += [
            Candidate(url=f"{mirror}/{quote(name, safe='+~')}", via="mirror")
            for name in (source.file, source.sha256)
        ]
    first: dict[str, Candidate] = {}
    for place in places:
        first.setdefault(place.url, place)
    return list(first.values())


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Gets sources for one run; one object serves all threads.

    ``downloads`` keeps what was fetched; there and in ``directories`` a user may also put a file by
    hand, called by its name or its sha256. ``keys`` holds upstream's keyrings, ``index`` gives the
    package index (see ``index.once``), ``advice`` names the configuration file in errors.
    """

    hosts: Hosts
    downloads: Path
    keys: Path
    index: Callable[[], Index]
    directories: tuple[Path, ...] = ()
    offline: bool = False
    advice: str = ""
    unreachable: Unreachable = field(default_factory=Unreachable)
    stopped: threading.Event = field(default_factory=threading.Event)

    def put(self, source: Source, target: Path, *, progress: Progress = quiet) -> Provenance:
        """Copy the source's bytes to ``target``, fetching them if need be; errors as ``get``."""
        path, provenance = self.get(source, progress=progress)
        if path == self._kept(source) and _linked(path, target):
            return provenance
        shutil.copyfile(path, target)
        if sha256_file(target) != source.sha256:
            target.unlink()
            raise SourceError(
                f"{path} changed while it was copied", remedy="Run the command again."
            )
        return provenance

    def stop(self) -> None:
        """End what is being downloaded in other threads, soon; their parts are kept."""
        self.stopped.set()

    def get(self, source: Source, *, progress: Progress = quiet) -> tuple[Path, Provenance]:
        """A file with the source's bytes, checked just now, and where they came from.

        Raises SourceError, naming every place that was tried and why it was of no use.
        """
        if Path(source.file).name != source.file:
            raise SpecError(f"{source.file!r}: expected a file name without directories")
        tried: list[str] = []
        path = self._find(source, tried) or self._find_in_links(source, tried)
        if path:
            return path, self._provenance_of(source, path)
        if self.offline:
            raise self._nothing(source, [*tried, "nothing else was asked: this run is offline"])
        self.downloads.mkdir(parents=True, exist_ok=True)
        kept = self._kept(source)
        with locked_part(_beside(kept, ".part")) as part:
            if path := self._find(source, []):  # another process got it while this one waited
                part.path.unlink()
                return path, self._provenance_of(source, path)
            provenance = self._fetch(source, kept, part, tried, progress)
        return kept, provenance

    def _kept(self, source: Source) -> Path:
        """Where a download is kept; two sources may well be called ``v1.0.tar.gz``."""
        return self.downloads / f"{source.sha256[:16]}-{source.file}"

    def _find(self, source: Source, notes: list[str]) -> Path | None:
        """A file that is already here; files that only bear the right name are noted."""
        directories = (self.downloads, *self.directories)
        return _find([self._kept(source), *_named(source, directories)], source, notes)

    def _find_in_links(self, source: Source, notes: list[str]) -> Path | None:
        """The file in a directory that pip is configured to find files in."""
        if not source.index:
            return None
        try:
            directories = self.index().directories
        except SourceError as error:
            notes.append(error.message)
            return None
        return _find(_named(source, directories), source, notes)

    def _fetch(
        self, source: Source, kept: Path, part: Part, tried: list[str], progress: Progress
    ) -> Provenance:
        """Try one place after the other; what has the right bytes is kept, whole."""
        for place in candidates(source, self.hosts):
            self._check_stopped()
            try:
                url = self._from(place, source, part, progress)
            except Failed as error:
                tried.append(f"{place.url}: {error}")
                continue
            provenance = self._provenance(source, part.path, url=url, via=place.via)
            write_atomic(_beside(kept, ".origin"), _to_json(provenance))
            part.path.rename(kept)
            return provenance
        if not part.length:
            part.path.unlink()
        raise self._nothing(source, tried)

    def _from(self, place: Candidate, source: Source, part: Part, progress: Progress) -> str:
        """Complete the part from a place; the address that it really came from."""
        if place.via != "index":
            self._download(place.url, source, part, progress)
            return place.url
        url = self._locate(source)
        try:
            self._download(url, source, part, progress, ask=self.index().ask)
        except Failed as error:
            raise Failed(f"{shown(url)}: {error}") from None
        return shown(url)

    def _download(
        self,
        url: str,
        source: Source,
        part: Part,
        progress: Progress,
        *,
        ask: Ask | None = None,
    ) -> None:
        def watched(done: int, total: int) -> None:
            self._check_stopped()
            progress(done, total)

        download(
            url,
            part,
            sha256=source.sha256,
            size=source.size,
            unreachable=self.unreachable,
            progress=watched,
            ask=ask,
        )

    def _locate(self, source: Source) -> str:
        """Where the package index has the file; Failed where it has not."""
        try:
            return self.index().locate(source.index, source.file, source.sha256).url
        except SourceError as error:
            raise Failed(f"{error.message}\n    {error.remedy}") from None

    def _check_stopped(self) -> None:
        if self.stopped.is_set():
            raise SourceError("stopped", remedy="Run the command again: it goes on from here.")

    def _provenance_of(self, source: Source, path: Path) -> Provenance:
        """As it was noted when the file was fetched, or found out now for a file put by hand."""
        if path == self._kept(source):
            noted = _from_json(_beside(path, ".origin"), source)
            if noted is not None:
                return noted
        provenance = self._provenance(source, path, url="", via="directory")
        if path == self._kept(source):
            write_atomic(_beside(path, ".origin"), _to_json(provenance))
        return provenance

    def _provenance(self, source: Source, path: Path, *, url: str, via: str) -> Provenance:
        return Provenance(
            file=source.file,
            sha256=source.sha256,
            size=source.size,
            url=url,
            via=via,
            signature=self._check_signature(source, path),
        )

    def _check_signature(self, source: Source, path: Path) -> Verdict:
        """Check upstream's signature as far as the machine can; SourceError where it is wrong."""
        signature = source.signature
        if signature is None:
            return not_checked("the spec names no signature")
        if tool := missing_tool(signature):
            return not_checked(f"{tool} is not installed")
        detached = path.with_name(Path(urlsplit(signature.url).path).name)
        if not detached.is_file():
            if self.offline:
                return not_checked("this run is offline")
            detached = _beside(self._kept(source), ".signature")
            try:
                write_atomic(detached, self._read_signature(signature))
            except Failed as error:
                return not_checked(str(error))
        return check(path, signature, detached, keys=self.keys, name=source.file)

    def _read_signature(self, signature: Signature) -> bytes:
        """The signature file from upstream or an archive; Failed, saying why for each."""
        tried = []
        for url in (signature.url, *_in_archives(self.hosts, signature.pool)):
            try:
                return read_small(url, limit=SIGNATURE_BYTES, unreachable=self.unreachable)
            except Failed as error:
                tried.append(f"{url}: {error}")
        raise Failed("; ".join(tried))

    def _nothing(self, source: Source, tried: Iterable[str]) -> SourceError:
        reasons = [f"\n  {why}" for why in tried]
        if source.pool and not self.hosts.archives:
            reasons.append("\n  no Debian archive is known, neither configured nor apt's")
        return SourceError(
            f"{source.file} is not to be had:{''.join(reasons) or ' its spec names no place'}",
            remedy=f"Put the file (sha256 {source.sha256}) into {self.downloads}, "
            "name a directory that holds it with --sources, "
            f"or name a mirror in {self.advice or 'the configuration file'}.",
        )


def _named(source: Source, directories: Iterable[Path]) -> list[Path]:
    """What a source's file may be called in some directories."""
    return [directory / name for directory in directories for name in (source.file, source.sha256)]


def _find(paths: Iterable[Path], source: Source, notes: list[str]) -> Path | None:
    for path in paths:
        if path.is_file():
            if path.stat().st_size != source.size:
                notes.append(f"{path}: it has {path.stat().st_size} bytes, not {source.size}")
            elif (found := sha256_file(path)) != source.sha256:
                notes.append(f"{path}: its sha256 is {found}")
            else:
                return path
    return None


def _linked(path: Path, target: Path) -> bool:
    """Whether ``target`` became another name of our own download: no copy, no second hash."""
    try:
        os.link(path, target)
    except OSError:  # another file system
        return False
    return True


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _to_json(provenance: Provenance) -> str:
    verdict = provenance.signature
    return json.dumps(
        {
            "sha256": provenance.sha256,
            "url": provenance.url,
            "via": provenance.via,
            "signature": [verdict.status, verdict.reason],
        }
    )


def _from_json(path: Path, source: Source) -> Provenance | None:
    """The noted provenance; None where there is none or it cannot be read."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        status, reason = noted["signature"]
        return Provenance(
            file=source.file,
            sha256=source.sha256,
            size=source.size,
            url=str(noted["url"]),
            via=str(noted["via"]),
            signature=Verdict(status=str(status), reason=str(reason)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
