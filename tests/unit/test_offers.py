"""Which file of a project is taken for an interpreter and a floor, and why others are not."""

from __future__ import annotations

import pytest

from longrun.index.simple import File
from longrun.lock.closure import Target
from longrun.lock.offers import newest, offers, what_there_is
from longrun.model import Floor

TARGET = Target(tag="cp311", python="3.11.5", floor=Floor(arch="x86_64", glibc="2.28"))


def file(name: str, *, python: str = "", yanked: str | None = None) -> File:
    stem = name.removesuffix(".tar.gz")
    version = stem.split("-")[1]
    return File(name=name, url="", version=version, requires_python=python, yanked=yanked)


def taken(*names: str, build: bool = False) -> str | None:
    (offer,) = offers([file(name) for name in names], TARGET)
    choice = offer.choice(build=build)
    return choice and choice.file.name


def test_the_most_special_wheel_is_taken():
    native = "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert (
        taken("a-1-py3-none-any.whl", "a-1-cp39-abi3-manylinux_2_28_x86_64.whl", native) == native
    )
    newer = "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert taken(native, newer) == newer
    assert taken("a-1-py3-none-any.whl", "a-1.tar.gz", build=True) == "a-1-py3-none-any.whl"


def test_of_equal_wheels_the_later_build_is_taken():
    assert taken("a-1-2-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-py3-none-any.whl") == (
        "a-1-10-py3-none-any.whl"
    )


def test_what_does_not_fit_is_not_taken():
    for name in (
        "a-1-cp311-cp311-manylinux_2_34_x86_64.whl",
        "a-1-cp311-cp311-linux_x86_64.whl",
        "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        "a-1-cp312-abi3-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-win_amd64.whl",
    ):
        assert taken(name) is None
    assert taken("a-1.tar.gz") is None
    assert taken("a-1.tar.gz", build=True) == "a-1.tar.gz"


def test_a_file_that_stands_is_taken_before_a_yanked_one():
    best = "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"
    (offer,) = offers([file(best, yanked="bad"), file("a-1-py3-none-any.whl")], TARGET)
    choice = offer.choice(build=False)
    assert choice is not None
    assert choice.file.name == "a-1-py3-none-any.whl"
    assert offer.yanked is None


@pytest.mark.parametrize(
    ("versions", "constraint", "found"),
    [
        (["1.0", "2.0", "2.1rc1"], "", "2.0"),
        (["1.0", "2.0", "2.1rc1"], "<2", "1.0"),
        (["1.0", "2.1rc1"], ">=2.1rc1", "2.1rc1"),
        (["1.0a1", "1.0a2"], "", "1.0a2"),
        (["1.0", "1.5"], ">=2", None),
        (["1.9", "1.10"], "==1.*", "1.10"),
    ],
)
def test_the_newest_within_a_constraint(versions, constraint, found):
    rows = offers([file(f"a-{version}-py3-none-any.whl") for version in versions], TARGET)
    best = newest(rows, constraint, build=False)
    assert (best and str(best.version)) == found


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([file("a-2-py3-none-any.whl", yanked="")], "is yanked (no reason given)"),
        ([file("a-2-py3-none-any.whl", python=">=3.12")], "needs Python >=3.12"),
        (
            [file("a-2-cp39-abi3-manylinux_2_34_x86_64.whl"), file("a-2.tar.gz")],
            "has a wheel only for manylinux_2_34_x86_64, above the floor",
        ),
        (
            [file(f"a-2-cp3{n}-cp3{n}-manylinux_2_28_x86_64.whl") for n in (9, 12, 13)],
            "has wheels only for cp39, cp312, cp313",
        ),
        ([file("a-2.tar.gz")], "has no wheel, only an sdist"),
        ([file("a-2-cp311-cp311-win_amd64.whl")], "has no wheel for manylinux_2_28_x86_64"),
    ],
)
def test_why_a_version_cannot_be_had(files, said):
    rows = offers([*files, file("a-1-py3-none-any.whl")], TARGET)
    assert rows[0].lacks() == said
    assert what_there_is(rows, build=False) == f"newest that fits: 1; 2 {said}"
    assert what_there_is(rows[:1], build=False) == f"no version fits; 2 {said}"
    assert what_there_is([], build=False) == "the index has no file of it"


def test_relics_are_passed_over():
    relics = [File(name="a-dev-r12.tar.gz", url="", version="dev-r12"), file("a-1.tar.gz")]
    relics.append(File(name="a-1.win32.exe", url="", version="1"))
    assert [str(offer.version) for offer in offers(relics, TARGET)] == ["1"]
