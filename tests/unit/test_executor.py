"""Running a plan: in order, in parallel, nothing twice, failures contained, kills survived."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from longrun.errors import BuildError, StoreError
from longrun.executor import Options, execute
from longrun.log import PlainReporter
from longrun.run import JobServer, find_tool, without_network
from longrun.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


class Yard:
    """Builders that note what they were given; single steps can be made to do something else."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.special = {}
        self.lock = threading.Lock()

    def __call__(self, job) -> None:
        name = getattr(job.spec, "name", None) or getattr(job.spec, "file", "")
        step = f"{type(job.spec).__name__}:{name}"
        with self.lock:
            self.order.append(step)
        if step in self.special:
            self.special[step](job)
        (job.out / "made").write_text(step)


KINDS = ("source", "toolchain", "library", "interpreter", "prefix", "archive")


def run(plan, store, yard, *, jobs=2, out=None, **options):
    return execute(
        store.missing(plan.steps, plan.targets),
        store,
        builders=dict.fromkeys(KINDS, yard),
        cache=store.root.parent / "compiler",
        options=Options(jobs=jobs, **options),
        reporter=PlainReporter({}, jobs=jobs, retry="./build.py build", out=out or sys.stderr),
        weights={},
    )


def test_everything_is_built_once_and_the_second_time_nothing(checkout, store):
    plan, yard = checkout.plan("3.13", "3.11"), Yard()
    outcome = run(plan, store, yard)
    assert len(yard.order) == len(plan.steps) == outcome.built
    assert run(plan, store, yard).built == 0
    assert len(yard.order) == len(plan.steps)


def test_a_step_is_given_exactly_its_inputs(checkout, store):
    plan, yard = checkout.plan(), Yard()
    seen = {}
    yard.special["Library:ssl"] = lambda job: seen.update(job.inputs)
    run(plan, store, yard)
    assert set(seen) == {"source/ssl", "toolchain/cc", "library/z"}
    assert (seen["library/z"] / "made").read_text() == "Library:z"


def test_what_is_cached_is_not_built_even_where_its_inputs_are_gone(checkout, store):
    plan, yard = checkout.plan(), Yard()
    run(plan, store, yard)
    library = store.get(plan.find("library/z").key)
    assert library is not None
    store.remove(library)
    assert run(plan, store, yard).built == 0


def test_a_failure_blocks_what_needs_it_and_nothing_else(checkout, store, capsys):
    plan, yard = checkout.plan("3.13"), Yard()
    checkout.library("other", sha="8")
    checkout.replace("specs/interpreters/cpython-3.13.toml", '["ssl"]', '["ssl", "other"]')
    plan = checkout.plan("3.13")

    def fail(job):
        job.run(["sh", "-c", "echo the compiler says no; exit 3"])

    yard.special["Library:z"] = fail
    outcome = run(plan, store, yard, jobs=1, out=sys.stdout)
    assert list(outcome.failed) == ["library/z"]
    assert set(outcome.blocked) == {
        "library/ssl",
        "interpreter/cpython-3.13",
        "prefix/cpython-3.13",
        "archive/cpython-3.13",
    }
    assert "library/other" in outcome.entries
    printed = capsys.readouterr().out
    assert "| the compiler says no" in printed
    assert "exit status 3" in printed
    assert str(store.log(plan.find("library/z"))) in printed
    assert "retry:   ./build.py build --step library/z" in printed
    assert "blocks:  library/ssl, interpreter/cpython-3.13" in printed

    del yard.special["Library:z"]
    yard.order.clear()
    assert not run(plan, store, yard).failed
    assert yard.order[0] == "Library:z", "the retry begins with what failed"


def test_a_patch_that_is_edited_during_the_build_gives_no_entry(checkout, store, capsys):
    plan, yard = checkout.plan(), Yard()
    step = next(step for step in plan.steps if step.patches)
    patch = step.patches[0]
    yard.special[f"{type(step.spec).__name__}:{step.name}"] = lambda _: patch.write_text("other")
    assert list(run(plan, store, yard).failed) == [step.id]
    assert store.get(step.key) is None
    assert f"{patch} was changed while {step.id} was built of it" in capsys.readouterr().err


def test_a_missing_program_is_a_failure_of_its_step(checkout, store):
    yard = Yard()
    yard.special["Library:z"] = lambda job: job.run(["no-such-program"])
    outcome = run(checkout.plan(), store, yard)
    assert "no-such-program" in outcome.failed["library/z"].message


def test_programs_see_a_clean_environment(checkout, store, monkeypatch):
    for name in ("CFLAGS", "LD_LIBRARY_PATH", "PYTHONPATH", "CPATH", "MAKEFLAGS"):
        monkeypatch.setenv(name, "/surprise")
    plan, yard = checkout.plan(), Yard()
    yard.special["Library:z"] = lambda job: job.run(["env"])
    run(plan, store, yard)
    log = store.log(plan.find("library/z")).read_text()
    assert "surprise" not in log
    for expected in ("TZ=UTC", "LC_ALL=C.UTF-8", "SOURCE_DATE_EPOCH=1577836800"):
        assert expected in log
    assert "staging" in next(line for line in log.splitlines() if line.startswith("HOME="))


@pytest.mark.skipif(not without_network(), reason="this machine allows no network namespace")
def test_programs_have_no_network(checkout, store):
    plan, yard = checkout.plan(), Yard()
    yard.special["Library:z"] = lambda job: job.run(["cat", "/proc/net/dev"])
    run(plan, store, yard)
    lines = store.log(plan.find("library/z")).read_text().splitlines()
    names = {line.split(":")[0].strip() for line in lines if ":" in line}
    assert names == {"lo"}


def test_steps_run_at_once_up_to_the_number_of_jobs(checkout, store):
    for name in ("a1", "a2", "a3"):
        checkout.library(name, sha="7")
    checkout.replace("specs/interpreters/cpython-3.13.toml", '["ssl"]', '["ssl", "a1", "a2", "a3"]')
    yard, running, most = Yard(), [], []

    def slow(job):
        running.append(1)
        most.append(len(running))
        time.sleep(0.15)
        running.pop()

    yard.special |= {f"Library:{name}": slow for name in ("a1", "a2", "a3", "z", "ssl")}
    run(checkout.plan(), store, yard, jobs=2)
    assert max(most) == 2


@pytest.mark.skipif(find_tool("make") is None, reason="make is not installed")
def test_two_makes_share_the_jobs(checkout, store, tmp_path):
    """Never more compilers at once than jobs, though each make may use all of them."""
    counter = tmp_path / "running"
    counter.mkdir()
    makefile = "all: 1 2 3 4\n1 2 3 4:\n\t@touch {c}/$$$$; ls {c} | wc -l; sleep 0.1; rm {c}/$$$$\n"

    def make(job):
        (job.work / "Makefile").write_text(makefile.format(c=counter))
        job.run(["make", "-s"])

    checkout.library("z2", sha="7")
    checkout.replace("specs/interpreters/cpython-3.13.toml", '["ssl"]', '["ssl", "z2"]')
    plan, yard = checkout.plan(), Yard()
    yard.special |= {"Library:z": make, "Library:z2": make}
    outcome = run(plan, store, yard, jobs=2)
    assert not outcome.failed
    counts = [
        int(line)
        for name in ("library/z", "library/z2")
        for line in store.log(plan.find(name)).read_text().splitlines()
        if line.strip().isdigit()
    ]
    assert len(counts) == 8
    assert max(counts) == 2


def test_a_make_that_does_not_block_disturbs_nobody():
    """make 4.3 sets O_NONBLOCK on the job server's pipe; four threads want the one token."""
    server = JobServer(1)
    os.set_blocking(server.descriptors[0], False)
    held, most = [], []

    def work():
        for _ in range(20):
            with server.token():
                held.append(1)
                most.append(len(held))
                time.sleep(0.001)
                held.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1


def test_a_damaged_input_stops_the_step_that_needs_it(checkout, store):
    plan, yard = checkout.plan(), Yard()
    yard.special["Library:ssl"] = lambda job: (_ for _ in ()).throw(BuildError("later"))
    run(plan, store, yard)
    entry = store.get(plan.find("library/z").key)
    assert entry is not None
    (entry.tree / "made").chmod(0o644)
    del yard.special["Library:ssl"]
    outcome = run(plan, store, yard)
    assert isinstance(outcome.failed["library/ssl"], StoreError)
    assert "verify --repair" in outcome.failed["library/ssl"].remedy


def test_a_source_with_changed_bytes_is_not_used(checkout, store):
    plan, yard = checkout.plan(), Yard()
    yard.special["Library:z"] = lambda job: (_ for _ in ()).throw(BuildError("later"))
    run(plan, store, yard)
    entry = store.get(plan.find("source/z").key)
    assert entry is not None
    made = entry.tree / "made"
    made.chmod(0o644)
    made.write_text(made.read_text().swapcase())
    made.chmod(0o444)
    del yard.special["Library:z"]
    outcome = run(plan, store, yard)
    assert "made: changed" in outcome.failed["library/z"].message


WORKER = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from test_executor import KINDS, run
from conftest import Checkout
from longrun.store import Store

def build(job):
    for number in range(20):
        (job.out / str(number)).write_bytes(b"x" * 1000)
        if number == 10 and type(job.spec).__name__ == "Library":
            job.run(["sleep", "0.05"])

store = Store(Path({store!r}))
store.prepare()
store.sweep()
outcome = run(Checkout(Path({checkout!r})).plan("3.13", "3.11"), store, build)
sys.exit(len(outcome.failed))
"""


def test_killed_at_any_moment_it_comes_back_whole(checkout, store, tmp_path):
    """kill -9 at random moments: the store is whole each time, and the work goes on."""
    here = Path(__file__).parent
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(WORKER).format(
            paths=[str(here), str(here.parents[1] / "src")],
            store=str(store.root),
            checkout=str(checkout.root),
        )
    )
    rng = random.Random(1)
    kills = finished = 0
    for _ in range(40):
        worker = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
        try:
            finished += worker.wait(timeout=0.2 + rng.random() * 0.5) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            kills += 1
        for entry in Store(store.root).entries():
            assert store.verify(entry) == []
    assert kills > 0
    final = subprocess.run([sys.executable, str(script)], check=False)
    assert final.returncode == 0
    plan = checkout.plan("3.13", "3.11")
    fresh = Store(store.root)
    assert fresh.missing(plan.steps, plan.targets) == ()
    time.sleep(0.1)  # the last orphans of killed builds end
    fresh.sweep()
    assert list((store.root / "staging").iterdir()) == []


def test_two_builds_at_once_make_each_step_once(checkout, store, tmp_path):
    plan, yards = checkout.plan("3.13", "3.11"), (Yard(), Yard())
    for yard in yards:
        yard.special |= {"Library:z": lambda job: time.sleep(0.2)}
    threads = [threading.Thread(target=run, args=(plan, Store(store.root), yard)) for yard in yards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(yards[0].order) + len(yards[1].order) == len(plan.steps)
