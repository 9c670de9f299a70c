"""Keys: what changes them, what must not, and what a maintainer is told of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stack_maker import give_stack

from longrun import plan as plan_module
from longrun.errors import UsageError
from longrun.plan import changes, choose_interpreters, choose_release, make_plan

ROOT = Path(__file__).resolve().parents[2]


def keys(plan) -> dict[str, str]:
    return {step.id: step.key for step in plan.steps}


def moved(before, after) -> set[str]:
    old, new = keys(before), keys(after)
    return {name for name in new if old.get(name) != new[name]}


def test_steps_come_after_what_they_need_and_end_in_the_archive(checkout):
    plan = checkout.plan()
    seen: set[str] = set()
    for step in plan.steps:
        assert {needed.id for needed in step.inputs} <= seen
        seen.add(step.id)
    assert plan.steps[-1].id == "archive/cpython-3.13"
    assert "interpreter/cpython-3.11" not in seen


def test_two_interpreters_share_their_libraries(checkout):
    ids = [step.id for step in checkout.plan("3.13", "3.11").steps]
    assert ids.count("library/ssl") == 1
    assert "archive/cpython-3.11" in ids


def test_an_interpreter_gets_the_libraries_of_its_libraries(checkout):
    plan = checkout.plan()
    inputs = {step.id for step in plan.find("interpreter/cpython-3.13").inputs}
    assert {"library/z", "library/ssl", "toolchain/cc", "source/cpython-3.13"} <= inputs


def test_a_changed_address_rebuilds_nothing_but_the_archives_manifest(checkout):
    before = checkout.plan()
    checkout.replace("specs/libraries/z.toml", "https://example.org/", "https://example.net/")
    assert moved(before, checkout.plan()) == {"archive/cpython-3.13"}


def test_what_only_documents_rebuilds_nothing(checkout):
    before = checkout.plan()
    checkout.replace("specs/libraries/z.toml", '"a library"', '"another summary"')
    assert moved(before, checkout.plan()) == set()
    checkout.replace("specs/libraries/z.toml", '"Zlib"', '"MIT"')
    assert moved(before, checkout.plan()) == {"archive/cpython-3.13"}, "it names all licences"


def test_a_new_version_rebuilds_all_that_stands_on_it(checkout):
    before = checkout.plan()
    checkout.library("z", version="1.1", sha="f")
    assert moved(before, checkout.plan()) == {
        "source/z",
        "library/z",
        "library/ssl",
        "interpreter/cpython-3.13",
        "prefix/cpython-3.13",
        "archive/cpython-3.13",
    }


def test_a_changed_floor_rebuilds_everything_but_sources_and_toolchain(checkout):
    before = checkout.plan()
    checkout.replace("specs/releases/2026.1.toml", '"2.28"', '"2.17"')
    after = checkout.plan()
    kept = {step.id for step in after.steps} - moved(before, after)
    assert {name.partition("/")[0] for name in kept} == {"source", "toolchain"}
    assert after.find("library/z").platform == "manylinux_2_17_x86_64"


def test_a_new_release_date_compiles_nothing(checkout):
    before = checkout.plan()
    checkout.replace("specs/releases/2026.1.toml", 'date = "2026-11-02"', 'date = "2027-01-02"')
    assert moved(before, checkout.plan()) == {"prefix/cpython-3.13", "archive/cpython-3.13"}


def test_the_code_of_a_builder_is_part_of_the_key(checkout, monkeypatch, tmp_path):
    for directory in ("steps", "audit"):
        (tmp_path / "code" / directory).mkdir(parents=True)
    monkeypatch.setattr(plan_module, "PACKAGE", tmp_path / "code")
    before = checkout.plan()
    (tmp_path / "code/steps/archive.py").write_text("# changed")
    after = checkout.plan()
    assert moved(before, after) == {"archive/cpython-3.13"}
    step = after.find("archive/cpython-3.13")
    old = before.find("archive/cpython-3.13")
    assert changes(old.material, step.material) == ["recipe of archive steps changed"]


def test_every_recipe_names_files_that_exist():
    for kind, patterns in plan_module.RECIPES.items():
        for pattern in patterns:
            assert list(plan_module.PACKAGE.glob(pattern)), f"{kind}: {pattern}"


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (lambda c: c.library("z", version="1.1", sha="f"), "library/z", "z 1.0 -> 1.1"),
        (lambda c: c.library("z", version="1.1", sha="f"), "library/ssl", "z changed"),
        (
            lambda c: c.write("patches/libraries/ssl/0001-fix.patch", "Other\n"),
            "library/ssl",
            "patch 0001-fix.patch changed",
        ),
        (
            lambda c: c.library("ssl", sha="b", inputs=("z",)),
            "library/ssl",
            "patch 0001-fix.patch removed",
        ),
        (
            lambda c: c.replace("specs/toolchains/cc.toml", "c" * 64, "9" * 64),
            "library/z",
            "toolchain changed",
        ),
        (
            lambda c: c.replace("specs/libraries/z.toml", '"make"', '"make", "all"'),
            "library/z",
            "spec: build changed",
        ),
    ],
)
def test_what_changed_is_said_in_words(checkout, change, step, words):
    before = checkout.plan().find(step)
    change(checkout)
    assert words in changes(before.material, checkout.plan().find(step).material)


def test_a_step_is_found_by_its_short_name_and_a_near_miss_is_suggested(checkout):
    plan = checkout.plan()
    assert plan.find("ssl").id == "library/ssl"
    with pytest.raises(UsageError, match=r"no step 'sssl' .*did you mean 'ssl'"):
        plan.find("sssl")


def test_unknown_releases_and_interpreters_are_named(checkout):
    specs = checkout.specs()
    with pytest.raises(UsageError, match=r"no release '2026\.2' \(did you mean '2026\.1'\?\)"):
        choose_release(specs, "2026.2")
    with pytest.raises(UsageError, match=r"no interpreter '3\.12'"):
        choose_interpreters(specs, choose_release(specs, None), ["3.12"])


def test_planning_starts_no_program_and_opens_no_connection():
    code = (
        "import sys\n"
        "def hook(event, args):\n"
        "    names = ('subprocess.', 'os.exec', 'os.posix_spawn', 'os.fork', 'socket.')\n"
        "    if event.startswith(names):\n"
        "        raise SystemExit(f'{event} {args}')\n"
        "sys.addaudithook(hook)\n"
        "from pathlib import Path\n"
        "from longrun.cli import main\n"
        f"sys.exit(main(Path({str(ROOT)!r}), ['plan', '--json']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"archive/cpython-3.13"' in done.stdout


def layer_plan(checkout, *layers, versions=("3.13", "3.11")):
    specs = checkout.specs()
    release = choose_release(specs, None)
    chosen = choose_interpreters(specs, release, list(versions))
    return make_plan(specs, release, chosen, layers=layers)


def inputs(plan, step_id):
    return [step.id for step in plan.find(step_id).inputs]


def test_a_layer_is_made_of_the_prefix_and_of_its_distributions(checkout):
    give_stack(checkout.root)
    plan = layer_plan(checkout, "base", "controls")
    assert inputs(plan, "layer/base-cp313") == ["prefix/cpython-3.13", "wheel/cp313-numpy"]
    wheels = ("numpy", "pyepics", "pyparsing", "tracker")
    assert sorted(inputs(plan, "layer/controls-cp311")) == [
        "prefix/cpython-3.11",
        *(f"wheel/cp311-{name}" for name in wheels),
    ]
    assert [step.id for step in plan.targets] == [
        f"archive/{layer}-{tag}" for tag in ("cp313", "cp311") for layer in ("base", "controls")
    ]


def test_without_a_layer_nothing_of_the_stack_is_read(checkout):
    checkout.write("specs/packages/broken.toml", "not TOML")
    assert not [step for step in checkout.plan().steps if step.kind in ("wheel", "layer")]


def test_one_changed_version_changes_that_wheel_and_what_is_assembled_of_it(checkout):
    give_stack(checkout.root)
    before = {step.id: step.key for step in layer_plan(checkout, "base", "controls").steps}
    lock = "specs/locks/2026.1/cp313.lock.toml"
    checkout.replace(lock, 'version = "3.3.3"', 'version = "3.3.4"')
    checkout.replace(lock, "pyparsing-3.3.3", "pyparsing-3.3.4")
    text = (checkout.root / lock).read_text()
    row = text[text.index('name = "pyparsing"') :]
    sha256 = row[row.index('sha256 = "') + 10 :][:64]
    checkout.replace(lock, sha256, "7" * 64)
    after = {step.id: step.key for step in layer_plan(checkout, "base", "controls").steps}
    changed = {step_id for step_id in after if after[step_id] != before.get(step_id)}
    assert {step_id.partition("/")[2] for step_id in changed if "source" not in step_id} == {
        "cp313-pyparsing",
        "controls-cp313",
    }


def test_an_sdist_is_built_with_the_toolchain_and_what_its_spec_names(checkout):
    give_stack(checkout.root)
    plan = layer_plan(checkout, "controls")
    assert inputs(plan, "wheel/cp313-tracker")[1:] == [
        "prefix/cpython-3.13",
        "toolchain/cc",
        "wheel/cp313-setuptools",
        "wheel/cp313-wheel",
    ]
    assert "wheel/cp313-setuptools" not in inputs(plan, "layer/controls-cp313")


def test_a_file_that_serves_two_interpreters_is_one_source(checkout):
    give_stack(checkout.root)
    plan = layer_plan(checkout, "controls")
    shared = {inputs(plan, f"wheel/{tag}-pyparsing")[0] for tag in ("cp313", "cp311")}
    own = {inputs(plan, f"wheel/{tag}-numpy")[0] for tag in ("cp313", "cp311")}
    assert (len(shared), len(own)) == (1, 2)
