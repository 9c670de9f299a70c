"""pip in an environment asks the index of the site, wherever the site names one.

Each test runs in a mount namespace whose /etc is empty but for the site's directory, so the
machine's own configuration of pip is neither seen nor touched, and with the prefix read-only.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from conftest import Prefix, open_directory
from programs import attempt, call

NAME = "longrun-thing-of-the-site"
"""Told from all that is on the public index, which pip asks where it is not configured."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that keeps its log to itself."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest prints what a test writes to stderr."""


def write_wheel(directory: Path) -> None:
    """A wheel with one module that says where it is from."""
    module = NAME.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": "print('from the site')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD,,\n"
    with zipfile.ZipFile(directory / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record += f"{path},sha256={digest.decode().rstrip('=')},{len(text)}\n"
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", record)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an index (PEP 503) that offers one wheel."""
    root = tmp_path_factory.mktemp("index")
    project = root / "simple" / NAME
    project.mkdir(parents=True)
    write_wheel(project)
    links = [f'<a href="{path.name}">{path.name}</a>' for path in project.iterdir()]
    (project / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links))
    handler = partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Console:
    """A machine with a prefix, and with a directory that it sees as /etc/longrun."""

    prefix: Prefix
    place: Path

    @property
    def site(self) -> Path:
        """The site's configuration of pip; not there at first."""
        return self.place / "etc" / "pip.conf"

    @property
    def env(self) -> Path:
        """Where the tests make their environment."""
        return self.place / "env"

    @property
    def pip_conf(self) -> Path:
        """What pip in the environment takes for the configuration of it."""
        return self.env / "pip.conf"

    @property
    def inside(self) -> list[str | Path]:
        """The words before a command that run it on this machine."""
        bwrap: list[str | Path] = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/etc"]
        bwrap += ["--ro-bind", self.prefix.path, self.prefix.path]
        return [*bwrap, "--bind", self.place / "etc", "/etc/longrun"]

    def attempt(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program, with a home without files and no variables for pip."""
        return attempt(*self.inside, *argv, env={"HOME": str(self.place / "home")})

    def call(self, *argv: str | Path) -> str:
        """What a program prints, that has to succeed."""
        return call(*self.inside, *argv, env={"HOME": str(self.place / "home")})

    def venv(self, *options: str) -> None:
        """Make the environment, without a word."""
        done = self.attempt(self.prefix.python, "-m", "venv", *options, self.env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def settings(self) -> str:
        """What pip says of its configuration; pip runs from the wheel that venv would install."""
        library = self.prefix.path / "lib" / f"python{self.prefix.version}"
        (wheel,) = library.glob("ensurepip/_bundled/pip-*")
        return self.call(self.env / "bin" / "python", f"{wheel}/pip", "config", "list")


@pytest.fixture
def console(prefix: Prefix) -> Iterator[Console]:
    """A machine of a test's own."""
    with open_directory() as place:
        (place / "home").mkdir()
        (place / "etc").mkdir()
        console = Console(prefix, place)
        if console.attempt("true").returncode != 0:
            pytest.skip("bubblewrap cannot make a mount namespace here")
        yield console


def test_pip_installs_from_the_index_of_the_site(console: Console, index: str) -> None:
    console.site.write_text(f"[global]\nindex-url = {index}\n")
    console.venv()
    pip = console.env / "bin" / "pip"
    assert console.call(pip, "config", "list") == f"global.index-url='{index}'"
    assert f"Looking in indexes: {index}" in console.call(pip, "install", NAME)
    python = console.env / "bin" / "python"
    assert console.call(python, "-c", f"import {NAME.replace('-', '_')}") == "from the site"


def test_without_a_file_of_the_site_pip_has_its_defaults(console: Console) -> None:
    console.venv()
    assert not console.pip_conf.is_symlink()
    assert not console.pip_conf.exists()
    assert console.call(console.env / "bin" / "pip", "config", "list") == ""


@pytest.mark.parametrize("option", ["--symlinks", "--copies", "--system-site-packages"])
def test_the_site_can_change_its_mind(console: Console, option: str) -> None:
    console.site.write_text("[global]\ntimeout = 1\n")
    console.venv("--without-pip", option)
    assert console.settings() == "global.timeout='1'"
    console.site.write_text("[global]\ntimeout = 2\n")
    assert console.settings() == "global.timeout='2'"
    console.site.unlink()
    assert console.settings() == ""


def test_an_environment_made_from_an_environment_follows_the_site(console: Console) -> None:
    console.site.write_text("[global]\ntimeout = 1\n")
    first = console.place / "first"
    console.call(console.prefix.python, "-m", "venv", "--without-pip", first)
    # a file of the first one's own is no business of the second
    (first / "pip.conf").unlink(missing_ok=True)
    (first / "pip.conf").write_text("[global]\ntimeout = 9\n")
    console.call(first / "bin" / "python", "-m", "venv", "--without-pip", console.env)
    assert console.settings() == "global.timeout='1'"


def test_a_file_of_the_user_s_own_survives_an_upgrade(console: Console) -> None:
    console.site.write_text("[global]\ntimeout = 1\n")
    console.venv("--without-pip")
    console.pip_conf.unlink(missing_ok=True)
    console.pip_conf.write_text("[global]\ntimeout = 7\n")
    console.venv("--without-pip", "--upgrade")
    assert console.settings() == "global.timeout='7'"
    # nor is it written through a link to somewhere else
    own = console.place / "own.conf"
    console.pip_conf.rename(own)
    console.pip_conf.symlink_to(own)
    console.venv("--without-pip", "--upgrade")
    assert console.settings() == "global.timeout='7'"
    assert console.site.read_text() == "[global]\ntimeout = 1\n"


def test_an_upgrade_brings_an_older_environment_to_the_site_s_index(console: Console) -> None:
    console.venv("--without-pip")
    console.site.write_text("[global]\ntimeout = 1\n")
    for _ in range(2):
        console.venv("--without-pip", "--upgrade")
        assert console.settings() == "global.timeout='1'"


def test_a_cleared_environment_follows_the_site_again(console: Console) -> None:
    console.site.write_text("[global]\ntimeout = 1\n")
    console.venv("--without-pip")
    console.pip_conf.unlink(missing_ok=True)
    console.pip_conf.write_text("[global]\ntimeout = 7\n")
    for _ in range(2):
        console.venv("--without-pip", "--clear")
        assert console.settings() == "global.timeout='1'"
    assert console.site.read_text() == "[global]\ntimeout = 1\n"


NO_LINKS = """
import errno, os, sys, venv
real = os.symlink
def symlink(source, destination, **options):
    if destination.endswith("pip.conf"):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    real(source, destination, **options)
os.symlink = symlink
venv.main(sys.argv[1:])
"""


def test_where_no_link_can_be_made_venv_goes_on_and_says_so(console: Console) -> None:
    console.site.write_text("[global]\ntimeout = 1\n")
    done = console.attempt(console.prefix.python, "-c", NO_LINKS, "--without-pip", console.env)
    assert done.returncode == 0, done.stderr
    assert "'/etc/longrun/pip.conf'" in done.stderr
    assert "not permitted" in done.stderr
    assert (console.env / "bin" / "activate").exists()
    assert console.settings() == ""
