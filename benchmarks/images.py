#!/usr/bin/env python3
"""What container images cost: size, time to make, bytes of an update, time to start.

    ENVIRONMENT/bin/python benchmarks/images.py [--image NAME]... [--runs 7]

ENVIRONMENT is Longrun's own, below ~/.cache/longrun/environments.

Every image has to be built before (./build.py image does that); containers need Podman, Docker's
daemon, and root.
Times are of one run on this machine, and what is compared runs in turn: read the ratios.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build.py"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "integration")]

import engines  # noqa: E402

from longrun import fs  # noqa: E402
from longrun.config import load_config  # noqa: E402
from longrun.imageplan import plan_image  # noqa: E402
from longrun.model import Part  # noqa: E402
from longrun.oci.model import Packed  # noqa: E402
from longrun.oci.read import open_image  # noqa: E402
from longrun.plan import Step, choose_interpreters, choose_release, closure  # noqa: E402
from longrun.specs import load_specs  # noqa: E402
from longrun.store import Store  # noqa: E402

SLIM = 120e6
"""Bytes of python:3.13-slim, unpacked."""


def image_step(name: str) -> Step:
    """The step of an image with the interpreters that it has by default."""
    specs = load_specs(ROOT)
    release = choose_release(specs, None)
    spec = specs.images[name]
    versions = list(release.interpreters) if spec.together else []
    interpreters = choose_interpreters(specs, release, versions)
    (step,) = plan_image(specs, release, spec, interpreters).targets
    return step


def entry(store: Store, step: Step) -> Path:
    """The tree of a step that is built."""
    found = store.get(step.key)
    if found is None:
        raise SystemExit(f"{step.id} is not built: ./build.py image")
    return found.tree


def unpacked(path: Path) -> int:
    """Bytes of the tar in a layer."""
    total = 0
    with gzip.open(path) as file:
        while chunk := file.read(1 << 24):
            total += len(chunk)
    return total


def sizes(store: Store, images: dict[str, Step]) -> None:
    """Print what images take, alone and together, against what they are made of."""
    print(
        f"{'image':<10} {'layers':>6} {'compressed':>11} {'unpacked':>9} {'parts':>9} ratio  slim"
    )
    packed = {name: open_image(entry(store, step)) for name, step in images.items()}
    once = {layer.digest: layer for image in packed.values() for layer in image.layers}
    plain = {digest: unpacked(layer.path) for digest, layer in once.items()}
    for name, image in packed.items():
        parts = plain[image.layers[0].digest] + sum(prefixes(store, images[name]).values())
        size = sum(plain[layer.digest] for layer in image.layers)
        row = f"{name:<10} {len(image.layers):>6} {weight(image) / 1e6:>8.1f} MB"
        row += f" {size / 1e6:>6.0f} MB {parts / 1e6:>6.0f} MB"
        print(f"{row} {size / parts:>5.3f} {size / SLIM:>4.1f}x")
    total = sum(map(weight, packed.values()))
    shared = sum(layer.size for layer in once.values())
    print(f"all, sharing layers: {shared / 1e6:.0f} of {total / 1e6:.0f} MB ({shared / total:.0%})")


def weight(image: Packed) -> int:
    """Bytes of an image as it is pushed."""
    return len(image.manifest) + len(image.config) + sum(layer.size for layer in image.layers)


def prefixes(store: Store, image: Step) -> dict[str, int]:
    """The prefixes of an image and what they take in the store."""
    found = {step.id: store.get(step.key) for step in closure(image) if step.kind == "layer"}
    return {name: built.record["size"] for name, built in found.items() if built}


def updates(store: Store, images: dict[str, Step]) -> None:
    """Print what a push sends after a change of one package, over all packages of an image."""
    head = f"{'least':>9} {'median':>9} {'90 %':>9} {'most':>9}  of all"
    print(f"\n{'image':<10} {'packages':>8} {head}")
    for name, step in images.items():
        image = open_image(entry(store, step))
        always = len(image.manifest) + len(image.config)
        sent: list[int] = []
        for needed, layer in zip(step.inputs, image.layers, strict=True):
            if needed.name.endswith("-marker"):
                always += layer.size
            if isinstance(needed.spec, Part):
                packages = [each for each in needed.spec.of if each.startswith("wheel/")]
                sent += [layer.size] * len(packages)
        sent = sorted(size + always for size in sent)
        picked = [sent[0], statistics.median(sent), sent[len(sent) * 9 // 10], sent[-1]]
        row = " ".join(f"{size / 1e6:>6.2f} MB" for size in picked)
        print(f"{name:<10} {len(sent):>8} {row} {picked[1] / weight(image):>7.1%}")


@contextmanager
def empty_cache(store: Store) -> Iterator[Path]:
    """A cache that has everything but images and their layers."""
    with tempfile.TemporaryDirectory(prefix="longrun-benchmark-") as place:
        cache = Path(place)
        (cache / "store/entries").mkdir(parents=True)
        environments = load_config(os.environ).cache / "environments"
        (cache / "environments").symlink_to(environments)
        for found in store.entries():
            if not found.path.name.startswith(("part-", "image-")):
                (cache / "store/entries" / found.path.name).symlink_to(found.path)
        try:
            yield cache
        finally:
            fs.remove_tree(cache / "store")


def builds(store: Store, images: dict[str, Step], checkout: Path) -> None:
    """Print how long an image takes without and with its layers in the store.

    Bases, wheels and prefixes are there. What another checkout and cache give, now, is the same
    image as that of this store: both digests are printed.
    """
    bare = seconds([sys.executable, "-c", "pass"])
    prefix = entry(store, next(each for each in closure(images["runtime"]) if each.kind == "layer"))
    tar = ["sh", "-c", 'tar -c -C "$1" . | gzip -6 | wc -c', "sh", str(prefix)]
    print(f"\n{'bare start of Python':<46} {bare:>7.2f} s")
    plain = seconds(tar)
    print(f"{'tar | gzip -6 of the prefix of runtime':<46} {plain:>7.2f} s {plain / bare:>7.0f}x")
    for name in images:
        with empty_cache(store) as cache:
            for what in ("nothing of it there", "nothing to do"):
                took = seconds(
                    [str(checkout / "build.py"), "image", name, "--offline"],
                    LONGRUN_CACHE=str(cache),
                )
                more = f"{took / plain:>5.2f} of gzip" if what != "nothing to do" else ""
                print(f"{f'image {name}, {what}':<46} {took:>7.2f} s {took / bare:>7.0f}x  {more}")
        (archive,) = (checkout / "dist").glob(f"longrun-{name}-*.oci.tar")
        for where, image in (("here", entry(store, images[name])), ("there", archive)):
            print(f"  {where:<6} {open_image(image).digest}")


def seconds(argv: list[str], **environ: str) -> float:
    """Elapsed time of a program that must succeed."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, **environ})
    return time.perf_counter() - start


def starts(store: Store, runtime: Step, archive: Path, runs: int) -> None:
    """Print how long a container takes to its first number, against the same Python outside."""
    prefix = entry(store, next(each for each in closure(runtime) if each.kind == "layer"))
    python = str(prefix / "bin/python3.13")
    programs = {"-c pass": "pass", "import numpy": "import numpy"}
    commands = {f"bare, {name}": ([python, "-B", "-c", p], {}) for name, p in programs.items()}
    with ExitStack() as stack:
        print()
        for start in (engines.podman, engines.docker):
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="longrun-benchmark-"))
            engine = stack.enter_context(start(Path(place)))
            begin = time.perf_counter()
            image = engine.load(archive)
            took = time.perf_counter() - begin
            print(f"{f'{engine.program} load of runtime':<46} {took:>7.2f} s")
            for name, program in programs.items():
                key = f"{engine.program} run, {name}"
                commands[key] = (image.command("-c", program), dict(engine.environ))
        times = in_turn(commands, runs)
    bare = statistics.median(times["bare, import numpy"])
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:<46} {middle * 1e3:>6.0f} ms {middle / bare:>6.2f}x")


def in_turn(
    commands: dict[str, tuple[list[str], dict[str, str]]], runs: int
) -> dict[str, list[float]]:
    """Times of commands, each with variables of its own; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, (argv, environ) in commands.items():
            took = seconds(argv, **environ)
            times[name] += [took] if number else []
    return times


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", action="append", help="all without; may be repeated")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    store = Store(load_config(os.environ).cache / "store")
    names = arguments.image or ["runtime", "ci", "gui"]
    images = {name: image_step(name) for name in names}
    sizes(store, images)
    updates(store, images)
    with tempfile.TemporaryDirectory(prefix="longrun-benchmark-") as place:
        checkout = Path(place) / "checkout"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
        builds(store, images, checkout)
        if os.geteuid() == 0:
            (archive,) = (checkout / "dist").glob("longrun-runtime-*.oci.tar")
            starts(store, images["runtime"], archive, arguments.runs)


if __name__ == "__main__":
    main()
