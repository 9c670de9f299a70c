"""Import times of the stack, as the report has them."""

from __future__ import annotations

from collections.abc import Iterable

from longrun.matrix.needs import realised
from longrun.matrix.report import ImportTime, StartTime
from longrun.model import Imports
from longrun.plan import Step
from longrun.steps.imports import read
from longrun.store import Store


def times(
    steps: Iterable[Step], store: Store
) -> tuple[tuple[ImportTime, ...], tuple[StartTime, ...]]:
    """What the entries of the given steps measured; StoreError where one is not there yet."""
    imports: list[ImportTime] = []
    starts: list[StartTime] = []
    for step in steps:
        spec = step.spec
        assert isinstance(spec, Imports)
        tag = spec.interpreter.tag
        start, found = read(realised(store, step, spec.interpreter).tree)
        starts.append(StartTime(tag=tag, warm=start.warm, cold=start.cold))
        imports += (
            ImportTime(
                tag=tag,
                name=name,
                module=spec.modules[layer][name],
                layer=layer,
                warm=each.warm,
                cold=each.cold,
            )
            for layer, rows in found.items()
            for name, each in rows.items()
        )
    return tuple(imports), tuple(starts)
