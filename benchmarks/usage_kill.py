"""Kills the agent of telemetry at random points under load, and counts what is lost or doubled.

    $E/bin/python benchmarks/usage_kill.py [--kills 100] [--writers 8] [--store lines]
    $E/bin/python benchmarks/usage_kill.py --hook PREFIX/bin/python3.13

Writers are processes that do what the hook does: they open their user's file, look whether it is
theirs, write one line, and close; some dawdle with the file open. Each keeps a ledger of what it
wrote. The agent is started again and again and killed with SIGKILL after a random time. In the
end the ledgers are held against the store. As root, writers are different users.

Writers rest a little, and the agent does not: so it does one whole round after the other, and is
killed in all parts of it, also between the store and its own state. With ``--rest 0`` there is
always more to read than it can, and it is mostly killed while it reads. An agent without the
lease, a store that takes the same events twice and an outbox that is emptied too early were each
found within 40 kills of the former.

With ``--hook``, writers start an interpreter that has the real hook, again and again. That knows
one spool only: so all of it runs, as root, in a mount namespace with a ``/var/spool`` of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
FIRST_UID = 61000
INSIDE = "USAGE_KILL_INSIDE"
"""Set in the mount namespace that ``--hook`` makes."""

WRITER = r"""
import errno, json, os, random, signal, stat, sys, time

spool, ledger = sys.argv[1:3]
uid, seed, rest = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
book = open(ledger, "a", buffering=1)
if uid != os.getuid():
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
dice = random.Random(seed)
path = f"{spool}/{uid}.jsonl"
flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
going = True


def stop(*_):
    global going
    going = False


signal.signal(signal.SIGTERM, stop)


def opened():
    for _ in range(2):
        try:
            file = os.open(path, flags, 0o600)
        except BlockingIOError:
            print("retry lease", file=book)
            continue
        status = os.fstat(file)
        if status.st_nlink == 1 and status.st_uid == uid and stat.S_ISREG(status.st_mode):
            return file
        os.close(file)
        print("retry nameless", file=book)
    raise SystemExit("the file could not be opened twice")


def write(record):
    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    file = opened()
    if dice.random() < 0.05:
        time.sleep(dice.random() * 0.2)
    assert os.write(file, line) == len(line)
    os.close(file)
    print(record["k"], record["id"], file=book)


while going:
    now = time.time_ns()
    id_ = f"{os.getpid()}-{now:x}"
    write({"v": 1, "k": "start", "id": id_, "t": now / 1e9, "pid": os.getpid(), "ppid": 1,
           "py": "3.13.5", "release": "2026.1", "layer": "controls", "prefix": "/opt/longrun/cp313",
           "base": "/opt/longrun/cp313", "how": "module", "name": "orbit_display", "ci": None,
           "forbidden": [], "flags": "I"})
    if dice.random() < 0.95:  # the others are killed, as it were
        write({"v": 1, "k": "end", "id": id_, "t": time.time(), "s": 0.01, "exit": "ok",
               "code": None, "exc": None, "use": {"/usr/lib/python3/dist-packages": ["yaml"]}})
    time.sleep(rest)
"""

STARTER = r"""
import os, signal, subprocess, sys

_, ledger, uid, _, rest, python = sys.argv[1:]
book = open(ledger, "a", buffering=1)
os.setgroups([])
os.setresgid(int(uid), int(uid), int(uid))
os.setresuid(int(uid), int(uid), int(uid))
going = True


def stop(*_):
    global going
    going = False


signal.signal(signal.SIGTERM, stop)
while going:
    popen = subprocess.Popen([python, "-Ic", "import json"], env={}, start_new_session=True)
    assert popen.wait() == 0
    print("start", popen.pid, file=book)
    print("end", popen.pid, file=book)
"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of it: events that were begun, that are in the store, lost, doubled, torn apart.

    ``unpaired`` are those whose end was written and is not in the store. ``retries`` are writers
    that met the agent's lease, or a file that had just gone.
    """

    kills: int
    begun: int
    stored: int
    lost: int
    doubled: int
    unpaired: int
    foreign: int
    retries: int
    refused: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether all is there, once, and nothing was read twice."""
        wrong = self.lost or self.doubled or self.unpaired or self.foreign or self.refused
        return self.begun > 0 and not wrong


def run(
    place: Path,
    *,
    kills: int,
    writers: int,
    store: str = "lines",
    seed: int = 0,
    rest: float = 0.02,
    hook: str = "",
) -> Verdict:
    """Write, kill, and count below a directory that everybody can enter."""
    dice = random.Random(seed)
    config = configure(place, store, hook)
    with writing(place, writers, seed, rest, hook):
        for _ in range(kills):
            killed(config, dice.uniform(0.1, 1.2))
    for _ in range(3):  # the last writers may have written after the first of these looked for them
        done = subprocess.run(
            [*AGENT, "--once", "--json", "--config", config],
            env=environment(),
            check=True,
            capture_output=True,
        )
    counters = json.loads(done.stdout)["status"]["counters"]
    return judge(place, kills, store, counters, by_process=bool(hook))


AGENT = (sys.executable, "-m", "longrun.usage", "agent")


def environment() -> dict[str, str]:
    """The agent's: this checkout."""
    return {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"], "LONGRUN_USAGE": "off"}


def configure(place: Path, store: str, hook: str = "") -> Path:
    """A spool as at a site, and the agent's configuration."""
    (place / "ledgers").mkdir()
    if hook:
        (place / "var").mkdir()
        subprocess.run(["mount", "--bind", place / "var", "/var/spool"], check=True)
    spool = Path("/var/spool/longrun/usage") if hook else place / "spool"
    spool.mkdir(parents=True)
    spool.chmod(0o1733)
    config = place / "usage.toml"
    config.write_text(
        f'spool = "{spool}"\nstate = "{place}/state"\nstore = "{store}"\n'
        f'interval_seconds = 0.01\n[{store}]\ndirectory = "{place}/store"\n'
    )
    return config


@contextlib.contextmanager
def writing(place: Path, writers: int, seed: int, rest: float, hook: str = "") -> Iterator[None]:
    """Writers at work, two of each user; they end by themselves, between two records."""
    running = []
    for number in range(writers):
        uid = FIRST_UID + number // 2 if os.getuid() == 0 else os.getuid()
        ledger = place / "ledgers" / str(number)
        argv = [str(place / "spool"), str(ledger), str(uid), str(seed + number), str(rest)]
        program = [STARTER, *argv, hook] if hook else [WRITER, *argv]
        running.append(subprocess.Popen([sys.executable, "-c", *program]))
    try:
        yield
    finally:
        for popen in running:
            popen.terminate()
        ends = [popen.wait() for popen in running]
    assert not any(ends), f"writers failed: {ends}"


def killed(config: Path, seconds: float) -> None:
    """An agent that is killed after so many seconds, whatever it is at."""
    popen = subprocess.Popen([*AGENT, "--config", config], env=environment(), stderr=PIPE)
    time.sleep(seconds)
    if popen.poll() is not None:
        raise RuntimeError(f"the agent ended: {popen.stderr.read().decode()}")  # type: ignore[union-attr]
    popen.send_signal(signal.SIGKILL)
    popen.wait()
    popen.stderr.close()  # type: ignore[union-attr]


PIPE = subprocess.PIPE


def judge(
    place: Path, kills: int, store: str, counters: dict[str, int], *, by_process: bool = False
) -> Verdict:
    """Hold the ledgers against the store; by numbers of processes where no more is in them."""
    written = [line.split() for f in (place / "ledgers").iterdir() for line in f.open()]
    begun = {id_ for kind, id_ in written if kind == "start"}
    ended = {id_ for kind, id_ in written if kind == "end"}
    found = list(stored(place / "store", store))
    times = Counter(id_ for id_, _ in found)
    doubled = sum(count - 1 for count in times.values())
    if by_process:
        found = [(id_.partition("-")[0], exit_) for id_, exit_ in found]
        times = Counter(id_ for id_, _ in found)
    whole = {id_ for id_, exit_ in found if exit_ == "ok"}
    return Verdict(
        kills=kills,
        begun=len(begun),
        stored=len(found),
        lost=len(begun - set(times)),
        doubled=doubled,
        unpaired=len(ended - whole),
        foreign=len(set(times) - begun),
        retries=sum(kind == "retry" for kind, _ in written),
        refused={name: value for name, value in counters.items() if "refused" in name},
    )


def stored(directory: Path, store: str) -> Iterator[tuple[str, str]]:
    """Record id and kind of exit of every event in a store."""
    if store == "parquet":
        from longrun.usage.stores.parquet import Reader

        with Reader(directory, 0, 1e11) as reader:
            rows: Sequence[tuple[str, ...]] = reader.rows('SELECT id, "exit" FROM events')
    else:
        lines = [line for file in sorted(directory.iterdir()) for line in file.open()]
        rows = [(event["id"], event["exit"]) for event in map(json.loads, lines)]
    for id_, exit_ in rows:
        yield id_.split("-", 2)[2], exit_


def main() -> int:
    """Run it at length; 0 if nothing is lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--store", default="lines", choices=("lines", "parquet"))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--rest", type=float, default=0.02, help="seconds between two invocations")
    parser.add_argument("--hook", default="", metavar="PYTHON", help="an interpreter with the hook")
    arguments = parser.parse_args()
    if arguments.hook and INSIDE not in os.environ:
        os.environ[INSIDE] = "yes"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])  # noqa: S606
    with tempfile.TemporaryDirectory(prefix="usage-kill-") as name:
        Path(name).chmod(0o755)
        verdict = run(Path(name), **vars(arguments))
    print(json.dumps({"seed": arguments.seed} | asdict(verdict), indent=1))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
