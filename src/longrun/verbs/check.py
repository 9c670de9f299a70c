"""``check``: one cell of the matrix, run under the eyes of a person."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from longrun.cage import NAMESPACES, Attempt, Cage, confinement
from longrun.errors import MatrixError, SetupError
from longrun.model import Cell
from longrun.plan import Step
from longrun.run import attach
from longrun.setup import require
from longrun.steps.check import HOST, ending, executable, gather, make_cage
from longrun.term import duration, paint, size
from longrun.verbs.build import failure, realise, tools_of
from longrun.verbs.context import Context
from longrun.verbs.scope import cells_of, choose, plan_ground


def check(root: Path, arguments: argparse.Namespace) -> int:
    """Run one check and show what it says; 0, or 9 where it does not pass. Nothing is kept."""
    context = Context(root)
    arguments.check, arguments.where = [arguments.name], [arguments.where]
    scope = choose(context, arguments, every=False)
    ground = plan_ground(context.specs, scope)
    outcome = realise(context, ground, ground.targets, arguments)
    if outcome.failed:
        return failure(outcome)
    cells = cells_of(context.specs, scope, ground, context.store)
    require(tools_of(cells), install=arguments.setup)
    return max(_once(context, step, shell=arguments.shell) for step in cells)


def _once(context: Context, step: Step, *, shell: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="longrun-check-") as scratch:
        return run(context, step, Path(scratch), shell=shell)


def run(context: Context, step: Step, scratch: Path, *, shell: bool) -> int:
    """Run the cell in its cage on the user's terminal, or open a shell in it."""
    cell = step.spec
    assert isinstance(cell, Cell)
    isolation = confinement(own_system=cell.system == HOST)
    cage = _cage(context, step, cell, scratch)
    if shell:
        if isolation != NAMESPACES:
            raise SetupError(
                "--shell: bubblewrap is missing, or may make no namespaces here",
                remedy="apt-get install bubblewrap",
            )
        print(f"{executable(cell)} $CHECK   runs the check; exit leaves")
        return attach(cage.shell(cell.check.program))
    command = cage.command(
        isolation, executable(cell), cell.check.program, cell.check.timeout, live=True
    )
    status = attach(command, cwd=scratch)
    result = cage.out / "result.json"
    if status or not result.is_file():
        raise MatrixError(f"the cage of {cell.check.name} ended with {status}, not the check")
    return _tell(step, cell, json.loads(result.read_bytes()))


def _cage(context: Context, step: Step, cell: Cell, scratch: Path) -> Cage:
    inputs = {}
    for needed in step.inputs:
        entry = context.store.get(needed.key)
        assert entry is not None, f"{needed.id} was just made"
        inputs[needed.id] = entry.tree
    scratch.chmod(0o755)  # the user inside is another one
    out = scratch / "out"
    out.mkdir()
    out.chmod(0o777)
    return make_cage(cell, inputs, gather(step.data, scratch / "checks"), out)


def _tell(step: Step, cell: Cell, result: dict[str, object]) -> int:
    attempt = Attempt(**result)  # type: ignore[arg-type]
    mark = paint("green", "✔ passed") if attempt.passed else paint("red", "✘ failed")
    where = f"{cell.check.name} with {executable(cell)} ({cell.system})"
    print(f"\n{mark}  {where}  {duration(attempt.seconds)}, {size(attempt.memory)}")
    if not attempt.passed:
        print(f"  {ending(attempt)}")
    gap = cell.check.gap(cell.tag, cell.system)
    if gap:
        print(f"  {paint('yellow', 'known gap')} since {gap.since}: {gap.why}\n  {gap.link}")
    for name, version in cell.versions.items():
        print(f"  {paint('dim', name)} {version}")
    return 0 if attempt.passed else MatrixError.exit_code
