"""From a release to its steps: pure data, made without compiler, engine or network.

The only place that computes keys. A key is the sha256 of the canonical JSON of everything that can
change a step's output (its material); see ``docs/architecture.md``.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrun import hook
from longrun.errors import SpecError, UsageError
from longrun.model import (
    SDIST,
    Archive,
    Cell,
    Check,
    Distribution,
    Floor,
    Imports,
    Interpreter,
    LayerPrefix,
    Library,
    Prefix,
    Provenance,
    Release,
    Source,
    Spec,
    System,
    Toolchain,
    Wheel,
)
from longrun.specs import MATRIX, Specs, near

if TYPE_CHECKING:
    from longrun.stack import Stack

PACKAGE = Path(__file__).parent

RECIPES: dict[str, tuple[str, ...]] = {
    "source": (),
    "toolchain": ("steps/toolchain.py", "unpack.py"),
    "library": ("steps/library.py", "steps/toolchain.py"),
    "interpreter": ("steps/interpreter.py", "steps/toolchain.py"),
    "prefix": ("steps/prefix.py", "relocate.py", "seal.py", "elf.py", "audit/*.py"),
    "wheel": ("steps/wheel.py", "relocate.py", "elf.py"),
    "sdist": ("steps/wheel.py", "relocate.py", "elf.py", "steps/sdist.py", "steps/toolchain.py"),
    "layer": ("steps/layer.py", "elf.py", "audit/*.py"),
    "archive": ("steps/archive.py", "manifest.py"),
    "system": ("steps/system.py",),
    "imports": ("steps/imports.py",),
    "base": ("steps/base.py", "steps/blob.py", "oci/layer.py", "oci/deflate.py"),
    "part": ("steps/part.py", "steps/blob.py", "oci/layer.py", "oci/deflate.py"),
    "image": ("steps/image.py", "oci/image.py", "oci/model.py"),
    "check": ("steps/check.py", "cage.py", "engine.py", "inside.py"),
}
"""The code that makes each kind: its bytes are part of the key, so no edit goes unnoticed.

``sdist`` is a wheel that is built here.
"""

NEIGHBOUR = re.compile(r"^ *(?:import|from) +(\w+)|\b(\w+)\.py\b", re.M)
"""What a check's program imports, one in a line, or names as a file, such as another's server."""

LIBRARY_EPOCH = 1577836800
"""Time stamp of libraries, 2020-01-01: constant, so that a new release rebuilds none of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One artefact to realise; ``material`` is all that its key is made of."""

    kind: str
    name: str
    version: str
    platform: str
    spec: Spec
    floor: Floor
    epoch: int
    patches: tuple[Path, ...]
    data: Mapping[str, Path]
    inputs: tuple[Step, ...]
    material: Mapping[str, Any]
    key: str

    @property
    def id(self) -> str:
        """Kind and name, such as ``library/openssl``."""
        return f"{self.kind}/{self.name}"

    @property
    def title(self) -> str:
        """Id and version, for people."""
        return f"{self.id} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a release in an order in which they can be built, and what is wanted of them."""

    release: Release
    steps: tuple[Step, ...]
    targets: tuple[Step, ...]

    def find(self, name: str) -> Step:
        """The step that a person names: ``library/openssl``, or ``openssl`` for short."""
        found = [step for step in self.steps if step.id == name]
        found += [step for step in self.steps if step.name == name and step.kind != "source"]
        if not found:
            known = [step.id for step in self.steps]
            known += [step.name for step in self.steps]
            raise UsageError(
                f"no step {name!r} in release {self.release.name}{near(name, known)}",
                remedy="./build.py plan lists the steps",
            )
        return found[0]

    def needed(self, *targets: Step) -> tuple[Step, ...]:
        """The given steps and all that they need, in order."""
        wanted = {step.key for target in targets for step in closure(target)}
        return tuple(step for step in self.steps if step.key in wanted)


def closure(step: Step) -> Iterator[Step]:
    """A step and everything below it, inputs first, each once."""
    seen: set[str] = set()

    def visit(step: Step) -> Iterator[Step]:
        if step.key not in seen:
            seen.add(step.key)
            for needed in step.inputs:
                yield from visit(needed)
            yield step

    return visit(step)


def choose_release(specs: Specs, name: str | None) -> Release:
    """The named release, or the latest."""
    if name is None:
        if not specs.releases:
            raise UsageError("there is no spec of a release in specs/releases/")
        return max(specs.releases.values(), key=lambda release: release.date)
    if name not in specs.releases:
        known = list(specs.releases)
        raise UsageError(
            f"no release {name!r}{near(name, known)}", remedy=f"releases: {', '.join(known)}"
        )
    return specs.releases[name]


def choose_interpreters(
    specs: Specs, release: Release, versions: list[str]
) -> tuple[Interpreter, ...]:
    """The named interpreters of a release (``3.13`` or ``cpython-3.13``), or its default."""
    if not versions:
        return (specs.interpreters[release.interpreters[0]],)
    chosen = {}
    for version in versions:
        name = version if version.startswith("cpython-") else f"cpython-{version}"
        if name not in release.interpreters:
            known = [name.removeprefix("cpython-") for name in release.interpreters]
            raise UsageError(
                f"release {release.name} has no interpreter {version!r}"
                f"{near(version.removeprefix('cpython-'), known)}",
                remedy=f"its interpreters: {', '.join(known)}",
            )
        chosen[name] = specs.interpreters[name]
    return tuple(chosen.values())


def make_plan(
    specs: Specs,
    release: Release,
    interpreters: tuple[Interpreter, ...],
    *,
    layers: tuple[str, ...] = (),
    floor: Floor | None = None,
) -> Plan:
    """All steps from the sources to the archives of the given interpreters, bare or by layer."""
    planner = Planner(specs=specs, release=release, floor=floor or release.floor)
    targets = []
    for interpreter in interpreters:
        if layers:
            from longrun.stack import load_stack  # 20 ms that a bare interpreter does not need

            stack = load_stack(specs, release, interpreter)
            targets += [planner.layer_archive(interpreter, stack, layer) for layer in layers]
        else:
            targets.append(planner.archive(interpreter))
    return Plan(release=release, steps=tuple(planner.steps.values()), targets=tuple(targets))


def plan_systems(specs: Specs, release: Release, systems: Iterable[System]) -> tuple[Step, ...]:
    """The steps that make the roots of systems."""
    planner = Planner(specs=specs, release=release, floor=release.floor)
    return tuple(planner.system(system) for system in systems)


def plan_cells(
    specs: Specs,
    release: Release,
    interpreters: tuple[Interpreter, ...],
    checks: Sequence[Check],
    contents: Mapping[str, str],
) -> tuple[Step, ...]:
    """A step for each check with each interpreter that has what it proves, in each system.

    ``contents`` says what each system is (see ``model.Cell``): it is known only once the system's
    root is made, since a distribution's archive moves.
    """
    from longrun.stack import load_stack

    planner = Planner(specs=specs, release=release, floor=release.floor)
    stacks = [(each, load_stack(specs, release, each)) for each in interpreters]
    for check in checks:
        _check_proved(check, [stack for _, stack in stacks])
    return tuple(
        planner.cell(interpreter, stack, check, system, content)
        for check in checks
        for interpreter, stack in stacks
        if stack.has(check.proves)
        for system, content in contents.items()
    )


def plan_imports(
    specs: Specs, release: Release, interpreters: tuple[Interpreter, ...]
) -> tuple[Step, ...]:
    """A step for each interpreter that measures how long its packages take to import."""
    from longrun.stack import load_stack

    planner = Planner(specs=specs, release=release, floor=release.floor)
    return tuple(
        planner.imports(interpreter, load_stack(specs, release, interpreter))
        for interpreter in interpreters
    )


def _check_proved(check: Check, stacks: list[Stack]) -> None:
    """SpecError for a distribution that a check is about and its layer does not have."""
    for position, name in enumerate(check.proves):
        holders = [stack.layers_of(name) for stack in stacks if stack.find(name)]
        if not any(check.layer in layers for layers in holders):
            known = sorted({dist.name for stack in stacks for dist in stack.members(check.layer)})
            raise SpecError(
                f"specs/checks/{check.name}.toml: proves[{position}]: expected a distribution of "
                f"the layer {check.layer}, found {name!r}{near(name, known)}",
                remedy=f"./build.py list --layer {check.layer} tells what it has",
            )


class Planner:
    """Makes each step once; ``steps`` fills in an order in which they can be built."""

    def __init__(self, *, specs: Specs, release: Release, floor: Floor) -> None:
        self.specs = specs
        self.release = release
        self.floor = floor
        self.steps: dict[str, Step] = {}
        self._recipes: dict[str, str] = {}
        self._known_programs: dict[str, dict[str, Path]] = {}

    def archive(self, interpreter: Interpreter) -> Step:
        prefix = self.prefix(interpreter)
        archive = Archive(
            release=self.release.name,
            interpreter=interpreter.name,
            tag=interpreter.tag,
            provenance=provenance(prefix),
        )
        return self.step(
            "archive",
            interpreter.name,
            self.release.name,
            archive,
            inputs=(prefix,),
            epoch=epoch(self.release.date),
        )

    def prefix(self, interpreter: Interpreter) -> Step:
        if known := self.steps.get(f"prefix/{interpreter.name}"):
            return known
        built = self.interpreter(interpreter)
        libraries = tuple(step for step in built.inputs if step.kind == "library")
        api = self.specs.root / "specs" / "interpreters" / f"{interpreter.name}.api.toml"
        return self.step(
            "prefix",
            interpreter.name,
            self.release.name,
            Prefix(release=self.release.name, interpreter=interpreter),
            inputs=(built, *libraries),
            data={"hook": hook.SOURCE, **({"api": api} if api.exists() else {})},
            epoch=epoch(self.release.date),
        )

    def layer_archive(self, interpreter: Interpreter, stack: Stack, layer: str) -> Step:
        prefix = self.layer(interpreter, stack, layer)
        archive = Archive(
            release=self.release.name,
            interpreter=interpreter.name,
            tag=stack.tag,
            layer=layer,
            provenance=provenance(prefix),
        )
        return self.step(
            "archive",
            f"{layer}-{stack.tag}",
            self.release.name,
            archive,
            inputs=(prefix,),
            epoch=epoch(self.release.date),
        )

    def layer(self, interpreter: Interpreter, stack: Stack, layer: str) -> Step:
        if known := self.steps.get(f"layer/{layer}-{stack.tag}"):
            return known
        members = stack.members(layer)
        wheels = tuple(self.wheel(interpreter, stack, dist) for dist in members)
        return self.step(
            "layer",
            f"{layer}-{stack.tag}",
            self.release.name,
            LayerPrefix(
                release=self.release.name,
                layer=layer,
                interpreter=interpreter,
                distributions={dist.name: dist.version for dist in members},
            ),
            inputs=(self.prefix(interpreter), *wheels),
            epoch=epoch(self.release.date),
        )

    def system(self, system: System) -> Step:
        return self.step("system", system.name, system.glibc, system, inputs=())

    def cell(
        self, interpreter: Interpreter, stack: Stack, check: Check, system: str, content: str
    ) -> Step:
        found = {name: stack.find(name) for name in check.proves}
        outside = [] if system == "host" else [self.system(self.specs.systems[system])]
        return self.step(
            "check",
            f"{check.name}-{stack.tag}-{system}",
            self.release.name,
            Cell(
                check=check,
                release=self.release.name,
                interpreter=interpreter,
                system=system,
                content=content,
                versions={name: dist.version for name, dist in found.items() if dist},
            ),
            inputs=(self.layer(interpreter, stack, check.layer), *outside),
            data=self._programs(check.program),
        )

    def imports(self, interpreter: Interpreter, stack: Stack) -> Step:
        modules: dict[str, dict[str, str]] = {layer: {} for layer in self.release.layers}
        for package in stack.packages.values():
            if package.imports:
                modules[package.layer][package.name] = package.imports[0]
        layers = (self.layer(interpreter, stack, layer) for layer in self.release.layers)
        return self.step(
            "imports",
            stack.tag,
            self.release.name,
            Imports(release=self.release.name, interpreter=interpreter, modules=modules),
            inputs=(self.prefix(interpreter), *layers),
        )

    def _programs(self, program: str) -> Mapping[str, Path]:
        if program not in self._known_programs:
            self._known_programs[program] = programs(self.specs.root / MATRIX, program)
        return self._known_programs[program]

    def wheel(self, interpreter: Interpreter, stack: Stack, dist: Distribution) -> Step:
        name = f"{stack.tag}-{dist.name}"
        if f"wheel/{name}" in self.steps:
            return self.steps[f"wheel/{name}"]
        source = Source(
            file=dist.file,
            sha256=dist.sha256,
            size=dist.size,
            index=f"{dist.name}=={dist.version}",
        )
        package = stack.packages.get(dist.name)
        from_sdist = package if package and dist.tag == SDIST else None
        needs = stack.build_closure(from_sdist) if from_sdist else ()
        inputs = [self._wheel_source(dist, source)]
        if from_sdist:
            # compiled against the relocated prefix: its sysconfig is what a console's pip would use
            inputs += [self.prefix(interpreter), self.toolchain()]
            inputs += [self.wheel(interpreter, stack, needed) for needed in needs]
        else:
            inputs.append(self.interpreter(interpreter))
        return self.step(
            "wheel",
            name,
            dist.version,
            Wheel(
                name=dist.name,
                version=dist.version,
                tag=stack.tag,
                build=from_sdist.build if from_sdist else None,
                needs=tuple(needed.name for needed in needs),
                exclude=package.exclude if package else (),
                clean_runpath=package.clean_runpath if package else (),
                licence=dist.licence,
                source=source,
            ),
            inputs=tuple(inputs),
            recipe="sdist" if from_sdist else "wheel",
        )

    def _wheel_source(self, dist: Distribution, source: Source) -> Step:
        # one file may serve several interpreters, or each has its own: version and tag tell
        kind = dist.tag.rpartition("-")[0] or dist.tag
        step = self.source(f"{dist.name}-{dist.version}-{kind}", dist.version, source)
        if step.key != dist.sha256:
            raise SpecError(
                f"specs/locks/{self.release.name}: {dist.name} {dist.version} has two sha256 for "
                f"{dist.file}: {step.key} and {dist.sha256}",
                remedy="./build.py lock --upgrade " + dist.name,
            )
        return step

    def interpreter(self, interpreter: Interpreter) -> Step:
        if known := self.steps.get(f"interpreter/{interpreter.name}"):
            return known
        series = tuple(
            self.source(f"{interpreter.name}-{series.name}", interpreter.version, series.source)
            for series in interpreter.series
        )
        return self.step(
            "interpreter",
            interpreter.name,
            interpreter.version,
            interpreter,
            inputs=(
                self.source(interpreter.name, interpreter.version, interpreter.source),
                *series,
                self.toolchain(),
                *self._libraries(interpreter.libraries),
            ),
            patches=interpreter.patches,
            epoch=epoch(interpreter.lifecycle.released),
        )

    def library(self, library: Library) -> Step:
        return self.step(
            "library",
            library.name,
            library.version,
            library,
            inputs=(
                self.source(library.name, library.version, library.source),
                self.toolchain(),
                *self._libraries(library.inputs),
            ),
            patches=library.build.patches,
        )

    def _libraries(self, names: tuple[str, ...]) -> tuple[Step, ...]:
        """The steps of the named libraries and, before them, of all that these need."""
        found: dict[str, Step] = {}
        for name in names:
            step = self.library(self.specs.libraries[name])
            for needed in (*step.inputs, step):
                if needed.kind == "library":
                    found[needed.id] = needed
        return tuple(found.values())

    def toolchain(self) -> Step:
        toolchain = self.specs.toolchains[self.release.toolchain]
        return self.step(
            "toolchain",
            toolchain.name,
            toolchain.version,
            toolchain,
            inputs=(self.source(toolchain.name, toolchain.version, toolchain.source),),
            # one wheel serves every floor and processor
            platform="any",
        )

    def source(self, name: str, version: str, source: Source) -> Step:
        step_id = f"source/{name}"
        if step_id not in self.steps:
            self.steps[step_id] = Step(
                kind="source",
                name=name,
                version=version,
                platform="any",
                spec=source,
                floor=self.floor,
                epoch=LIBRARY_EPOCH,
                patches=(),
                data={},
                inputs=(),
                material={"kind": "source", "sha256": source.sha256},
                key=source.sha256,
            )
        return self.steps[step_id]

    def step(
        self,
        kind: str,
        name: str,
        version: str,
        spec: Spec,
        *,
        inputs: tuple[Step, ...],
        patches: tuple[str, ...] = (),
        data: Mapping[str, Path] | None = None,
        epoch: int = LIBRARY_EPOCH,
        platform: str = "",
        recipe: str = "",
    ) -> Step:
        step_id = f"{kind}/{name}"
        if step_id in self.steps:
            return self.steps[step_id]
        files = [self.specs.root / "patches" / patch for patch in patches]
        material = {
            "kind": kind,
            "name": name,
            "version": version,
            "platform": platform or self.floor.tag,
            "epoch": epoch,
            "params": keyed(spec),
            "patches": {patch: _sha256(file) for patch, file in zip(patches, files, strict=True)},
            "data": {label: _sha256(file) for label, file in (data or {}).items()},
            "recipe": self._recipe(recipe or kind),
            "inputs": {step.id: step.key for step in inputs},
        }
        step = Step(
            kind=kind,
            name=name,
            version=version,
            platform=platform or self.floor.tag,
            spec=spec,
            floor=self.floor,
            epoch=epoch,
            patches=tuple(files),
            data=data or {},
            inputs=inputs,
            material=material,
            key=hashlib.sha256(canonical_json(material)).hexdigest(),
        )
        self.steps[step_id] = step
        return step

    def _recipe(self, kind: str) -> str:
        if kind not in self._recipes:
            digest = hashlib.sha256()
            for pattern in RECIPES[kind]:
                for file in sorted(PACKAGE.glob(pattern)):
                    digest.update(f"{file.name}\0".encode() + file.read_bytes())
            self._recipes[kind] = digest.hexdigest()
        return self._recipes[kind]


def programs(directory: Path, program: str) -> dict[str, Path]:
    """A check's program, and every file beside it that one of them imports or runs."""
    found: dict[str, Path] = {}
    waiting = [program]
    while waiting:
        name = waiting.pop()
        if name not in found and (directory / name).is_file():
            found[name] = directory / name
            text = found[name].read_text(encoding="utf-8")
            waiting += [f"{a or b}.py" for a, b in NEIGHBOUR.findall(text)]
    return dict(sorted(found.items()))


def provenance(prefix: Step) -> tuple[Provenance, ...]:
    """Every input of a prefix that came from outside, sorted by id."""
    found = []
    for step in closure(prefix):
        if isinstance(step.spec, Library | Toolchain | Interpreter | Wheel):
            sources = [step.spec.source]
            if isinstance(step.spec, Interpreter):
                sources += [series.source for series in step.spec.series]
            for source in sources:
                found.append(_provenance(step, step.spec, source))
    return tuple(sorted(found, key=lambda item: (item.id, item.sha256)))


def _provenance(
    step: Step, spec: Library | Toolchain | Interpreter | Wheel, source: Source
) -> Provenance:
    return Provenance(
        id=step.id,
        version=spec.version,
        key=step.key,
        licence=spec.licence,
        sha256=source.sha256,
        urls=(*source.urls, *source.pool, *filter(None, [source.index])),
        patches=tuple(step.material["patches"]),
        recipe=step.material["recipe"],
    )


def keyed(spec: object) -> Any:
    """The part of a spec that can change an output, as plain data; sources count as inputs."""
    if dataclasses.is_dataclass(spec):
        return {
            field.name: keyed(getattr(spec, field.name))
            for field in dataclasses.fields(spec)
            if field.metadata["key"] and not isinstance(getattr(spec, field.name), Source)
        }
    if isinstance(spec, tuple):
        return [keyed(item) for item in spec]
    return spec


def canonical_json(value: Any) -> bytes:
    """JSON of which equal values always give the same bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two materials of one step, in words, the cause first."""
    found = []
    if old.get("version") != new.get("version"):
        found.append(f"{new['name']} {old.get('version')} -> {new['version']}")
    for word, key in (("patch", "patches"), ("data", "data")):
        found += _mapping_changes(word, old.get(key, {}), new.get(key, {}))
    for key in _changed(old.get("params"), new.get("params")):
        if key != "version":
            found.append(f"spec: {key} changed")
    if old.get("recipe") != new.get("recipe"):
        found.append(f"recipe of {new['kind']} steps changed")
    for key in ("platform", "epoch"):
        if old.get(key) != new.get(key):
            found.append(f"{key} {old.get(key)} -> {new.get(key)}")
    before, after = old.get("inputs", {}), new.get("inputs", {})
    for step_id in _changed(before, after):
        verb = (
            "changed"
            if step_id in before and step_id in after
            else ("added" if step_id in after else "removed")
        )
        kind, _, name = step_id.partition("/")
        found.append(f"{kind} {verb}" if kind in ("toolchain", "source") else f"{name} {verb}")
    return found


def _mapping_changes(word: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    found = []
    for name in _changed(old, new):
        verb = "added" if name not in old else "removed" if name not in new else "changed"
        found.append(f"{word} {Path(name).name} {verb}")
    return found


def _changed(old: Any, new: Any) -> list[str]:
    before, after = old or {}, new or {}
    names = [*after, *(name for name in before if name not in after)]
    return [name for name in names if before.get(name) != after.get(name)]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def epoch(date: str) -> int:
    """Midnight of an ISO date, in seconds since 1970."""
    midnight = datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.UTC)
    return int(midnight.timestamp())
