"""What is a layer of an image, and what a change of one package changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stack_maker import distribution, give_package, give_stack

from longrun.cli import main
from longrun.errors import SpecError
from longrun.imageplan import BUCKETS, plan_image
from longrun.model import Built, Part
from longrun.plan import Plan

BASE = """\
name = "small"
title = "Small 1"
suite = "bookworm"
variant = "extract"
packages = ["libc6"]
"""

LOCK = """\
name = "small"
digest = "sha256:{digest}"
[packages]
libc6 = "2.36-9"
"""

IMAGE = """\
name = "{name}"
summary = "an image"
base = "small"
layer = "{layer}"
entrypoint = ["{{python}}"]
{more}
"""


@pytest.fixture
def give(checkout) -> Callable[..., None]:
    """Give the checkout an image upon a locked base."""
    give_stack(checkout.root)
    checkout.write("specs/bases/small.toml", BASE)
    checkout.write("specs/locks/bases/small.lock.toml", LOCK.format(digest="a" * 64))

    def write(name: str, layer: str = "controls", more: str = "") -> None:
        text = IMAGE.format(name=name, layer=layer, more=more)
        checkout.write(f"specs/images/{name}.toml", text)

    return write


@pytest.fixture
def plan(checkout) -> Callable[..., Plan]:
    """The plan of an image with interpreters by their minor versions."""

    def make(name: str, *versions: str) -> Plan:
        specs = checkout.specs()
        release = specs.releases["2026.1"]
        chosen = tuple(specs.interpreters[f"cpython-{each}"] for each in versions or ("3.13",))
        return plan_image(specs, release, specs.images[name], chosen)

    return make


def layers(plan: Plan) -> dict[str, str]:
    """The layers of an image in their order: id to key."""
    (image,) = plan.targets
    return {step.id: step.key for step in image.inputs}


SMALL = ("part/cp313-controls-small-3", "part/cp313-controls-small-6")
"""Of pyparsing and tracker."""


def test_a_big_distribution_is_a_layer_and_small_ones_go_by_where_they_came_in(give, plan):
    give("ci")
    assert list(layers(plan("ci"))) == [
        "base/small",
        "part/cp313-python",
        "part/cp313-numpy",
        "part/cp313-pyepics",
        *SMALL,
        "part/cp313-controls-marker",
        "part/ci-cp313-files",
    ]


def test_images_of_other_layers_share_all_that_they_have_in_common(give, plan):
    give("ci")
    give("gui", "gui")
    one, other = layers(plan("ci")), layers(plan("gui"))
    shared = [name for name in one if other.get(name) == one[name]]
    assert shared == [
        "base/small",
        "part/cp313-python",
        "part/cp313-numpy",
        "part/cp313-pyepics",
        *SMALL,
    ]


def test_a_change_of_one_package_changes_its_layer_and_the_marker(checkout, give, plan):
    give("ci")
    before = layers(plan("ci"))
    checkout.replace("specs/locks/2026.1/cp313.lock.toml", '"3.5.10"', '"3.5.11"')
    after = layers(plan("ci"))
    changed = [name for name in after if before[name] != after[name]]
    assert changed == ["part/cp313-pyepics", "part/cp313-controls-marker"]


def test_a_change_of_a_small_package_changes_those_of_its_bucket(checkout, give, plan):
    give("ci")
    before = layers(plan("ci"))
    checkout.replace("specs/locks/2026.1/cp313.lock.toml", '"3.3.3"', '"3.3.4"')
    after = layers(plan("ci"))
    changed = [name for name in after if before[name] != after[name]]
    assert changed == [SMALL[1], "part/cp313-controls-marker"]


def test_a_small_package_that_comes_moves_no_other(give, plan, checkout):
    give("ci")
    before = layers(plan("ci"))
    for number in range(20):
        give_package(checkout.root, f"extra-{number}", "controls", why="more")
    lock = checkout.root / "specs/locks/2026.1/cp313.lock.toml"
    more = [distribution("cp313", f"extra-{n}", "1.0", size=1000) for n in range(20)]
    lock.write_text(lock.read_text() + "".join(more))
    after = plan("ci")
    holders = {
        wheel: step.id
        for step in after.steps
        if isinstance(step.spec, Part)
        for wheel in step.spec.of
        if wheel.startswith("wheel/")
    }
    assert len(set(holders.values())) == 2 + BUCKETS
    assert (holders["wheel/cp313-tracker"], holders["wheel/cp313-pyparsing"]) == SMALL
    order = list(layers(after))
    assert [name for name in order if name in before] == list(before)


def test_an_image_of_more_layers_than_engines_take(give, plan, monkeypatch):
    give("ci")
    monkeypatch.setattr("longrun.imageplan.LIMIT", 7)
    with pytest.raises(SpecError, match=r"ci\.toml: the image would have 8 layers, and engines"):
        plan("ci")


def test_what_names_the_release_is_in_the_last_layer_of_a_prefix(give, plan):
    give("ci")
    steps = {step.id: step.spec for step in plan("ci").steps}
    names = {
        "share/longrun/prefix.json",
        "lib/python3.13/_longrun_usage.py",
        "lib/python3.13/__pycache__/_longrun_usage.cpython-313.pyc",
    }
    assert set(steps["part/cp313-python"].without) == names
    only = set(steps["part/cp313-controls-marker"].only)
    assert only - names == {
        "share",
        "share/longrun",
        "lib",
        "lib/python3.13",
        "lib/python3.13/__pycache__",
    }
    assert names <= only


def test_a_new_release_changes_nothing_but_interpreter_and_marker(checkout, give, plan):
    give("ci", "base")
    before = layers(plan("ci"))
    checkout.replace("specs/releases/2026.1.toml", 'date = "2026-11-02"', 'date = "2026-12-24"')
    after = layers(plan("ci"))
    # the bare prefix has a marker of its own, with the release in it
    changed = ["part/cp313-python", "part/cp313-base-marker"]
    assert [name for name in after if before[name] != after[name]] == changed


def test_interpreters_stand_side_by_side_where_the_spec_says_so(give, plan):
    give("ci", more="together = true")
    (image,) = plan("ci", "3.13", "3.11").targets
    assert isinstance(image.spec, Built)
    assert image.spec.paths == ("/opt/longrun/cp313/bin", "/opt/longrun/cp311/bin")
    assert image.spec.reference == "longrun/ci:2026.1"
    assert {"part/cp313-python", "part/cp311-python"} <= {step.id for step in image.inputs}
    files = next(step.spec for step in image.inputs if step.id.endswith("-files"))
    assert isinstance(files, Part)
    assert files.links["usr/local/bin/python3.11"] == "/opt/longrun/cp311/bin/python3.11"
    (alone,) = plan("ci", "3.11").targets
    assert isinstance(alone.spec, Built)
    assert alone.spec.reference == "longrun/ci:2026.1-py311"


def test_another_base_changes_the_image_and_no_part_of_the_stack(checkout, give, plan):
    give("ci")
    before = plan("ci")
    checkout.write("specs/locks/bases/small.lock.toml", LOCK.format(digest="b" * 64))
    after = plan("ci")
    assert before.targets[0].key != after.targets[0].key
    one, other = layers(before), layers(after)
    assert [name for name in one if one[name] != other[name]] == ["base/small"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"small"', '"smal"', r"ci.toml: base\[0\]: .*'smal' \(did you mean 'small'\?\)"),
        ('"controls"', '"control"', r"ci.toml: layer\[0\]: .*did you mean 'controls'"),
        ("[files]", "[files]\n'/x' = 'none'", r"ci.toml: files./x: expected a file below images/"),
    ],
)
def test_a_wrong_spec_is_named_with_its_key(checkout, give, plan, old, new, says):
    give("ci", more="[files]")
    checkout.replace("specs/images/ci.toml", old, new)
    with pytest.raises(SpecError, match=says):
        plan("ci")


def test_a_base_without_a_lock_is_told_with_the_way_to_have_one(checkout, give, plan):
    give("ci")
    (checkout.root / "specs/locks/bases/small.lock.toml").unlink()
    with pytest.raises(SpecError, match="'small' has no lock yet") as caught:
        plan("ci")
    assert caught.value.remedy == "./build.py base small"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["image", "cii"], "no image 'cii' (did you mean 'ci'?)"),
        (["image", "ci", "--base", "smal"], "no base 'smal' (did you mean 'small'?)"),
        (["base", "smal"], "no base 'smal' (did you mean 'small'?)"),
    ],
)
def test_what_there_is_not_is_said_with_what_there_is(
    checkout, give, argv, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LONGRUN_CONFIG", raising=False)
    give("ci")
    assert main(checkout.root, argv) == 2
    assert says in capsys.readouterr().err
