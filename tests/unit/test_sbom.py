"""What an image is made of, as CycloneDX: all of it, valid, and the same bytes every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oci_maker
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from oci_registry import running
from stack_maker import give_stack

from longrun import fs
from longrun.imageplan import plan_image
from longrun.oci import attach
from longrun.oci.reference import parse_reference
from longrun.sbom import KIND, bill_of_materials
from longrun.specs import load_specs
from longrun.verbs import image as verb
from longrun.verbs.context import Context

ROOT = Path(__file__).resolve().parents[2]
DIGEST = f"sha256:{'5' * 64}"

BASE = """\
name = "small"
title = "Small 1"
suite = "bookworm"
variant = "extract"
packages = ["libc6"]
"""

LOCK = f"""\
name = "small"
digest = "sha256:{"a" * 64}"
[packages]
base-files = "12.4+deb12u15"
zlib1g = "1:1.2.13.dfsg-1"
"""

IMAGE = """\
name = "ci"
summary = "an image"
base = "small"
layer = "controls"
entrypoint = ["{python}"]
"""

SERIES = """
[[series]]
name = "backports"
directory = "patches"
patches = ["CVE-2025-6069.patch", "dict-crash.patch"]
[series.source]
file = "backports.tar.xz"
sha256 = "9999999999999999999999999999999999999999999999999999999999999999"
size = 1
pool = ["pool/main/p/backports.tar.xz"]
"""


@pytest.fixture
def made(checkout) -> Callable[..., dict[str, Any]]:
    """The document of an image of the small stack, with interpreters by their minor versions."""
    give_stack(checkout.root)
    checkout.write("specs/bases/small.toml", BASE)
    checkout.write("specs/locks/bases/small.lock.toml", LOCK)
    checkout.write("specs/images/ci.toml", IMAGE)

    def make(*versions: str, digest: str = DIGEST) -> dict[str, Any]:
        specs = checkout.specs()
        chosen = tuple(specs.interpreters[f"cpython-{each}"] for each in versions or ("3.13",))
        release, image = specs.releases["2026.1"], specs.images["ci"]
        return json.loads(bill_of_materials(specs, release, image, chosen, digest))

    return make


def parts(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The components by their references."""
    return {part["bom-ref"]: part for part in document["components"]}


def needs(document: dict[str, Any], name: str) -> list[str]:
    (found,) = [each for each in document["dependencies"] if each["ref"] == name]
    return found.get("dependsOn", [])


def properties(part: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in part.get("properties", [])}


@pytest.mark.parametrize("name", ["ci", "gui", "runtime"])
def test_of_every_image_it_is_valid_and_nothing_refers_to_what_is_not_there(name):
    specs = load_specs(ROOT)
    release = specs.releases["2026.1"]
    chosen = tuple(specs.interpreters[each] for each in release.interpreters)
    text = bill_of_materials(specs, release, specs.images[name], chosen, DIGEST).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    known = {*parts(document), f"image/{name}"}
    assert len(known) == len(document["components"]) + 1
    assert {each["ref"] for each in document["dependencies"]} == known
    assert {ref for each in known for ref in needs(document, each)} <= known
    reached, waiting = set(), [f"image/{name}"]
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += needs(document, each)
    assert reached == known


def test_it_says_which_image_of_which_date(made):
    meta = made()["metadata"]
    assert meta["timestamp"].startswith("2026-11-02T00:00:00")
    assert meta["component"]["type"] == "container"
    assert (meta["component"]["name"], meta["component"]["version"]) == ("longrun/ci", "2026.1")
    assert meta["component"]["hashes"] == [{"alg": "SHA-256", "content": "5" * 64}]
    assert meta["component"]["purl"] == f"pkg:oci/ci@{DIGEST}?arch=amd64"


def test_another_process_writes_the_same_bytes():
    code = """
import sys, hashlib; sys.path.insert(0, sys.argv[1] + "/src")
from pathlib import Path
from longrun.sbom import bill_of_materials
from longrun.specs import load_specs
specs = load_specs(Path(sys.argv[1])); release = specs.releases["2026.1"]
chosen = tuple(specs.interpreters[each] for each in release.interpreters)
text = bill_of_materials(specs, release, specs.images["ci"], chosen, "sha256:" + "5" * 64)
print(hashlib.sha256(text).hexdigest())
"""
    told = {
        subprocess.run(
            [sys.executable, "-c", code, ROOT],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(told) == 1


def test_the_serial_number_is_that_of_the_content(checkout, made):
    before = made()
    assert before["serialNumber"].startswith("urn:uuid:")
    assert made()["serialNumber"] == before["serialNumber"]
    assert made(digest=f"sha256:{'6' * 64}")["serialNumber"] != before["serialNumber"]
    checkout.replace("specs/locks/2026.1/cp313.lock.toml", "EPICS Open License", "EPICS")
    assert made()["serialNumber"] != before["serialNumber"]


def test_distributions_are_those_of_the_layer_each_with_its_file(made):
    found = parts(made())
    wheels = {name for name in found if name.startswith("wheel/")}
    # neither what only builds, nor the panels of the layer above
    names = ("numpy", "pyepics", "pyparsing", "tracker")
    assert wheels == {f"wheel/cp313-{name}" for name in names}
    numpy = found["wheel/cp313-numpy"]
    assert (numpy["version"], numpy["purl"]) == ("2.5.1", "pkg:pypi/numpy@2.5.1")
    (file,) = numpy["externalReferences"]
    assert file["type"] == "distribution"
    assert file["url"] == "numpy-2.5.1-cp313-cp313-manylinux_2_28_x86_64.whl"
    assert numpy["hashes"] == file["hashes"]
    assert properties(numpy) == {"longrun:interpreter": "cp313", "longrun:layer": "base"}


def test_a_licence_is_told_as_the_lock_has_it(made):
    found = parts(made())
    free = {"acknowledgement": "declared", "name": "EPICS Open License"}
    assert found["wheel/cp313-numpy"]["licenses"][0]["license"]["id"] == "MIT"
    assert found["wheel/cp313-pyepics"]["licenses"] == [{"license": free}]


def test_what_is_built_from_an_sdist_has_that_as_its_source_and_no_hash(made):
    tracker = parts(made())["wheel/cp313-tracker"]
    assert "hashes" not in tracker
    (file,) = tracker["externalReferences"]
    assert (file["type"], file["url"]) == ("source-distribution", "tracker-1.0.tar.gz")


def test_it_tells_who_needs_whom(made):
    document = made()
    assert needs(document, "wheel/cp313-pyepics") == ["wheel/cp313-numpy", "wheel/cp313-pyparsing"]
    assert needs(document, "interpreter/cpython-3.13") == ["library/ssl", "toolchain/cc"]
    assert needs(document, "library/ssl") == ["library/z"]
    assert needs(document, "base/small") == ["deb/base-files", "deb/zlib1g"]
    # pyparsing is there for pyepics alone
    assert needs(document, "image/ci") == [
        "base/small",
        "interpreter/cpython-3.13",
        "wheel/cp313-numpy",
        "wheel/cp313-pyepics",
        "wheel/cp313-tracker",
    ]


def test_interpreters_side_by_side_have_their_own_distributions_and_share_libraries(made):
    found = parts(made("3.13", "3.11"))
    assert found["wheel/cp313-numpy"]["version"] == "2.5.1"
    assert found["wheel/cp311-numpy"]["version"] == "2.4.0"
    assert {"interpreter/cpython-3.13", "interpreter/cpython-3.11", "library/ssl"} <= set(found)


def test_patches_are_named_with_the_vulnerabilities_that_they_fix(checkout, made):
    path = checkout.root / "specs/interpreters/cpython-3.13.toml"
    path.write_text(path.read_text() + SERIES)
    found = parts(made())
    assert found["interpreter/cpython-3.13"]["pedigree"]["patches"] == [
        {
            "type": "backport",
            "diff": {"url": "backports/CVE-2025-6069.patch"},
            "resolves": [{"type": "security", "id": "CVE-2025-6069"}],
        },
        {"type": "backport", "diff": {"url": "backports/dict-crash.patch"}},
    ]
    assert found["library/ssl"]["pedigree"]["patches"] == [
        {"type": "unofficial", "diff": {"url": "libraries/ssl/0001-fix.patch"}}
    ]
    hashes = [each["hashes"][0]["content"] for each in sources(found["interpreter/cpython-3.13"])]
    assert hashes == ["9" * 64, "d" * 64]


def sources(part: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(part["externalReferences"], key=lambda each: each["type"])


def test_an_interpreter_and_its_libraries_have_the_sha256_of_their_sources(made):
    found = parts(made())
    assert found["interpreter/cpython-3.13"]["purl"] == (
        f"pkg:generic/cpython@3.13.5?checksum=sha256:{'d' * 64}"
    )
    (source,) = found["library/z"]["externalReferences"]
    assert source["url"] == "https://example.org/z-1.0.tar.gz"
    assert source["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]


def test_what_is_only_compiled_against_is_not_said_to_be_in_the_image(checkout, made):
    checkout.replace("specs/libraries/z.toml", "lib/libz.a", "include/z.h")
    found = parts(made())
    assert found["library/z"]["scope"] == "excluded"
    assert found["toolchain/cc"]["scope"] == "excluded"
    assert found["library/ssl"]["scope"] == "required"


def test_packages_of_the_base_are_named_as_scanners_know_them(made):
    found = parts(made())
    system = found["base/small"]
    assert (system["type"], system["name"], system["version"]) == (
        "operating-system",
        "debian",
        "12",
    )
    assert found["deb/base-files"]["purl"] == (
        "pkg:deb/debian/base-files@12.4%2Bdeb12u15?distro=debian-12"
    )
    assert found["deb/zlib1g"]["version"] == "1:1.2.13.dfsg-1"


@pytest.fixture
def published(checkout, made, tmp_path, monkeypatch):
    """An image in ``dist/``: what publishes it, its step, and the image itself."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    packed = oci_maker.make_image(tmp_path / "blobs")
    monkeypatch.setattr(verb, "layout_of", lambda context, step: packed)
    context = Context(checkout.root)
    release = context.specs.releases["2026.1"]
    chosen = (context.specs.interpreters["cpython-3.13"],)
    (step,) = plan_image(context.specs, release, context.specs.images["ci"], chosen).targets
    return context, step, packed, lambda: verb.publish(context, release, step, chosen)


def test_it_is_beside_the_archive_and_in_its_sums(published):
    context, _, packed, publish = published
    bill = publish().bill
    assert bill == context.root / "dist/longrun-ci-2026.1-py313.cdx.json"
    document = json.loads(bill.read_bytes())
    assert document["metadata"]["component"]["purl"].startswith(f"pkg:oci/ci@{packed.digest}")
    sums = (context.root / "dist/SHA256SUMS").read_text()
    assert f"{fs.sha256_file(bill)}  {bill.name}\n" in sums
    assert "longrun-ci-2026.1-py313.oci.tar\n" in sums
    before = bill.read_bytes()
    assert publish().bill.read_bytes() == before


def test_a_push_attaches_it_to_what_was_pushed(published, capsys):
    context, step, _, publish = published
    files = publish()
    with running() as registry:
        verb.push_image(context, step, files, registry.host, overwrite=False)
        verb.push_image(context, step, files, registry.host, overwrite=False)
        reference = parse_reference(f"{registry.host}/{step.spec.reference}")
        (artifact,) = attach.attached(reference, KIND)
        (file,) = attach.fetch(reference, artifact)
    assert (file.name, file.media_type) == (files.bill.name, "application/vnd.cyclonedx+json")
    assert file.content == files.bill.read_bytes()
    assert artifact.digest in capsys.readouterr().out
