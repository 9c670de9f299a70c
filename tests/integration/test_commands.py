"""The command line on a small real input: zlib, compiled in stores of their own."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, open_directory
from programs import call

from longrun import fs
from longrun.config import load_config
from longrun.plan import closure
from longrun.run import without_network
from longrun.store import Store

STEP = "library/zlib"
DEPENDENT = "library/freetype"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.fixture(scope="module")
def sources(plan, store) -> Iterator[Path]:
    """The source files of zlib, freetype and the toolchain, as an offline site has them."""
    with open_directory() as directory:
        for step in closure(plan.find(DEPENDENT)):
            if step.kind == "source":
                entry = store.get(step.key)
                assert entry is not None
                for path in entry.tree.iterdir():
                    shutil.copyfile(path, directory / path.name)
        yield directory


@pytest.fixture
def cache(tmp_path):
    """An empty cache, but for Longrun's own environment."""
    directory = tmp_path / "cache"
    directory.mkdir()
    environments = load_config(os.environ).cache / "environments"
    (directory / "environments").symlink_to(environments)
    yield directory
    (directory / "environments").unlink()
    fs.remove_tree(directory)


@pytest.fixture
def seeded(cache, plan, store):
    """A cache that has the toolchain already, as a link: 20,000 files need not be copied."""
    entry = store.get(plan.find("toolchain/zig").key)
    assert entry is not None
    (cache / "store" / "entries").mkdir(parents=True)
    (cache / "store" / "entries" / entry.path.name).symlink_to(entry.path)
    return cache


def command(*arguments: object, cache: Path, prefix=(), check=True, root=ROOT):
    """Run build.py with a cache of its own; the output is captured."""
    argv = [*map(str, prefix), str(root / "build.py"), *map(str, arguments)]
    env = {**os.environ, "LONGRUN_CACHE": str(cache)}
    done = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def digest(store: Store, plan, step_id: str) -> str:
    entry = store.get(plan.find(step_id).key)
    assert entry is not None, f"{step_id} is not in {store.root}"
    return str(entry.record["digest"])


@pytest.mark.skipif(not without_network(), reason="this machine allows no network namespace")
def test_after_fetch_a_build_runs_with_the_network_off_and_gives_the_same_bytes(
    plan, store, cache, sources
):
    fetch = command("build", "--step", "source/zlib", "--sources", sources, cache=cache)
    assert "source/zlib" in fetch.stdout
    command("build", "--step", "source/zig", "--sources", sources, cache=cache)
    off = without_network()
    command("build", "--step", STEP, "--offline", "-j1", cache=cache, prefix=off)
    for step in ("toolchain/zig", STEP):
        assert digest(Store(cache / "store"), plan, step) == digest(store, plan, step)


def test_offline_and_without_a_source_the_error_names_it_and_the_remedy(cache):
    done = command("build", "--step", STEP, "--offline", cache=cache, check=False)
    assert done.returncode == 4
    assert "zlib" in done.stderr
    assert "offline" in done.stderr
    assert "--sources" in done.stderr


def test_killed_at_any_moment_a_build_goes_on_from_what_is_finished(plan, cache, sources):
    rng = random.Random(2)
    argv = [str(ROOT / "build.py"), "build", "--step", STEP, "--sources", str(sources)]
    env = {**os.environ, "LONGRUN_CACHE": str(cache)}
    kills = 0
    for attempt in range(8):
        build = subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL, cwd=ROOT)
        try:
            build.wait(timeout=0.5 + attempt + rng.random())
            break
        except subprocess.TimeoutExpired:
            build.send_signal(signal.SIGKILL)
            build.wait()
            kills += 1
        kept = Store(cache / "store")
        for entry in kept.entries():
            assert kept.verify(entry) == []
    assert kills > 0
    command("build", "--step", STEP, "--sources", sources, cache=cache)
    assert "every file as it was" in command("verify", cache=cache).stdout


def test_interrupted_with_ctrl_c_it_stops_at_once_and_says_how_to_go_on(cache, sources):
    argv = [str(ROOT / "build.py"), "build", "--step", STEP, "--sources", str(sources)]
    env = {**os.environ, "LONGRUN_CACHE": str(cache)}
    build = subprocess.Popen(
        argv,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # where a background shell started the tests, SIGINT is ignored from there on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(2)
    build.send_signal(signal.SIGINT)
    _, printed = build.communicate(timeout=30)
    assert build.returncode == 130, printed
    assert "finished steps are kept" in printed
    assert "Traceback" not in printed
    assert list((cache / "store/staging").iterdir()) == []


@as_root
def test_an_ordinary_user_can_build(plan, store, sources):
    """A checkout and a cache of the user's own, nothing of root's."""
    with open_directory() as place:
        checkout, cache = place / "checkout", place / "cache"
        files = call("git", "-C", ROOT, "ls-files", "-z").split("\0")
        for name in filter(None, files):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
        # making the environment is tested by every fresh checkout; here a copy serves
        shutil.copytree(load_config(os.environ).cache / "environments", cache / "environments")
        for path in (place, *place.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        argv = [*NOBODY, "python3", checkout / "build.py", "build", "--step", STEP]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(place), "LONGRUN_CACHE": str(cache)}
        call(*argv, "--sources", sources, env=env, cwd=checkout)
        assert digest(Store(cache / "store"), plan, STEP) == digest(store, plan, STEP)


def test_a_failing_step_shows_its_log_what_it_blocks_and_how_to_retry(seeded, sources, tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".git", "dist", "__pycache__"))
    spec = checkout / "specs/libraries/zlib.toml"
    spec.write_text(spec.read_text().replace("[build]", '[build]\nenv = { CFLAGS = "-Dint=" }', 1))
    done = command(
        *("build", "--step", DEPENDENT, "--sources", sources, "--keep-failed"),
        cache=seeded,
        root=checkout,
        check=False,
    )
    assert done.returncode != 0
    assert "library/zlib 1.3.1 FAILED" in done.stderr
    assert "blocks:  " in done.stderr
    assert "library/freetype" in done.stderr.split("blocks:")[1].splitlines()[0]
    assert "--step library/zlib" in done.stderr
    (log,) = {
        line.split()[-1] for line in done.stderr.splitlines() if "log:" in line and "zlib" in line
    }
    assert Path(log).exists()
    assert any("zlib" in path.name for path in (seeded / "store/failed").iterdir())


def test_plan_says_why_a_step_is_not_cached(seeded, sources, tmp_path):
    command("build", "--step", STEP, "--sources", sources, cache=seeded)
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".git", "dist", "__pycache__"))
    spec = checkout / "specs/libraries/zlib.toml"
    spec.write_text(spec.read_text().replace('version = "1.3.1"', 'version = "1.3.2"'))
    rows = json.loads(command("plan", "--json", cache=seeded, root=checkout).stdout)["steps"]
    states = {row["id"]: row for row in rows}
    assert states[STEP]["reasons"] == ["zlib 1.3.1 -> 1.3.2"]
    assert states["toolchain/zig"]["state"] == "cached"
    assert states["library/bzip2"]["reasons"] == ["never built here"]


def test_damage_is_found_and_repaired(plan, seeded, sources):
    command("build", "--step", STEP, "--sources", sources, cache=seeded)
    entry = Store(seeded / "store").get(plan.find(STEP).key)
    assert entry is not None
    archive = entry.tree / "lib/libz.a"
    archive.chmod(0o644)
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    archive.chmod(0o444)
    found = command("verify", cache=seeded, check=False)
    assert found.returncode == 7
    assert "lib/libz.a: changed" in found.stdout
    command("verify", "--repair", cache=seeded)
    again = command("build", "--step", STEP, "--offline", cache=seeded)
    assert "library/zlib" in again.stdout
    assert command("verify", cache=seeded).returncode == 0


def test_a_second_build_has_nothing_to_do():
    told = call(ROOT / "build.py", "build", "--offline", env=dict(os.environ))
    assert "nothing to build, all is cached" in told
