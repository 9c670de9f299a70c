"""The start-up hook as a module: what its lines say, and what it leaves alone.

What a program notices of it is tested on really built prefixes (tests/integration/test_hook.py).
"""

from __future__ import annotations

import dis
import json
import posix
import subprocess
import sys
import types

import pytest

from longrun.hook import SOURCE, blank, fill
from longrun.hook import _longrun_usage as usage

TEXT = SOURCE.read_text(encoding="utf-8")


def start() -> dict[str, object]:
    return json.loads(usage.start_record("7-abc", 1_795_277_365_921_723_000, 7))


def end() -> dict[str, object]:
    return json.loads(usage.end_record("7-abc", 1_500_000_000, 0))


def imports(code: types.CodeType) -> set[str]:
    """What code imports, as it is compiled: a branch that is never taken is not in it."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"}
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return found.union(*map(imports, inner))


def test_it_imports_only_what_is_built_in():
    imported = imports(compile(TEXT, "hook", "exec"))
    assert imported == {"_imp", "_thread", "posix", "sys", "time"}
    assert imported <= set(sys.builtin_module_names)


def test_release_and_layer_are_filled_in_one_after_the_other():
    prefix = fill(TEXT, release="2026.1")
    layer = fill(prefix, layer="controls")
    names: dict[str, object] = {}
    exec(compile(layer, "hook", "exec"), names)
    assert (names["RELEASE"], names["LAYER"]) == ("2026.1", "controls")
    assert blank(prefix) == blank(layer) == TEXT


def test_the_keys_of_the_records_are_those_that_the_agent_knows():
    assert " ".join(start()) == (
        "v k id t pid ppid py release layer prefix base exe how name ci forbidden flags"
    )
    assert " ".join(end()) == "v k id t s exit code exc use more"


@pytest.mark.parametrize(
    ("given", "words", "expected"),
    [
        (["python", "x.py", "-m"], ["x.py", "-m"], ("script", "x.py")),
        (["python", "-I", "/home/a/x.py"], ["/home/a/x.py"], ("script", "x.py")),
        (["python", "app/"], ["app/"], ("script", "app")),
        (["python", "-m", "pip", "install"], ["-m", "install"], ("module", "pip")),
        (["python", "-Impip", "-m"], ["-m", "-m"], ("module", "pip")),
        (["python", "-W", "m", "-mpip.x"], ["-m"], ("module", "pip.x")),
        (["python", "-c", "secret()", "x"], ["-c", "x"], ("command", "")),
        (["python", "-csecret()"], ["-c"], ("command", "")),
        (["python", "-"], ["-"], ("stdin", "")),
        (["python"], [""], ("stdin", "")),
        ([], [""], ("embedded", None)),
        (["/opt/daq", "secret"], ["/opt/daq", "secret"], ("embedded", None)),
    ],
)
def test_how_the_program_was_started(monkeypatch, given, words, expected):
    monkeypatch.setattr(posix, "isatty", lambda descriptor: False)
    how, name, program = usage.kind(given, words)
    own = posix.readlink("/proc/self/exe")
    assert how == expected[0]
    assert name == (own.rpartition("/")[2] if how == "embedded" else expected[1])
    assert program == (own if how == "embedded" else "")


@pytest.mark.parametrize("module", ["spawn", "forkserver", "resource_tracker"])
@pytest.mark.parametrize("word", ["", "-c"])
def test_children_of_multiprocessing(module, word):
    code = f"{word}from multiprocessing.{module} import main; main(3)"
    given = ["python", "-s", *([] if word else ["-c"]), code, "--multiprocessing-fork"]
    found = usage.kind(given, ["-c", "--multiprocessing-fork"])
    assert found == ("child", f"multiprocessing.{module}", "")


@pytest.mark.parametrize("code", ["", "x", "from multiprocessing.pool import y", "import os"])
def test_other_commands_are_no_children(code):
    assert usage.kind(["python", "-c", code], ["-c"]) == ("command", "", "")


def test_an_executable_that_is_not_called_python_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/app/bin/mypython")
    assert start()["exe"] == posix.readlink("/proc/self/exe")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("plain", "plain"),
        ('a"b\\c', 'a"b\\c'),
        ("Grüße", "Grüße"),
        ("line\nend\x1b[31m", "line?end?[31m"),
        ("not \udcff UTF-8", "not ? UTF-8"),
        ("x" * 600, "x" * 500),
        ("ü" * 600, "ü" * 250),
    ],
)
def test_text_is_json_whatever_it_holds(text, expected):
    assert json.loads(usage.quoted(text).encode()) == expected


def test_a_record_with_the_longest_of_everything_fits(monkeypatch):
    worst = '"' * 5000
    monkeypatch.setattr(sys, "prefix", worst)
    monkeypatch.setattr(sys, "base_prefix", worst)
    monkeypatch.setattr(sys, "orig_argv", ["python", worst])
    monkeypatch.setattr(sys, "argv", [worst])
    monkeypatch.setattr(sys, "executable", worst)
    assert len(usage.start_record("4194304-" + "f" * 16, 10**19, 4194304)) <= usage.LONGEST


def test_forbidden_variables_are_named_and_their_values_are_not(monkeypatch):
    environment = {b"PYTHONPATH": b"/secret", b"LD_PRELOAD": b"secret.so", b"PYTHONHOME": b""}
    monkeypatch.setattr(posix, "environ", environment)
    record = start()
    assert record["forbidden"] == ["PYTHONPATH", "LD_PRELOAD"]
    assert "secret" not in json.dumps(record)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({b"GITLAB_CI": b"true", b"CI": b"true"}, "gitlab"),
        ({b"GITHUB_ACTIONS": b"true", b"CI": b"true"}, "github"),
        ({b"JENKINS_URL": b"https://ci"}, "jenkins"),
        ({b"CI": b"1"}, "ci"),
        ({}, None),
    ],
)
def test_the_ci_system(monkeypatch, variables, expected):
    monkeypatch.setattr(posix, "environ", variables)
    assert start()["ci"] == expected


class Lazy(types.ModuleType):
    """A module that would load when anything is asked of it."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"asked for {name}")


def module(path: str | None, **names: object) -> types.ModuleType:
    made = types.ModuleType("made")
    made.__dict__.update(names)
    if path:
        made.__file__ = path
    return made


def modules(**found: object) -> dict[str, object]:
    return {name.replace("__", "."): made for name, made in found.items()}


def used(loaded: dict[str, object], known: int) -> dict[str, set[str]]:
    """What was used if these were the modules; only meanwhile, for everything needs its own."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(sys, "modules", loaded)
        return usage.used(known)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/env")
    monkeypatch.setattr(sys, "base_prefix", "/base")
    monkeypatch.setattr(sys, "platlibdir", "lib")
    python = "python{}.{}".format(*sys.version_info)
    return f"/env/lib/{python}/site-packages", f"/base/lib/{python}/site-packages"


def test_what_was_imported_from_site_directories(site):
    env, base = site
    loaded = modules(
        os=module("/base/lib/python3.13/os.py"),
        numpy=module(f"{base}/numpy/__init__.py"),
        numpy__core=module(f"{base}/numpy/core.py"),
        _cffi_backend=module(f"{env}/_cffi_backend.cpython-313-x86_64-linux-gnu.so"),
        six=module(f"{env}/six.py"),
        other_name=module(f"{env}/vendored/six.py"),
        development=module("/home/a/secret/development.py"),
        elsewhere=module("/opt/x/lib/python3.13/site-packages/elsewhere.py"),
        frozen=module(None),
        quote=module(f'{env}/a"b.py'),
    )
    assert used({**loaded, "lazy": Lazy("lazy"), "odd": 3, "none": None}, 0) == {
        env: {"_cffi_backend", "six", "vendored"},
        base: {"numpy"},
    }


def test_a_namespace_is_named_if_something_in_it_has_a_file(monkeypatch, site):
    env, _ = site
    loaded = modules(
        google=module(None, __path__=[f"{env}/google"]),
        google__protobuf=module(f"{env}/google/protobuf/__init__.py"),
        google__protobuf__message=module(f"{env}/google/protobuf/message.py"),
        google__cloud=module(None, __path__=[]),
        google__cloud__storage=module(f"{env}/google/cloud/storage/__init__.py"),
    )
    monkeypatch.setattr(sys, "modules", loaded)
    loaded |= modules(empty=module(None, __path__=[]), empty__too=module(None, __path__=[]))
    assert used(loaded, 0) == {env: {"google"}}
    del loaded["google.protobuf"], loaded["google.protobuf.message"]
    assert used(loaded, 0) == {env: {"google"}}


def test_names_that_do_not_fit_are_counted(monkeypatch, site):
    env, _ = site
    loaded = {f"module_{n:04}": module(f"{env}/module_{n:04}.py") for n in range(500)}
    with monkeypatch.context() as context:
        context.setattr(sys, "modules", loaded)
        line = usage.end_record("7-abc", 1_500_000_000, 0)
    record = json.loads(line)
    assert len(line) <= usage.LONGEST
    assert len(record["use"][env]) + record["more"] == 500
    assert len(record["use"][env]) > 170


@pytest.mark.parametrize(
    ("status", "exception", "expected"),
    [
        (None, None, ("unknown", None, None)),
        (None, ValueError, ("unknown", None, None)),
        ((0, False), None, ("ok", 0, None)),
        ((3, False), None, ("status", 3, None)),
        ((-1, False), None, ("status", 255, None)),
        ((256, False), None, ("ok", 0, None)),
        ((1, True), ValueError, ("exception", 1, "ValueError")),
        ((1, True), KeyboardInterrupt, ("exception", None, "KeyboardInterrupt")),
        # that of a window's callback, long before sys.exit(1)
        ((1, False), ValueError, ("status", 1, None)),
        # a directory that cannot be run
        ((1, True), None, ("status", 1, None)),
    ],
)
def test_how_the_program_ended(monkeypatch, status, exception, expected):
    for name, value in (("_exit_status", status), ("last_type", exception)):
        if value is None:
            monkeypatch.delattr(sys, name, raising=False)
        else:
            monkeypatch.setattr(sys, name, value, raising=False)
    record = end()
    assert (record["exit"], record["code"], record["exc"]) == expected


@pytest.fixture
def place(tmp_path):
    """A file of the spool, and how the hook opens it."""
    return str(tmp_path / "1.jsonl").encode(), usage.FLAGS | posix.O_CREAT


def test_a_line_is_written_again_where_the_agent_held_the_file(place, monkeypatch, tmp_path):
    """It renames, and then holds a lease: who looked up the name before is told to come again."""
    opened = []

    def held(path: bytes, flags: int, mode: int) -> int:
        opened.append(path)
        if len(opened) == 1:
            raise BlockingIOError
        return real(path, flags, mode)

    real = posix.open
    monkeypatch.setattr(posix, "open", held)
    assert usage.append(*place, "line\n")
    assert (tmp_path / "1.jsonl").read_bytes() == b"line\n"


def test_a_line_is_written_again_where_the_agent_removed_the_file(place, monkeypatch, tmp_path):
    real = posix.open
    opened = []

    def removed(path: bytes, flags: int, mode: int) -> int:
        opened.append(path)
        descriptor = real(path, flags, mode)
        if len(opened) == 1:
            posix.unlink(path)
        return descriptor

    monkeypatch.setattr(posix, "open", removed)
    assert usage.append(*place, "line\n")
    assert (tmp_path / "1.jsonl").read_bytes() == b"line\n"


@pytest.mark.parametrize("failure", [BlockingIOError, None])
def test_it_does_not_try_for_ever(place, monkeypatch, failure):
    real = posix.open
    opened = []

    def always(path: bytes, flags: int, mode: int) -> int:
        opened.append(path)
        if failure:
            raise failure
        descriptor = real(path, flags, mode)
        posix.unlink(path)
        return descriptor

    monkeypatch.setattr(posix, "open", always)
    assert not usage.append(*place, "line\n")
    assert len(opened) == 2


def test_no_descriptor_is_left(place):
    before = sorted(posix.listdir("/proc/self/fd"))
    assert usage.append(*place, "line\n")
    assert not usage.append(*place, "x" * (usage.LONGEST + 1))
    assert sorted(posix.listdir("/proc/self/fd")) == before


def test_numbers_are_those_of_the_clocks():
    assert start()["t"] == 1_795_277_365.921723
    assert end()["s"] == 1.5


def test_what_was_imported_before_the_program_began_is_not_its_own(monkeypatch, site):
    """Such as what a .pth file of an environment imports at each start."""
    env, _ = site
    loaded = modules(_hack=module(f"{env}/_hack/__init__.py"), six=module(f"{env}/six.py"))
    assert used(loaded, 1) == {env: {"six"}}


@pytest.mark.parametrize(
    ("options", "letters"),
    [(["-I"], "sEI"), (["-B", "-OO", "-q"], "OBq"), (["-i", "-d"], "di"), (["-v", "-b"], "vb")],
)
def test_letters_of_the_options(options, letters):
    """In another process: nobody else can make flags."""
    code = "import sys; from longrun.hook import _longrun_usage as u; import posix\n"
    code += "print(u.start_record('1-f', 1, 1))"
    path = f"import sys; sys.path.insert(0, {str(SOURCE.parents[2])!r})\n"
    argv = [sys.executable, *options, "-c", path + code]
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env
    )
    assert json.loads(done.stdout)["flags"] == letters


@pytest.mark.parametrize("count", [0, 1, 100, 160, 200, 500])
def test_every_name_is_there_or_counted(monkeypatch, site, count):
    """Of two directories, the second one after a first that takes all the room."""
    loaded = {}
    for place in site:
        names = {f"module_{n:04}": f"{place}/module_{n:04}.py" for n in range(count)}
        loaded |= {f"{place[1]}{name}": module(path) for name, path in names.items()}
    with monkeypatch.context() as context:
        context.setattr(sys, "modules", loaded)
        line = usage.end_record("7-abc", 1_500_000_000, 0)
    record = json.loads(line)
    assert len(line) <= usage.LONGEST
    assert sum(map(len, record["use"].values())) + record["more"] == 2 * count
