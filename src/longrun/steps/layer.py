"""A layer's prefix: the bare prefix and the files of its distributions, as links to their entries.

Nothing is copied and nothing is hashed again: every file is the one of the entry that it came with.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from longrun import hook
from longrun.audit import audit, policy_for, require
from longrun.audit.render import lines
from longrun.audit.report import ERROR
from longrun.errors import BuildError
from longrun.fs import DIRECTORY, FILE, Record
from longrun.model import LayerPrefix
from longrun.relocate import layout
from longrun.seal import MARKER, compile_file
from longrun.steps.interpreter import PREFIX
from longrun.steps.job import Job


def build(job: Job) -> None:
    """Make ``job.out`` the layer's prefix; AuditError where it does not pass."""
    spec = job.spec
    assert isinstance(spec, LayerPrefix)
    job.say("link")
    assemble(job)
    stamp(job, (*mark(job, spec), *name_layer(job, spec)))
    job.say("audit")
    gate(job, spec)


def assemble(job: Job) -> None:
    """Link every file of every input; BuildError where two have different files of one name."""
    owners: dict[str, tuple[str, Record]] = {}
    for step in job.inputs:
        for record in job.files(step):
            if record.path in owners and record.type != DIRECTORY:
                _check_same(record, step, *owners[record.path])
                continue
            owners.setdefault(record.path, (step, record))
            place(job.inputs[step] / record.path, job.out / record.path, record)
            if record.type == FILE:
                job.known[record.path] = record.value


def _check_same(record: Record, step: str, other: str, known: Record) -> None:
    if (record.type, record.value) != (known.type, known.value):
        raise BuildError(
            f"{step} and {other} both have {record.path}, with different contents",
            remedy="one of them must go, or be locked in a version without that file",
        )


def place(source: Path, target: Path, record: Record) -> None:
    """Put one file, link or directory of an entry into the prefix."""
    if record.type == DIRECTORY:
        target.mkdir(exist_ok=True)
    elif record.type == FILE:
        _link(source, target)
    else:
        target.symlink_to(record.value)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EXDEV, errno.EPERM):
            raise
        # a file system without links, or too many to one file
        shutil.copy2(source, target)


def mark(job: Job, spec: LayerPrefix) -> list[Path]:
    """Say in the prefix's marker which layer it is and what is installed; the files written."""
    path = job.out / MARKER
    marker = json.loads(path.read_bytes())
    marker |= {"layer": spec.layer, "distributions": spec.distributions}
    rewrite(path, json.dumps(marker, indent=1, sort_keys=True) + "\n")
    del job.known[MARKER]
    return [path]


def name_layer(job: Job, spec: LayerPrefix) -> list[Path]:
    """Have the start-up hook say of which layer it is; the files written."""
    here = layout(job.out)
    path = here.stdlib / hook.SOURCE.name
    for bytecode in compiled(path):
        bytecode.unlink()
    rewrite(path, hook.fill(path.read_text(encoding="utf-8"), layer=spec.layer))
    compile_file(here, path, job.run)
    written = [path, *compiled(path)]
    for file in written:
        job.known.pop(str(file.relative_to(job.out)), None)
    return written


def compiled(source: Path) -> list[Path]:
    """The bytecode of a source."""
    return sorted(source.parent.glob(f"__pycache__/{source.stem}.*.pyc"))


def rewrite(path: Path, text: str) -> None:
    """Put another file in the place of one of the bare prefix's own."""
    path.unlink()
    path.write_text(text, encoding="utf-8")


def stamp(job: Job, written: Iterable[Path]) -> None:
    """Set mode and time of what is not of an entry: every directory, and the written files."""
    for directory, _, _ in os.walk(job.out):
        os.utime(directory, (job.epoch, job.epoch))
        if directory != str(job.out):
            os.chmod(directory, 0o555)
    for path in written:
        os.utime(path, (job.epoch, job.epoch))
        path.chmod(0o444)


def shipped_hook(job: Job, spec: LayerPrefix) -> str:
    """The source of the bare prefix's hook."""
    here = layout(job.inputs[f"prefix/{spec.interpreter.name}"])
    return hook.blank((here.stdlib / hook.SOURCE.name).read_text(encoding="utf-8"))


def gate(job: Job, spec: LayerPrefix) -> None:
    """Hold the finished prefix against its spec and floor; AuditError where it does not pass."""
    forbidden = {"constant prefix": PREFIX, "staging": str(job.out)}
    # the store's own directory: entries, and where its builds were staged
    forbidden |= {"store": str(job.inputs[f"prefix/{spec.interpreter.name}"].parents[2])}
    report = audit(
        job.out,
        policy_for(spec.interpreter, job.floor, forbidden=forbidden, hook=shipped_hook(job, spec)),
    )
    # errors last: a failure shows the end of the log
    errors = [f"{f.check}: {f.path}: {f.message}" for f in report.findings if f.severity == ERROR]
    with job.log.open("a", encoding="utf-8") as log:
        log.write("\n".join([*lines(report, limit=1000), "", *errors]) + "\n")
    require(report)
