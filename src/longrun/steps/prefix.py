"""The prefix: an interpreter, merged with its libraries' data, relocated, sealed and audited."""

from __future__ import annotations

import shutil
from pathlib import Path

from longrun.audit import KeptApi, audit, policy_for, require
from longrun.hook import fill
from longrun.model import Interpreter, Prefix
from longrun.relocate import relocate
from longrun.seal import seal
from longrun.specs import parse_spec
from longrun.steps.interpreter import PREFIX, minor
from longrun.steps.job import Job

LIBRARY_DATA = ("lib/tcl*", "lib/tk*", "share/licenses/*")
"""What of a library is needed when the program runs: Tcl's and Tk's scripts, and all licences."""


def build(job: Job) -> None:
    """Make ``job.out`` a finished prefix; AuditError where it does not pass."""
    spec = job.spec
    assert isinstance(spec, Prefix)
    job.say("merge")
    merge(job, spec.interpreter)
    job.say("relocate")
    relocate(job.out, PREFIX)
    job.say("seal")
    seal(
        job.out,
        exclude=excluded(spec.interpreter),
        marker=marker(job, spec),
        hook=start_up_hook(job, spec),
        epoch=job.epoch,
        run=job.run,
    )
    job.say("audit")
    gate(job, spec)


def merge(job: Job, interpreter: Interpreter) -> None:
    """Copy the interpreter, and the data of its libraries beside it."""
    copy_tree(job.inputs[f"interpreter/{interpreter.name}"], job.out)
    for name, tree in sorted(job.inputs.items()):
        if name.startswith("library/"):
            for pattern in LIBRARY_DATA:
                for path in sorted(tree.glob(pattern)):
                    if path.is_dir():
                        copy_tree(path, job.out / path.relative_to(tree))


def copy_tree(source: Path, target: Path) -> None:
    """Copy a read-only tree into a writable one; links stay links."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)


def excluded(interpreter: Interpreter) -> tuple[str, ...]:
    """Globs of what is not shipped: the spec's, and the modules that only tests need."""
    dynload = f"lib/python{minor(interpreter)}/lib-dynload"
    return (
        *interpreter.exclude,
        *(f"{dynload}/{name}.*.so" for name in interpreter.test_modules),
    )


def marker(job: Job, spec: Prefix) -> dict[str, str]:
    """What the prefix says that it is."""
    return {
        "release": spec.release,
        "interpreter": spec.interpreter.name,
        "version": spec.interpreter.version,
        "tag": f"cp{minor(spec.interpreter).replace('.', '')}",
        "platform": job.floor.tag,
        "glibc": job.floor.glibc,
    }


def start_up_hook(job: Job, spec: Prefix) -> tuple[str, str]:
    """File name and text of the hook, which says of which release it is."""
    source = job.data["hook"]
    return source.name, fill(source.read_text(encoding="utf-8"), release=spec.release)


def gate(job: Job, spec: Prefix) -> None:
    """Hold the finished prefix against its spec and floor; AuditError where it does not pass."""
    interpreter = spec.interpreter
    policy = policy_for(
        interpreter,
        job.floor,
        forbidden={
            "constant prefix": PREFIX,
            "work": str(job.work),
            "staging": str(job.out),
            "store": str(job.inputs[f"interpreter/{interpreter.name}"]),
        },
        api=kept_api(job),
        hook=job.data["hook"].read_text(encoding="utf-8"),
    )
    report = audit(job.out, policy)
    for finding in report.findings:
        job.say(f"{finding.severity}: {finding.check}: {finding.path}: {finding.message}")
    require(report)


def kept_api(job: Job) -> KeptApi | None:
    """The list of names that people keep for this interpreter, where there is one."""
    path = job.data.get("api")
    return parse_spec(path.read_text(encoding="utf-8"), KeptApi, path.name) if path else None
