"""Container engines of a test's own: nothing that the machine has in its own is touched or left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import attempt

WALLS = ("--rm", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=512:512")
"""An engine's own limits may be higher than this machine lets root set."""


@dataclass(frozen=True)
class Engine:
    """An engine by its program; ``environ`` tells the program where all its things are."""

    program: str
    environ: Mapping[str, str]

    def call(self, *words: str | Path) -> str:
        """What a command prints; without a time limit, since gigabytes are loaded."""
        argv = [self.program, *words]
        done = subprocess.run(argv, env=self.environ, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def load(self, archive: Path) -> Loaded:
        told = self.call("load", "--quiet", "--input", archive)
        return Loaded(self, told.removeprefix("Loaded image: "))


@dataclass(frozen=True)
class Loaded:
    """An image in an engine."""

    engine: Engine
    reference: str

    @property
    def hardened(self) -> tuple[str, ...]:
        """Options without which an image that needs nothing does not notice; no place is writable.

        Podman puts file systems on /tmp and other places of a read-only root; Docker does not.
        """
        bare = ("--read-only-tmpfs=false",) if self.engine.program == "podman" else ()
        return ("--read-only", "--cap-drop=all", *bare)

    def command(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        return [self.engine.program, "run", *WALLS, *options, self.reference, *words]

    def run(
        self, *words: str, options: tuple[str, ...] = (), stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words, options=("--interactive", *options)),
            env=self.engine.environ,
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
        )

    def call(self, *words: str, options: tuple[str, ...] = (), stdin: str = "") -> str:
        done = self.run(*words, options=options, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()


@contextmanager
def podman(place: Path) -> Iterator[Engine]:
    """A Podman whose images are below a directory; it needs no service."""
    try:
        yield Engine("podman", {"HOME": "/root", "PATH": os.environ["PATH"], **settings(place)})
    finally:
        attempt("umount", "--lazy", place / "images/overlay")
        remove(place / "images/overlay")


def settings(place: Path) -> dict[str, str]:
    """Configuration files of a Podman that shares nothing with the machine's."""
    (place / "containers.conf").write_text(
        f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'tmp_dir = "{place}/tmp"\n[containers]\nlog_driver = "k8s-file"\n'
    )
    (place / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/images"\nrunroot = "{place}/run"\n'
    )
    return {
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
    }


@contextmanager
def docker(place: Path) -> Iterator[Engine]:
    """A Docker whose daemon ends with this program, whatever becomes of it.

    The daemon has a network namespace of its own, as another one would lose its bridge to it, and
    one for mounts, of which none is left when it is killed.
    """
    assert shutil.which("dockerd"), "dockerd: not found: apt-get install docker.io"
    address = f"unix://{place}/socket"
    argv = [
        *("setpriv", "--pdeathsig", "TERM", "unshare", "--net", "--mount", "dockerd"),
        *(f"--data-root={place}/data", f"--exec-root={place}/exec", f"--pidfile={place}/pid"),
        *(f"--host={address}", "--iptables=false", "--ip6tables=false", "--bridge=none"),
    ]
    environ = {"PATH": os.environ["PATH"], "DOCKER_HOST": address, "HOME": str(place)}
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen(argv, stdout=log, stderr=log) as daemon,
    ):
        try:
            wait_for(daemon, environ, place / "log")
            yield Engine("docker", environ)
        finally:
            daemon.terminate()
            daemon.wait()
            remove(place / "data/overlay2")


def remove(layers: Path) -> None:
    """Delete what an engine has unpacked, 130,000 files, many at a time: a disk takes 1 ms each."""
    with ThreadPoolExecutor(16) as threads:
        for place in layers.glob("*"):
            threads.submit(subprocess.run, ["rm", "-rf", place], check=False)


def wait_for(daemon: subprocess.Popen[bytes], environ: Mapping[str, str], log: Path) -> None:
    """Wait until a daemon answers."""
    end = time.monotonic() + 120
    while subprocess.run(["docker", "version"], env=environ, capture_output=True).returncode:
        assert daemon.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
