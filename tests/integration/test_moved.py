"""A prefix works wherever it stands and however it is reached, and so do its environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import BARE, attempt, call, unprivileged

WHERE = """
import json, ssl, sqlite3, sys, sysconfig
print(json.dumps({
    "base": sys.base_prefix, "prefix": sys.prefix, "path": sys.path,
    "include": sysconfig.get_paths()["platinclude" if sys.version_info < (3, 11) else "include"],
    "libdir": sysconfig.get_config_var("LIBDIR"), "libpl": sysconfig.get_config_var("LIBPL"),
    "cc": sysconfig.get_config_var("CC"), "ldshared": sysconfig.get_config_var("LDSHARED"),
    "cflags": sysconfig.get_config_var("CFLAGS"),
    "makefile": sysconfig.get_makefile_filename(), "header": sysconfig.get_config_h_filename(),
}))
"""


def reach(kind: str, prefix, tmp_path: Path) -> tuple[Path, Path]:
    """The interpreter as it is reached in one way, and the base prefix that it should then name."""
    name = prefix.python.name
    current = tmp_path / "current"
    if kind == "directly":
        return prefix.python, prefix.path
    current.symlink_to(prefix.path)
    if kind == "link":
        return current / "bin" / name, current
    if kind == "two links":
        mount = tmp_path / "mount"
        mount.symlink_to(current)
        return mount / "bin" / name, mount
    link = tmp_path / "bin" / name
    link.parent.mkdir()
    if kind == "link to the program":
        link.symlink_to(prefix.python)
        return link, prefix.path
    assert kind == "link to the program, through a link"
    link.symlink_to(current / "bin" / name)
    return link, current


KINDS = (
    "directly",
    "link",
    "two links",
    "link to the program",
    "link to the program, through a link",
)


@pytest.fixture(params=KINDS)
def reached(request, prefix, tmp_path):
    return reach(request.param, prefix, tmp_path)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in which every user may write; pytest's own are for one user only."""
    place = Path(tempfile.mkdtemp(prefix="longrun-test."))
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def test_the_base_runs_and_names_its_own_place(prefix, reached):
    python, _ = reached
    told = json.loads(call(python, "-c", WHERE))
    assert os.path.samefile(told["base"], prefix.path)
    assert os.path.samefile(told["include"], prefix.path / "include" / f"python{prefix.version}")
    assert os.path.samefile(told["libdir"], prefix.path / "lib")
    assert Path(told["libpl"]).is_dir()
    assert Path(told["makefile"]).is_file()
    assert Path(told["header"]).is_file()


def test_sysconfig_names_what_a_console_has(prefix):
    told = json.loads(call(prefix.python, "-c", WHERE))
    assert told["cc"] == "gcc"
    assert told["ldshared"] == "gcc -shared"
    assert "-O3" in told["cflags"].split()
    assert "lto" not in json.dumps(told)


@pytest.mark.parametrize("how", ["--symlinks", "--copies"])
def test_an_environment_works_and_keeps_the_alias(prefix, reached, how, tmp_path):
    python, base = reached
    env = tmp_path / "env"
    call(python, "-m", "venv", how, env)
    told = json.loads(call(env / "bin" / "python", "-c", WHERE))
    assert told["prefix"] == str(env)
    # the alias outlives the directory that it points to today, so it is what must be kept
    assert told["base"] == str(base)
    assert f"home = {base}/bin\n" in (env / "pyvenv.cfg").read_text()
    assert f"pip {env}" not in call(env / "bin" / "python", "-m", "pip", "--version")
    assert "from " + str(env) in call(env / "bin" / "pip", "--version")


def test_an_environment_follows_the_alias_to_the_next_prefix(prefix, tmp_path):
    call("cp", "-a", prefix.path, tmp_path / "first")
    alias = tmp_path / "current"
    alias.symlink_to("first")
    env = tmp_path / "env"
    call(alias / "bin" / prefix.python.name, "-m", "venv", "--without-pip", env)
    (tmp_path / "first").rename(tmp_path / "second")
    alias.unlink()
    alias.symlink_to("second")
    told = json.loads(call(env / "bin" / "python", "-c", WHERE))
    assert told["base"] == str(alias)


def test_an_environment_can_be_made_again_over_itself(prefix, shared):
    """Scripts that were copied from a prefix without write bits must not stay read-only."""
    for _ in range(2):
        call(*unprivileged(), prefix.python, "-m", "venv", shared / "env")


def test_nobody_with_no_home_can_use_it(prefix, shared):
    env = {"HOME": "/proc/none", "TMPDIR": str(shared)}
    user = unprivileged()
    call(*user, prefix.python, "-m", "venv", shared / "env", env=env)
    call(*user, shared / "env/bin/pip", "list", env=env)
    say = "import os; print(os.getuid())"
    assert call(*user, shared / "env/bin/python", "-c", say, env=env) == call(*user, "id", "-u")


def test_a_user_cannot_change_it(prefix):
    user = unprivileged()
    for path in (prefix.path / "lib", prefix.path / "lib" / f"python{prefix.version}"):
        assert attempt(*user, "touch", path / "new").returncode != 0
    before = sorted(prefix.path.rglob("*.pyc*"))
    call(*user, prefix.python, "-c", "import wsgiref, turtledemo, this")
    assert sorted(prefix.path.rglob("*.pyc*")) == before


def test_importing_writes_no_bytecode_and_reads_what_is_there(prefix):
    say = "import turtle, importlib.util; print(importlib.util.cache_from_source(turtle.__file__))"
    cached = Path(call(prefix.python, "-c", say))
    flags = cached.read_bytes()[4:8]
    assert flags == (1).to_bytes(4, "little"), "not unchecked-hash"


def test_tracebacks_name_the_file_where_it_stands(prefix, tmp_path):
    done = attempt(prefix.python, "-c", "import json; json.loads('{')")
    assert f'File "{prefix.path}/lib/python{prefix.version}/json/' in done.stderr


def test_a_damaged_prefix_says_so_and_takes_nothing_else(prefix, tmp_path):
    broken = tmp_path / "broken" / "bin"
    broken.mkdir(parents=True)
    call("cp", prefix.python, broken)
    # a standard library in the current directory, or of the system, must not be picked up
    library = tmp_path / "lib" / f"python{prefix.version}"
    library.mkdir(parents=True)
    (library / "os.py").write_text("raise SystemExit('taken from the current directory')")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lib").symlink_to(tmp_path / "lib")
    (tmp_path / "lib").rename(tmp_path / "moved")
    done = attempt(broken / prefix.python.name, "-c", "print('up')", cwd=elsewhere)
    assert done.returncode != 0
    assert "Could not find platform independent libraries" in done.stderr
    assert "/usr" not in done.stderr.replace("/usr/bin", "")


@pytest.mark.parametrize("name", ["-python", "ioc-gateway", "/no/such/python"])
def test_it_starts_under_any_name(prefix, tmp_path, name):
    """Login shells and process supervisors choose a program's name themselves."""
    say = "import sys, sqlite3; print(sys.prefix)"
    done = subprocess.run(
        [name, "-c", say],
        executable=prefix.python,
        cwd=tmp_path,
        env=BARE,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(prefix.path)), done.stderr


@pytest.mark.parametrize("script", ["pydoc3", "idle3"])
def test_scripts_start_the_interpreter_of_their_own_prefix(prefix, tmp_path, script):
    link = tmp_path / script
    link.symlink_to(prefix.path / "bin" / script)
    home = {"HOME": str(tmp_path)}  # idle makes a directory there
    done = attempt(link, "-h" if script == "idle3" else "json", env=home, cwd=tmp_path)
    assert "JSON" in done.stdout or "USAGE: idle" in done.stdout + done.stderr


def test_the_makefile_names_the_prefix(prefix):
    makefile = call(
        prefix.python, "-c", "import sysconfig; print(sysconfig.get_makefile_filename())"
    )
    rule = prefix.path.parent / "show.mk"
    told = call("make", "-s", "-f", makefile, "--eval", "show: ; @echo $(prefix) $(CC)", "show")
    assert not rule.exists()
    assert told == f"{prefix.path} gcc"
