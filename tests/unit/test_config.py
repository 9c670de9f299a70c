"""The site's configuration: where it is looked for, what it may say, and apt's own archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from longrun.config import Config, load_config
from longrun.errors import SpecError
from longrun.fetch import find_hosts


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def write(environ: dict[str, str], text: str) -> Path:
    file = Path(environ["HOME"]) / ".config/longrun/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_without_a_file_everything_has_a_default(home: dict[str, str], tmp_path: Path) -> None:
    config = load_config(home, system=tmp_path / "none.toml")
    assert config == Config(
        cache=tmp_path / ".cache/longrun", file=tmp_path / ".config/longrun/config.toml"
    )


def test_every_key(home: dict[str, str], tmp_path: Path) -> None:
    file = write(
        home,
        'archives = ["http://deb.site.example/debian/"]\n'
        'mirrors = ["https://files.site.example/sources"]\n'
        'index = ["https://index.site.example/simple/"]\n'
        'cache = "~/c"\njobs = 3\nsigning_key = "~/.ssh/images"\n',
    )
    assert load_config(home) == Config(
        archives=("http://deb.site.example/debian",),
        mirrors=("https://files.site.example/sources",),
        index=("https://index.site.example/simple",),
        cache=tmp_path / "c",
        jobs=3,
        signing_key=tmp_path / ".ssh/images",
        file=file,
    )


def test_the_first_file_found_is_read_and_no_other(home: dict[str, str], tmp_path: Path) -> None:
    system = tmp_path / "system.toml"
    system.write_text("jobs = 1")
    assert load_config(home, system=system).jobs == 1
    write(home, "jobs = 2")
    assert load_config(home, system=system).jobs == 2
    named = tmp_path / "named.toml"
    named.write_text("jobs = 3")
    assert load_config({**home, "LONGRUN_CONFIG": str(named)}, system=system).jobs == 3


def test_a_named_file_must_be_there(home: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone\.toml: there is no such file") as caught:
        load_config({**home, "LONGRUN_CONFIG": str(tmp_path / "gone.toml")})
    assert "LONGRUN_CONFIG" in caught.value.remedy


def test_where_the_cache_is(home: dict[str, str], tmp_path: Path) -> None:
    xdg = {**home, "XDG_CACHE_HOME": "/xdg"}
    assert load_config(xdg).cache == Path("/xdg/longrun")
    assert load_config({**home, "XDG_CACHE_HOME": "rel"}).cache == tmp_path / ".cache/longrun"
    write(home, 'cache = "/big"')
    assert load_config(xdg).cache == Path("/big")
    assert load_config({**xdg, "LONGRUN_CACHE": "/now"}).cache == Path("/now")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("archive = []", r"config\.toml: archive: unknown key; did you mean archives\?"),
        ("color = 1", r"config\.toml: color: unknown key$"),
        ("file = 'x'", r"file: unknown key"),
        ("jobs = '2'", r"jobs: expected a whole number.*found '2'"),
        ("jobs = true", r"jobs: expected a whole number.*found True"),
        ("jobs = -1", r"jobs: expected"),
        ("cache = 'rel'", r"cache: expected a path that begins with / or ~/, found 'rel'"),
        ("signing_key = 3", r"signing_key: expected a path that begins with / or ~/, found 3"),
        ("archives = 'http://x'", r"archives: expected a list"),
        ("archives = ['http://x', 3]", r"archives\[1\]: expected an http or https address"),
        ("mirrors = ['ftp://x/y']", r"mirrors\[0\]: expected an http or https address"),
        ("mirrors = ['http:///y']", r"mirrors\[0\]: expected an http or https address"),
        ("mirrors = ['http://[x/y']", r"mirrors\[0\]: expected an http or https address"),
        ("index = 'https://x/simple'", r"index: expected a list of http or https addresses"),
        ("mirrors = ['http://me:secret@x/y']", r"mirrors\[0\]: .*without user and password"),
        ("jobs =", r"config\.toml: not TOML"),
    ],
)
def test_errors_name_file_and_key(home: dict[str, str], text: str, message: str) -> None:
    write(home, text)
    with pytest.raises(SpecError, match=message) as caught:
        load_config(home)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_utf8(home: dict[str, str]) -> None:
    write(home, "").write_bytes(b"# \xff")
    with pytest.raises(SpecError, match="not TOML"):
        load_config(home)


APT_LIST = """\
# deb http://comment.example/debian bookworm main
deb [arch=amd64 signed-by=/k] http://options.example/debian/ bookworm main # note
deb http://one.example/debian/ bookworm main
deb-src http://two.example/debian bookworm main
deb cdrom:[Disc]/ bookworm main
deb http://flat.example/repo ./
deb https://other.example/apt stable main
deb http://user:secret@private.example/debian bookworm main
deb http://one.example/debian bookworm-updates main
"""

APT_SOURCES = """\
Types: deb
URIs: http://three.example/debian
# a comment inside
  http://four.example/debian
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm

types: deb
uris: mirror+file:/etc/mirrors http://one.example/debian
suites: bookworm-security

Types: deb
URIs: http://flat2.example/x
Suites: ./
"""


def test_archives_of_the_site_then_of_apt(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(APT_LIST)
    (tmp_path / "sources.list.d/debian.sources").write_text(APT_SOURCES)
    (tmp_path / "sources.list.d/old.list.save").write_text("deb http://old.example/debian x y\n")
    (tmp_path / "sources.list.d/old.sources.save").write_text(APT_SOURCES.replace("three", "old"))
    config = Config(
        archives=("http://site.example/debian", "http://two.example/debian"),
        mirrors=("http://flat.site.example",),
        cache=tmp_path,
        file=tmp_path / "config.toml",
    )
    hosts = find_hosts(config, apt=tmp_path)
    assert hosts.mirrors == ("http://flat.site.example",)
    assert hosts.archives == (
        "http://site.example/debian",
        "http://two.example/debian",
        "http://options.example/debian",
        "http://one.example/debian",
        "http://three.example/debian",
        "http://four.example/debian",
        "https://other.example/apt",
    )


def test_a_machine_without_apt(tmp_path: Path) -> None:
    config = Config(cache=tmp_path, file=tmp_path / "config.toml")
    assert find_hosts(config, apt=tmp_path / "none").archives == ()
