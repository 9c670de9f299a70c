"""What ``export`` and ``mirror`` write, in the hands of a real pip and a real uv, on loopback."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from programs import attempt, call

from longrun.config import load_config
from longrun.run import without_network

sys.path.append(str(ROOT / "tests" / "unit"))  # behind all others: it has a conftest, too

from stock import Stock, make_stock
from web import Site

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
TAG = f"cp{MINOR.replace('.', '')}"
EXPECTED = {"alpha": "1.0", "beta": "2.0", "gamma": "1.0"}
NO_CONFIG = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_PROXY": "*"}


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    """A checkout with this program and a tiny stack, for the Python that runs the tests."""
    site = Site()
    root = tmp_path / "checkout"
    made = make_stock(root, site, (MINOR, "3.99"))
    for name in ("build.py", "requirements.lock"):
        shutil.copy(ROOT / name, root / name)
    (root / "src").symlink_to(ROOT / "src")
    (tmp_path / "config.toml").write_text(f'index = ["{made.index}"]\n')
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/environments").symlink_to(load_config(os.environ).cache / "environments")
    yield made
    site.server.shutdown()
    site.server.server_close()


def command(stock: Stock, *arguments: object) -> list[str]:
    return [sys.executable, str(stock.root / "build.py"), *map(str, arguments)]


def environment(stock: Stock) -> dict[str, str]:
    room = stock.root.parent
    return {
        **os.environ,
        "LONGRUN_CONFIG": str(room / "config.toml"),
        "LONGRUN_CACHE": str(room / "cache"),
        "NO_PROXY": "*",
    }


def build_py(stock: Stock, *arguments: object) -> str:
    return call(*command(stock, *arguments), env=environment(stock), cwd=stock.root)


@pytest.fixture
def mirror(stock: Stock, tmp_path: Path) -> Path:
    """A mirror of the stock, which has gone away since."""
    build_py(stock, "mirror", tmp_path / "mirror")
    stock.site.does.clear()
    return tmp_path / "mirror"


@pytest.fixture
def served(mirror: Path) -> Iterator[str]:
    """The address of the mirror on a web server that knows nothing of indexes."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(mirror))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    server.server_close()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An empty virtual environment's Python."""
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    return tmp_path / "venv/bin/python"


def pip(python: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    argv = [*prefix, python, "-m", "pip", *map(str, arguments)]
    return call(*argv, env={**NO_CONFIG, "HOME": str(python.parents[1])})


def check_installed(python: Path, expected: dict[str, str]) -> None:
    """The right versions, made of the right files, and a pip that has nothing against them."""
    listed = pip(python, "list", "--format=freeze", "--exclude=pip", "--exclude=setuptools")
    assert dict(line.split("==") for line in listed.splitlines()) == expected
    assert "No broken requirements" in pip(python, "check")
    told = call(python, "-c", "import alpha, beta, gamma; print(alpha.value, gamma.value)")
    assert told == "1 42"  # helper, which gamma's build required, said 42


def test_pip_installs_a_layer_from_a_mirror(served, venv):
    pip(venv, "install", "--index-url", served, "longrun-controls==2026.1")
    check_installed(venv, {**EXPECTED, "longrun-controls": "2026.1"})


@pytest.mark.skipif(not without_network(), reason="this machine allows no network namespace")
def test_pip_installs_a_layer_from_a_directory_without_any_network(mirror, venv):
    address = (mirror / "simple").as_uri()
    pip(venv, "install", "--index-url", address, "longrun-controls", prefix=without_network())
    check_installed(venv, {**EXPECTED, "longrun-controls": "2026.1"})


def test_pip_takes_the_metadata_beside_the_file(served, venv):
    """A newer version that does not fit is turned down without a download of it."""
    told = pip(
        venv, "download", "-v", "--no-deps", "-d", venv.parent, "--index-url", served, "beta"
    )
    assert ".whl.metadata" in told


def test_pip_installs_requirements_with_hashes(stock, served, venv, tmp_path):
    out = tmp_path / "out"
    build_py(stock, "export", "--layer", "controls", "--index", served, "--output", out)
    requirements = out / f"controls-{TAG}/requirements.txt"
    pip(venv, "install", "--require-hashes", "-r", requirements)
    check_installed(venv, EXPECTED)


def test_uv_installs_from_pylock(stock, served, venv, tmp_path):
    out = tmp_path / "out"
    build_py(stock, "export", "--layer", "controls", "--index", served, "--output", out)
    uv = Path(sys.executable).parent / "uv"
    lock = out / f"controls-{TAG}/pylock.toml"
    env = {"UV_CACHE_DIR": str(tmp_path / "uv"), "UV_NO_CONFIG": "1", "NO_PROXY": "*"}
    env["HOME"] = str(tmp_path)
    argv = [uv, "pip", "sync", "--python", venv, "--index-url", served, lock]
    call(*argv, env=env)
    told = call(uv, "pip", "list", "--python", venv, "--format=freeze", env=env)
    found = dict(line.split("==") for line in told.splitlines())
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED


def test_pip_refuses_what_was_changed_on_the_mirror(stock, mirror, served, venv, tmp_path):
    out = tmp_path / "out"
    build_py(stock, "export", "--layer", "controls", "--index", served, "--output", out)
    (path,) = mirror.glob("files/*/*/beta-2.0*.whl")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"?")
    requirements = out / f"controls-{TAG}/requirements.txt"
    argv = [venv, "-m", "pip", "install", "--require-hashes", "-r", requirements]
    done = attempt(*argv, env={**NO_CONFIG, "HOME": str(tmp_path)})
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_the_stack_is_built_from_a_mirror_where_there_is_no_other_index(stock, served, tmp_path):
    """A network without internet: its mirror gives what its own builds fetch."""
    (tmp_path / "config.toml").write_text(f'index = ["{served}"]\n')
    shutil.rmtree(tmp_path / "cache/downloads")
    entries = tmp_path / "cache/store/entries"
    for path in (entries, *entries.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(entries)
    told = build_py(stock, "mirror", tmp_path / "second")
    assert "5 of them" in told
    first, second = (
        {path.relative_to(place) for path in place.rglob("*.whl")}
        for place in (tmp_path / "mirror", tmp_path / "second")
    )
    assert first == second


def test_killed_again_and_again_it_gets_there(stock, venv, tmp_path):
    rng = random.Random(3)
    kills = 0
    for attempt_ in range(12):
        run = subprocess.Popen(
            command(stock, "mirror", tmp_path / "mirror"),
            env=environment(stock),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            run.wait(timeout=0.2 + 0.05 * attempt_ + rng.random() / 2)
            break
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
            time.sleep(0.05)
    build_py(stock, "mirror", tmp_path / "mirror")
    assert kills > 0
    address = (tmp_path / "mirror/simple").as_uri()
    pip(venv, "install", "--index-url", address, "longrun-controls")
    check_installed(venv, {**EXPECTED, "longrun-controls": "2026.1"})
