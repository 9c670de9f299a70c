"""The start-up hook in the built prefixes: what it writes, and that no program notices it.

Programs run in a mount namespace of their own, whose spool and site policy are the test's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from conftest import ROOT, Prefix, open_directory
from programs import BARE, NOBODY, attempt, call, unprivileged

from longrun.fs import remove_tree
from longrun.plan import choose_interpreters, choose_release, make_plan
from longrun.specs import load_specs

SPOOL = "/var/spool/longrun/usage"
UID = NOBODY if os.geteuid() == 0 else os.geteuid()
FILE = f"{UID}.jsonl"
SPEAK = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
"""A program of which every trace that a hook could leave is known."""


@dataclass(frozen=True, kw_only=True)
class Console:
    """A machine with a spool at its place: programs run there as an ordinary user."""

    prefix: Prefix
    spool: Path
    mounts: list[str | Path] = field(default_factory=list)
    python: Path

    def inside(self, *mounts: str | Path, user: bool = True) -> list[str | Path]:
        """The words before a command that have it run there."""
        spool = ["--perms", "755", "--dir", os.path.dirname(SPOOL), "--bind", self.spool, SPOOL]
        words = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/var/spool", *spool, *mounts]
        rights = ["--cap-add", "ALL"] if os.geteuid() == 0 else []
        return [*words, *self.mounts, *rights, *(unprivileged() if user else [])]

    def run(self, *words: str | Path, **options) -> subprocess.CompletedProcess[str]:
        """Run the interpreter with these arguments."""
        return attempt(*self.inside(), self.python, *words, **options)

    def fed(self, text: str, *words: str, env=None) -> subprocess.CompletedProcess[str]:
        """Run the interpreter with a text as its standard input."""
        argv = [*self.inside(), self.python, *words]
        return subprocess.run(
            argv,
            input=text,
            env={**BARE, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def records(self) -> list[dict]:
        """What is in the spool, in order."""
        return [
            json.loads(line)
            for file in sorted(self.spool.glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]

    def starts(self) -> list[dict]:
        return [record for record in self.records() if record["k"] == "start"]

    def ends(self) -> list[dict]:
        return [record for record in self.records() if record["k"] == "end"]

    def only(self) -> tuple[dict, dict]:
        """The two records of the one program that ran."""
        start, end = self.records()
        assert (start["k"], end["k"]) == ("start", "end")
        assert start["id"] == end["id"]
        return start, end


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


@pytest.fixture
def console(prefix, place, tmp_path_factory) -> Iterator[Console]:
    spool = place / "spool"
    spool.mkdir()
    spool.chmod(0o1733)
    made = Console(prefix=prefix, spool=spool, python=prefix.python)
    if attempt(*made.inside(), "true").returncode != 0:
        shutil.rmtree(spool)
        pytest.skip("bubblewrap cannot make a mount namespace here")
    yield made
    remove_tree(spool)


@pytest.fixture(scope="session")
def scratch(place) -> Path:
    """A directory in which every user may write."""
    directory = place / "scratch"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.fixture(scope="session")
def venv(prefix, scratch) -> Path:
    """An environment with a package, a namespace and a module of its own."""
    path = scratch / f"env-{prefix.version}"
    call(prefix.python, "-m", "venv", "--without-pip", path)
    packages = path / "lib" / f"python{prefix.version}" / "site-packages"
    for name in ("instrument/__init__.py", "single.py", "lab/beam/__init__.py"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text("value = 1\n")
    return path


# -- what is written --------------------------------------------------------------------------


def test_a_program_leaves_a_start_and_an_end(console):
    done = console.run("-c", "import time; time.sleep(0.2)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    start, end = console.only()
    assert start["v"] == end["v"] == 1
    assert start["py"].startswith(console.prefix.version)
    assert start["release"] == console.prefix.step.version
    assert (start["layer"], start["exe"], start["ci"], start["forbidden"]) == (None, None, None, [])
    assert start["prefix"] == start["base"] == str(console.prefix.path)
    assert start["id"].startswith(f"{start['pid']}-")
    assert abs(start["t"] - (console.spool / FILE).stat().st_mtime) < 60
    assert 0.2 <= end["s"] < 30
    assert end["t"] - start["t"] == pytest.approx(end["s"], abs=0.5)


def test_the_spool_file_is_the_users_alone(console):
    console.run("-c", "import os; os.umask(0)")
    status = (console.spool / FILE).stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (UID, 0o600)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ([], ""),
        (["-I"], "sEI"),
        (["-E"], "E"),
        (["-s"], "s"),
        (["-B", "-O"], "OB"),
        (["-u", "-X", "dev", "-W", "ignore"], ""),
        (["-X", "frozen_modules=off"], ""),
    ],
)
def test_options(console, options, flags):
    assert console.run(*options, "-c", "print(1)").stdout == "1\n"
    start, _ = console.only()
    assert (start["how"], start["name"], start["flags"]) == ("command", None, flags)


def test_without_site_nothing_runs(console):
    assert console.run("-S", "-c", "print(1)").stdout == "1\n"
    assert console.records() == []


def test_a_module(console):
    assert console.run("-m", "json.tool", "--help").returncode == 0
    start, _ = console.only()
    assert (start["how"], start["name"]) == ("module", "json.tool")


def test_a_script(console, scratch):
    (scratch / "measure.py").write_text("import sys; print(sys.argv[1:])\n")
    assert console.run(scratch / "measure.py", "-m", "x").stdout == "['-m', 'x']\n"
    start, _ = console.only()
    assert (start["how"], start["name"]) == ("script", "measure.py")


def test_a_program_with_a_first_line(console, scratch):
    program = scratch / "tool"
    program.write_text(f"#!{console.python} -sE\nprint(1)\n")
    program.chmod(0o755)
    assert call(*console.inside(), program) == "1"
    start, _ = console.only()
    assert (start["how"], start["name"], start["flags"]) == ("script", "tool", "sE")


def test_a_directory_and_an_archive_are_scripts(console, scratch):
    app = scratch / f"app-{console.prefix.version}"
    app.mkdir(exist_ok=True)
    (app / "__main__.py").write_text("print(1)\n")
    call(console.python, "-m", "zipapp", app, "-o", scratch / "app.pyz")
    assert console.run(f"{app}/").stdout == console.run(scratch / "app.pyz").stdout == "1\n"
    assert [(s["how"], s["name"]) for s in console.starts()] == [
        ("script", app.name),
        ("script", "app.pyz"),
    ]


@pytest.mark.parametrize("words", [(), ("-",)])
def test_standard_input(console, words):
    assert console.fed("print(1)", *words).stdout == "1\n"
    start, _ = console.only()
    assert (start["how"], start["name"]) == ("stdin", None)


def test_interactive(console):
    done = console.fed("print(1)\n1/0\nprint(2)\n", "-i", "-q")
    assert done.returncode == 0
    assert "2" in done.stdout
    start, end = console.only()
    assert (start["how"], start["flags"], end["exit"]) == ("interactive", "iq", "ok")


def test_a_terminal_is_interactive(console):
    """``script`` gives the interpreter a terminal."""
    command = " ".join(str(word) for word in [*console.inside(), console.python, "-q"])
    subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        input="exit(4)\n",
        env={**BARE, "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    start, end = console.only()
    assert (start["how"], end["code"]) == ("interactive", 4)


def test_an_environment_and_what_was_imported_from_it(console, venv):
    program = "import instrument, single, lab.beam, json, xml"
    done = attempt(*console.inside(), venv / "bin" / "python", "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    start, end = console.only()
    assert (start["prefix"], start["base"]) == (str(venv), str(console.prefix.path))
    packages = venv / "lib" / f"python{console.prefix.version}" / "site-packages"
    assert end["use"] == {str(packages): ["instrument", "lab", "single"]}
    assert end["more"] == 0


def test_an_environment_is_seen_in_isolated_mode_too(console, venv):
    attempt(*console.inside(), venv / "bin" / "python", "-I", "-c", "import single")
    start, end = console.only()
    assert start["prefix"] == str(venv)
    assert list(end["use"].values()) == [["single"]]


def test_the_ci_system_and_forbidden_variables_are_named(console):
    env = {"GITLAB_CI": "true", "PYTHONPATH": "/secret/one", "LD_LIBRARY_PATH": "/secret/two"}
    console.run("-c", "pass", env=env)
    console.run("-E", "-c", "pass", env=env)
    with_path, without = console.starts()
    assert with_path["ci"] == "gitlab"
    assert with_path["forbidden"] == ["PYTHONPATH", "LD_LIBRARY_PATH"]
    assert without["forbidden"] == ["LD_LIBRARY_PATH"]
    assert "secret" not in (console.spool / FILE).read_text()


def test_nothing_private_is_written(console, scratch, venv):
    """Arguments, values of variables, directories of scripts and of the user: all say 'secret'."""
    place = scratch / "secret"
    place.mkdir(exist_ok=True)
    (place / "run.py").write_text("import sys, single; 'secret' in sys.argv or 1/0\n")
    (place / "helper_secret.py").write_text("")
    python = venv / "bin" / "python"
    env = {"PYTHONPATH": str(place), "TOKEN": "secret", "HOME": str(place)}
    script = [*console.inside(), python, place / "run.py", "secret", "--secret"]
    assert attempt(*script, env=env, cwd=place).returncode == 0
    command = [*console.inside(), python, "-c", "import helper_secret; raise ValueError('secret')"]
    assert attempt(*command, "secret", env=env, cwd=place).returncode == 1
    module = [*console.inside(), python, "-m", "platform", "secret"]
    assert attempt(*module, env=env, cwd=place).returncode == 0
    assert len(console.records()) == 6
    assert "secret" not in (console.spool / FILE).read_text()


# -- how programs end -------------------------------------------------------------------------

ENDS = {
    "pass": (0, "ok", 0, None),
    "import sys; sys.exit()": (0, "ok", 0, None),
    "import sys; sys.exit(3)": (3, "status", 3, None),
    "import sys; sys.exit('no')": (1, "status", 1, None),
    "import sys; sys.exit(-1)": (255, "status", 255, None),
    "raise SystemExit(5)": (5, "status", 5, None),
    "1/0": (1, "exception", 1, "ZeroDivisionError"),
    "class Lost(Exception): pass\nraise Lost": (1, "exception", 1, "Lost"),
    "(": (1, "exception", 1, "SyntaxError"),
    "import sys; sys.excepthook = lambda *e: None; 1/0": (1, "exception", 1, "ZeroDivisionError"),
    # such as a window's callback raises, while the program goes on
    "import sys; sys.last_type = ValueError; sys.exit(1)": (1, "status", 1, None),
    "import sys; sys.last_type = ValueError": (0, "ok", 0, None),
    "import os, signal; os.kill(os.getpid(), signal.SIGINT); input()": (
        -signal.SIGINT,
        "exception",
        None,
        "KeyboardInterrupt",
    ),
}


@pytest.mark.parametrize("program", ENDS)
@pytest.mark.parametrize("how", ["command", "script", "module", "stdin"])
def test_how_a_program_ends(console, scratch, program, how):
    status, kind, code, exception = ENDS[program]
    if how == "stdin" and "input()" in program:
        pytest.skip("it would read what comes after the program")
    if how == "stdin":
        done = console.fed(program)
    elif how == "command":
        done = console.run("-c", program)
    else:
        (scratch / "ending.py").write_text(program)
        words = [scratch / "ending.py"] if how == "script" else ["-m", "ending"]
        done = console.run(*words, cwd=scratch)
    assert done.returncode in (status, 128 - status)
    _, end = console.only()
    assert (end["exit"], end["code"], end["exc"]) == (kind, code, exception)


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(7)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.abort()",
    ],
)
def test_a_start_without_an_end(console, program):
    console.run("-X", "faulthandler=0", "-c", program)
    (start,) = console.records()
    assert start["k"] == "start"


def test_a_terminated_program_that_says_sys_exit(console):
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(9))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    assert console.run("-c", program).returncode == 9
    _, end = console.only()
    assert (end["exit"], end["code"]) == ("status", 9)


def test_the_record_comes_after_the_programs_own_callbacks(console):
    program = (
        "import atexit, os\n"
        f"file = {f'{SPOOL}/{FILE}'!r}\n"
        "atexit.register(lambda: print(open(file).read().count('end'), 'first in, last out'))\n"
        "atexit.register(print, 'last in')\n"
    )
    assert console.run("-c", program).stdout == "last in\n0 first in, last out\n"
    assert len(console.ends()) == 1


# -- processes, threads, interpreters ---------------------------------------------------------


def test_a_forked_child_writes_no_end(console):
    program = (
        "import os, sys\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"
        "sys.exit(os.waitpid(child, 0)[1])\n"
    )
    assert console.run("-W", "ignore", "-c", program).returncode == 0
    console.only()


def test_after_exec_another_program_starts(console):
    program = "import os, sys; os.execv(sys.executable, ['python', '-c', 'print(1)'])"
    assert console.run("-c", program).stdout == "1\n"
    first, second, end = console.records()
    assert first["pid"] == second["pid"]
    assert first["id"] != second["id"] == end["id"]


def test_a_fork_that_executes_python_writes_its_own(console):
    program = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'json.tool', '-h'])"
    console.run("-c", program)
    assert sorted(s["how"] for s in console.starts()) == ["command", "module"]
    assert len(console.ends()) == 2
    outer, inner = console.starts()
    assert inner["ppid"] == outer["pid"]


CHILDREN = {"fork": [], "spawn": ["spawn"], "forkserver": ["forkserver"]}


@pytest.mark.parametrize("method", CHILDREN)
def test_multiprocessing(console, scratch, method):
    (scratch / "workers.py").write_text(
        "import multiprocessing\n"
        "def square(n): return n * n\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    with context.Pool(2) as pool: print(pool.map(square, [1, 2, 3]))\n"
        "    pool.join()\n"
        "    child = context.Process(target=square, args=(1,)); child.start(); child.join()\n"
        "    print(child.exitcode)\n"
    )
    done = console.run(scratch / "workers.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 4, 9]\n0\n", "")
    script, *children = console.starts()
    assert script["how"] == "script"
    names = {child["name"] for child in children}
    helper = {"multiprocessing.resource_tracker"}
    assert names - helper == {f"multiprocessing.{name}" for name in CHILDREN[method]}
    assert {child["how"] for child in children} <= {"child"}
    ended = {end["id"] for end in console.ends()}
    assert script["id"] in ended
    # a worker that the pool terminates has no end; the one that returns has
    if method == "spawn":
        assert any(c["id"] in ended for c in children if c["name"].endswith("spawn"))


def test_threads(console):
    program = (
        "import threading, time, sys\n"
        "wait = lambda: (time.sleep(0.3), print('thread'))\n"
        "threading.Thread(target=wait).start()\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "sys.exit(3)\n"
    )
    done = console.run("-c", program)
    assert (done.returncode, done.stdout) == (3, "thread\n")
    _, end = console.only()
    assert (end["exit"], end["code"]) == ("status", 3)
    assert end["s"] >= 0.3


def test_subinterpreters_write_nothing(console):
    program = (
        "try: import _interpreters as i\n"
        "except ImportError: import _xxsubinterpreters as i\n"
        "for n in range(3):\n"
        "    it = i.create(); i.run_string(it, 'import sys; print(len(sys.modules) > 9)')\n"
        "    i.destroy(it)\n"
    )
    done = console.run("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n" * 3, "")
    console.only()


def test_many_programs_at_once_tear_no_line(console, scratch):
    program = (
        "import subprocess, sys\n"
        "one = [sys.executable, '-I', '-c', 'pass']\n"
        "for _ in range(10):\n"
        "    for child in [subprocess.Popen(one) for _ in range(8)]: child.wait()\n"
    )
    assert console.run("-c", program).returncode == 0
    assert len(console.starts()) == len(console.ends()) == 81
    assert len({start["id"] for start in console.starts()}) == 81


EMBED = r"""
#include <Python.h>
int main(int argc, char **argv)
{
    INITIALISE;
    int failed = PyRun_SimpleString("import sys; print('sys' in sys.modules, flush=True)");
    return Py_FinalizeEx() < 0 || failed;
}
"""
INITIALISE = {
    "plain": "Py_Initialize()",
    "without_signals": "Py_InitializeEx(0)",
    "its_own_words": (
        "PyConfig c; PyConfig_InitPythonConfig(&c); c.parse_argv = 0;"
        "PyConfig_SetBytesArgv(&c, argc, argv); Py_InitializeFromConfig(&c)"
    ),
    "isolated": (
        "PyConfig c; PyConfig_InitIsolatedConfig(&c); c.site_import = 1;Py_InitializeFromConfig(&c)"
    ),
}


@pytest.fixture(scope="session")
def embedding(prefix, scratch) -> dict[str, Path]:
    """Programs that embed the prefix's Python, each in another way."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    script = prefix.path / "bin" / f"python{prefix.version}-config"
    flags = call(script, "--embed", "--cflags", "--ldflags").split()
    built = {}
    for name, text in INITIALISE.items():
        directory = scratch / f"embed-{prefix.version}-{name}"
        directory.mkdir(exist_ok=True)
        (directory / "daq.c").write_text(EMBED.replace("INITIALISE", text))
        call("gcc", "daq.c", "-o", "daq", *flags, cwd=directory)
        built[name] = directory / "daq"
    return built


@pytest.mark.parametrize("way", INITIALISE)
def test_a_program_that_embeds_python(console, embedding, way):
    done = attempt(*console.inside(), embedding[way], "secret")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    start, end = console.only()
    assert (start["how"], start["name"], start["exe"]) == ("embedded", "daq", str(embedding[way]))
    assert start["prefix"] == str(console.prefix.path)
    assert (end["exit"], end["code"]) == ("unknown", None)
    assert "secret" not in (console.spool / FILE).read_text()


@pytest.mark.parametrize("way", INITIALISE)
def test_a_file_size_limit_kills_no_program_that_embeds_python(console, embedding, way):
    """Where Python does not ignore SIGXFSZ, writing beyond the limit would end the program."""
    limited = ["prlimit", "--fsize=100", "--core=0"]
    done = attempt(*console.inside(), *limited, embedding[way])
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


# -- what the spool may be --------------------------------------------------------------------


def speaks(console: Console, *mounts: str | Path, words: tuple[str, ...] = ()) -> None:
    """Check that a program does what it does without any hook."""
    done = attempt(*console.inside(*mounts), *words, console.python, "-c", SPEAK)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_no_spool(console):
    gone = replace(console, mounts=["--tmpfs", "/var/spool"])
    speaks(gone)
    assert console.records() == []


def test_a_read_only_spool(console):
    speaks(console, "--remount-ro", SPOOL)
    assert console.records() == []


def test_a_spool_that_may_not_be_written(console):
    console.spool.chmod(0o755)
    if os.geteuid() != 0:
        console.spool.chmod(0o555)
    speaks(console)
    assert console.records() == []


def test_a_full_spool(console):
    """One page of memory, which another user's file takes."""
    full = ["--perms", "1777", "--size", "4096", "--tmpfs", SPOOL]
    fill = f'head -c 9000 /dev/zero > {SPOOL}/fill 2> /dev/null; exec "$@"'
    speaks(console, *full, words=("sh", "-c", fill, "sh"))
    # the file is there, and there is no room for a byte more
    touch = fill.replace("head", f"touch {SPOOL}/{FILE}; chmod 600 {SPOOL}/{FILE}; head")
    speaks(console, *full, words=("sh", "-c", touch, "sh"))


def hostile_fifo(path: Path) -> None:
    os.mkfifo(path)


def hostile_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "target")


def hostile_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "nothing")


def hostile_hard_link(path: Path) -> None:
    os.link(path.parent.parent / "target", path)


def hostile_directory(path: Path) -> None:
    path.mkdir()


def hostile_owner(path: Path) -> None:
    path.touch()
    path.chmod(0o666)
    os.chown(path, 12345, 12345)


def hostile_mode(path: Path) -> None:
    path.touch()
    path.chmod(0o622)


def hostile_size(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(65 << 20)


@pytest.mark.parametrize(
    "make",
    [
        hostile_fifo,
        hostile_link,
        hostile_dangling_link,
        hostile_hard_link,
        hostile_directory,
        hostile_owner,
        hostile_mode,
        hostile_size,
    ],
    ids=lambda make: make.__name__,
)
def test_a_hostile_spool(console, make):
    if make is hostile_owner and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    target = console.spool.parent / "target"
    target.write_text("victim")
    target.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(target, UID, UID)
    file = console.spool / FILE
    make(file)
    if os.geteuid() == 0 and make is not hostile_owner:
        os.chown(file, UID, UID, follow_symlinks=False)
    before = file.lstat().st_size
    speaks(console)
    assert file.lstat().st_size == before
    assert target.read_text() == "victim"
    assert not (console.spool.parent / "nothing").exists()


def test_a_fifo_that_is_read_gets_nothing(console):
    file = console.spool / FILE
    os.mkfifo(file)
    if os.geteuid() == 0:
        os.chown(file, UID, UID)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        speaks(console)
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(console, closed):
    program = "import os, sys; os.fstat; sys.exit(3)"
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    done = attempt(*console.inside(), *shell, console.python, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    console.only()


@pytest.mark.parametrize("limit", [0, 1, 100, 700])
@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"])
def test_a_file_size_limit(console, limit, handler):
    limited = ["prlimit", f"--fsize={limit}", "--core=0"]
    program = f"import signal, sys; {handler} print('out'); sys.exit(3)"
    done = attempt(*console.inside(), *limited, console.python, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")


def test_no_descriptor_left(console):
    """The limit is reached when the record would be written at the end."""
    program = "import os, sys\ntry:\n    while True: os.dup(0)\nexcept OSError: pass\nsys.exit(3)\n"
    limited = ["prlimit", "--nofile=64"]
    done = attempt(*console.inside(), *limited, console.python, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert len(console.records()) == 1


def test_signals_while_it_writes(console):
    """As many as another process can send, to a handler that fails inside of the hook."""
    program = (
        "import os, signal, sys\n"
        "calls = []\n"
        "def handler(number, frame):\n"
        "    calls.append(frame)\n"
        "    if '_longrun_usage' in frame.f_code.co_filename: raise ValueError\n"
        "signal.signal(signal.SIGWINCH, handler)\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        while os.getppid() == parent: os.kill(parent, signal.SIGWINCH)\n"
        "    finally: os._exit(0)\n"
        "while len(calls) < 50: pass\n"
        "sys.exit(3)\n"
    )
    for _ in range(5):
        done = console.run("-c", program)
        assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert len(console.starts()) == 5


# -- switched off, and sent elsewhere ---------------------------------------------------------


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no", "relative/directory"])
@pytest.mark.parametrize("options", [[], ["-I"], ["-E"]])
def test_a_variable_switches_it_off(console, value, options):
    done = console.run(*options, "-c", SPEAK, env={"LONGRUN_USAGE": value})
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert console.records() == []


def test_an_empty_variable_does_not(console):
    console.run("-c", "pass", env={"LONGRUN_USAGE": ""})
    console.only()


def test_a_sites_policy_switches_it_off(console):
    console = replace(
        console,
        mounts=["--tmpfs", "/etc", "--perms", "755", "--dir", "/etc/longrun"]
        + ["--ro-bind", "/dev/null", "/etc/longrun/usage-off"],
    )
    speaks(console)
    redirected = {"LONGRUN_USAGE": SPOOL}
    (console.spool / FILE).touch()
    console.run("-c", "pass", env=redirected)
    assert console.records() == []


def test_a_variable_sends_records_to_a_file_that_is_there(console, scratch):
    elsewhere = scratch / f"elsewhere-{console.prefix.version}"
    elsewhere.mkdir()
    env = {"LONGRUN_USAGE": str(elsewhere)}
    assert console.run("-c", SPEAK, env=env).returncode == 3
    assert list(elsewhere.iterdir()) == [], "it made a file"
    (elsewhere / FILE).touch()
    (elsewhere / FILE).chmod(0o600)
    if os.geteuid() == 0:
        os.chown(elsewhere / FILE, UID, UID)
    assert console.run("-I", "-c", SPEAK, env=env).returncode == 3
    assert (elsewhere / FILE).read_text().count("\n") == 2
    assert console.records() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs rights to give up")
def test_a_program_with_more_rights_than_its_user_goes_nowhere_else(console, scratch):
    elsewhere = scratch / f"privileged-{console.prefix.version}"
    elsewhere.mkdir()
    (elsewhere / "0.jsonl").touch()
    more = ["setpriv", f"--ruid={NOBODY}", "--"]
    inside = [*console.inside(user=False), *more, console.python]
    done = attempt(*inside, "-c", SPEAK, env={"LONGRUN_USAGE": str(elsewhere)})
    assert done.returncode == 3
    assert (elsewhere / "0.jsonl").read_text() == ""


# -- what programs would notice ---------------------------------------------------------------


def test_the_users_own_customisation_still_runs_and_after_it(console, scratch, venv):
    own = scratch / "own"
    own.mkdir(exist_ok=True)
    seen = f"open({f'{SPOOL}/{FILE}'!r}).read().count('start')"
    (own / "sitecustomize.py").write_text(f"print({seen})\n")
    (own / "usercustomize.py").write_text("print('user')\n")
    assert console.run("-c", "pass", env={"PYTHONPATH": str(own)}).stdout == "1\n"
    packages = venv / "lib" / f"python{console.prefix.version}" / "site-packages"
    shutil.copy(own / "sitecustomize.py", packages)
    try:
        done = attempt(*console.inside(), venv / "bin" / "python", "-I", "-c", "pass")
        assert done.stdout == "2\n"
    finally:
        (packages / "sitecustomize.py").unlink()
    assert len(console.starts()) == len(console.ends()) == 2


@pytest.mark.parametrize("failure", ["raise SystemExit(7)", "raise KeyboardInterrupt"])
def test_a_customisation_that_ends_the_program_has_its_start(console, scratch, failure):
    own = scratch / "ending"
    own.mkdir(exist_ok=True)
    (own / "sitecustomize.py").write_text(failure)
    console.run("-c", "pass", env={"PYTHONPATH": str(own)})
    assert len(console.starts()) == 1


def test_pythonpath_does_not_shadow_it(console, scratch):
    own = scratch / "shadow"
    own.mkdir(exist_ok=True)
    (own / "_longrun_usage.py").write_text("print('shadow')\n")
    assert console.run("-c", "pass", env={"PYTHONPATH": str(own)}).stdout == ""
    console.only()


STATE = """
import os, posix, signal, sys, time
modules = sorted(sys.modules)
import json, warnings
def disposition(n):
    try: return repr(signal.getsignal(n))
    except ValueError: return None
print(json.dumps({
    "modules": modules,
    "signals": [disposition(n) for n in range(1, 65)],
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "umask": os.umask(0),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "next": os.open("/dev/null", os.O_RDONLY),
    "path": sys.path,
    "meta_path": [repr(m) for m in sys.meta_path],
    "cache": sorted(sys.path_importer_cache),
    "names": sorted(n for n in dir(sys)),
    "builtins": sorted(dir(__builtins__)),
    "environment": sorted(os.environ),
    "hooks": [repr(h) for h in (sys.excepthook, sys.displayhook, sys.unraisablehook)],
    "threads": len(sys._current_frames()),
    "directory": os.getcwd(),
}))
"""


@dataclass(frozen=True, kw_only=True)
class Altered:
    """A copy of the prefix, of links, whose hook a test replaces; there is none at first."""

    python: Path
    hook: Path

    def put(self, content: bytes | str) -> None:
        """Put bytes in the place of the hook's bytecode, or a program, compiled."""
        if isinstance(content, str):
            compiled = "import marshal, sys; out = sys.stdout.buffer; out.write(bytes(16));"
            compiled += f"out.write(marshal.dumps(compile({content!r}, 'hook', 'exec')))"
            argv = [self.python, "-c", compiled]
            content = subprocess.run(argv, check=True, capture_output=True).stdout
        self.hook.write_bytes(content)


@pytest.fixture(scope="session")
def copied(prefix, place) -> Iterator[Path]:
    path = place / f"altered-{prefix.version}"
    call("cp", "-al", prefix.path, path)
    yield path
    remove_tree(path)


@pytest.fixture
def altered(prefix, copied) -> Iterator[Altered]:
    library = copied / "lib" / f"python{prefix.version}" / "__pycache__"
    library.chmod(0o755)
    for cached in library.glob("_longrun_usage.*"):
        cached.unlink()
    hook = library / f"_longrun_usage.cpython-{prefix.version.replace('.', '')}.pyc"
    yield Altered(python=copied / "bin" / prefix.python.name, hook=hook)
    hook.unlink(missing_ok=True)


def test_a_program_sees_nothing_of_it(console, altered):
    without = call(*console.inside(), altered.python, "-B", "-c", STATE)
    assert console.records() == []
    seen = call(*console.inside(), console.python, "-B", "-c", STATE)
    console.only()
    copied = str(altered.python.parents[1])
    assert json.loads(seen) == json.loads(without.replace(copied, str(console.prefix.path)))


@pytest.mark.parametrize(
    "content",
    [
        "raise SystemExit(7)",
        "raise MemoryError",
        "raise GeneratorExit",
        "import nothing",
        "1/0",
        "def f(): f()\nf()",
        b"",
        b"short",
        bytes(100),
        bytes(16) + b"\xff" * 100,
        None,
    ],
)
def test_a_broken_or_missing_hook_costs_the_record_and_nothing_else(console, altered, content):
    if content is not None:
        altered.put(content)
    speaks(replace(console, python=altered.python))
    assert console.records() == []


def test_an_interrupt_while_the_hook_runs_is_not_lost(console, altered):
    altered.put("raise KeyboardInterrupt")
    done = attempt(*console.inside(), altered.python, "-c", "print('went on')")
    assert done.returncode != 0
    assert done.stdout == ""


def test_it_is_not_collected_as_garbage(console):
    program = "import gc; gc.collect(); import atexit; atexit.register(gc.collect); 1/0"
    assert console.run("-c", program).returncode == 1
    _, end = console.only()
    assert end["exc"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.modules.clear()",
        "import sys; sys.modules = None",
        "import sys; sys.modules[3] = 3",
        "import posix; del posix.open",
        "import sys; sys._exit_status = 'mine'",
        "import sys, builtins; builtins.set = None; builtins.getattr = None",
    ],
)
def test_a_program_that_spoils_the_interpreter_is_told_nothing_of_the_hook(console, program):
    done = console.run("-c", program)
    assert "longrun" not in done.stdout + done.stderr
    assert len(console.starts()) == 1


def test_a_layer_says_its_name(console, store):
    """Any layer that this machine has built; all are made by the same step."""
    specs = load_specs(ROOT)
    release = choose_release(specs, None)
    interpreters = choose_interpreters(specs, release, [console.prefix.version])
    plan = make_plan(specs, release, interpreters, layers=tuple(release.layers))
    tag = interpreters[0].tag
    built = {layer: store.get(plan.find(f"layer/{layer}-{tag}").key) for layer in release.layers}
    found = {layer: entry.tree for layer, entry in built.items() if entry}
    if not found:
        pytest.skip("no layer is built: run ./build.py test")
    for layer, tree in found.items():
        program = f"/mnt/bin/python{console.prefix.version}"
        call(*console.inside("--ro-bind", tree, "/mnt"), program, "-c", "pass")
        assert console.starts()[-1]["layer"] == layer
