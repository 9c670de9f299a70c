"""Images as `./build.py image` makes them: their bytes, in a container, in a registry, in trouble.

All is done in copies of this checkout. A distribution's archive moves, so a base that no longer
comes out as its lock says is locked anew there. What is marked `images` takes
the big ones, or Docker.
"""

from __future__ import annotations

import filecmp
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, open_directory
from engines import Engine, Loaded, docker, podman
from programs import attempt, call
from registry_server import Registry, serve, with_password

sys.path.append(str(ROOT / "tests" / "unit"))  # behind all others: it has a conftest, too

from sign_maker import NAMES, allow, make_key

from longrun import fs
from longrun.config import load_config
from longrun.model import Source
from longrun.oci.model import LayerBlob, Packed
from longrun.oci.read import open_image
from longrun.plan import Plan, choose_interpreters, choose_release, closure, make_plan
from longrun.specs import load_specs
from longrun.store import Store

IMAGES = {
    "runtime": ("base", ["3.13"]),
    "ci": ("controls", ["3.13", "3.11"]),
    "gui": ("gui", ["3.13"]),
}
"""Their layers of the stack, and their interpreters."""

images = pytest.mark.images
each_image = pytest.mark.parametrize(
    "name", ["runtime", pytest.param("ci", marks=images), pytest.param("gui", marks=images)]
)

TOP = "opt/longrun/"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount, or start an engine")


@dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, and the cache that it uses."""

    root: Path
    cache: Path

    def build(self, *words: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
        """Run build.py, whatever comes of it."""
        environ = {**os.environ, "LONGRUN_CACHE": str(self.cache), "NO_PROXY": "*"}
        argv = [str(self.root / "build.py"), *words]
        return subprocess.run(
            argv,
            env=environ,
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
            umask=umask,
        )

    def image(self, *words: str, umask: int = -1) -> str:
        """What `image` prints."""
        done = self.build("image", *words, umask=umask)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, status: int, *words: str) -> str:
        """What `image` says before it ends with this status."""
        done = self.build("image", *words)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def archive(self, name: str) -> Path:
        """The archive of an image, which is made if need be."""
        pattern = f"longrun-{name}-*.oci.tar"
        if not list((self.root / "dist").glob(pattern)):
            self.make(name)
        (found,) = (self.root / "dist").glob(pattern)
        return found

    def make(self, name: str) -> None:
        """Build an image; its base is locked anew where its packages have moved on."""
        done = self.build("image", name)
        moved = re.findall(r"base (\S+) is no longer what its lock says", done.stderr)
        if moved:
            again = self.build("base", moved[0])
            assert again.returncode == 0, again.stdout + again.stderr
            done = self.build("image", name)
        assert done.returncode == 0, done.stdout + done.stderr

    def lock(self, base: str) -> Path:
        return self.root / f"specs/locks/bases/{base}.lock.toml"

    def plan(self, layer: str, version: str) -> Plan:
        """The plan of one layer of the stack."""
        specs = load_specs(self.root)
        release = choose_release(specs, None)
        chosen = choose_interpreters(specs, release, [version])
        return make_plan(specs, release, chosen, layers=(layer,))


def copy(root: Path, place: Path) -> Path:
    """What of a checkout makes images, without what it made."""
    left = shutil.ignore_patterns(".git", "dist", "tests", "__pycache__")
    return Path(shutil.copytree(root, place, ignore=left))


@pytest.fixture(scope="session")
def checkout() -> Iterator[Checkout]:
    """A checkout that has built the smallest image, with the machine's own cache."""
    with open_directory() as place:
        made = Checkout(copy(ROOT, place / "checkout"), load_config(os.environ).cache)
        made.make("runtime")
        yield made


@pytest.fixture
def fresh(checkout: Checkout) -> Iterator[Checkout]:
    """A copy of it to spoil."""
    with open_directory() as place:
        yield Checkout(copy(checkout.root, place / "checkout"), checkout.cache)


@pytest.fixture(scope="session")
def elsewhere(checkout: Checkout, store: Store) -> Iterator[Checkout]:
    """Another checkout with a cache that has all but layers of images and images."""
    with open_directory() as place:
        cache = place / "a/cache/of/its/own"
        (cache / "store/entries").mkdir(parents=True)
        (cache / "environments").symlink_to(checkout.cache / "environments")
        # read anew: the base may have been made since
        for entry in Store(store.root).entries():
            if not entry.path.name.startswith(("part-", "image-")):
                (cache / "store/entries" / entry.path.name).symlink_to(entry.path)
        yield Checkout(copy(checkout.root, place / "another checkout"), cache)


# the bytes


@dataclass(frozen=True)
class Found:
    """A member of a layer."""

    record: fs.Record
    owner: tuple[int, int]
    time: float


@pytest.fixture(scope="session")
def members() -> Callable[[Packed], list[Mapping[str, Found]]]:
    """Reads the layers of an image; those that images share once."""
    known: dict[str, Mapping[str, Found]] = {}

    def read(image: Packed) -> list[Mapping[str, Found]]:
        new = [layer for layer in image.layers if layer.digest not in known]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            known.update(zip([each.digest for each in new], threads.map(unpack, new), strict=True))
        return [known[layer.digest] for layer in image.layers]

    return read


def unpack(layer: LayerBlob) -> Mapping[str, Found]:
    found: dict[str, Found] = {}
    with layer.open() as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
        for member in tar:
            path = member.name.removeprefix("./").rstrip("/")
            assert path not in found, f"{path} is twice in {layer.title}"
            found[path] = Found(record(tar, member, path), (member.uid, member.gid), member.mtime)
    return found


def record(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> fs.Record:
    if member.issym():
        return fs.Record(path, fs.LINK, 0o777, 0, member.linkname)
    if member.isdir():
        return fs.Record(path, fs.DIRECTORY, member.mode, 0, "")
    content = tar.extractfile(member) if member.isreg() else None
    digest = hashlib.file_digest(content, "sha256").hexdigest() if content else member.linkname
    kind = fs.FILE if content else "other"
    return fs.Record(path, kind, member.mode, member.size, digest)


@each_image
def test_the_prefix_is_byte_for_byte_the_one_of_the_layer(checkout, store, members, name):
    united: dict[str, fs.Record] = {}
    for layer in members(open_image(checkout.archive(name))):
        united |= {path: found.record for path, found in layer.items()}
    below = {path: record for path, record in united.items() if path.startswith(TOP)}
    layer, versions = IMAGES[name]
    tags = {f"cp{version.replace('.', '')}": version for version in versions}
    assert {path.removeprefix(TOP).partition("/")[0] for path in below} == set(tags)
    for tag, version in tags.items():
        entry = store.get(checkout.plan(layer, version).find(f"layer/{layer}-{tag}").key)
        expected = {f"{TOP}{tag}/{each.path}": each for each in entry.files()}
        found = {
            path: fs.Record(
                path.removeprefix(f"{TOP}{tag}/"), each.type, each.mode, each.size, each.value
            )
            for path, each in below.items()
            if path.startswith(f"{TOP}{tag}/")
        }
        assert found == expected
        assert fs.tree_digest(found.values()) == entry.record["digest"]


@each_image
def test_nothing_tells_when_or_by_whom_it_was_made(checkout, members, name):
    base, *above = members(open_image(checkout.archive(name)))
    files = [found for layer in above for found in layer.values()]
    (stamp,) = {found.time for found in files}
    assert {found.owner for found in files} == {(0, 0)}
    assert max(found.time for found in base.values()) <= stamp
    assert not {"etc/hostname", "etc/resolv.conf", "etc/machine-id"} & set(base)
    assert not [
        path
        for path, found in base.items()
        if path.startswith(("dev/", "etc/apt/sources.list", "var/log/", "var/lib/apt/lists/"))
        and found.record.size
    ]


def test_another_checkout_gives_the_same_image(checkout, elsewhere):
    here = checkout.image("runtime", "--offline")
    there = elsewhere.image("runtime", "--offline", umask=0o077)
    assert "nothing to build" in here
    assert "nothing to build" not in there
    assert re.search("sha256:.*", here)[0] == re.search("sha256:.*", there)[0]
    assert filecmp.cmp(checkout.archive("runtime"), elsewhere.archive("runtime"), shallow=False)
    call("sha256sum", "--check", "--ignore-missing", "SHA256SUMS", cwd=elsewhere.root / "dist")


# in a container


@pytest.fixture(scope="session", params=["podman", pytest.param("docker", marks=images)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine, with directories of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine without preparing the machine")
    start = {"podman": podman, "docker": docker}[request.param]
    with open_directory() as place, start(place) as engine:
        yield engine


@pytest.fixture(scope="session")
def runtime(engine: Engine, checkout: Checkout) -> Loaded:
    return engine.load(checkout.archive("runtime"))


@pytest.fixture(scope="session")
def ci(engine: Engine, checkout: Checkout) -> Loaded:
    return engine.load(checkout.archive("ci"))


@pytest.fixture(scope="session")
def gui(engine: Engine, checkout: Checkout) -> Loaded:
    return engine.load(checkout.archive("gui"))


@each_image
def test_the_engine_and_skopeo_see_the_image_that_was_written(engine, checkout, name, request):
    archive = checkout.archive(name)
    written, image = open_image(archive), request.getfixturevalue(name)
    (loaded,) = json.loads(engine.call("image", "inspect", image.reference))
    assert loaded["Id"].removeprefix("sha256:") == written.config_digest.removeprefix("sha256:")
    assert loaded["RootFS"]["Layers"] == [layer.diff_id for layer in written.layers]
    seen = json.loads(call("skopeo", "inspect", f"oci-archive:{archive}"))
    assert seen["Digest"] == written.digest
    assert seen["Layers"] == [layer.digest for layer in written.layers]
    assert seen["Labels"] == loaded["Config"]["Labels"]
    assert seen["Labels"]["org.opencontainers.image.title"] == f"longrun/{name}"
    assert seen["Created"] == loaded["Created"]


AROUND = """
import datetime, json, os, ssl, sys, time, zoneinfo
import h5py, numpy, scipy.linalg
os.environ["TZ"] = "Europe/Berlin"
time.tzset()
memory = h5py.File("none", "w", driver="core", backing_store=False)
memory["orbit"] = numpy.arange(3.0)
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "home": os.path.expanduser("~"),
    "program": sys.executable,
    "writable": [p for p in ("/", "/tmp", "/opt/longrun", sys.prefix) if os.access(p, os.W_OK)],
    "authorities": len(ssl.create_default_context().get_ca_certs()),
    "summer": time.strftime("%H %Z", time.localtime(1751371200)),
    "zone": str(zoneinfo.ZoneInfo("Europe/Zurich").utcoffset(datetime.datetime(2026, 7, 1))),
    "tzpath": [p for p in zoneinfo.TZPATH if os.path.exists(p)],
    "solved": scipy.linalg.solve(numpy.eye(3) * 2, memory["orbit"][:] * 2).tolist(),
    "encoding": sys.getfilesystemencoding(),
}))
"""


def test_runtime_runs_numbers_as_a_user_with_nothing_to_write_to(runtime):
    seen = json.loads(runtime.call("-c", AROUND, options=runtime.hardened))
    assert seen["user"] == [1000, 1000]
    assert seen["home"] == "/home/longrun"
    assert seen["program"].startswith("/opt/longrun/cp313/bin/python3.13")
    assert seen["writable"] == []
    assert seen["authorities"] > 100
    assert seen["summer"] == "14 CEST"
    assert seen["zone"] == "2:00:00"
    assert seen["tzpath"] == ["/usr/share/zoneinfo"]
    assert seen["solved"] == [0.0, 1.0, 2.0]
    assert seen["encoding"] == "utf-8"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/usr/bin/dpkg", "/usr/bin/perl"])
def test_runtime_has_no_shell(runtime, shell):
    done = runtime.run(options=(f"--entrypoint={shell}",))
    assert done.returncode == 127, done.stdout + done.stderr


def test_runtime_passes_on_the_exit_status(runtime):
    assert runtime.run("-c", "raise SystemExit(7)").returncode == 7


def test_the_health_check_of_runtime_passes(runtime, checkout):
    config = json.loads(open_image(checkout.archive("runtime")).config)
    kind, program, *words = config["config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    runtime.call(*words, options=(f"--entrypoint={program}", *runtime.hardened))


def test_an_environment_in_a_volume_of_runtime(runtime, tmp_path):
    """The root is read-only; what a site adds is in a volume."""
    tmp_path.chmod(0o777)
    where = (*runtime.hardened, f"--volume={tmp_path}:/site")
    runtime.call("-m", "venv", "--system-site-packages", "/site/env", options=where)
    say = "import sys, numpy; print(sys.prefix, numpy.__file__)"
    told = runtime.call("-c", say, options=("--entrypoint=/site/env/bin/python", *where))
    assert told.split()[0] == "/site/env"
    assert told.split()[1].startswith("/opt/longrun/cp313/lib")


@images
@pytest.mark.parametrize(
    "words",
    ["git --version", "ssh -V", "make --version", "gcc --version", "g++ --version", "curl -V"],
)
def test_ci_has_what_jobs_call(ci, words):
    ci.call(*words.split())


@images
def test_ci_has_every_interpreter_with_the_controls_layer(ci):
    for version in IMAGES["ci"][1]:
        say = "import sys, epics, tango, numpy; print(sys.version.split()[0], sys.prefix)"
        told = ci.call(f"python{version}", "-c", say)
        assert told.startswith(f"{version}.")
        assert told.endswith(f"/opt/longrun/cp{version.replace('.', '')}")


TINY = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
""",
    "setup.py": """\
from setuptools import Extension, setup
setup(name="tiny", version="1.0", ext_modules=[Extension("tiny", ["tiny.c"])])
""",
    "tiny.c": r"""
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, NULL}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tiny", NULL, 0, methods};
PyMODINIT_FUNC PyInit_tiny(void) { return PyModule_Create(&module); }
""",
    "PKG-INFO": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
}

COMPILES = """\
set -e
{python} -m venv --system-site-packages /tmp/env
/tmp/env/bin/pip uninstall --quiet --yes setuptools
/tmp/env/bin/pip install --quiet --no-index --no-build-isolation /builds/tiny-1.0.tar.gz
/tmp/env/bin/python -c 'import sys, tiny; print(tiny.answer(), sys.prefix, tiny.__file__)'
"""
"""An environment of 3.11 has a setuptools of its own, of 2022, that wants `wheel`: out with it."""


@images
@pytest.mark.parametrize("version", IMAGES["ci"][1])
def test_ci_compiles_an_sdist_without_a_network(ci, tmp_path, version):
    with tarfile.open(tmp_path / "tiny-1.0.tar.gz", "w:gz") as tar:
        for name, text in TINY.items():
            member = tarfile.TarInfo(f"tiny-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    script = COMPILES.format(python=f"python{version}")
    told = ci.call("bash", stdin=script, options=(f"--volume={tmp_path}:/builds",))
    answer, prefix, file = told.split()
    assert (answer, prefix) == ("42", "/tmp/env")
    assert file.startswith("/tmp/env/")


RUNNER = """\
if [ -x /usr/local/bin/bash ]; then exec /usr/local/bin/bash
elif [ -x /usr/bin/bash ]; then exec /usr/bin/bash
elif [ -x /bin/bash ]; then exec /bin/bash
elif [ -x /bin/sh ]; then exec /bin/sh
else echo shell not found; exit 1; fi
"""
"""What a GitLab runner starts; the job comes by stdin."""

JOB = """\
set -eo pipefail
touch ~/kept
cd /builds/project
git log --format=%s
git status --porcelain
python3.11 -c 'print("eleven")'
exit 7
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit that belongs to nobody in the container."""
    place = tmp_path / "project"
    git = ("git", "-C", place, "-c", "user.name=A", "-c", "user.email=a@example.org")
    call("git", "init", "--quiet", place)
    (place / "panel.py").write_text("print('beam is on')\n")
    call(*git, "add", "panel.py")
    call(*git, "commit", "--quiet", "--message=first", "--no-gpg-sign")
    call("chown", "--recursive", "4242:4242", place)
    return place


@images
@as_root
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--user=1000:1000",),
        ("--read-only", "--tmpfs=/tmp"),
        ("--user=4711:4711", "--read-only", "--tmpfs=/tmp", "--cap-drop=all"),
    ],
    ids=["root", "user", "read-only", "any user"],
)
def test_ci_runs_a_job_as_a_runner_does(ci, project, options):
    where = (f"--volume={project}:/builds/project", *options)
    done = ci.run("sh", "-c", RUNNER, stdin=JOB, options=where)
    assert (done.stdout, done.returncode) == ("first\neleven\n", 7), done.stderr


@images
def test_ci_is_a_shell_where_nothing_is_said(ci):
    assert ci.call(stdin="pwd; id -u") == "/builds\n0"


# a window on a screen

QT = """
import sys
from {binding}.QtWidgets import QApplication, QLabel
app = QApplication([])
label = QLabel("42.0 mA")
label.setStyleSheet("background: {beam}; color: {text}; font: bold 48px")
label.setGeometry(20, 20, 400, 200)
label.show()
getattr(app, "exec_" if hasattr(app, "exec_") else "exec")()
"""

TK = """
import tkinter
window = tkinter.Tk()
window.geometry("400x200+20+20")
font = ("DejaVu Sans", -48, "bold")
label = tkinter.Label(window, text="42.0 mA", background="{beam}", foreground="{text}", font=font)
label.pack(fill="both", expand=True)
window.mainloop()
"""

GL = """
from PyQt5.QtGui import QOpenGLVersionProfile
from PyQt5.QtWidgets import QApplication, QOpenGLWidget, QLabel
class Scene(QOpenGLWidget):
    def paintGL(self):
        profile = QOpenGLVersionProfile()
        profile.setVersion(2, 0)
        gl = self.context().versionFunctions(profile)
        gl.glClearColor(*(int("{beam}"[n:n + 2], 16) / 255 for n in (1, 3, 5)), 1)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT)
app = QApplication([])
scene = Scene()
scene.setGeometry(20, 20, 400, 200)
label = QLabel("42.0 mA", scene)
label.setStyleSheet("color: {text}; font: bold 48px")
scene.show()
app.exec_()
"""

PANELS = {
    "PyQt5": QT.replace("{binding}", "PyQt5"),
    "PyQt6": QT.replace("{binding}", "PyQt6"),
    "PySide6": QT.replace("{binding}", "PySide6"),
    "tkinter": TK,
    "OpenGL": GL,
}
BEAM, TEXT = "#1f8a4c", "#fff200"


@dataclass(frozen=True)
class Screen:
    """An X server; what it shows is in a file, as xwd has it."""

    number: str
    file: Path

    def colours(self) -> Counter[str]:
        """How many pixels have which colour."""
        content = self.file.read_bytes()
        words = struct.unpack(">25I", content[:100])
        height, line, start = words[5], words[12], words[0] + 12 * words[19]
        pixels = memoryview(content)[start : start + height * line].cast("I")
        return Counter({f"#{p & 0xFFFFFF:06x}": n for p, n in Counter(pixels).items()})


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    read, write = os.pipe()
    argv = ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp", "-screen", "0", "640x480x24"]
    with subprocess.Popen(
        [*argv, "-fbdir", str(tmp_path)],
        pass_fds=[write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(write)
        with os.fdopen(read) as told:
            number = told.readline().strip()
        assert number, "Xvfb did not start"
        try:
            yield Screen(number, tmp_path / "Xvfb_screen0")
        finally:
            server.terminate()


@contextmanager
def running(image: Loaded, program: str, screen: Screen) -> Iterator[subprocess.Popen[str]]:
    """A program in a container that sees the screen, and nothing else of this machine."""
    socket = f"/tmp/.X11-unix/X{screen.number}"
    options = (
        *("--name=panel", "--read-only", "--cap-drop=all"),
        *(f"--volume={socket}:{socket}", f"--env=DISPLAY=:{screen.number}"),
    )
    argv = image.command("-c", program, options=options)
    with subprocess.Popen(
        argv, env=image.engine.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            attempt(image.engine.program, "kill", "panel", env=dict(image.engine.environ))


@images
@pytest.mark.parametrize("panel", PANELS)
def test_gui_shows_a_window(gui, screen, panel):
    assert screen.colours()[BEAM] == 0
    program = PANELS[panel].replace("{beam}", BEAM).replace("{text}", TEXT)
    with running(gui, program, screen) as process:
        end = time.monotonic() + 120
        while (seen := screen.colours())[BEAM] < 60_000 or seen[TEXT] < 500:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end, seen.most_common(5)
            time.sleep(0.1)


# in a registry

PACKAGE, VERSION = "uvloop", "99.1"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with serve(tmp_path / "registry") as running:
        yield running


def test_a_change_of_one_package_sends_that_package(elsewhere, store, registry, tmp_path):
    told = elsewhere.image("runtime", "--offline", "--push", registry.host)
    assert f"pushed to {registry.host}/longrun/runtime:2026.1-py313" in told
    before, was = blobs(registry), open_image(elsewhere.archive("runtime"))
    changed = Checkout(copy(elsewhere.root, tmp_path / "changed"), elsewhere.cache)
    change(changed, store, tmp_path / "sources")
    words = ("runtime", "--offline", "--sources", str(tmp_path / "sources"))
    # what has the tag stays
    said = changed.refused(5, *words, "--push", registry.host)
    now = open_image(changed.archive("runtime"))
    assert was.digest in said
    assert now.digest in said
    told = changed.image(*words, "--push", registry.host, "--overwrite")
    titles = {layer.digest: layer.title for layer in now.layers}
    sent = blobs(registry) - before - {now.digest, now.config_digest}
    assert {now.digest, now.config_digest} <= blobs(registry) - before
    assert {titles[digest] for digest in sent & set(titles)} == {
        f"cp313: {PACKAGE} {VERSION}",
        "marker of base-cp313",
    }
    # what the image is made of, attached to it
    assert sum(registry.file(digest).stat().st_size for digest in sent - set(titles)) < 1e6


@images
def test_a_release_that_changes_no_package_sends_its_marker(elsewhere, registry, tmp_path):
    elsewhere.image("runtime", "--offline", "--push", registry.host)
    before = blobs(registry)
    changed = Checkout(copy(elsewhere.root, tmp_path / "changed"), elsewhere.cache)
    specs = changed.root / "specs"
    (specs / "locks/2026.1").rename(specs / "locks/2026.2")
    (specs / "releases/2026.1.toml").rename(specs / "releases/2026.2.toml")
    for file in (specs / "releases/2026.2.toml", *(specs / "locks/2026.2").iterdir()):
        text = file.read_text().replace('"2026.1"', '"2026.2"')
        file.write_text(text.replace('date = "2026-11-02"', 'date = "2027-04-12"'))
    changed.image("runtime", "--offline", "--push", registry.host)
    now = open_image(changed.archive("runtime"))
    sent = blobs(registry) - before
    titles = {layer.title for layer in now.layers if layer.digest in sent}
    assert titles == {"marker of base-cp313"}
    assert sum(registry.file(digest).stat().st_size for digest in sent) < 1e6


def blobs(registry: Registry) -> set[str]:
    """The digests of all that a registry keeps."""
    found = registry.storage.glob("docker/registry/v2/blobs/sha256/*/*/data")
    return {f"sha256:{path.parent.name}" for path in found}


def change(checkout: Checkout, store: Store, out: Path) -> None:
    """Lock another version of a package, whose wheel is in ``out``."""
    lock = checkout.root / "specs/locks/2026.1/cp313.lock.toml"
    text = lock.read_text()
    found = re.search(
        rf'name = "{PACKAGE}"\nversion = "(.*)"\nfile = "(.*)"\nsize = (.*)\nsha256 = "(.*)"', text
    )
    version, file, _, sha256 = found.groups()
    (entry,) = (
        store.get(step.key)
        for step in closure(checkout.plan("base", "3.13").find("layer/base-cp313"))
        if isinstance(step.spec, Source) and step.spec.sha256 == sha256
    )
    out.mkdir()
    newer = rename(entry.tree / file, out / file.replace(version, VERSION), version)
    block = (
        f'name = "{PACKAGE}"\nversion = "{VERSION}"\nfile = "{newer.name}"\n'
        f'size = {newer.stat().st_size}\nsha256 = "{fs.sha256_file(newer)}"'
    )
    lock.write_text(text.replace(found[0], block))


def rename(wheel: Path, out: Path, version: str) -> Path:
    """The wheel under another version."""
    rows = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            name = member.filename.replace(version, VERSION)
            content = old.read(member)
            if name.endswith("/METADATA"):
                text = content.decode().replace(f"Version: {version}\n", f"Version: {VERSION}\n")
                content = text.encode()
            if name.endswith("/RECORD"):
                record = name
            else:
                rows.append(f"{name},,\n")
                new.writestr(name, content)
        new.writestr(record, "".join(rows) + f"{record},,\n")
    return out


def test_a_registry_that_refuses(checkout, tmp_path):
    with serve(tmp_path / "registry", with_password(tmp_path / "registry")) as registry:
        said = checkout.refused(5, "runtime", "--push", registry.host)
    assert registry.host in said
    assert "docker login" in said
    assert "Longrun 2026.1" not in said  # before anything was built
    said = checkout.refused(5, "runtime", "--push", registry.host)
    assert "cannot be reached" in said
    assert "Longrun 2026.1" not in said


def test_who_signed_is_known_in_a_registry_and_of_an_archive(fresh, registry, tmp_path):
    key = make_key(tmp_path / "key")
    words = ("runtime", "--push", registry.host, "--sign", str(key))
    told = fresh.image(*words)
    before = blobs(registry)
    assert fresh.image(*words).splitlines()[-1] == told.splitlines()[-1]
    assert blobs(registry) == before  # nothing is attached twice
    reference = f"{registry.host}/longrun/runtime:2026.1-py313"
    allowed = ("--allowed-signers", str(allow(tmp_path / "allowed", key)))
    for place in (reference, str(fresh.archive("runtime"))):
        done = fresh.build("image-verify", place, *allowed)
        assert done.returncode == 0, done.stderr
        assert f"signed by {NAMES[0]}" in done.stdout
        assert "cdx.json: signed" in done.stdout
    stranger = allow(tmp_path / "others", make_key(tmp_path / "other"))
    done = fresh.build("image-verify", reference, "--allowed-signers", str(stranger))
    assert (done.returncode, "does not allow" in done.stderr) == (4, True)
    call("sha256sum", "--check", "SHA256SUMS", cwd=fresh.root / "dist")
    layer = open_image(fresh.archive("runtime")).layers[-1].digest
    registry.tamper(layer)
    done = fresh.build("image-verify", reference, *allowed)
    assert (done.returncode, layer in done.stderr) == (4, True)


def test_a_key_that_cannot_sign_is_told_before_anything_is_built(checkout, tmp_path):
    said = checkout.refused(2, "runtime", "--sign", str(tmp_path / "none"))
    assert "no such file" in said
    assert "Longrun 2026.1" not in said


# in trouble


@pytest.fixture
def dist(fresh: Checkout) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system as dist/."""
    place = fresh.root / "dist"
    place.mkdir()

    def mount(options: str) -> Path:
        call("mount", "-t", "tmpfs", "-o", options, "tmpfs", place)
        return place

    yield mount
    attempt("umount", place)


@as_root
def test_a_disk_that_is_full(fresh, dist):
    place = dist("size=1m")
    said = fresh.refused(5, "runtime")
    assert "No space left on device" in said
    assert "make room there" in said
    assert list(place.iterdir()) == []


@as_root
def test_a_place_that_cannot_be_written(fresh, dist):
    place = dist("size=1m,ro")
    said = fresh.refused(5, "runtime")
    assert "Read-only file system" in said
    assert str(place) in said


@as_root
def test_a_disk_that_is_full_once_the_archive_is_there(fresh, checkout, dist):
    pages = -(-checkout.archive("runtime").stat().st_size // 4096)
    place = dist(f"size={pages * 4}k")
    said = fresh.refused(5, "runtime")
    assert "SHA256SUMS" in said
    assert "make room there" in said
    call("mount", "-o", f"remount,size={pages * 4 + 1024}k", place)
    fresh.image("runtime")
    call("sha256sum", "--check", "SHA256SUMS", cwd=place)


@pytest.mark.parametrize("verb", ["image", "build"])
def test_a_place_that_is_no_directory(fresh, verb):
    (fresh.root / "dist").write_text("")
    done = fresh.build(verb)
    assert done.returncode == 5
    assert f"{fresh.root}/dist: is no directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""  # before anything was built


def test_an_archive_that_is_broken_is_written_anew(fresh, checkout):
    fresh.image("runtime")
    with fresh.archive("runtime").open("r+b") as file:
        file.truncate(1000)
    fresh.image("runtime")
    assert filecmp.cmp(fresh.archive("runtime"), checkout.archive("runtime"), shallow=False)


def test_a_base_that_is_another_than_its_lock_says(fresh):
    lock = fresh.lock("debian-12-runtime")
    text = re.sub(r'"tzdata" = ".*"', '"tzdata" = "1999z"', lock.read_text())
    text = re.sub(r'"sha256:\w+"', f'"sha256:{"0" * 64}"', text)
    lock.write_text(f'{text}"libgone1" = "1.0"\n')
    said = fresh.refused(5, "runtime")
    assert re.search(r"libgone1 1\.0 -> absent, tzdata 1999z -> \d+", said)
    assert "./build.py base debian-12-runtime" in said
    assert not (fresh.root / "dist").exists()
    assert "offline" in fresh.refused(4, "runtime", "--offline")


def test_a_base_without_a_lock(fresh):
    fresh.lock("debian-12-runtime").unlink()
    said = fresh.refused(3, "runtime")
    assert "has no lock yet" in said
    assert "./build.py base debian-12-runtime" in said


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("runtim",), "runtime"),
        (("runtime", "--base", "debian-12"), "debian-12-runtime"),
        (("runtime", "--python", "3.12"), "3.13"),
        (("runtime", "--push", "no such host"), "no such host"),
    ],
)
def test_what_is_not_there(checkout, words, wanted):
    assert wanted in checkout.refused(2, *words)
