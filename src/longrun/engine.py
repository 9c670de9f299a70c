"""Runs checks in containers, where an engine answers: Docker, or Podman through the same interface.

A system's root becomes an image once; each check gets a container of its own, with the walls and
the places of ``cage``. No container outlives its check: what a killed run leaves, the next removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrun import fs
from longrun.cage import HIDDEN, NOBODY, SCRATCH, Cage
from longrun.config import BUBBLEWRAP, CONTAINER
from longrun.errors import BuildError, SetupError

if TYPE_CHECKING:
    from docker import APIClient

PATIENCE = 1.0
"""Seconds that an engine has to say that it is there."""

PING = b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n"

ANSWER = 300
"""Seconds that an engine has for one request; taking in a root is the longest."""

REPOSITORY = "longrun/system"
"""The images' name; their tags are the first digits of the roots' digests."""

DIGEST, CELL, MACHINE, OUT = "longrun.digest", "longrun.cell", "longrun.machine", "longrun.out"
"""Labels: the root that an image is of; the step of a container, whose it is, where it writes."""

STALE = 86_400
"""Seconds after which a container that has ended is nobody's any more, on whatever machine."""

CHUNK = 1 << 20
"""Bytes of a root that are sent at once, about."""

PROCESSES = 4096
"""Processes and threads that a check may have."""

LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 4096), "nproc": (resource.RLIMIT_NPROC, 32_768)}
"""The most files of a process, and processes of all containers; without an engine's own, which it
may have no right to set, or which are so high that programs that close every file take seconds."""

SHARED_MEMORY = 1 << 30
"""Bytes that /dev/shm may hold; an engine's own 64 MB are too few for several processes."""


class EngineError(BuildError):
    """The engine cannot do what it is asked for."""


@dataclass(frozen=True)
class Image:
    """A system's root as the engine has it."""

    engine: Engine
    id: str

    def run(self, name: str, cage: Cage, command: Sequence[str], seconds: float) -> None:
        """Run a command in a container; ``name`` is the step.

        BuildError where it fails, is still there after ``seconds``, or the run is interrupted.
        """
        with held(cage.out), self.engine.client() as client:
            labels = {CELL: name, MACHINE: socket.gethostname(), OUT: str(cage.out)}
            with self.engine.container(client, self.id, cage, command, labels) as container:
                client.start(container)
                status = self._wait(client, container, seconds)
                if self.engine.stopped.is_set():  # whichever is told first, its end or its removal
                    raise BuildError("interrupted")
                if status:
                    said = client.logs(container).decode("utf-8", "replace").strip()
                    raise BuildError(f"its container ended with exit status {status}: {said}")

    def _wait(self, client: APIClient, container: str, seconds: float) -> int:
        import requests

        end = time.monotonic() + int(seconds)
        try:
            return int(client.wait(container, timeout=int(seconds))["StatusCode"])
        except requests.RequestException as error:
            if time.monotonic() < end:
                raise
            raise BuildError(f"its container was killed after {seconds:g} s") from error


class Engine:
    """An engine that answers at a socket, and the containers that run in it now."""

    def __init__(self, path: Path, stopped: threading.Event) -> None:
        self.path = path
        self.stopped = stopped
        self._version = "auto"
        self._running: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def client(self, seconds: float = ANSWER) -> Iterator[APIClient]:
        """A connection, for one thread; what goes wrong there is an EngineError."""
        import docker  # a second that nothing else needs
        import requests

        try:
            address = f"unix://{self.path}"
            client = docker.APIClient(address, version=self._version, timeout=int(seconds))
            self._version = client.api_version
            with contextlib.closing(client):
                yield client
        except (docker.errors.DockerException, requests.RequestException) as error:
            if self.stopped.is_set():
                raise BuildError("interrupted") from error
            said = getattr(error, "explanation", None) or error
            raise EngineError(f"container engine at {self.path}: {said}") from error

    def image(self, root: Path, digest: str) -> Image:
        """The image of a root with this digest; made where the engine lacks it."""
        with self.client() as client:
            found = client.images(filters={"label": f"{DIGEST}={digest}"})
            if not found:
                changes = [f"LABEL {DIGEST}={digest}"]
                said = client.import_image_from_stream(self._sent(root), changes=changes)
                found = client.images(filters={"label": f"{DIGEST}={digest}"})
            if not found:
                raise EngineError(f"container engine at {self.path}: no image: {said[-300:]}")
            client.tag(found[0]["Id"], REPOSITORY, digest[:16])
            return Image(self, found[0]["Id"])

    def _sent(self, root: Path) -> Iterator[bytes]:
        for chunk in tar_of(root):
            if self.stopped.is_set():
                raise BuildError("interrupted")
            yield chunk

    @contextlib.contextmanager
    def container(
        self,
        client: APIClient,
        image: str,
        cage: Cage,
        command: Sequence[str],
        labels: Mapping[str, str],
    ) -> Iterator[str]:
        """A container that is not started yet; removed in the end, whatever happens."""
        identifier = create(client, image, cage, command, labels)
        try:
            with self._lock:
                self._running.add(identifier)
            if self.stopped.is_set():
                raise BuildError("interrupted")
            yield identifier
        finally:
            remove(client, identifier)
            with self._lock:
                self._running.discard(identifier)

    def stop(self) -> None:
        """Remove every container that runs; ``stopped`` lets none begin."""
        with self._lock:
            running = set(self._running)
        if running:
            with contextlib.suppress(BuildError), self.client(10) as client:
                for identifier in running:
                    remove(client, identifier)

    def sweep(self) -> None:
        """Remove the containers of runs that were killed."""
        with self.client() as client:
            for found in client.containers(all=True, filters={"label": CELL}):
                if left_over(found):
                    remove(client, found["Id"])


class Engines:
    """The engine of a run: looked for when the first cell asks, and given up where it is unfit."""

    def __init__(self, choice: str, environ: Mapping[str, str]) -> None:
        self.choice = choice
        self._environ = environ
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._images: dict[str, Image] = {}
        self._asked = self._unfit = False
        self._stopped = threading.Event()

    def image(self, root: Path, digest: str, seen: Path) -> Image | None:
        """A root as an image that is fit to be run; None where bubblewrap has to do.

        ``seen`` is a directory that the engine must see: its machine may be another one.
        SetupError where the site asks for an engine, and no engine can do it.
        """
        with self._lock:
            try:
                return None if self._unfit else self._image(root, digest, seen)
            except BuildError as error:
                if self._stopped.is_set():
                    raise
                if self.choice == CONTAINER:
                    raise SetupError(error.message, remedy=REMEDY) from error
                self._unfit = True
                return None

    def _image(self, root: Path, digest: str, seen: Path) -> Image | None:
        if not self._asked:
            self._engine = find_engine(self.choice, self._environ, self._stopped)
            self._asked = True
            if self._engine:
                self._engine.sweep()
        if self._engine and digest not in self._images:
            image = self._engine.image(root, digest)
            cage = Cage(root=root, prefix=seen, stem="longrun", programs=seen, out=seen)
            image.run("trial", cage, ("/bin/true",), ANSWER)
            self._images[digest] = image
        return self._images.get(digest)

    def stop(self) -> None:
        """End what runs in the engine, and let nothing begin: the run is interrupted."""
        self._stopped.set()
        if self._engine:
            self._engine.stop()


REMEDY = "start Docker or `podman system service`, or leave `engine` out of Longrun's configuration"


def find_engine(choice: str, environ: Mapping[str, str], stopped: threading.Event) -> Engine | None:
    """The first engine that answers; None where none does, or where ``choice`` is against it.

    ``stopped`` is set where the run is interrupted.
    SetupError where ``choice`` asks for one: it names every socket, and why it is of no use.
    """
    if choice == BUBBLEWRAP:
        return None
    refusals = []
    for path in sockets(environ):
        refusal = knock(path)
        if not refusal:
            return Engine(path, stopped)
        refusals.append(f"{path}: {refusal}")
    if choice == CONTAINER:
        where = "; ".join(refusals) or f"DOCKER_HOST is {environ.get('DOCKER_HOST')}: no socket"
        raise SetupError(f"no container engine: {where}", remedy=_remedy(where))
    return None


def _remedy(where: str) -> str:
    if "Permission denied" in where:
        return "be in the group of the socket (usermod -aG docker USER, then log in again), or " + (
            "start an engine of your own: systemctl --user start podman.socket"
        )
    return REMEDY


def sockets(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where an engine of this machine may listen; only $DOCKER_HOST where that is set."""
    if named := environ.get("DOCKER_HOST"):
        return (Path(named.removeprefix("unix://")),) if named.startswith("unix://") else ()
    own = environ.get("XDG_RUNTIME_DIR")
    return (
        Path("/var/run/docker.sock"),
        *((Path(own, "docker.sock"), Path(own, "podman/podman.sock")) if own else ()),
        Path("/run/podman/podman.sock"),
    )


def knock(path: Path) -> str:
    """Why no engine can be used at a socket; empty where one answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(path))
            connection.sendall(PING)
            answer = connection.recv(64)
        except TimeoutError:
            return f"no answer within {PATIENCE:g} s"
        except OSError as error:
            return error.strerror or str(error)
    return "" if b" 200 " in answer else "what answers is no container engine"


def create(
    client: APIClient, image: str, cage: Cage, command: Sequence[str], labels: Mapping[str, str]
) -> str:
    """Make a container with the walls of a cage; its identifier."""
    made = client.create_container(
        image,
        command=list(command),
        user=f"{NOBODY}:{NOBODY}",
        hostname="localhost",
        working_dir=SCRATCH,
        labels=dict(labels),
        host_config=client.create_host_config(**walls(cage)),
    )
    return str(made["Id"])


def walls(cage: Cage) -> dict[str, Any]:
    """What a container may see and do: what bubblewrap gives a cage, in the engine's words."""
    from docker.types import Mount, Ulimit

    return {
        "network_mode": "none",
        # engines switch ::1 off where no network has it; bubblewrap does not
        "sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"} if IPV6.is_dir() else {},
        "read_only": True,
        "init": True,
        "pids_limit": PROCESSES,
        "cap_drop": ["ALL"],
        # a store is not labelled for SELinux, and labelling it would change it
        "security_opt": ["no-new-privileges:true", "label=disable"],
        "tmpfs": dict.fromkeys(cage.hidden(), "rw,exec,nosuid,nodev,mode=1777"),
        "shm_size": SHARED_MEMORY,
        "ulimits": [Ulimit(name=name, soft=most, hard=most) for name, most in limits().items()],
        # a bind of the older kind would make a directory that is not there
        "mounts": [
            Mount(target, str(source), type="bind", read_only=source != cage.out)
            for target, source in cage.mounts().items()
        ],
    }


def limits() -> dict[str, int]:
    """The limits of processes, none over this process's own: who runs an engine has the same."""
    found = {}
    for name, (number, most) in LIMITS.items():
        _, hard = resource.getrlimit(number)
        found[name] = most if hard == resource.RLIM_INFINITY else min(most, hard)
    return found


IPV6 = Path("/proc/sys/net/ipv6")


def remove(client: APIClient, container: str) -> None:
    """Kill and remove a container; one that is gone already is no error."""
    from docker.errors import APIError

    with contextlib.suppress(APIError):
        client.kill(container)  # podman's removal would first ask it to end, for 10 s
    with contextlib.suppress(APIError):
        client.remove_container(container, v=True, force=True)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a lock on a directory that the system drops when this process dies."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def left_over(found: Mapping[str, Any]) -> bool:
    """Whether nobody waits any more for a container, as the engine lists it."""
    labels = found["Labels"]
    if labels.get(MACHINE) == socket.gethostname():
        return abandoned(Path(labels[OUT]))
    ended = found["State"] in ("exited", "stopped", "dead")
    return ended and found["Created"] < time.time() - STALE


def abandoned(directory: Path) -> bool:
    """Whether a directory is gone, or nobody holds it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


class _Chunks:
    """A file that is only written, and emptied in between."""

    def __init__(self) -> None:
        self._written = bytearray()

    @property
    def full(self) -> bool:
        """Whether there is enough to send."""
        return len(self._written) > CHUNK

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def tar_of(root: Path) -> Iterator[bytes]:
    """A root as a tar, piece by piece: of one owner, and empty where a cage hides it."""
    chunks = _Chunks()
    hidden = tuple(path[1:] for path in HIDDEN)
    below = tuple(f"{path}/" for path in hidden)
    with tarfile.open(fileobj=chunks, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path, entry in fs.walk(root):
            if path.startswith(below):
                continue
            member = tar.gettarinfo(entry.path, path)
            member.uid, member.gid, member.mtime = 0, 0, int(member.mtime)
            member.uname = member.gname = "root"
            if path in hidden:
                member.mode = 0o1777  # runc gives a file system in memory the mode of what it hides
            if member.isreg():
                with open(entry.path, "rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
            if chunks.full:
                yield chunks.take()
    yield chunks.take()
