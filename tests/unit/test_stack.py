"""Lock and specs held against each other, and what each layer holds."""

from __future__ import annotations

import pytest
from stack_maker import PYTHONS, distribution, give_lock, give_package, give_stack

from longrun.errors import SpecError, UsageError
from longrun.plan import choose_release
from longrun.stack import Stack, choose_layers, load_stack


@pytest.fixture
def root(checkout):
    give_stack(checkout.root)
    return checkout.root


@pytest.fixture
def load(root, checkout):
    """The stack of an interpreter, or the error that there is."""

    def load(tag: str = "cp313") -> Stack:
        specs = checkout.specs()
        interpreter = next(i for i in specs.interpreters.values() if i.tag == tag)
        return load_stack(specs, choose_release(specs, None), interpreter)

    return load


def refused(load, tag: str = "cp313") -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(tag)
    return caught.value


def test_a_layer_holds_what_it_includes_and_all_that_comes_along(load):
    stack = load()
    names = {layer: {dist.name for dist in stack.members(layer)} for layer in stack.release.layers}
    assert names["base"] == {"numpy"}
    assert names["controls"] == {"numpy", "pyepics", "pyparsing", "tracker"}
    assert names["gui"] == names["controls"] | {"panel-kit"}
    assert stack.layers_of("numpy") == ("base", "controls", "gui")
    assert stack.layers_of("panel-kit") == ("gui",)
    assert stack.layers_of("setuptools") == ()
    assert {dist.name for dist in load("cp311").members("gui")} == names["controls"]


def test_a_build_needs_what_its_spec_names_and_all_below(load):
    stack = load()
    names = [dist.name for dist in stack.build_closure(stack.packages["tracker"])]
    assert names == ["setuptools", "wheel"]
    assert stack.build_closure(stack.packages["numpy"]) == ()


def test_without_a_lock(load, root):
    (root / "specs/locks/2026.1/cp313.lock.toml").unlink()
    error = refused(load)
    assert "specs/locks/2026.1/cp313.lock.toml: there is no such lock yet" in error.message
    assert error.remedy == "./build.py lock"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('release = "2026.1"', 'release = "2025.1"', "release: resolved for '2025.1'"),
        ('interpreter = "cp313"', 'interpreter = "cp312"', "interpreter: resolved for 'cp312'"),
        ('python = "3.13.5"', 'python = "3.13.4"', "python: resolved for '3.13.4'"),
        (
            'platform = "manylinux_2_28_x86_64"',
            'platform = "manylinux_2_34_x86_64"',
            "platform: resolved for 'manylinux_2_34_x86_64', and the specs say 'manylinux_2_28_",
        ),
        ('pyepics = ">=1.23"', 'pyepics = ">=3"', "numpy 2.5.1 does not fit: pyepics asks for num"),
        ('"numpy-2.5.1-cp313', '"sub/numpy-2.5.1-cp313', "file: expected a file name"),
        (
            '"pyparsing-3.3.3-py3-none-any.whl"',
            '"pyparsing-3.3.3-cp312-cp312-manylinux_2_28_x86_64.whl"',
            "is for cp312-cp312-manylinux_2_28_x86_64, not for cp313 on manylinux_2_28_x86_64",
        ),
    ],
)
def test_a_lock_edited_by_hand(load, checkout, old, new, words):
    path = "specs/locks/2026.1/cp313.lock.toml"
    checkout.replace(path, old, new)
    error = refused(load)
    assert path in error.message
    assert words in error.message
    load("cp311")


def test_a_sha256_that_is_none(load, checkout):
    path = checkout.root / "specs/locks/2026.1/cp313.lock.toml"
    text = path.read_text()
    start = text.index('sha256 = "') + len('sha256 = "')
    path.write_text(text[:start] + "0" * 12 + text[start + 64 :])
    assert "numpy 2.5.1: sha256: expected 64 hexadecimal digits" in refused(load).message


def test_a_wheel_above_the_floor_names_who_wants_it(load, checkout):
    path = "specs/locks/2026.1/cp313.lock.toml"
    checkout.replace(
        path, "numpy-2.5.1-cp313-cp313-manylinux_2_28", "numpy-2.5.1-cp313-cp313-manylinux_2_34"
    )
    message = refused(load).message
    assert "is for cp313-cp313-manylinux_2_34_x86_64, not for cp313 on manylinux_2_28" in message
    assert "specs/packages/numpy.toml wants it" in message


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('constraint = ">=3"', "specs/packages/numpy.toml: asks for numpy>=3, and specs/locks"),
        ('extras = ["fast"]', "specs/packages/numpy.toml: extras: fast not in specs/locks"),
    ],
)
def test_a_spec_edited_by_hand(load, root, extra, words):
    give_package(root, "numpy", "base", why="arrays", extra=extra)
    error = refused(load)
    assert words in error.message
    assert error.remedy == "./build.py lock"


def test_a_constraint_of_the_other_interpreter_does_not_count(load, root):
    extra = 'constraint = ">=3"\n[constraints]\ncp313 = ">=2.5"'
    give_package(root, "numpy", "base", why="arrays", extra=extra)
    load("cp313")
    assert "asks for numpy>=3" in refused(load, "cp311").message


def test_a_package_that_is_not_locked(load, root):
    give_package(root, "new", "base", why="new")
    error = refused(load)
    assert "specs/packages/new.toml: new is not in specs/locks/2026.1/cp313" in error.message
    assert error.remedy == "./build.py lock"


def test_a_layer_that_there_is_not(load, root):
    give_package(root, "numpy", "bass", why="arrays")
    assert "layer: expected one of base, controls, gui, found 'bass' (did you mean 'base'?)" in (
        refused(load).message
    )


def test_what_nobody_accepted(load, root):
    give_package(root, "pyepics", "controls", why="Channel Access")
    error = refused(load)
    assert (
        "pyparsing 3.3.3 is no package of specs/packages, and no spec accepts it" in error.message
    )
    assert "asked for by pyepics" in error.message
    assert "--accept" in error.remedy


def test_what_nobody_accepted_for_builds(load, root):
    extra = '[build]\nrequires = ["setuptools>=61"]'
    give_package(root, "tracker", "controls", why="orbits", extra=extra)
    message = refused(load).message
    assert "wheel 0.45 is no package of specs/packages" in message
    assert "asked for by setuptools" in message


def test_what_nothing_asks_for(load, root):
    give_package(root, "pyepics", "controls", why="CA", extra='brings = ["pyparsing", "stray"]')
    give_lock(root, "cp313", distribution("cp313", "stray", "1.0", size=1))
    assert "nothing asks for stray 1.0" in refused(load).message


def test_an_sdist_without_a_way_to_build_it(load, root):
    extra = 'brings = ["wheel", "setuptools"]'
    give_package(root, "tracker", "controls", why="orbits", extra=extra)
    error = refused(load)
    assert "tracker 1.0 has no wheel, only tracker-1.0.tar.gz, and no spec says" in error.message
    assert "[build]" in error.remedy


def test_a_build_that_needs_what_is_not_locked(load, root):
    extra = 'brings = ["wheel", "setuptools"]\n[build]\nrequires = ["hatchling"]'
    give_package(root, "tracker", "controls", why="orbits", extra=extra)
    stack = load()
    with pytest.raises(SpecError, match=r"tracker.toml: build.requires: hatchling is not in"):
        stack.build_closure(stack.packages["tracker"])


def test_layers_by_name(load):
    release = load().release
    assert choose_layers(release, ["gui", "base", "gui"]) == ("gui", "base")
    assert choose_layers(release, ["all"]) == ("base", "controls", "gui")
    with pytest.raises(UsageError, match="no layer 'guy'"):
        choose_layers(release, ["guy"])


def test_the_makers_of_this_file_know_both_interpreters(load):
    assert set(PYTHONS) == {load(tag).tag for tag in PYTHONS}
