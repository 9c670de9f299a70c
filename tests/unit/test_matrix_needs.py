"""The highest symbol versions that distributions need of the system."""

from __future__ import annotations

from pathlib import Path

import pytest
from elf_maker import make_elf
from stack_maker import give_stack

from longrun import fs
from longrun.elf import ElfError
from longrun.errors import StoreError
from longrun.matrix.needs import needs_of, survey
from longrun.plan import make_plan
from longrun.store import Store

SITE = "lib/python3.13/site-packages"


def wants(*versions: str) -> bytes:
    """A library that needs some versions of the C library and of the C++ library."""
    glibc = tuple(version for version in versions if version.startswith("GLIBC_"))
    other = tuple(version for version in versions if not version.startswith("GLIBC_"))
    needs = {"libc.so.6": glibc, "libstdc++.so.6": other}
    return make_elf(
        needed=tuple(needs), versions={name: found for name, found in needs.items() if found}
    )


def needs(tmp_path: Path, files: dict[str, bytes], mode: int = 0o444) -> tuple[int, str, str]:
    for path, data in files.items():
        target = tmp_path / "tree" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)
    return needs_of(tmp_path / "tree", fs.scan(tmp_path / "tree"))


def test_the_highest_version_of_all_files_counts_by_number(tmp_path):
    one = wants("GLIBC_2.2.5", "GLIBC_2.9", "GLIBCXX_3.4.9")
    two = wants("GLIBC_2.28", "GLIBC_2.4", "GLIBCXX_3.4.21", "GLIBCXX_3.4")
    found = needs(tmp_path, {f"{SITE}/a/one.so": one, f"{SITE}/a/libtwo.so.5.2": two})
    assert found == (2, "2.28", "3.4.21")


def test_pure_python_needs_nothing(tmp_path):
    assert needs(tmp_path, {f"{SITE}/a.py": b"x = 1", f"{SITE}/LICENSE": b""}) == (0, "", "")


def test_the_internal_parts_of_the_c_library_are_no_version(tmp_path):
    data = wants("GLIBC_PRIVATE", "GLIBC_2.17", "CXXABI_1.3.9")
    assert needs(tmp_path, {f"{SITE}/a.so": data}) == (1, "2.17", "")


def test_a_format_of_relocations_counts_as_the_version_that_brought_it(tmp_path):
    data = wants("GLIBC_ABI_DT_RELR", "GLIBC_2.4")
    assert needs(tmp_path, {f"{SITE}/a.so": data}) == (1, "2.36", "")


def test_what_a_wheel_brings_itself_is_not_needed_of_the_system(tmp_path):
    module = make_elf(
        needed=("libstdc++.so.6",),
        runpath="$ORIGIN/../a.libs",
        versions={"libstdc++.so.6": ("GLIBCXX_3.4.32",)},
        exports=("PyInit_a",),
    )
    library = make_elf(versions={"libc.so.6": ("GLIBC_2.18",)})
    files = {f"{SITE}/a/a.so": module, f"{SITE}/a.libs/libstdc++.so.6": library}
    assert needs(tmp_path, files) == (2, "2.18", "")
    del files[f"{SITE}/a.libs/libstdc++.so.6"]
    assert needs(tmp_path / "other", files) == (1, "", "3.4.32")


@pytest.mark.parametrize(
    ("name", "mode"), [("tool", 0o444), ("tool.bin", 0o555), ("tool.so.1", 0o444)]
)
def test_programs_and_libraries_are_found_by_name_or_by_mode(tmp_path, name, mode):
    data = make_elf(type_=2, versions={"libc.so.6": ("GLIBC_2.7",)})
    assert needs(tmp_path, {f"bin/{name}": data}, mode) == (1, "2.7", "")


def test_libraries_for_other_machines_do_not_count(tmp_path):
    narrow = bytearray(wants("GLIBC_2.28"))
    narrow[4] = 1  # 32 bits
    assert needs(tmp_path, {f"{SITE}/hook32.so": bytes(narrow)}) == (0, "", "")


def test_a_damaged_library_is_named(tmp_path):
    with pytest.raises(ElfError, match=r"a/half\.so: damaged"):
        needs(tmp_path, {f"{SITE}/a/half.so": wants("GLIBC_2.28")[:200]})


@pytest.fixture
def shop(checkout, tmp_path):
    """A checkout's stack with its store: put what there is, and survey it."""
    give_stack(checkout.root)
    return Shop(checkout, Store(tmp_path / "store"))


class Shop:
    def __init__(self, checkout, store: Store) -> None:
        self.specs, self.store = checkout.specs(), store
        self.release = self.specs.releases["2026.1"]
        self.interpreters = tuple(map(self.specs.interpreters.get, self.release.interpreters))
        self.plan = make_plan(
            self.specs, self.release, self.interpreters, layers=tuple(self.release.layers)
        )
        store.prepare()

    def put(self, files: dict[str, bytes]) -> None:
        """Make the entries of all prefixes and wheels; each has the library of its id, or none."""
        for step in self.plan.steps:
            if step.kind in ("prefix", "wheel"):
                with self.store.stage(step) as stage:
                    (stage.tree / "note.txt").write_text(step.id)
                    if step.id in files:
                        (stage.tree / "a.so").write_bytes(files[step.id])
                    self.store.commit(stage, step, seconds=1)

    def survey(self):
        return survey(self.specs, self.release, self.interpreters, self.store)


def test_a_survey_has_each_interpreter_and_all_that_its_layers_hold(shop):
    shop.put({"wheel/cp313-numpy": wants("GLIBC_2.27"), "prefix/cpython-3.11": wants("GLIBC_2.5")})
    found = {(need.tag, need.name): need for need in shop.survey()}
    assert [name for tag, name in found if tag == "cp313"] == [
        *("cpython-3.13", "numpy", "pyepics", "pyparsing", "tracker", "panel-kit")
    ]
    # what only builds need is not there
    assert [name for tag, name in found if tag == "cp311"] == [
        *("cpython-3.11", "numpy", "pyepics", "pyparsing", "tracker")
    ]
    numpy = found["cp313", "numpy"]
    assert (numpy.version, numpy.layer, numpy.files, numpy.glibc) == ("2.5.1", "base", 1, "2.27")
    assert (found["cp311", "numpy"].version, found["cp311", "numpy"].glibc) == ("2.4.0", "")
    python = found["cp311", "cpython-3.11"]
    assert (python.version, python.layer, python.glibc) == ("3.11.5", "", "2.5")
    assert found["cp313", "pyparsing"].layer == "controls"
    assert found["cp313", "panel-kit"].layer == "gui"


def test_a_file_that_two_distributions_have_counts_for_both(shop):
    same = wants("GLIBC_2.17")
    shop.put({"wheel/cp313-pyepics": same, "wheel/cp311-pyepics": same})
    found = [need for need in shop.survey() if need.name == "pyepics"]
    assert [(need.files, need.glibc) for need in found] == [(1, "2.17"), (1, "2.17")]


def test_what_is_not_built_yet_is_named_with_the_way_to_have_it(shop):
    with pytest.raises(StoreError, match=r"prefix/cpython-3\.13 .*not in the store") as caught:
        shop.survey()
    assert caught.value.remedy == "./build.py build --layer all --python 3.13"
