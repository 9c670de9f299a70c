"""CPython: source and patches to an installed tree, with every native library inside its modules.

The program is linked statically, which is fastest. Beside it stands ``libpython``, a shared
library made of the same objects, for programs that embed Python: a static archive would hold the
compiler's intermediate code, which no console's linker can read, and an embedding program could not
find a prefix that has moved. See ``docs/decisions``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

from longrun.errors import BuildError
from longrun.model import Interpreter, PatchSeries
from longrun.steps.job import Job
from longrun.steps.toolchain import build_triple, environment
from longrun.unpack import unpack

PREFIX = "/__longrun__"
"""The prefix that every build is configured for; it exists nowhere and is in no finished file."""

MODULE_EXPORTS = "{ global: PyInit_*; PyInitU_*; local: *; };\n"
"""Version script of extension modules: the libraries inside them stay invisible to the process.

``PyInitU_`` is for modules whose names are not ASCII (PEP 489).
"""

EXPORTING_MODULES = ("_ctypes_test",)
"""Test modules whose very purpose is to export functions."""

JOINED_MODULES = (
    ("_curses", "_curses_panel", ("_cursesmodule", "_curses_panel"), ("-lpanelw", "-lncursesw")),
    ("_ssl", "_hashlib", ("_ssl", "_hashopenssl"), ("-lssl", "-lcrypto")),
)
"""Modules that share a library's state: module, its partner, objects of both, libraries.

Each pair becomes one file, with a link for the partner, so that the library is in it once. With a
copy of ncurses of their own, panels draw on a screen that nobody sees; OpenSSL would only be twice
as large, and would read its configuration twice.
"""

MAKEFILE = """\
# Read after CPython's own Makefile: what that has no target for.
# Its own rule for a shared library says -h, which lld does not know.
{library}: $(LIBRARY_OBJS)
\t$(BLDSHARED) -Wl,-soname,$@ -o $@ $(LIBRARY_OBJS) $(MODLIBS) $(SHLIBS) $(LIBC) $(LIBM)
"""

TOOLS = ("Programs/_freeze_module", "_bootstrap_python")
"""Programs that CPython's build makes of the core and runs for a second, to freeze modules."""

MAKE = ("make", "-f", "Makefile", "-f", "longrun.mk", *(f"--old-file={tool}" for tool in TOOLS))
"""make, which leaves the ``TOOLS`` as ``build_tools`` made them."""

API_MODULES = ("os", "posix", "time", "socket", "signal", "select", "resource", "fcntl", "mmap")
"""Modules whose names depend on what configure found; see ``record_api``."""

PROBE = """
import importlib, json, sys
failed, names = {}, {}
for name in sys.argv[2].split(","):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
for name in sys.argv[3].split(","):
    names[name] = sorted(dir(importlib.import_module(name)))
with open(sys.argv[1], "w") as file:
    json.dump({"failed": failed, "names": names, "builtin": sys.builtin_module_names}, file)
"""


def build(job: Job) -> None:
    """Build one CPython into ``job.out``; BuildError says which part of it failed."""
    spec = job.spec
    assert isinstance(spec, Interpreter)
    source = job.work / "source"
    unpack_source(job, spec, source)
    env = {**environment(job), **build_environment(spec)}
    configure(job, spec, source, env)
    compile_all(job, spec, source, env)
    install(job, spec, source, env)
    forget_paths(job, source)
    check_modules(spec, job.out)
    probe(job, spec, source)
    keep_licence(job, source)


def minor(spec: Interpreter) -> str:
    """The version that names files: ``3.13``."""
    return ".".join(spec.version.split(".")[:2])


def unpack_source(job: Job, spec: Interpreter, source: Path) -> None:
    """Unpack, apply the fetched series and then our own patches."""
    unpack(job.source(spec.name), source)
    patches: list[Path] = []
    for series in spec.series:
        patches += unpack_series(job, spec, series)
    for patch in (*patches, *job.patches):
        job.say(f"patch {patch.name}")
        job.run(["patch", "-p1", "--no-backup-if-mismatch"], cwd=source, stdin=patch)


def unpack_series(job: Job, spec: Interpreter, series: PatchSeries) -> list[Path]:
    """The patches of a series, in order; BuildError for one that its archive lacks."""
    tree = job.work / f"series-{series.name}"
    unpack(job.source(f"{spec.name}-{series.name}"), tree)
    patches = [tree / series.directory / name for name in series.patches]
    for patch in patches:
        if not patch.is_file():
            raise BuildError(f"{series.source.file}: {series.directory}/{patch.name} is not in it")
    return patches


def build_environment(spec: Interpreter) -> dict[str, str]:
    """Variables of configure and make, beside those of the toolchain."""
    flags = " ".join(optimisation(spec))
    return {
        # CPython's default asks for debug information, which is stripped in any case
        "OPT": "-DNDEBUG -fwrapv -Wall",
        # "no distribution": these flags are for CPython alone, sysconfig does not pass them on
        "CFLAGS_NODIST": f"{flags} -g0",
        "LDFLAGS_NODIST": f"{flags} -s",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        **spec.env,
    }


def optimisation(spec: Interpreter) -> tuple[str, ...]:
    """Flags of every compilation and link; a stored profile (``job.data``) belongs here."""
    return spec.cflags


def configure(job: Job, spec: Interpreter, source: Path, env: dict[str, str]) -> None:
    """Run configure, and write what the build needs beside it."""
    (source / "exports.map").write_text(MODULE_EXPORTS, encoding="utf-8")
    (source / "longrun.mk").write_text(MAKEFILE.format(library=library(spec)), encoding="utf-8")
    job.say("configure")
    options = [
        f"--prefix={PREFIX}",
        f"--build={build_triple()}",
        f"--host={job.floor.triple}",
        # pip comes with each virtual environment, and none is wanted in the prefix
        "--without-ensurepip",
        "--without-static-libpython",
        *spec.configure,
    ]
    shared = "cc -shared"
    modules = f"{shared} -Wl,--version-script=exports.map"
    job.run(["./configure", *options], cwd=source, env={**env, "LDSHARED": modules})


def library(spec: Interpreter) -> str:
    """File name of the shared library."""
    return f"libpython{minor(spec)}.so.1.0"


def compile_all(job: Job, spec: Interpreter, source: Path, env: dict[str, str]) -> None:
    """Make the program, the modules and the shared library."""
    job.say("tools of the build")
    build_tools(job, source, env)
    job.say("make")
    job.run([*MAKE], cwd=source, env=env)
    job.say("modules that share a library")
    relink_joined(job, spec, source, env)
    relink_exporting(job, source, env)
    job.say(library(spec))
    link = f"cc -shared {shlex.join(optimisation(spec))} -s"
    job.run([*MAKE, f"BLDSHARED={link}", library(spec)], cwd=source, env=env)


def build_tools(job: Job, source: Path, env: dict[str, str]) -> None:
    """Make the ``TOOLS`` in a copy of the source, in haste.

    To optimise each of them at link time would take as long as the interpreter itself.
    """
    tools = job.work / "tools"
    shutil.copytree(source, tools, symlinks=True)
    # these come after the flags that configure was given
    haste = ["CFLAGS_NODIST=-O1 -fno-lto", "LDFLAGS_NODIST=-fno-lto"]
    job.run(["make", *haste, *TOOLS], cwd=tools, env=env)
    for tool in TOOLS:
        shutil.copy(tools / tool, source / tool)


def relink_joined(job: Job, spec: Interpreter, source: Path, env: dict[str, str]) -> None:
    """Link each pair of ``JOINED_MODULES`` into the file of the first."""
    for module, _, names, libraries in JOINED_MODULES:
        objects = [str(find_object(source, name)) for name in names]
        link = ["cc", "-shared", "-Wl,--version-script=exports.map", *optimisation(spec), "-s"]
        target = built_module(source, module)
        target.unlink()
        job.run([*link, "-o", str(target), *objects, *libraries], cwd=source, env=env)


def find_object(source: Path, name: str) -> Path:
    """The one object file of this name, wherever this version of CPython puts it."""
    found = sorted(source.rglob(f"{name}.o"))
    if len(found) != 1:
        raise BuildError(f"expected one {name}.o in the build, found {len(found)}")
    return found[0]


def built_module(source: Path, name: str) -> Path:
    """The extension module in the build, which make may have put behind a link."""
    found = sorted(source.glob(f"build/lib*/{name}.*.so"))
    if len(found) != 1:
        raise BuildError(f"not built: {name}", remedy="the log says, above `make`, what it lacks")
    return found[0].resolve()


def link_partners(directory: Path) -> None:
    """Put a link in the place of each partner's own file."""
    for module, partner, _, _ in JOINED_MODULES:
        (file,) = directory.glob(f"{module}.*.so")
        link = file.with_name(file.name.replace(module, partner, 1))
        link.unlink()
        link.symlink_to(file.name)


def relink_exporting(job: Job, source: Path, env: dict[str, str]) -> None:
    """Link some test modules again, without the version script."""
    for name in EXPORTING_MODULES:
        target = built_module(source, name)
        target.unlink()
        objects = str(find_object(source, name))
        job.run(["cc", "-shared", "-s", "-o", str(target), objects, "-lm"], cwd=source, env=env)


def install(job: Job, spec: Interpreter, source: Path, env: dict[str, str]) -> None:
    """Install and move the tree to ``job.out``, its permanent place."""
    job.say("make install")
    destination = job.work / "install"
    job.run([*MAKE, "install", f"DESTDIR={destination}"], cwd=source, env=env)
    for path in sorted((destination / PREFIX[1:]).iterdir()):
        path.rename(job.out / path.name)
    shutil.copy(source / library(spec), job.out / "lib" / library(spec))
    (job.out / "lib" / f"libpython{minor(spec)}.so").symlink_to(library(spec))
    link_partners(dynload(spec, job.out))
    for cache in sorted(job.out.rglob("__pycache__")):
        shutil.rmtree(cache)


def forget_paths(job: Job, source: Path) -> None:
    """Take the work directory out of the text files that name it, so that none differs by it."""
    for path in sorted(job.out.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            changed = content.replace(str(source).encode(), f"{PREFIX}/source".encode())
            changed = changed.replace(str(job.work).encode(), f"{PREFIX}/work".encode())
            if changed != content:
                if content.startswith(b"\x7fELF"):
                    where = path.relative_to(job.out)
                    raise BuildError(f"{where} holds the path of the work directory {job.work}")
                path.write_bytes(changed)


def dynload(spec: Interpreter, tree: Path) -> Path:
    """Directory of the extension modules."""
    return tree / "lib" / f"python{minor(spec)}" / "lib-dynload"


def check_modules(spec: Interpreter, tree: Path) -> None:
    """BuildError where the extension modules are not exactly those of the spec.

    CPython's build leaves out what it cannot compile and says so in passing.
    """
    found = {path.name.split(".")[0] for path in dynload(spec, tree).glob("*.so")}
    promised = {*spec.modules, *spec.test_modules}
    missing, surplus = sorted(promised - found), sorted(found - promised)
    if missing:
        raise BuildError(
            f"{spec.name}: not built: {', '.join(missing)}",
            remedy="the log names, above `make`, the header or library that configure did not find",
        )
    if surplus:
        raise BuildError(
            f"{spec.name}: built, but not in the spec: {', '.join(surplus)}",
            remedy=f"add them to `modules` of specs/interpreters/{spec.name}.toml, or disable them",
        )


def probe(job: Job, spec: Interpreter, source: Path) -> None:
    """Import every module with the new interpreter, where it now is, and record its interface."""
    answer = job.work / "probe.json"
    python = job.out / "bin" / f"python{minor(spec)}"
    names = ",".join((*spec.modules, *spec.test_modules))
    job.say("import every module")
    script = job.work / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    argv = [str(python), "-I", "-B", str(script), str(answer), names, ",".join(API_MODULES)]
    job.run(argv)
    found = json.loads(answer.read_text(encoding="utf-8"))
    if found["failed"]:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(found["failed"].items()))
        raise BuildError(f"{spec.name}: cannot be imported: {reasons}")
    record_api(job, spec, source, found)


def record_api(job: Job, spec: Interpreter, source: Path, found: dict[str, object]) -> None:
    """Write ``share/longrun/api.json``: what this build offers of the system's functions.

    A low floor drops functions in silence. The audit compares the file with a list that people
    keep, and so needs to run nothing.
    """
    header = (source / "pyconfig.h").read_text(encoding="utf-8")
    api = {
        "version": spec.version,
        "names": found["names"],
        "builtin": found["builtin"],
        "have": sorted(re.findall(r"(?m)^#define (HAVE_\w+)", header)),
    }
    path = job.out / "share" / "longrun" / "api.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(api, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def keep_licence(job: Job, source: Path) -> None:
    """Keep CPython's licence where the libraries keep theirs."""
    path = job.out / "share" / "licenses" / "cpython" / "LICENSE"
    path.parent.mkdir(parents=True)
    shutil.copyfile(source / "LICENSE", path)
