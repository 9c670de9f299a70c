"""Sources over real HTTP on loopback: what servers, lines and people do wrong, and what is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from web import CONTENT, Handler, Site, endless, in_turn, page, plain, serve, slow, status

import longrun
from longrun import download as download_module
from longrun.download import Unreachable
from longrun.errors import SourceError, SpecError
from longrun.fetch import Candidate, Fetcher, Hosts, Provenance, candidates
from longrun.index.client import Index, once, open_index
from longrun.model import Signature, Source
from longrun.signature import NOT_CHECKED


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(download_module, "CONNECT_SECONDS", 0.3)


def source(*urls: str, content: bytes = CONTENT, **more: object) -> Source:
    fields: dict[str, object] = {"file": "a-1.0.tar.gz", "size": len(content), "urls": urls}
    digest = hashlib.sha256(content).hexdigest()
    return Source(**{**fields, "sha256": digest, **more})  # type: ignore[arg-type]


def fetcher(room: Path, **more: object) -> Fetcher:
    fields: dict[str, object] = {"hosts": Hosts(), "keys": room / "keys"}
    fields |= {"downloads": room / "downloads", "index": once(lambda: open_index([], room))}
    return Fetcher(**{**fields, **more})  # type: ignore[arg-type]


def parts(room: Path) -> list[Path]:
    return sorted((room / "downloads").glob("*.part"))


def leave_part(room: Path, wanted: Source, content: bytes) -> None:
    (room / "downloads").mkdir()
    (room / f"downloads/{wanted.sha256[:16]}-{wanted.file}.part").write_bytes(content)


def got(room: Path, wanted: Source, **more: object) -> Provenance:
    """Fetch and compare the bytes; no part may remain."""
    path, provenance = fetcher(room, **more).get(wanted)
    assert path.read_bytes() == CONTENT
    assert parts(room) == []
    return provenance


def refused(room: Path, wanted: Source, **more: object) -> str:
    with pytest.raises(SourceError) as caught:
        fetcher(room, **more).get(wanted)
    assert not (room / f"downloads/{wanted.sha256[:16]}-{wanted.file}").exists()
    assert wanted.sha256 in caught.value.remedy
    return caught.value.message


def test_candidates_are_in_order_and_once() -> None:
    hosts = Hosts(archives=("http://one/debian", "http://two/debian"), mirrors=("http://flat",))
    wanted = source(
        "http://up/a", "http://one/debian/pool/a+b~1", pool=("pool/a+b~1",), index="a==1"
    )
    assert candidates(wanted, hosts) == [
        Candidate(url="http://up/a", via="upstream"),
        Candidate(url="http://one/debian/pool/a+b~1", via="upstream"),
        Candidate(url="index:a==1", via="index"),
        Candidate(url="http://two/debian/pool/a+b~1", via="archive"),
        Candidate(url="http://flat/a-1.0.tar.gz", via="mirror"),
        Candidate(url=f"http://flat/{wanted.sha256}", via="mirror"),
    ]


def test_upstream_gives_it_and_progress_is_told(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    told: list[tuple[int, int]] = []
    target = tmp_path / "out"
    wanted = source(f"{site.url}/a")
    provenance = fetcher(tmp_path).put(wanted, target, progress=lambda *at: told.append(at))
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert len(told) == 9
    assert (provenance.url, provenance.via) == (f"{site.url}/a", "upstream")


def test_what_was_fetched_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    wanted = source(f"{site.url}/a")
    first = got(tmp_path, wanted)
    assert got(tmp_path, wanted, offline=True) == first
    assert len(site.asked) == 1


def test_a_kept_file_that_rotted_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    wanted = source(f"{site.url}/a")
    path, _ = fetcher(tmp_path).get(wanted)
    path.write_bytes(CONTENT[:-1] + b"?")
    got(tmp_path, wanted)
    assert len(site.asked) == 2


def test_404_then_an_archive_then_a_mirror(site: Site, tmp_path: Path) -> None:
    wanted = source(f"{site.url}/gone", pool=("pool/a",))
    hosts = Hosts(archives=(f"{site.url}/debian",), mirrors=(f"{site.url}/flat",))
    site.does[f"/flat/{wanted.sha256}"] = serve(CONTENT)
    assert got(tmp_path, wanted, hosts=hosts).via == "mirror"
    asked = [path for path, _ in site.asked]
    assert asked == [
        "/gone",
        "/debian/pool/a",
        "/flat/a-1.0.tar.gz",
        f"/flat/{wanted.sha256}",
    ]  # and a 404 is asked for once


def test_a_line_that_drops_half_way_is_resumed(site: Site, tmp_path: Path) -> None:
    half = len(CONTENT) // 2
    site.does["/a"] = in_turn(serve(CONTENT, stop=half), serve(CONTENT))
    got(tmp_path, source(f"{site.url}/a"))
    assert site.ranges("/a") == ["", f"bytes={half}-"]


def test_a_line_that_drops_often_gets_there(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT, stop=len(CONTENT) // 7)  # more drops than tries
    got(tmp_path, source(f"{site.url}/a"))
    assert len(site.asked) == 8


def test_a_line_that_brings_nothing_is_given_up(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT, stop=0)
    message = refused(tmp_path, source(f"{site.url}/a"))
    assert "(tried 4 times)" in message
    assert len(site.asked) == 4


def test_what_one_server_began_another_completes(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = in_turn(serve(CONTENT, stop=100_000), status(503))
    site.does["/b"] = serve(CONTENT)
    got(tmp_path, source(f"{site.url}/a", f"{site.url}/b"))
    assert site.ranges("/b") == ["bytes=100000-"]


def test_a_server_without_ranges_begins_anew(site: Site, tmp_path: Path) -> None:
    wanted = source(f"{site.url}/a")
    leave_part(tmp_path, wanted, CONTENT[:1000])
    site.does["/a"] = plain(CONTENT, length=True)
    got(tmp_path, wanted)


@pytest.mark.parametrize("shift", [-10, 10])
def test_a_server_that_answers_another_range(site: Site, tmp_path: Path, shift: int) -> None:
    wanted = source(f"{site.url}/a")
    leave_part(tmp_path, wanted, CONTENT[:1000])
    site.does["/a"] = in_turn(serve(CONTENT, shift=shift), serve(CONTENT))
    got(tmp_path, wanted)
    assert site.ranges("/a") == ["bytes=1000-", ""]


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 5])
def test_a_corrupt_part_is_begun_anew_once(site: Site, tmp_path: Path, size: int) -> None:
    wanted = source(f"{site.url}/a")
    leave_part(tmp_path, wanted, b"?" * size)
    site.does["/a"] = serve(CONTENT)
    got(tmp_path, wanted)
    assert site.ranges("/a") == (["bytes=1000-", ""] if size == 1000 else [""])


def test_a_complete_part_needs_no_request(site: Site, tmp_path: Path) -> None:
    wanted = source(f"{site.url}/a")
    leave_part(tmp_path, wanted, CONTENT)
    got(tmp_path, wanted)
    assert site.asked == []


def test_a_wrong_hash_is_refused_and_not_kept(site: Site, tmp_path: Path) -> None:
    other = CONTENT[:-1] + b"?"
    site.does["/a"] = serve(other)
    message = refused(tmp_path, source(f"{site.url}/a"))
    assert f"its sha256 is {hashlib.sha256(other).hexdigest()}" in message
    assert len(site.asked) == 1
    assert parts(tmp_path) == []


def test_a_wrong_hash_in_pieces_ends(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT[:-1] + b"?", stop=300_000)
    assert "its sha256 is" in refused(tmp_path, source(f"{site.url}/a"))
    assert len(site.asked) == 4  # two pieces, and once more


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_size_is_refused_before_the_body(site: Site, tmp_path: Path, ranges: bool) -> None:
    wanted = source(f"{site.url}/a")
    if ranges:
        leave_part(tmp_path, wanted, CONTENT[:1000])
    site.does["/a"] = serve(CONTENT + b"more")
    message = refused(tmp_path, wanted)
    assert f"it has {len(CONTENT) + 4} bytes, and {len(CONTENT)} are pinned" in message


def test_an_endless_body_is_refused_early(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = endless
    assert f"sends more than the pinned {len(CONTENT)}" in refused(
        tmp_path, source(f"{site.url}/a")
    )
    assert parts(tmp_path) == []


def test_a_short_body_of_unknown_length_is_refused(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = plain(CONTENT[:1000])
    assert "ended after 1000 of" in refused(tmp_path, source(f"{site.url}/a"))


def test_a_server_that_is_busy_for_a_moment(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = in_turn(status(503), status(502), serve(CONTENT))
    got(tmp_path, source(f"{site.url}/a"))


def test_a_server_that_compresses_on_the_fly_does_not_change_the_bytes(
    site: Site, tmp_path: Path
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["Accept-Encoding"] == "identity"
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")  # as some say of every .tar.gz
        request.end_headers()
        request.wfile.write(CONTENT)

    site.does["/a"] = answer
    got(tmp_path, source(f"{site.url}/a"))


def test_when_all_fail_every_address_and_reason_is_named(site: Site, tmp_path: Path) -> None:
    wanted = source(f"{site.url}/a", f"{site.url}/b", "gopher://x/y", pool=("pool/a",))
    site.does["/b"] = status(500)
    hosts = Hosts(archives=("http://127.0.0.1:9/debian",), mirrors=(f"{site.url}/flat",))
    message = refused(tmp_path, wanted, hosts=hosts)
    assert message.splitlines()[0] == "a-1.0.tar.gz is not to be had:"
    for reason in (
        f"{site.url}/a: HTTP 404",
        f"{site.url}/b: HTTP 500 (tried 4 times)",
        "gopher://x/y: No connection adapters",
        "http://127.0.0.1:9/debian/pool/a: 127.0.0.1:9 cannot be reached: [Errno 111] Conn",
        f"{site.url}/flat/a-1.0.tar.gz: HTTP 404",
        f"{site.url}/flat/{wanted.sha256}: HTTP 404",
    ):
        assert f"\n  {reason}" in message
    assert parts(tmp_path) == []


def test_the_remedy_and_a_pool_without_archives(tmp_path: Path) -> None:
    wanted = source(pool=("pool/a",))
    with pytest.raises(SourceError) as caught:
        fetcher(tmp_path, advice="/etc/site.toml").get(wanted)
    assert "no Debian archive is known" in caught.value.message
    for way in (str(tmp_path / "downloads"), "--sources", "/etc/site.toml", wanted.sha256):
        assert way in caught.value.remedy


def count_requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    real, asked = requests.get, []

    def get(url: str, **options: object) -> requests.Response:
        asked.append(url)
        return real(url, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(requests, "get", get)
    return asked


def test_a_name_that_does_not_resolve_is_asked_for_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: object) -> object:
        if host == "gone.example":
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    asked = count_requests(monkeypatch)
    shared = Unreachable()
    for name in ("x", "y"):
        site.does[f"/{name}"] = serve(CONTENT)
        wanted = source(f"http://gone.example/{name}", f"{site.url}/{name}", file=name)
        shutil.rmtree(tmp_path / "downloads", ignore_errors=True)
        got(tmp_path, wanted, unreachable=shared)
    assert asked == ["http://gone.example/x", f"{site.url}/x", f"{site.url}/y"]
    assert "Failed to resolve" in shared.why("http://gone.example/z")


def test_a_host_that_does_not_answer_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf, socket.socket() as filler, socket.socket() as filler2:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for each in (filler, filler2):  # the queue is full: further calls are dropped
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        asked = count_requests(monkeypatch)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        message = refused(tmp_path, source(f"{url}/a", f"{url}/b", f"{url}/c"))
    assert asked == [f"{url}/a"]
    assert message.count("does not answer within 0.3 s") == 3


def test_a_stalled_server_is_given_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "READ_SECONDS", 1.0)
    site.does["/a"] = in_turn(slow, serve(CONTENT))
    got(tmp_path, source(f"{site.url}/a"))
    assert site.ranges("/a")[1].startswith("bytes=")


def test_threads_that_want_the_same_file_fetch_it_once(site: Site, tmp_path: Path) -> None:
    def unhurried(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        serve(CONTENT)(request)

    site.does["/a"] = unhurried
    wanted, one = source(f"{site.url}/a"), fetcher(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = {future.result()[0] for future in [pool.submit(one.get, wanted) for _ in "x" * 8]}
    assert len(paths) == 1
    assert paths.pop().read_bytes() == CONTENT
    assert len(site.asked) == 1
    assert parts(tmp_path) == []


CHILD = """
import sys
from pathlib import Path
from longrun.fetch import Fetcher, Hosts
from longrun.model import Source
room, url, sha256, size = sys.argv[1:]
wanted = Source(file="a-1.0.tar.gz", sha256=sha256, size=int(size), urls=(url,))
fetcher = Fetcher(hosts=Hosts(), downloads=Path(room) / "downloads", keys=Path(room),
                  index=lambda: None)
print(fetcher.get(wanted)[0])
"""


def child(room: Path, wanted: Source) -> subprocess.Popen[bytes]:
    arguments = [str(room), wanted.urls[0], wanted.sha256, str(wanted.size)]
    where = {**os.environ, "PYTHONPATH": str(Path(longrun.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], env=where, stdout=subprocess.PIPE
    )


def test_processes_that_want_the_same_file_fetch_it_once(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    wanted = source(f"{site.url}/a")
    children = [child(tmp_path, wanted) for _ in range(3)]
    printed = {started.communicate(timeout=30)[0] for started in children}
    assert len(printed) == 1
    assert Path(printed.pop().decode().strip()).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_killed_run_is_resumed(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = in_turn(slow, serve(CONTENT))
    wanted = source(f"{site.url}/a")
    killed = child(tmp_path, wanted)
    deadline = time.monotonic() + 20
    while not any(part.stat().st_size > 300_000 for part in parts(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert [path.suffix for path in (tmp_path / "downloads").iterdir()] == [".part"]
    got(tmp_path, wanted)
    start = int(site.ranges("/a")[1].removeprefix("bytes=").rstrip("-"))
    assert start > 300_000


@pytest.mark.parametrize("by", ["name", "sha256"])
@pytest.mark.parametrize("where", ["downloads", "elsewhere"])
def test_a_file_put_there_by_hand(tmp_path: Path, by: str, where: str) -> None:
    wanted = source("http://127.0.0.1:9/a")
    (tmp_path / where).mkdir()
    (tmp_path / where / (wanted.file if by == "name" else wanted.sha256)).write_bytes(CONTENT)
    provenance = got(tmp_path, wanted, directories=(tmp_path / "elsewhere",), offline=True)
    assert (provenance.via, provenance.url) == ("directory", "")


def test_a_wrong_file_put_there_by_hand_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    wrong = tmp_path / "downloads/a-1.0.tar.gz"
    wrong.write_bytes(b"?")
    message = refused(tmp_path, source("http://127.0.0.1:9/a"))
    assert f"{wrong}: it has 1 bytes, not {len(CONTENT)}" in message
    wrong.write_bytes(bytes(len(CONTENT)))
    assert f"{wrong}: its sha256 is" in refused(tmp_path, source("http://127.0.0.1:9/a"))
    assert wrong.exists()


def test_offline_asks_nobody(site: Site, tmp_path: Path) -> None:
    message = refused(tmp_path, source(f"{site.url}/a"), offline=True)
    assert "offline" in message
    assert site.asked == []


def test_two_sources_of_one_name_do_not_disturb_each_other(site: Site, tmp_path: Path) -> None:
    for name, content in (("x", b"one"), ("y", b"two")):
        site.does[f"/{name}"] = serve(content)
        wanted = source(f"{site.url}/{name}", content=content, file="v1.tar.gz")
        assert fetcher(tmp_path).get(wanted)[0].read_bytes() == content
    assert len(list((tmp_path / "downloads").glob("*v1.tar.gz"))) == 2


def test_a_file_name_with_directories_is_an_error_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="without directories"):
        fetcher(tmp_path).get(source(file="../evil"))


def test_stop_ends_a_download_and_keeps_its_part(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    one = fetcher(tmp_path)
    with pytest.raises(SourceError, match="stopped"):
        one.get(source(f"{site.url}/a"), progress=lambda done, total: one.stop())
    assert parts(tmp_path)[0].stat().st_size < len(CONTENT)


def test_a_damaged_note_of_the_origin_is_not_trusted(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    wanted = source(f"{site.url}/a")
    path, _ = fetcher(tmp_path).get(wanted)
    note = path.with_name(path.name + ".origin")
    assert json.loads(note.read_text())["url"] == f"{site.url}/a"
    note.write_text("{")
    assert got(tmp_path, wanted).via == "directory"


def test_a_file_that_changes_while_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "by-hand").mkdir()
    (tmp_path / "by-hand" / "a-1.0.tar.gz").write_bytes(CONTENT)
    monkeypatch.setattr(shutil, "copyfile", lambda path, target: target.write_bytes(b"?"))
    one = fetcher(tmp_path, directories=(tmp_path / "by-hand",))
    with pytest.raises(SourceError, match="changed while it was copied"):
        one.put(source(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_download_is_not_copied_but_a_file_of_the_users_is(site: Site, tmp_path: Path) -> None:
    site.does["/a"] = serve(CONTENT)
    one = fetcher(tmp_path)
    one.put(source(f"{site.url}/a"), tmp_path / "out")
    assert (tmp_path / "out").stat().st_nlink == 2
    other = source(f"{site.url}/b", content=b"other", file="b.tar.gz")
    (tmp_path / "downloads" / "b.tar.gz").write_bytes(b"other")
    one.put(other, tmp_path / "out-b")
    assert (tmp_path / "out-b").stat().st_nlink == 1


def test_without_the_tool_no_signature_is_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longrun.fetch.missing_tool", lambda signature: "gpgv")
    site.does["/a"] = serve(CONTENT)
    signature = Signature(kind="asc", url=f"{site.url}/a.asc", keyring="k.asc")
    provenance = got(tmp_path, source(f"{site.url}/a", signature=signature))
    assert str(provenance.signature) == "not checked (gpgv is not installed)"
    assert [path for path, _ in site.asked] == ["/a"]


@pytest.mark.parametrize("answer", [status(404), endless])
def test_a_signature_that_cannot_be_had_stops_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Handler
) -> None:
    monkeypatch.setattr("longrun.fetch.missing_tool", lambda signature: "")
    site.does |= {"/a": serve(CONTENT), "/a.asc": answer}
    signature = Signature(kind="asc", url=f"{site.url}/a.asc", keyring="k.asc")
    provenance = got(tmp_path, source(f"{site.url}/a", signature=signature))
    assert provenance.signature.status == NOT_CHECKED
    assert f"{site.url}/a.asc: " in provenance.signature.reason


def test_a_signature_that_does_not_fit_stops_the_source(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(file: Path, signature: Signature, detached: Path, **named: object) -> None:
        assert (file.read_bytes(), detached.read_bytes()) == (CONTENT, b"signed")
        raise SourceError(f"{named['name']}: does not fit")

    monkeypatch.setattr("longrun.fetch.missing_tool", lambda signature: "")
    monkeypatch.setattr("longrun.fetch.check", check)
    site.does |= {"/a": serve(CONTENT), "/a.asc": serve(b"signed")}
    wanted = source(
        f"{site.url}/a", signature=Signature(kind="asc", url=f"{site.url}/a.asc", keyring="k.asc")
    )
    for _ in range(2):
        with pytest.raises(SourceError, match=r"a-1\.0\.tar\.gz: does not fit"):
            fetcher(tmp_path).get(wanted)


WHEEL = "tiny-1.0-cp313-cp313-manylinux_2_28_aarch64.whl"
SDIST = "tiny-1.0.tar.gz"


def offer(site: Site, *names: str, sha256: str = "") -> Callable[[], Index]:
    """A package index with files of ``tiny``, each with the usual content."""
    fragment = f"#sha256={sha256}" if sha256 else ""
    links = "".join(f'<a href="/files/{name}{fragment}">{name}</a>' for name in names)
    site.does["/simple/tiny/"] = page(f"<html>{links}</html>")
    site.does |= {f"/files/{name}": serve(CONTENT) for name in names}
    return once(lambda: open_index([f"{site.url}/simple"], Path("/nonexistent")))


@pytest.mark.parametrize("name", [WHEEL, SDIST])
@pytest.mark.parametrize("known", [True, False])
def test_a_file_of_the_index(site: Site, tmp_path: Path, name: str, known: bool) -> None:
    wanted = source(file=name, index="tiny==1.0")
    index = offer(site, WHEEL, SDIST, sha256=wanted.sha256 if known else "")
    provenance = got(tmp_path, wanted, index=index)
    assert (provenance.via, provenance.url) == ("index", f"{site.url}/files/{name}")


def test_a_file_of_the_index_is_resumed(site: Site, tmp_path: Path) -> None:
    index = offer(site, WHEEL)
    site.does[f"/files/{WHEEL}"] = in_turn(serve(CONTENT, stop=100_000), serve(CONTENT))
    got(tmp_path, source(file=WHEEL, index="tiny==1.0"), index=index)
    assert site.ranges(f"/files/{WHEEL}") == ["", "bytes=100000-"]


def test_a_withdrawn_file_is_locked_and_so_it_comes(site: Site, tmp_path: Path) -> None:
    index = offer(site, WHEEL)
    site.does["/simple/tiny/"] = page(f'<a data-yanked="broken" href="/files/{WHEEL}">x</a>')
    got(tmp_path, source(file=WHEEL, index="tiny==1.0"), index=index)


def test_an_index_whose_file_is_not_the_pinned_one(site: Site, tmp_path: Path) -> None:
    wanted = source(file=WHEEL, index="tiny==1.0")
    message = refused(tmp_path, wanted, index=offer(site, WHEEL, sha256="0" * 64))
    assert f"{site.url}/simple) has a {WHEEL} with the sha256 {'0' * 64}" in message
    assert f"not the pinned {wanted.sha256}" in message
    assert [path for path, _ in site.asked] == ["/simple/tiny/"]


def test_an_index_that_lies_about_its_file(site: Site, tmp_path: Path) -> None:
    wanted = source(content=CONTENT[:-1] + b"?", file=WHEEL, index="tiny==1.0")
    message = refused(tmp_path, wanted, index=offer(site, WHEEL, sha256=wanted.sha256))
    assert f"{site.url}/files/{WHEEL}: its sha256 is" in message
    assert list((tmp_path / "downloads").iterdir()) == []


def test_an_index_without_the_file_names_what_it_has(site: Site, tmp_path: Path) -> None:
    other = WHEEL.replace("2_28", "2_17")
    wanted = source(file=WHEEL, index="tiny==1.0")
    message = refused(tmp_path, wanted, index=offer(site, SDIST, other))
    assert f"/simple) has no {WHEEL}; of tiny 1.0 it has {other}, {SDIST}" in message


def test_an_index_without_the_version_names_the_nearest(site: Site, tmp_path: Path) -> None:
    versions = ["0.1", "0.9", "0.10", "1.1", "2.0", "3.0", "odd!"]
    index = offer(site, *(f"tiny-{version}.tar.gz" for version in versions))
    message = refused(tmp_path, source(file=SDIST, index="tiny==1.0"), index=index)
    assert "has no tiny 1.0; the nearest versions are 0.9, 0.10, 1.1, 2.0" in message
    message = refused(tmp_path, source(file=SDIST, index="tiny==odd"), index=index)
    assert "has no tiny odd; nor any other" in message


def test_an_index_without_the_project(site: Site, tmp_path: Path) -> None:
    message = refused(tmp_path, source(file=SDIST, index="other==1.0"), index=offer(site))
    assert f"index:other==1.0: no project other on the package index ({site.url}/" in message


def test_an_index_that_is_down_and_a_mirror(site: Site, tmp_path: Path) -> None:
    wanted = source(file=WHEEL, index="tiny==1.0")
    index = once(lambda: open_index(["http://127.0.0.1:9/simple"], tmp_path))
    message = refused(tmp_path, wanted, index=index)
    assert "http://127.0.0.1:9/simple/tiny/: 127.0.0.1:9 cannot be reached" in message
    assert "name another one" in message
    site.does[f"/flat/{WHEEL}"] = serve(CONTENT)
    hosts = Hosts(mirrors=(f"{site.url}/flat",))
    assert got(tmp_path, wanted, index=index, hosts=hosts).via == "mirror"


def test_an_index_that_goes_away_half_way(site: Site, tmp_path: Path) -> None:
    """What came before is kept, the part too; the next run goes on from there."""
    index = offer(site, WHEEL, SDIST)
    one = fetcher(tmp_path, index=index)
    one.get(source(file=SDIST, index="tiny==1.0"))
    half = serve(CONTENT, stop=200_000)
    site.does[f"/files/{WHEEL}"] = in_turn(half, status(503))
    wanted = source(content=CONTENT, file=WHEEL, index="tiny==1.0")
    with pytest.raises(SourceError) as caught:
        one.get(wanted)
    assert f"{site.url}/files/{WHEEL}: HTTP 503 (tried 4 times)" in caught.value.message
    assert "--sources" in caught.value.remedy
    assert parts(tmp_path)[0].stat().st_size == 200_000
    site.does[f"/files/{WHEEL}"] = serve(CONTENT)
    one.get(wanted)
    assert site.ranges(f"/files/{WHEEL}")[-1] == "bytes=200000-"


def test_directories_that_pip_finds_files_in(tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / WHEEL).write_bytes(CONTENT)
    index = once(lambda: open_index([], tmp_path, directories=(links,)))
    wanted = source(file=WHEEL, index="tiny==1.0")
    assert got(tmp_path, wanted, index=index, offline=True).via == "directory"
    (links / WHEEL).write_bytes(b"other")
    assert f"{links / WHEEL}: it has 5 bytes" in refused(tmp_path, wanted, index=index)


def test_the_index_is_not_looked_for_where_the_file_is_here(site: Site, tmp_path: Path) -> None:
    def never() -> Index:
        raise AssertionError("this starts pip")

    (tmp_path / "by-hand").mkdir()
    (tmp_path / "by-hand" / WHEEL).write_bytes(CONTENT)
    wanted = source(file=WHEEL, index="tiny==1.0")
    got(tmp_path, wanted, index=never, directories=(tmp_path / "by-hand",))
    site.does["/a"] = serve(CONTENT)
    got(tmp_path, source(f"{site.url}/a"), index=never)


def test_an_index_that_cannot_be_found_is_looked_for_once(tmp_path: Path) -> None:
    tries = []

    def broken() -> Index:
        tries.append(1)
        raise SourceError("pip is broken", remedy="mend it")

    index = once(broken)
    for name in (WHEEL, SDIST):
        message = refused(tmp_path, source(file=name, index="tiny==1.0"), index=index)
        assert "index:tiny==1.0: pip is broken" in message
    assert len(tries) == 1


def test_a_requirement_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected name==version, found 'tiny'"):
        fetcher(tmp_path).get(source(file=WHEEL, index="tiny"))
