"""The bill of materials of an image: CycloneDX 1.6 as JSON, the same bytes on every machine.

What is in an image, from which file, under which terms, and who needs whom. All of it comes from
specs and locks, so no layer is opened; a reference is the name of the step, as ``why`` takes it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import (
    Component,
    ComponentScope,
    ComponentType,
    Diff,
    Patch,
    PatchClassification,
    Pedigree,
)
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.issue import IssueClassification, IssueType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from longrun import __version__
from longrun.model import (
    SDIST,
    BaseLock,
    Distribution,
    ImageSpec,
    Interpreter,
    Library,
    Release,
    Source,
    Toolchain,
)
from longrun.plan import canonical_json
from longrun.specs import Specs
from longrun.stack import Stack, load_stack, reach

KIND = "application/vnd.cyclonedx+json"
"""Media type of the document, and the kind of what is attached to an image in a registry."""

CVE = re.compile(r"CVE-\d{4}-\d+")
PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A component, and the references of those that it needs."""

    component: Component
    needs: tuple[str, ...] = ()


def bill_of_materials(
    specs: Specs,
    release: Release,
    image: ImageSpec,
    interpreters: tuple[Interpreter, ...],
    digest: str,
) -> bytes:
    """The document of one image, whose manifest has the given digest."""
    stacks = [(each, load_stack(specs, release, each)) for each in interpreters]
    items = [
        *_base(specs, image),
        *_libraries(specs, interpreters),
        _toolchain(specs.toolchains[release.toolchain]),
    ]
    for interpreter, stack in stacks:
        items += [_interpreter(release, interpreter), *_distributions(image, stack)]
    roots = [f"base/{image.base}", *(f"interpreter/{each.name}" for each in interpreters)]
    for _, stack in stacks:
        members = stack.members(image.layer)
        roots += [_wheel(stack, dist.name) for dist in members if dist.name in stack.packages]
    whole = Item(component=_image(release, image, digest), needs=tuple(roots))
    return _text(release, whole, items)


def _text(release: Release, whole: Item, items: Iterable[Item]) -> bytes:
    """The document; its serial number is made of all that it says, so equal ones are the same."""
    items = tuple(items)
    bom = Bom(
        metadata=BomMetaData(
            component=whole.component,
            timestamp=datetime.datetime.fromisoformat(release.date).replace(tzinfo=datetime.UTC),
            lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.BUILD)],
            tools=ToolRepository(
                components=[
                    Component(type=ComponentType.APPLICATION, name="longrun", version=__version__)
                ]
            ),
        ),
        components=[item.component for item in items],
        dependencies=[
            Dependency(
                ref=item.component.bom_ref,
                dependencies=[Dependency(ref=BomRef(name)) for name in item.needs],
            )
            for item in (whole, *items)
        ],
    )
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["serialNumber"]  # a random one
    content = hashlib.sha256(canonical_json(document)).hexdigest()
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, content).urn
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()


def _image(release: Release, image: ImageSpec, digest: str) -> Component:
    return Component(
        type=ComponentType.CONTAINER,
        bom_ref=f"image/{image.name}",
        name=f"longrun/{image.name}",
        version=release.name,
        description=image.summary,
        purl=PackageURL(
            type="oci",
            name=image.name,
            version=digest,
            qualifiers={"arch": PROCESSORS.get(release.floor.arch, release.floor.arch)},
        ),
        hashes=[_sha256(digest.removeprefix("sha256:"))],
    )


def _base(specs: Specs, image: ImageSpec) -> Iterator[Item]:
    """The system below, and its packages by the base's lock."""
    base, lock = specs.bases[image.base], specs.base_lock(image.base)
    assert lock is not None, "an image is planned upon a locked base only"
    version = _major(lock) or base.suite
    packages = sorted(lock.packages.items())
    yield Item(
        component=Component(
            type=ComponentType.OPERATING_SYSTEM,
            bom_ref=f"base/{base.name}",
            name=base.family,
            version=version,
            description=base.title,
            # of the layer as a tar, before it is compressed
            hashes=[_sha256(lock.digest.removeprefix("sha256:"))],
            properties=_properties(suite=base.suite),
        ),
        needs=tuple(f"deb/{name}" for name, _ in packages),
    )
    for name, found in packages:
        purl = PackageURL(
            type="deb",
            namespace=base.family,
            name=name,
            version=found,
            qualifiers={"distro": f"{base.family}-{version}"},
        )
        yield Item(
            component=Component(
                type=ComponentType.LIBRARY,
                bom_ref=f"deb/{name}",
                name=name,
                version=found,
                purl=purl,
            )
        )


def _major(lock: BaseLock) -> str:
    """The number of the distribution's release, such as 12: scanners know no suites' names."""
    return lock.packages.get("base-files", "").partition(".")[0]


def _distributions(image: ImageSpec, stack: Stack) -> Iterator[Item]:
    """What the image's layer holds for one interpreter, with who asks for whom."""
    members = stack.members(image.layer)
    inside = {dist.name for dist in members}
    requires = stack.requires()
    for dist in members:
        needs = sorted(inside.intersection(requires[dist.name]))
        yield Item(
            component=_distribution(stack, dist),
            needs=tuple(_wheel(stack, name) for name in needs),
        )


def _distribution(stack: Stack, dist: Distribution) -> Component:
    built = dist.tag == SDIST
    kind = (
        ExternalReferenceType.SOURCE_DISTRIBUTION if built else ExternalReferenceType.DISTRIBUTION
    )
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=_wheel(stack, dist.name),
        name=dist.name,
        version=dist.version,
        description=dist.summary or None,
        licenses=_licences(dist.licence),
        purl=PackageURL(type="pypi", name=dist.name, version=dist.version),
        # a sdist is what the wheel was built from, not what is there
        hashes=[] if built else [_sha256(dist.sha256)],
        external_references=[_file(kind, dist.file, dist.sha256)],
        properties=_properties(interpreter=stack.tag, layer=stack.layers_of(dist.name)[0]),
    )


def _wheel(stack: Stack, name: str) -> str:
    return f"wheel/{stack.tag}-{name}"


def _interpreter(release: Release, interpreter: Interpreter) -> Item:
    series = [
        _file(ExternalReferenceType.OTHER, each.source.file, each.source.sha256, each.name)
        for each in interpreter.series
    ]
    patches = [f"{each.name}/{patch}" for each in interpreter.series for patch in each.patches]
    component = Component(
        type=ComponentType.APPLICATION,
        bom_ref=f"interpreter/{interpreter.name}",
        name="cpython",
        version=interpreter.version,
        licenses=_licences(interpreter.licence),
        purl=_generic("cpython", interpreter.version, interpreter.source),
        external_references=[_source(interpreter.source), *series],
        pedigree=_pedigree(patches, interpreter.patches),
        properties=_properties(interpreter=interpreter.tag),
    )
    needs = [f"library/{name}" for name in interpreter.libraries]
    return Item(component=component, needs=(*needs, f"toolchain/{release.toolchain}"))


def _libraries(specs: Specs, interpreters: tuple[Interpreter, ...]) -> Iterator[Item]:
    """The native libraries that are linked into the interpreters, and what those are made of."""
    edges = {name: list(library.inputs) for name, library in specs.libraries.items()}
    roots = [name for each in interpreters for name in each.libraries]
    for name in reach(roots, edges):
        library = specs.libraries[name]
        needs = tuple(f"library/{needed}" for needed in library.inputs)
        yield Item(component=_library(library), needs=needs)


def _library(library: Library) -> Component:
    # what has no archive to link, such as headers, is of the build alone
    linked = any(path.endswith(".a") for path in library.build.expects)
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=f"library/{library.name}",
        name=library.name,
        version=library.version,
        description=library.summary,
        scope=ComponentScope.REQUIRED if linked else ComponentScope.EXCLUDED,
        licenses=_licences(library.licence),
        purl=_generic(library.name, library.version, library.source),
        external_references=[_source(library.source)],
        pedigree=_pedigree((), library.build.patches),
    )


def _toolchain(toolchain: Toolchain) -> Item:
    return Item(
        component=Component(
            type=ComponentType.APPLICATION,
            bom_ref=f"toolchain/{toolchain.name}",
            name=toolchain.name,
            version=toolchain.version,
            description=toolchain.summary,
            scope=ComponentScope.EXCLUDED,
            licenses=_licences(toolchain.licence),
            purl=_generic(toolchain.name, toolchain.version, toolchain.source),
            external_references=[_source(toolchain.source)],
        )
    )


def _pedigree(backports: Iterable[str], own: Iterable[str]) -> Pedigree | None:
    """The patches, and which vulnerabilities those fix that say so in their names."""
    kinds = ((PatchClassification.BACKPORT, backports), (PatchClassification.UNOFFICIAL, own))
    patches = [_patch(name, kind) for kind, names in kinds for name in names]
    return Pedigree(patches=patches) if patches else None


def _patch(name: str, kind: PatchClassification) -> Patch:
    fixes = [IssueType(type=IssueClassification.SECURITY, id=id) for id in CVE.findall(name)]
    return Patch(type=kind, diff=Diff(url=XsUri(name)), resolves=fixes)


def _generic(name: str, version: str, source: Source) -> PackageURL:
    checksum = {"checksum": f"sha256:{source.sha256}"}
    return PackageURL(type="generic", name=name, version=version, qualifiers=checksum)


def _source(source: Source) -> ExternalReference:
    kind = ExternalReferenceType.SOURCE_DISTRIBUTION
    return _file(kind, next(iter(source.urls), source.file), source.sha256)


def _file(
    kind: ExternalReferenceType, url: str, sha256: str, comment: str = ""
) -> ExternalReference:
    return ExternalReference(
        type=kind, url=XsUri(url), comment=comment or None, hashes=[_sha256(sha256)]
    )


def _licences(text: str) -> list[License]:
    """As an SPDX identifier or expression where it is one, else as it stands."""
    declared = LicenseAcknowledgement.DECLARED
    return (
        [LicenseFactory().make_from_string(text, license_acknowledgement=declared)] if text else []
    )


def _sha256(value: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=value)


def _properties(**values: str) -> list[Property]:
    return [Property(name=f"longrun:{name}", value=value) for name, value in values.items()]
