"""From images to steps: what is a layer of its own, so that images and releases share it.

An interpreter is a layer, each big distribution is, and what is small goes into one of a few
layers, by the layer of the stack that it came in with and by its name. None of them names a
release: a new one that changes a package changes that layer, and the last, which has the marker and
the start-up hook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from longrun import hook
from longrun.errors import SpecError
from longrun.model import (
    Base,
    BaseLock,
    BasePlan,
    Built,
    Distribution,
    ImageSpec,
    Interpreter,
    Part,
    Release,
)
from longrun.plan import Plan, Planner, Step, epoch
from longrun.seal import MARKER
from longrun.specs import Specs
from longrun.stack import Stack, included, load_stack

BIG = 2_000_000
"""Bytes of a wheel from which on it is a layer of its own."""

BUCKETS = 8
"""Layers that the small distributions of one layer of the stack go into."""

LIMIT = 127
"""Layers that an engine takes: those of Docker, whose file system has no more in one mount."""

TOP = "opt/longrun"
"""Where the prefixes are in an image, by interpreter tag."""


def plan_base(specs: Specs, release: Release, base: Base, lock: BaseLock | None) -> Step:
    """The step of a base that has to come out as its lock says, or anew without one."""
    planner = Planner(specs=specs, release=release, floor=release.floor)
    return _Images(specs, planner).base(base, lock)


def plan_image(
    specs: Specs, release: Release, image: ImageSpec, interpreters: tuple[Interpreter, ...]
) -> Plan:
    """The steps of one image with the given interpreters."""
    images = _Images(specs, Planner(specs=specs, release=release, floor=release.floor))
    step = images.image(image, interpreters)
    return Plan(release=release, steps=tuple(images.planner.steps.values()), targets=(step,))


@dataclass(frozen=True)
class _Images:
    """Makes the steps of images; each once, by way of a planner."""

    specs: Specs
    planner: Planner

    def base(self, base: Base, lock: BaseLock | None) -> Step:
        return self.planner.step(
            "base",
            base.name,
            base.suite,
            BasePlan(
                base=base,
                compressor=self.compressor.id,
                digest=lock.digest if lock else "",
                locked=lock.packages if lock else {},
            ),
            inputs=(self.compressor,),
        )

    @property
    def compressor(self) -> Step:
        """The interpreter that compresses every layer: the release's default, bare of its date."""
        default = self.planner.release.interpreters[0]
        return self.planner.interpreter(self.specs.interpreters[default])

    def image(self, image: ImageSpec, interpreters: tuple[Interpreter, ...]) -> Step:
        release = self.planner.release
        lock = self.specs.base_lock(image.base)
        if lock is None:
            raise SpecError(
                f"specs/images/{image.name}.toml: base: {image.base!r} has no lock yet",
                remedy=f"./build.py base {image.base}",
            )
        stacks = [(each, load_stack(self.specs, release, each)) for each in interpreters]
        parts = [part for each, stack in stacks for part in self.parts(image, each, stack)]
        if len(parts) + 2 > LIMIT:
            raise SpecError(
                f"specs/images/{image.name}.toml: the image would have {len(parts) + 2} layers, "
                f"and engines take {LIMIT}",
                remedy="fewer interpreters in one image: --python, or together = false",
            )
        tags = [each.tag for each in interpreters]
        first = interpreters[0]
        return self.planner.step(
            "image",
            "-".join([image.name, *(tags if not image.together or len(tags) == 1 else ())]),
            release.name,
            Built(
                image=image,
                base=lock.digest,
                created=release.date,
                labels=self.labels(image, stacks),
                paths=tuple(f"/{TOP}/{tag}/bin" for tag in tags),
                python=f"/{TOP}/{first.tag}/bin/python{first.name.removeprefix('cpython-')}",
                reference=reference(image, release, interpreters),
            ),
            inputs=(
                self.base(self.specs.bases[image.base], lock),
                *parts,
                self.files(image, interpreters),
            ),
            epoch=epoch(release.date),
        )

    def parts(self, image: ImageSpec, interpreter: Interpreter, stack: Stack) -> list[Step]:
        """The layers of one prefix: interpreter, big distributions, small ones, the marker."""
        tag, top = stack.tag, f"{TOP}/{stack.tag}"
        bare = self.planner.prefix(interpreter)
        title = f"CPython {interpreter.version}"
        # what names the release is in the last layer, as the layer of the stack has it
        names = named(interpreter)
        found = [self.part(f"{tag}-python", title, of=(bare,), top=top, without=names)]
        # the release's order: what most images have is below what few have
        layers = included(self.planner.release, image.layer)
        for layer in (name for name in self.planner.release.layers if name in layers):
            own = [dist for dist in stack.members(layer) if stack.layers_of(dist.name)[0] == layer]
            for name, dists in groups(layer, own).items():
                title = f"{tag}: {', '.join(f'{dist.name} {dist.version}' for dist in dists)}"
                wheels = tuple(self.planner.wheel(interpreter, stack, dist) for dist in dists)
                found.append(self.part(f"{tag}-{name}", title, of=wheels, top=top))
        prefix = self.planner.layer(interpreter, stack, image.layer)
        title = f"marker of {prefix.name}"
        only = with_parents(names)
        found.append(
            self.part(f"{tag}-{image.layer}-marker", title, of=(prefix,), top=top, only=only)
        )
        return found

    def files(self, image: ImageSpec, interpreters: tuple[Interpreter, ...]) -> Step:
        """The last layer: names of the interpreters where everyone looks, and the image's files."""
        links = {}
        for each in interpreters:
            program = f"python{each.name.removeprefix('cpython-')}"
            links[f"usr/local/bin/{program}"] = f"/{TOP}/{each.tag}/bin/{program}"
        texts = {
            path.lstrip("/"): (self.specs.root / "images" / template).read_text(encoding="utf-8")
            for path, template in image.files.items()
        }
        tags = "-".join(each.tag for each in interpreters)
        return self.part(
            f"{image.name}-{tags}-files", f"files of {image.name}", links=links, texts=texts
        )

    def part(
        self,
        name: str,
        title: str,
        *,
        of: tuple[Step, ...] = (),
        top: str = "",
        only: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        links: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> Step:
        inputs = {step.id: step for step in (self.compressor, *of)}
        return self.planner.step(
            "part",
            name,
            "",
            Part(
                title=title,
                compressor=self.compressor.id,
                of=tuple(step.id for step in of),
                top=top,
                only=only,
                without=without,
                links=dict(links or {}),
                texts=dict(texts or {}),
            ),
            inputs=tuple(inputs.values()),
        )

    def labels(self, image: ImageSpec, stacks: list[tuple[Interpreter, Stack]]) -> dict[str, str]:
        """OCI's annotations: what it is, of which release, made from what, under which terms."""
        release = self.planner.release
        prefixes = [self.planner.layer(each, stack, image.layer) for each, stack in stacks]
        licences = sorted(
            {each.licence for each, _ in stacks}
            | {self.specs.libraries[name].licence for each, _ in stacks for name in each.libraries}
        )
        prefix = "org.opencontainers.image."
        return {
            f"{prefix}title": f"longrun/{image.name}",
            f"{prefix}description": image.summary,
            f"{prefix}version": release.name,
            f"{prefix}created": f"{release.date}T00:00:00Z",
            f"{prefix}licenses": " AND ".join(f"({each})" for each in licences),
            f"{prefix}base.name": image.base,
            # what the prefixes are made from, to the last byte: their keys
            f"{prefix}revision": "-".join(step.key[:16] for step in prefixes),
        }


def named(interpreter: Interpreter) -> tuple[str, str, str]:
    """The files of a prefix that name its release and layer: the marker, and the start-up hook."""
    version = interpreter.name.removeprefix("cpython-")
    bytecode = f"{hook.SOURCE.stem}.cpython-{version.replace('.', '')}.pyc"
    stdlib = f"lib/python{version}"
    return MARKER, f"{stdlib}/{hook.SOURCE.name}", f"{stdlib}/__pycache__/{bytecode}"


def with_parents(paths: Sequence[str]) -> tuple[str, ...]:
    """Paths, and the directories above: a layer that leaves these out changes their mode."""
    found = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return tuple(sorted((found - {"."}) | set(paths)))


def groups(layer: str, dists: Sequence[Distribution]) -> dict[str, list[Distribution]]:
    """Which distributions of a layer of the stack share a layer of the image, by its name.

    A small one's place depends on its name alone, so one that comes or goes moves no other.
    """
    big = {dist.name: [dist] for dist in dists if dist.size >= BIG}
    small: dict[str, list[Distribution]] = {}
    for dist in dists:
        if dist.size < BIG:
            small.setdefault(f"{layer}-small-{bucket(dist.name)}", []).append(dist)
    return big | dict(sorted(small.items()))


def bucket(name: str) -> int:
    """The bucket of a small distribution, from 1 on."""
    return hashlib.sha256(name.encode()).digest()[0] % BUCKETS + 1


def reference(image: ImageSpec, release: Release, interpreters: tuple[Interpreter, ...]) -> str:
    """Name and tag, such as ``longrun/ci:2026.1-py313``; without interpreters where it has all."""
    every = image.together and len(interpreters) == len(release.interpreters)
    tags = "" if every else "".join(f"-{each.tag.replace('cp', 'py')}" for each in interpreters)
    return f"longrun/{image.name}:{release.name}{tags}"
