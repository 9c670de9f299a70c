"""``image`` and ``base``: container images with the prefixes' very bytes, and what is below."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from longrun import fs
from longrun.containerfile import BUILT_HERE, family_of, render
from longrun.errors import LongrunError, SetupError, UsageError
from longrun.imageplan import plan_base, plan_image
from longrun.model import Base, BaseLock, Built, ImageSpec, Interpreter, Release
from longrun.oci.image import write_archive, writing
from longrun.oci.model import Packed
from longrun.oci.read import open_image
from longrun.oci.reference import Reference, parse_reference
from longrun.plan import Plan, Step, choose_release, closure
from longrun.specs import Specs, near
from longrun.steps.blob import read
from longrun.store import Entry
from longrun.term import duration, paint, size
from longrun.verbs.build import add_sums, check_dist, failure, read_sums, realise
from longrun.verbs.context import Context


@dataclass(frozen=True, kw_only=True)
class Files:
    """What ``dist/`` has of an image beside its archive.

    ``signed`` are the payload and its signature; () where it is not signed.
    """

    bill: Path
    signed: tuple[Path, ...] = ()


def image(root: Path, arguments: argparse.Namespace) -> int:
    """Build images into ``dist/``, sign them and push them where that is asked for."""
    context = Context(root)
    release = choose_release(context.specs, arguments.release)
    plans = [
        (plan_image(context.specs, release, each, group), group)
        for each in choose_images(context.specs, arguments.name, arguments.base)
        for group in groups(context, release, each, arguments)
    ]
    steps = {step.id: step for plan, _ in plans for step in plan.steps}
    targets = tuple(step for plan, _ in plans for step in plan.targets)
    key = check_first(context, targets, arguments)
    start = time.monotonic()
    plan = Plan(release=release, steps=tuple(steps.values()), targets=targets)
    outcome = realise(context, plan, targets, arguments)
    if outcome.failed:
        return failure(outcome)
    what = f"{outcome.built} steps built" if outcome.built else "nothing to build, all is cached"
    took = duration(time.monotonic() - start)
    print(f"\n{paint('bold', f'Longrun {release.name}')}: {what} in {took}")
    for step, (_, group) in zip(targets, plans, strict=True):
        files = publish(context, release, step, group, key)
        if arguments.push:
            push_image(context, step, files, arguments.push, overwrite=arguments.overwrite)
    return 0


def check_first(
    context: Context, targets: tuple[Step, ...], arguments: argparse.Namespace
) -> Path | None:
    """Find what would fail after hours of building: place, key, registry. The key to sign with."""
    check_dist(context.root)
    key: Path | None = arguments.sign or context.config.signing_key
    if key:
        from longrun.sign import check_key

        check_key(key, install=arguments.setup)
    if arguments.push:
        references = [reference_of(step, arguments.push) for step in targets]
        from longrun.oci.registry import check_push

        for reference in references:
            check_push(reference)
    return key


def reference_of(step: Step, place: str) -> Reference:
    """What an image is called below a registry; UsageError where that is no name."""
    spec = step.spec
    assert isinstance(spec, Built)
    try:
        return parse_reference(f"{place.rstrip('/')}/{spec.reference}")
    except UsageError:
        raise UsageError(
            f"--push {place}: no registry, nor a place in one",
            remedy="write it as registry.example.org, or registry.example.org:5000/group",
        ) from None


def choose_images(specs: Specs, names: list[str], base: str | None) -> tuple[ImageSpec, ...]:
    """The named images, or all; upon another base where one is named."""
    for name in names:
        if name not in specs.images:
            known = list(specs.images)
            raise UsageError(
                f"no image {name!r}{near(name, known)}", remedy=f"images: {', '.join(known)}"
            )
    chosen = tuple(specs.images[name] for name in names or specs.images)
    if base is None:
        return chosen
    choose_base(specs, base)
    return tuple(replace(each, base=base) for each in chosen)


def groups(
    context: Context, release: Release, spec: ImageSpec, arguments: argparse.Namespace
) -> list[tuple[Interpreter, ...]]:
    """The interpreters of each image to make: all in one where the spec says so, else one each."""
    interpreters = context.interpreters(release, arguments, every=spec.together)
    return [interpreters] if spec.together else [(each,) for each in interpreters]


def publish(
    context: Context,
    release: Release,
    step: Step,
    interpreters: tuple[Interpreter, ...],
    key: Path | None = None,
) -> Files:
    """Put an image into ``dist/`` as one tar, unless it is there already, and what belongs to it.

    That is what it is made of and, where there is a ``key``, the signature.
    """
    from longrun.sbom import bill_of_materials  # 150 ms that a base does not need

    spec, packed = step.spec, layout_of(context, step)
    assert isinstance(spec, Built)
    name = spec.reference.replace("longrun/", "longrun-").replace(":", "-")
    dist = context.root / "dist"
    with writing(dist):
        dist.mkdir(exist_ok=True)
    path = dist / f"{name}.oci.tar"
    put_archive(packed, path, spec.reference)
    bill = dist / f"{name}.cdx.json"
    content = bill_of_materials(context.specs, release, spec.image, interpreters, packed.digest)
    put(bill, content)
    total = sum(layer.size for layer in packed.layers)
    print(f"\n  {paint('green', '✔')} {spec.reference}  {os.path.relpath(path)}")
    print(f"    {packed.digest}")
    print(f"    {len(packed.layers)} layers, {size(total)} compressed")
    print(f"    made of: {os.path.relpath(bill)}")
    if key is None:
        return Files(bill=bill)
    return Files(bill=bill, signed=sign_image(release, spec, packed.digest, bill, key))


def put_archive(packed: Packed, path: Path, reference: str) -> None:
    """Write an image's archive unless it is there; its sum is noted once all of it is."""
    listed = path.name in read_sums(path.parent)
    if listed and _is_there(path, packed):
        return
    with writing(path):
        path.unlink(missing_ok=True)  # what is wrong takes no room, and has no sum
    if listed:
        add_sums(path.parent, {})
    write_archive(packed, path, (reference,))
    add_sums(path.parent, {path.name: fs.sha256_file(path)})


def put(path: Path, content: bytes) -> None:
    """Write a small file into ``dist/`` and note its sum."""
    with writing(path):
        fs.write_atomic(path, content)
    add_sums(path.parent, {path.name: fs.sha256_file(path)})


def sign_image(
    release: Release, spec: Built, digest: str, bill: Path, key: Path
) -> tuple[Path, Path]:
    """Sign an image and its bill of materials; the payload and the signature, beside the bill."""
    from longrun.sbom import KIND
    from longrun.sign import Payload, attachment, check_key, encode, sign

    payload, signature = signed_files(bill)
    content = encode(
        Payload(
            name=spec.reference,
            digest=digest,
            release=release.name,
            created=f"{spec.created}T00:00:00Z",
            attachments=(attachment(KIND, bill.name, bill.read_bytes()),),
        )
    )
    made = sign(content, key, signature.read_bytes() if signature.is_file() else b"")
    put(payload, content)
    put(signature, made)
    print(f"    signed: {os.path.relpath(signature)}, with the key {check_key(key)}")
    return payload, signature


def signed_files(path: Path) -> tuple[Path, Path]:
    """Where payload and signature are, by another file of the same image in the same place."""
    name = path.name.removesuffix(".tar").removesuffix(".oci").removesuffix(".cdx.json")
    return path.with_name(f"{name}.payload.json"), path.with_name(f"{name}.sig")


def layout_of(context: Context, step: Step) -> Packed:
    """The image of an entry."""
    entry = context.store.get(step.key)
    assert entry is not None, f"{step.id} was just made"
    return open_image(entry.tree)


def _is_there(path: Path, packed: Packed) -> bool:
    if not path.is_file():
        return False
    try:
        return open_image(path).digest == packed.digest
    except LongrunError:  # whatever it is, it is written anew
        return False


def push_image(context: Context, step: Step, files: Files, place: str, *, overwrite: bool) -> None:
    """Push an image under its own name below a registry, and attach what belongs to it.

    The digest stays what it is here.
    """
    # HTTP: nothing that an image alone needs
    from longrun.oci import attach
    from longrun.oci.registry import push
    from longrun.sbom import KIND as BILL
    from longrun.sign import KIND, PAYLOAD, SSHSIG

    spec, reference = step.spec, reference_of(step, place)
    assert isinstance(spec, Built)
    pushed = push(layout_of(context, step), reference, overwrite=overwrite)
    there = f", {size(pushed.present + pushed.mounted)} were there" if pushed.present else ""
    print(f"    pushed to {reference}: {size(pushed.sent)} sent{there}")
    created = {"org.opencontainers.image.created": f"{spec.created}T00:00:00Z"}
    for kind, parts in (
        (BILL, {files.bill: BILL}),
        (KIND, dict(zip(files.signed, (PAYLOAD, SSHSIG), strict=False))),
    ):
        attached = tuple(
            attach.File(name=path.name, media_type=media_type, content=path.read_bytes())
            for path, media_type in parts.items()
        )
        if attached:
            at = reference.at(pushed.digest)
            made = attach.attach(at, kind, attached, annotations=created)
            print(f"    attached {attached[-1].name}: {made.digest}")


def base(root: Path, arguments: argparse.Namespace) -> int:
    """Make a base anew and write its lock, or print its Containerfile; show what changed."""
    context = Context(root)
    spec = choose_base(context.specs, arguments.name)
    if family_of(spec) != BUILT_HERE:
        return containerfile(context, spec, arguments)
    if arguments.render or arguments.origin:
        raise UsageError(
            f"base {spec.name}: is made of packages, not from a Containerfile",
            remedy=f"./build.py base {spec.name}",
        )
    release = choose_release(context.specs, None)
    old = context.specs.base_lock(spec.name)
    step = plan_base(context.specs, release, spec, None)
    with context.store.used(alone=True):
        if entry := context.store.get(step.key):
            context.store.remove(entry)
    made = realise_one(context, release, step, arguments)
    if made is None:
        return 5
    packages = json.loads((made.tree / "packages.json").read_text())
    lock = BaseLock(name=spec.name, digest=read(made.tree).diff_id, packages=packages)
    # once more, by its lock: what comes out must be the same
    again = plan_base(context.specs, release, spec, lock)
    if realise_one(context, release, again, arguments) is None:
        return 5
    path = context.specs.base_lock_path(spec.name)
    fs.write_atomic(path, lock_text(lock))
    show_changes(old, lock)
    print(f"{paint('green', '✔')} {os.path.relpath(path)}  {lock.digest}  {len(packages)} packages")
    return 0


def containerfile(context: Context, spec: Base, arguments: argparse.Namespace) -> int:
    """Print the Containerfile of a base that is not made here; SetupError without --render."""
    if not arguments.render:
        raise SetupError(
            f"base {spec.name}: nothing was built: that takes a container engine, and a registry "
            f"with the image that it begins from; only {BUILT_HERE} bases are made here",
            remedy=f"./build.py base {spec.name} --render --from IMAGE@sha256:... > Containerfile, "
            "then `podman build .` or `docker build .` where there are both",
        )
    print(render(context.root, spec, arguments.origin), end="")
    return 0


def choose_base(specs: Specs, name: str) -> Base:
    """The named base."""
    if name not in specs.bases:
        known = list(specs.bases)
        raise UsageError(
            f"no base {name!r}{near(name, known)}", remedy=f"bases: {', '.join(known)}"
        )
    return specs.bases[name]


def realise_one(
    context: Context, release: Release, step: Step, arguments: argparse.Namespace
) -> Entry | None:
    """Build one step and what it needs."""
    plan = Plan(release=release, steps=tuple(closure(step)), targets=(step,))
    outcome = realise(context, plan, (step,), arguments)
    if outcome.failed:
        failure(outcome)
        return None
    return context.store.get(step.key)


def lock_text(lock: BaseLock) -> str:
    """A lock as TOML."""
    rows = "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in sorted(lock.packages.items()))
    head = "# Written by ./build.py base; do not edit.\n"
    return f'{head}name = "{lock.name}"\ndigest = "{lock.digest}"\n\n[packages]\n{rows}'


def show_changes(old: BaseLock | None, new: BaseLock) -> None:
    """Say which packages a new lock adds, removes and changes."""
    before = old.packages if old else {}
    for name in sorted({*before, *new.packages}):
        one, other = before.get(name), new.packages.get(name)
        if old and one != other:
            print(f"  {name} {one or 'absent'} -> {other or 'absent'}")
