"""How long libraries take to import, on a machine whose time is made."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from job_maker import make_job
from stack_maker import give_package, give_stack

from longrun.errors import BuildError, StoreError
from longrun.matrix.imports import times
from longrun.plan import plan_imports
from longrun.steps import imports
from longrun.steps.imports import Times, build, drop, measure
from longrun.store import Store

START, IMPORT, READ, WRITE = 1.0, 10.0, 100.0, 1000.0
"""Seconds of a bare start, of an import, of reading from disk, and of what is done only once."""

SCRIPT = """\
#!/bin/sh
[ "$1 $2" = "-I -c" ] || exit 9
case "$3" in
    "import broken") echo "Traceback" >&2; echo "ImportError: no libfoo.so.2" >&2; exit 1;;
    "import silent") exit 3;;
    "import slow") sleep 10;;
    "import told") [ "$(env | grep -c MINE)" = 0 ];;
    "import writer") echo x > "$HOME/fonts";;
esac
"""


class Machine:
    """Stands for clock, disk and processes: every run takes as long as the figures say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.noise = [0.5, 0.0, 0.25]
        self.on_disk = False
        self.written: set[str] = set()
        self.dropped: list[set[str]] = []
        self.slow_start = ""
        monkeypatch.setattr(imports, "perf_counter", lambda: self.now)
        monkeypatch.setattr(imports, "outcome", self.run)
        monkeypatch.setattr(imports, "drop", self.drop)

    def run(self, argv, *, env, cwd):
        assert Path(argv[-4]).is_file()
        self.now += START + READ * self.on_disk
        if not self.on_disk:
            self.now += self.noise[0]
            self.noise.append(self.noise.pop(0))
        if argv[-1].startswith("import"):
            self.now += IMPORT + WRITE * (argv[-1] not in self.written)
        if self.slow_start and self.slow_start in argv[-4]:
            self.now += WRITE
        self.written.add(argv[-1])
        self.on_disk = False
        return 0, "", ""

    def drop(self, files) -> None:
        self.dropped.append(set(files))
        self.on_disk = True


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def give_python(tree: Path, version: str = "3.13") -> Path:
    """A prefix whose interpreter is the script."""
    program = tree / f"bin/python{version}"
    program.parent.mkdir(parents=True)
    program.write_text(SCRIPT)
    program.chmod(0o755)
    (tree / "lib").mkdir()
    (tree / "lib/module.py").write_text("x = 1")
    (tree / "lib/link.py").symlink_to("module.py")
    return tree


@pytest.fixture
def take(tmp_path):
    """The times of a bare start, and of an import, in a made prefix."""
    tree, home = give_python(tmp_path / "prefix"), tmp_path / "home"
    home.mkdir()

    def take(module: str) -> tuple[Times, Times]:
        start, found = measure(tree, "python3.13", {"x": module}, home, lambda name: None)
        return start, found["x"]

    return take


def test_an_import_is_what_is_beyond_a_bare_start_and_cold_after_files_were_dropped(machine, take):
    machine.noise = [0.0]
    start, found = take("x")
    assert start == Times(warm=START, cold=START + READ)
    assert found == Times(warm=IMPORT, cold=IMPORT)


def test_of_warm_runs_the_best_counts(machine, take):
    assert take("x")[0].warm == START


def test_what_a_library_does_only_the_first_time_does_not_count(machine, take):
    """Such as matplotlib's list of fonts, which is written to HOME once."""
    machine.noise = [0.0]
    assert take("writer")[1] == Times(warm=IMPORT, cold=IMPORT)


def test_a_librarys_first_run_may_write_to_a_home_of_its_own(take, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    take("writer")
    assert (tmp_path / "home/fonts").exists()


def test_all_files_of_the_prefix_are_dropped(machine, take, tmp_path):
    take("x")
    # of a link there is nothing in memory but what it leads to
    files = {str(tmp_path / "prefix" / name) for name in ("bin/python3.13", "lib/module.py")}
    assert machine.dropped == [files, files]


def test_no_time_is_below_zero():
    less = Times(warm=2.0, cold=4.0).less(Times(warm=3.0, cold=1.0))
    assert less == Times(warm=0.0, cold=3.0)


def test_the_environment_of_the_caller_does_not_reach_the_import(take, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD_MINE", "x")
    monkeypatch.setenv("PYTHONPATH", "/MINE")
    take("told")


def test_what_cannot_be_imported_is_named_with_its_last_words(take):
    with pytest.raises(
        BuildError, match=r"import broken in .*/prefix: ImportError: no libfoo"
    ) as e:
        take("broken")
    assert "imports" in e.value.remedy
    with pytest.raises(BuildError, match=r"import silent in .*/prefix: exit status 3"):
        take("silent")


def test_an_import_that_hangs_is_ended(take, monkeypatch):
    monkeypatch.setattr(imports, "LIMIT", 1)
    with pytest.raises(BuildError, match=r"import slow in .*/prefix: killed after 1 s"):
        take("slow")


def resident(path: Path) -> int:
    """How many pages of a file are in memory (mincore(2))."""
    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as data:
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        held = ctypes.c_char.from_buffer(data)
        address = ctypes.c_void_p(ctypes.addressof(held))
        status = libc.mincore(address, ctypes.c_size_t(size), pages)
        del held
    assert status == 0
    return sum(page & 1 for page in pages.raw)


def test_dropped_files_are_no_longer_in_memory(tmp_path):
    kind = subprocess.run(["stat", "-fc", "%T", tmp_path], capture_output=True, text=True).stdout
    if kind.strip() in ("tmpfs", "ramfs"):
        pytest.skip("files of a RAM disk are always in memory")
    path = tmp_path / "library.so"
    path.write_bytes(bytes(1_000_000))
    subprocess.run(["sync", path], check=True)
    assert resident(path) > 200
    path.chmod(0o444)
    drop([str(path)])
    path.chmod(0o644)
    assert resident(path) == 0
    assert path.read_bytes() == bytes(1_000_000)


@pytest.fixture
def shop(checkout, tmp_path):
    """The steps of a checkout that measure, and a store with nothing in it."""
    give_stack(checkout.root)
    give_package(checkout.root, "numpy", "base", why="arrays")
    checkout.replace("specs/packages/numpy.toml", '["numpy"]', '["numpy.linalg", "numpy"]')
    specs = checkout.specs()
    release = specs.releases["2026.1"]
    interpreters = tuple(specs.interpreters[name] for name in release.interpreters)
    store = Store(tmp_path / "store")
    store.prepare()
    return plan_imports(specs, release, interpreters), store


def take_all(steps, store: Store, directory: Path) -> list[str]:
    """Run the steps with prefixes of the script; what was said."""
    said: list[str] = []
    for step in steps:
        inputs = {}
        for needed in step.inputs:
            name = needed.id.replace("/", "-")
            version = "3.11" if name.endswith("11") else "3.13"
            inputs[needed.id] = give_python(directory / step.name / name, version)
        job = make_job(directory / f"job-{step.name}", step.spec, inputs)
        with store.stage(step) as stage:
            build(replace(job, out=stage.tree, say=said.append))
            store.commit(stage, step, seconds=1)
    return said


def test_each_package_is_imported_in_its_layer_and_each_interpreter_started(
    shop, machine, tmp_path
):
    steps, store = shop
    said = take_all(steps, store, tmp_path)
    found, starts = times(steps, store)
    assert [(row.tag, row.layer, row.name, row.module) for row in found] == [
        ("cp313", "base", "numpy", "numpy.linalg"),
        ("cp313", "controls", "pyepics", "pyepics"),
        ("cp313", "controls", "tracker", "tracker"),
        ("cp313", "gui", "panel-kit", "panel_kit"),
        ("cp311", "base", "numpy", "numpy.linalg"),
        ("cp311", "controls", "pyepics", "pyepics"),
        ("cp311", "controls", "tracker", "tracker"),
    ]
    assert [start.tag for start in starts] == ["cp313", "cp311"]
    assert "import numpy.linalg" in said


def test_the_start_of_an_interpreter_is_that_of_the_bare_prefix(shop, machine, tmp_path):
    machine.slow_start = "/layer-"
    machine.noise = [0.0]
    take_all(*shop, tmp_path)
    found, starts = times(*shop)
    assert {(start.warm, start.cold) for start in starts} == {(START, START + READ)}
    assert {(row.warm, row.cold) for row in found} == {(IMPORT, IMPORT)}


def test_what_was_not_measured_yet_is_named_with_the_way_to_have_it(shop):
    with pytest.raises(StoreError, match=r"imports/cp313 .*not in the store"):
        times(*shop)
