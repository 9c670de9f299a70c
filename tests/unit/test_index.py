"""Package indexes over real HTTP on loopback: the two kinds of pages, and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from web import Handler, Site, in_turn, page, plain, redirect, serve, status

from longrun import download as download_module
from longrun.config import Config
from longrun.errors import SourceError, UnknownProject
from longrun.index import client as index_module
from longrun.index import pip as pip_module
from longrun.index.client import File, Index, find_index, in_parallel, open_index

JSON = "application/vnd.pypi.simple.v1+json"
WHEEL = "tiny_tool-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.4\nName: tiny-tool\nVersion: 1.0\n\nSchön.\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.005)


@pytest.fixture
def index(site: Site, tmp_path: Path) -> Index:
    return open_index([f"{site.url}/simple/"], tmp_path / "cache")


def wheel(metadata: str = METADATA, *, padding: int = 0, first: bool = False) -> bytes:
    """A wheel with so many incompressible bytes, its METADATA at the end unless ``first``."""
    raw = io.BytesIO()
    members = [
        ("tiny_tool/vendored-2.0.dist-info/METADATA", b"Name: other\n"),
        ("tiny_tool/data.bin", os.urandom(padding)),
        ("tiny_tool-1.0.dist-info/METADATA", metadata.encode()),
    ]
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in reversed(members) if first else members:
            archive.writestr(name, content)
    return raw.getvalue()


def sdist(kind: str = "gz") -> bytes:
    raw = io.BytesIO()
    members = [
        ("tiny-tool-1.0/src/tiny.egg-info/PKG-INFO", "Name: wrong\n"),
        ("tiny-tool-1.0/PKG-INFO", METADATA),
    ]
    if kind == "zip":
        with zipfile.ZipFile(raw, "w") as archive:
            for name, text in members:
                archive.writestr(name, text)
        return raw.getvalue()
    with tarfile.open(fileobj=raw, mode=f"w:{kind}") as tar:
        for name, text in members:
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return raw.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refused(index: Index, name: str = "tiny-tool") -> SourceError:
    with pytest.raises(SourceError) as caught:
        index.project(name)
    assert not isinstance(caught.value, UnknownProject)
    assert caught.value.remedy
    return caught.value


HTML_PAGE = f"""\
<!DOCTYPE html>
<html><head><meta name="pypi:repository-version" content="1.3"><title>Links</title></head><body>
<!-- <a href="commented-1.0-py3-none-any.whl">commented</a> -->
<a href="../../files/{WHEEL}#sha256={"A" * 64}" data-requires-python="&gt;=3.9,&lt;4"
   data-dist-info-metadata="sha256=abc">{WHEEL}</a><br/>
<A HREF='{WHEEL.replace("1.0", "1.1")}?token=x&amp;y=1#egg=x&amp;sha256={"b" * 64}'
   data-requires-python=">=3.9" data-yanked='it broke &quot;all&quot;'>x</A>
<a data-yanked href=https://files.example/tiny-tool-1.2.tar.gz data-core-metadata="false">y</a>
<a href="Tiny.Tool-1.3-rc1.zip" data-core-metadata=true>z</a>
<a href="tiny_tool-1.4%2Bcern-py3-none-any.whl">z</a>
<a href="/">home</a> <a name="nowhere">n</a>
</body></html>
"""


def test_an_html_page(site: Site, index: Index) -> None:
    site.does["/simple/tiny-tool/"] = page(HTML_PAGE)
    assert index.project("Tiny_Tool") == (
        File(
            name=WHEEL,
            url=f"{site.url}/files/{WHEEL}",
            sha256="a" * 64,
            version="1.0",
            requires_python=">=3.9,<4",
            metadata=True,
        ),
        File(
            name="tiny_tool-1.1-py3-none-any.whl",
            url=f"{site.url}/simple/tiny-tool/tiny_tool-1.1-py3-none-any.whl?token=x&y=1",
            sha256="b" * 64,
            version="1.1",
            requires_python=">=3.9",
            yanked='it broke "all"',
        ),
        File(
            name="tiny-tool-1.2.tar.gz",
            url="https://files.example/tiny-tool-1.2.tar.gz",
            version="1.2",
            yanked="",
        ),
        File(
            name="Tiny.Tool-1.3-rc1.zip",
            url=f"{site.url}/simple/tiny-tool/Tiny.Tool-1.3-rc1.zip",
            version="1.3-rc1",
            metadata=True,
        ),
        File(
            name="tiny_tool-1.4+cern-py3-none-any.whl",
            url=f"{site.url}/simple/tiny-tool/tiny_tool-1.4%2Bcern-py3-none-any.whl",
            version="1.4+cern",
        ),
    )


JSON_PAGE = {
    "meta": {"api-version": "1.1"},
    "name": "tiny-tool",
    "files": [
        {
            "filename": WHEEL,
            "url": f"../../files/{WHEEL}",
            "hashes": {"sha256": "a" * 64, "md5": "x"},
            "requires-python": ">=3.9",
            "size": 123,
            "core-metadata": {"sha256": "c" * 64},
        },
        {"filename": "tiny-tool-1.0.tar.gz", "url": "/x.tar.gz", "hashes": {}, "yanked": "bad"},
        {"filename": "tiny-tool-1.1.tar.gz", "url": "/y.tar.gz", "hashes": {}, "yanked": True},
        {"filename": "tiny-tool-1.2.tar.gz", "url": "/z.tar.gz", "hashes": {}, "yanked": False}
        | {"core-metadata": False, "requires-python": None, "size": None},
    ],
}


def test_a_json_page(site: Site, index: Index) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["Accept"].startswith(JSON)
        page(json.dumps(JSON_PAGE), JSON)(request)

    site.does["/simple/tiny-tool/"] = answer
    first, *others = index.project("tiny-tool")
    assert first == File(
        name=WHEEL,
        url=f"{site.url}/files/{WHEEL}",
        sha256="a" * 64,
        version="1.0",
        requires_python=">=3.9",
        size=123,
        metadata=True,
    )
    assert [file.yanked for file in others] == ["bad", "", None]
    assert others[2].url == f"{site.url}/z.tar.gz"
    assert (first.is_wheel, first.is_sdist, others[0].is_sdist) == (True, False, True)


def test_a_base_address_and_a_redirect(site: Site, index: Index) -> None:
    site.does["/simple/tiny-tool/"] = redirect("/other/Tiny/")
    site.does["/other/Tiny/"] = page(f'<html><a href="f/{WHEEL}">x</a></html>')
    assert index.project("tiny-tool")[0].url == f"{site.url}/other/Tiny/f/{WHEEL}"
    site.does["/simple/two/"] = page('<base href="/b/"><a href="two-1-py3-none-any.whl">x</a>')
    assert index.project("two")[0].url == f"{site.url}/b/two-1-py3-none-any.whl"


def test_a_page_is_asked_for_once_in_a_run(site: Site, index: Index) -> None:
    def unhurried(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        page(HTML_PAGE)(request)

    site.does["/simple/tiny-tool/"] = unhurried
    found = in_parallel(index.project, ["tiny-tool", "tiny_tool", "TINY.tool"] * 8)
    assert len(set(found)) == 1
    assert len(site.asked) == 1


def test_the_first_index_that_has_a_project_is_the_only_one_for_it(
    site: Site, tmp_path: Path
) -> None:
    one, two = f"{site.url}/one", f"{site.url}/two"
    index = open_index([one, two], tmp_path)
    link = '<html><a href="/{}#sha256={}">x</a>'
    site.does["/one/a/"] = page(link.format("a-1-py3-none-any.whl", "1" * 64))
    site.does["/two/a/"] = page(
        link.format("a-1-py3-none-any.whl", "1" * 64) + link.format("a-2.tar.gz", "2" * 64)
    )
    site.does["/two/b/"] = page(link.format("b-1-py3-none-any.whl", "3" * 64))
    assert [file.name for file in index.project("a")] == ["a-1-py3-none-any.whl"]
    assert [file.name for file in index.project("b")] == ["b-1-py3-none-any.whl"]
    with pytest.raises(UnknownProject) as caught:
        index.project("c")
    assert f"no project c on the package index ({one}, {two})" in caught.value.message


def test_a_project_without_files(site: Site, index: Index) -> None:
    site.does["/simple/empty/"] = page("<!DOCTYPE html><html><body><h1>Links</h1></body></html>")
    assert index.project("empty") == ()


def test_an_index_that_is_busy_for_a_moment(site: Site, index: Index) -> None:
    site.does["/simple/tiny-tool/"] = in_turn(status(503), status(429), page(HTML_PAGE))
    assert len(index.project("tiny-tool")) == 5


def test_a_connection_that_drops_half_way(site: Site, index: Index) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.send_header("Content-Length", str(len(HTML_PAGE)))
        request.end_headers()
        request.wfile.write(HTML_PAGE[:400].encode())

    site.does["/simple/tiny-tool/"] = in_turn(cut, page(HTML_PAGE))
    assert len(index.project("tiny-tool")) == 5
    site.does["/simple/cut/"] = cut
    error = refused(index, "cut")
    assert f"{site.url}/simple/cut/: the connection" in error.message
    assert "(tried 3 times)" in error.message
    assert len([path for path, _ in site.asked if path == "/simple/cut/"]) == 3


@pytest.mark.parametrize("code", [401, 403])
def test_an_index_that_wants_credentials(site: Site, index: Index, code: int) -> None:
    site.does["/simple/tiny-tool/"] = status(code)
    error = refused(index)
    assert f"{site.url}/simple/tiny-tool/: HTTP {code}" in error.message
    assert "~/.netrc" in error.remedy
    assert len(site.asked) == 1


def with_login(login: str, handler: Handler) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        (handler if request.headers.get("Authorization") == login else status(401))(request)

    return answer


def test_credentials_are_sent_and_never_shown(site: Site, tmp_path: Path) -> None:
    login = "Basic bWU6cy9lY3JldA=="  # me:s/ecret
    site.does["/simple/tiny-tool/"] = with_login(login, page(HTML_PAGE))
    site.does["/simple/gone/"] = with_login(login, status(500))
    index = open_index([site.url.replace("//", "//me:s%2Fecret@") + "/simple"], tmp_path)
    assert all("ecret" not in file.url for file in index.project("tiny-tool"))
    error = refused(index, "gone")
    for text in (repr(index), error.message, error.remedy):
        assert "ecret" not in text


def test_credentials_of_netrc(site: Site, index: Index, tmp_path: Path) -> None:
    site.does["/simple/tiny-tool/"] = with_login("Basic bWU6eA==", page(HTML_PAGE))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password x\n")
    assert index.project("tiny-tool")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (page("<html><form>log in</form></html>"), "not a page of a package index"),
        (page("<html><a href='/login'>log in</a></html>"), "not a page of a package index"),
        (page("\0\1 garbage"), "not a page of a package index"),
        (page("{}", "application/zip"), "it answers with application/zip"),
        (page("{", JSON), "its JSON is not that of a package index"),
        (page("[]", JSON), "its JSON is not that of a package index"),
        (page('{"files": [{"url": 1}]}', JSON), "its JSON is not that of a package index"),
        (page('{"meta": {"api-version": "2.0"}, "files": []}', JSON), "speaks version '2.0'"),
        (page('<meta name="pypi:repository-version" content="2.0">'), "speaks version '2.0'"),
        (status(418), "HTTP 418"),
        (status(500), "HTTP 500 (tried 3 times)"),
    ],
)
def test_what_is_no_page_of_an_index(
    site: Site, index: Index, answer: Handler, reason: str
) -> None:
    site.does["/simple/tiny-tool/"] = answer
    assert reason in refused(index).message


def test_an_index_that_is_down(tmp_path: Path) -> None:
    index = open_index(["http://127.0.0.1:9/simple"], tmp_path)
    error = refused(index)
    assert "http://127.0.0.1:9/simple/tiny-tool/: 127.0.0.1:9 cannot be reached" in error.message
    assert "name another one" in error.remedy


def test_an_index_that_hangs(site: Site, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "READ_SECONDS", 0.1)
    site.does["/simple/tiny-tool/"] = lambda request: time.sleep(1)
    assert "(tried 3 times)" in refused(index).message


def test_no_index_at_all(tmp_path: Path) -> None:
    assert "no package index is configured" in refused(open_index([], tmp_path)).message
    with pytest.raises(SourceError, match="expected the http, https or file address"):
        open_index(["ftp://me:secret@x/simple"], tmp_path)


def test_many_projects_and_the_first_error(site: Site, index: Index) -> None:
    for name in ("a", "b"):
        site.does[f"/simple/{name}/"] = page(f'<a href="{name}-1-py3-none-any.whl">x</a>')
    assert list(index.projects(["b", "a", "b"])) == ["b", "a"]
    with pytest.raises(UnknownProject):
        index.projects(["a", "nothing", "b"])


def test_the_first_error_waits_for_nobody() -> None:
    begun = []
    release = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise SourceError("three")
        release.wait(20)
        return number

    start = time.monotonic()
    with pytest.raises(SourceError, match="three"):
        in_parallel(work, range(100))
    assert time.monotonic() - start < 10
    assert len(begun) <= 16
    release.set()
    assert in_parallel(lambda number: -number, range(40)) == [-number for number in range(40)]
    assert in_parallel(work, []) == []


def test_metadata_beside_the_file(site: Site, index: Index) -> None:
    site.does["/w.whl.metadata"] = serve(METADATA.encode())
    file = File(name=WHEEL, url=f"{site.url}/w.whl", sha256="a" * 64, metadata=True)
    assert index.metadata(file) == METADATA
    assert index.metadata(file) == METADATA  # from the cache
    assert [path for path, _ in site.asked] == ["/w.whl.metadata"]


def test_metadata_that_was_promised_and_is_not_there(site: Site, index: Index) -> None:
    site.does["/w.whl"] = serve(wheel())
    file = File(name=WHEEL, url=f"{site.url}/w.whl", metadata=True)
    assert index.metadata(file) == METADATA


@pytest.mark.parametrize("first", [False, True])
def test_metadata_of_a_wheel_by_ranges(site: Site, index: Index, first: bool) -> None:
    content = wheel(padding=1_000_000, first=first)
    site.does["/w.whl"] = serve(content)
    file = File(name=WHEEL, url=f"{site.url}/w.whl", sha256=digest(content))
    assert index.metadata(file) == METADATA
    spans = site.ranges("/w.whl")
    assert spans[0] == "bytes=-65536"
    assert len(spans) == (2 if first else 1)
    assert index.size(file) == len(content)
    assert site.heads == []


def test_metadata_of_a_wheel_smaller_than_the_range(site: Site, index: Index) -> None:
    site.does["/w.whl"] = serve(wheel())
    assert index.metadata(File(name=WHEEL, url=f"{site.url}/w.whl")) == METADATA


@pytest.mark.parametrize("code", [0, 416, 501])
def test_metadata_from_a_server_without_ranges(site: Site, index: Index, code: int) -> None:
    content = wheel(padding=200_000)

    def answer(request: BaseHTTPRequestHandler) -> None:
        refuses = code and request.headers.get("Range")
        (status(code) if refuses else plain(content, length=True))(request)

    site.does["/w.whl"] = answer
    file = File(name=WHEEL, url=f"{site.url}/w.whl", sha256=digest(content))
    assert index.metadata(file) == METADATA


def test_a_line_that_drops_while_metadata_is_read(site: Site, index: Index) -> None:
    content = wheel(padding=200_000, first=True)
    cut, whole = serve(content, stop=100), serve(content)
    site.does["/w.whl"] = in_turn(cut, whole, cut, whole)
    assert index.metadata(File(name=WHEEL, url=f"{site.url}/w.whl")) == METADATA


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tiny-tool-1.0.tar.gz", sdist()),
        ("tiny-tool-1.0.tar.bz2", sdist("bz2")),
        ("tiny-tool-1.0.zip", sdist("zip")),
    ],
)
def test_metadata_of_an_sdist(site: Site, index: Index, name: str, content: bytes) -> None:
    site.does["/s"] = serve(content)
    file = File(name=name, url=f"{site.url}/s", sha256=digest(content))
    assert index.metadata(file) == METADATA
    assert index.size(file) == len(content)


def test_a_file_that_is_not_what_its_page_says(site: Site, index: Index) -> None:
    site.does["/s"] = serve(sdist())
    file = File(name="tiny-tool-1.0.tar.gz", url=f"{site.url}/s", sha256="0" * 64)
    with pytest.raises(SourceError, match=r"its sha256 is .*, and its page says 000"):
        index.metadata(file)


@pytest.mark.parametrize("name", [WHEEL, "tiny-tool-1.0.tar.gz", "tiny-tool-1.0.zip"])
def test_a_damaged_file_on_the_index(site: Site, index: Index, name: str) -> None:
    site.does["/f"] = serve(b"PK garbage" * 100)
    with pytest.raises(SourceError, match=rf"{name} from {site.url}/f cannot be read"):
        index.metadata(File(name=name, url=f"{site.url}/f"))


def test_a_relic_has_no_metadata(index: Index) -> None:
    with pytest.raises(SourceError, match="neither a wheel nor an sdist"):
        index.metadata(File(name="tiny-1.0.win32.exe", url="http://x/y"))


@pytest.mark.parametrize("heads", [True, False])
def test_a_size_is_asked_for_once(site: Site, index: Index, heads: bool) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        refuses = request.command == "HEAD" and not heads
        (status(405) if refuses else serve(b"x" * 1234))(request)

    site.does["/w.whl"] = answer
    file = File(name=WHEEL, url=f"{site.url}/w.whl")
    assert [index.size(file), index.size(file)] == [1234, 1234]
    assert (len(site.heads), len(site.asked)) == (1, 0 if heads else 1)
    assert index.size(File(name=WHEEL, url="http://none", size=5)) == 5


def test_a_size_of_known_bytes_is_kept(site: Site, index: Index, tmp_path: Path) -> None:
    site.does["/w.whl"] = serve(b"x" * 1234)
    file = File(name=WHEEL, url=f"{site.url}/w.whl", sha256="a" * 64)
    assert index.size(file) == 1234
    again = open_index(["http://127.0.0.1:9/"], tmp_path / "cache")
    assert again.size(file) == 1234


def test_a_hash_that_is_no_hash_is_no_path(site: Site, index: Index, tmp_path: Path) -> None:
    site.does["/w.whl"] = serve(wheel())
    file = File(name=WHEEL, url=f"{site.url}/w.whl", sha256="../../x")
    with pytest.raises(SourceError, match="sha256"):
        index.metadata(File(name="a-1.tar.gz", url=f"{site.url}/w.whl", sha256="../../x"))
    assert index.metadata(file) == METADATA
    assert not list(tmp_path.rglob("x*"))


def test_an_index_in_a_directory(tmp_path: Path) -> None:
    content = wheel()
    project = tmp_path / "my mirror/simple/tiny-tool"
    project.mkdir(parents=True)
    (tmp_path / "my mirror" / WHEEL).write_bytes(content)
    (project / "index.html").write_text(f'<html><a href="../../{WHEEL}">x</a></html>')
    index = open_index([(tmp_path / "my mirror/simple").as_uri()], tmp_path / "cache")
    (file,) = index.project("tiny-tool")
    assert index.metadata(file) == METADATA
    assert index.size(file) == len(content)
    with pytest.raises(UnknownProject):
        index.project("other")


def config(room: Path, *index: str) -> Config:
    return Config(cache=room, file=room / "config.toml", index=index)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The configuration file of a pip that is told nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    file.write_text("")
    return file


PYTHON = Path(sys.executable)


def test_the_index_that_pip_is_configured_with(
    pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    pip.write_text(
        "[global]\nindex-url = https://me:secret@one.example/simple/\n"
        f"extra-index-url =\n  https://two.example/a\n  https://three.example/b\n"
        f"find-links = {links}\n  https://links.example/page\ncert = /ca.pem\n"
        "[install]\nproxy = http://proxy.example:3128\n[download]\ncert = /other\n"
    )
    found = find_index(config(tmp_path), PYTHON)
    assert found.addresses == (
        "https://one.example/simple",
        "https://two.example/a",
        "https://three.example/b",
    )
    assert found.logins["one.example"].password == "secret"
    assert (found.cert, found.proxy) == ("/ca.pem", "http://proxy.example:3128")
    assert found.directories == (links,)
    monkeypatch.setenv("PIP_INDEX_URL", "https://env.example/simple")
    assert find_index(config(tmp_path), PYTHON).addresses[0] == "https://env.example/simple"
    own = find_index(config(tmp_path, "https://own.example/simple"), PYTHON)
    assert own.addresses == ("https://own.example/simple",)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert find_index(config(tmp_path), PYTHON).addresses == ()


def test_without_a_configuration_it_is_pips_default_and_asked_for_once(
    pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (address,) = find_index(config(tmp_path), PYTHON).addresses
    assert address.startswith("https://")
    monkeypatch.setattr(pip_module, "settings", lambda python: {})
    monkeypatch.setattr(pip_module, "_pip", lambda *arguments: "")
    assert find_index(config(tmp_path), PYTHON).addresses == (address,)
    with pytest.raises(SourceError, match="pip does not tell its default"):
        find_index(config(tmp_path / "new"), PYTHON)


def test_a_broken_pip(pip: Path, tmp_path: Path) -> None:
    pip.write_text("not a configuration, https://me:secret@x/y\n")
    with pytest.raises(SourceError, match="pip does not tell its configuration") as caught:
        find_index(config(tmp_path), PYTHON)
    assert "secret" not in caught.value.message
    with pytest.raises(SourceError, match="pip does not tell its configuration"):
        find_index(config(tmp_path), tmp_path / "no-python")
