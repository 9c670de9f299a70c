"""A cell of the matrix: one check, run in a cage, and what came of it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from longrun.cage import ENGINE, Attempt, Cage, confinement
from longrun.engine import Engines, Image
from longrun.errors import BuildError
from longrun.model import Cell, Gap
from longrun.steps.job import Job

PATIENCE = 30
"""Seconds beyond a check's own limit after which the cage itself is taken down."""

HOST = "host"
"""The machine's own system."""

LOG = 200_000
"""Bytes of a log that are kept, of its end."""


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """What came of a cell: every attempt, how it was confined, and the log of all attempts."""

    attempts: tuple[Attempt, ...]
    isolation: str
    log: str


class CellError(BuildError):
    """A check failed where no spec says that it does; ``record`` tells how."""

    def __init__(self, message: str, record: CellRecord) -> None:
        super().__init__(message)
        self.record = record


def build(job: Job, engines: Engines) -> None:
    """Run the check as often as its spec allows; CellError where that is to no avail.

    ``job.out`` gets ``cell.json`` and ``log.txt``. A known failure is kept like a pass.
    """
    cell = job.spec
    assert isinstance(cell, Cell)
    record = attempt(job, cell, find_image(job, cell, engines))
    write(job.out, record)
    gap = cell.check.gap(cell.tag, cell.system)
    if not record.attempts[-1].passed and not (gap and gap.shows in record.log):
        raise CellError(complaint(record, gap), record)


def find_image(job: Job, cell: Cell, engines: Engines) -> Image | None:
    """The cell's system in a container engine; None where it is run without one."""
    if cell.system == HOST:
        return None
    return engines.image(job.inputs[f"system/{cell.system}"] / "root", cell.content, job.work)


def attempt(job: Job, cell: Cell, image: Image | None) -> CellRecord:
    """Run the check until it passes, fails as its spec says, or its attempts are used up."""
    gap = cell.check.gap(cell.tag, cell.system)
    isolation = ENGINE if image else confinement(own_system=cell.system == HOST)
    programs = gather(job.data, job.work / "checks")
    attempts: list[Attempt] = []
    log = ""
    while len(attempts) < cell.check.attempts:
        number = len(attempts) + 1
        found, text = run(job, cell, programs, job.work / f"out-{number}", isolation, image)
        attempts.append(found)
        log += text if number == 1 else f"\n--- attempt {number}\n{text}"
        if found.passed or (gap and gap.shows in text):
            break
    return CellRecord(attempts=tuple(attempts), isolation=isolation, log=log)


def gather(files: Mapping[str, Path], programs: Path) -> Path:
    """A directory with the check's programs and nothing else."""
    programs.mkdir()
    for name, path in files.items():
        shutil.copyfile(path, programs / name)
    return programs


def executable(cell: Cell) -> str:
    """The program in the prefix's ``bin`` that a cell is about."""
    return f"python{cell.interpreter.name.removeprefix('cpython-')}"


def run(
    job: Job, cell: Cell, programs: Path, out: Path, isolation: str, image: Image | None
) -> tuple[Attempt, str]:
    """Run the check once; what came of it, and its log."""
    out.mkdir()
    out.chmod(0o777)  # the user inside is another one
    cage = make_cage(cell, job.inputs, programs, out)
    check = cell.check
    command = cage.command(isolation, executable(cell), check.program, check.timeout)
    try:
        if image:
            name = f"check/{check.name}-{cell.tag}-{cell.system}"
            image.run(name, cage, command, check.timeout + PATIENCE)
        else:
            job.run(command, timeout=check.timeout + PATIENCE)
        result = json.loads((out / "result.json").read_bytes())
    except (BuildError, OSError) as error:
        raise BuildError(f"the cage of {check.name} failed, not the check: {error}") from error
    with (out / "log.txt").open("rb") as file:
        file.seek(max(0, (out / "log.txt").stat().st_size - LOG))
        log = file.read().decode("utf-8", "replace")
    with job.log.open("a", encoding="utf-8") as file_of_step:
        file_of_step.write(log)
    return Attempt(**{**result, "orphans": tuple(result["orphans"])}), log


def make_cage(cell: Cell, inputs: Mapping[str, Path], programs: Path, out: Path) -> Cage:
    """The surroundings of a cell; ``inputs`` are as a job's."""
    layer = f"{cell.check.layer}-{cell.tag}"
    return Cage(
        root=None if cell.system == HOST else inputs[f"system/{cell.system}"] / "root",
        prefix=inputs[f"layer/{layer}"],
        stem=f"longrun-{cell.release}-{cell.tag}-{cell.check.layer}",
        programs=programs,
        out=out,
    )


def write(out: Path, record: CellRecord) -> None:
    """Put a record where ``read`` finds it."""
    attempts = [asdict(each) for each in record.attempts]
    document = {"attempts": attempts, "isolation": record.isolation}
    (out / "cell.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "log.txt").write_text(record.log, encoding="utf-8")


def read(tree: Path) -> CellRecord:
    """The record of an entry."""
    document = json.loads((tree / "cell.json").read_bytes())
    attempts = (
        Attempt(**{**each, "orphans": tuple(each["orphans"])}) for each in document["attempts"]
    )
    log = (tree / "log.txt").read_text(encoding="utf-8")
    return CellRecord(attempts=tuple(attempts), isolation=document["isolation"], log=log)


def complaint(record: CellRecord, gap: Gap | None) -> str:
    """What is wrong, in a line."""
    last = record.attempts[-1]
    what = reason(last, record.log)
    if len(record.attempts) > 1:
        what += f" (attempt {len(record.attempts)} of {len(record.attempts)})"
    if gap:
        what += f"; the known gap would show {gap.shows!r}"
    return what


def reason(attempt: Attempt, log: str) -> str:
    """Why an attempt does not count as passed: its end, and the log's last words."""
    if attempt.passed:
        return ""
    said = last_line(log)
    return f"{ending(attempt)}: {said}" if said else ending(attempt)


def ending(attempt: Attempt) -> str:
    """How an attempt ended, in words."""
    if attempt.timed_out:
        return f"still running after {attempt.seconds:.0f} s"
    if attempt.status < 0:
        return f"killed by {signal.Signals(-attempt.status).name}"
    if attempt.status:
        return f"exit status {attempt.status}"
    return f"left running: {', '.join(attempt.orphans)}" if attempt.orphans else "passed"


def last_line(log: str) -> str:
    """The last line of a log that says something, or nothing."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
