"""Containerfiles of the bases that an engine makes: pinned, no network but for the packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from longrun.cli import main
from longrun.containerfile import render
from longrun.errors import SpecError, UsageError
from longrun.imageplan import plan_base
from longrun.specs import load_specs

ROOT = Path(__file__).resolve().parents[2]
SPECS = load_specs(ROOT)
BASES = [base for base in SPECS.bases.values() if base.family == "almalinux"]
NAMES = [base.name for base in BASES]
ORIGIN = f"docker.io/library/almalinux:9@sha256:{'a' * 64}"
KNOWN = {"FROM", "RUN", "WORKDIR", "USER"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments; continued lines are one."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    rows = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in rows]


@pytest.fixture(params=BASES, ids=NAMES)
def base(request):
    return request.param


def test_there_is_one_for_every_image():
    assert {f"almalinux-9-{name}" for name in SPECS.images} == set(NAMES)


def test_only_known_instructions_and_each_base_ends_as_its_user(base):
    found = instructions(render(ROOT, base, ORIGIN))
    assert {name for name, _ in found} == KNOWN
    assert found[0][0] == "FROM"
    assert [rest for name, rest in found if name == "USER"] == ["1000:1000"]
    assert found[-1][0] == "USER"


def test_it_begins_from_an_image_that_cannot_move(base):
    text = render(ROOT, base, ORIGIN)
    assert [rest for name, rest in instructions(text) if name == "FROM"] == [ORIGIN]
    assert "latest" not in text


def test_there_is_no_network_after_the_packages(base):
    packages, *rest = [
        rest for name, rest in instructions(render(ROOT, base, ORIGIN)) if name == "RUN"
    ]
    assert re.match(r"(micro)?dnf .*install", packages)
    assert set(base.packages) <= set(packages.split())
    assert f"{base.variant} clean all" in packages
    assert rest
    assert all(run.startswith("--network=none ") for run in rest)
    assert not any(word in " ".join(rest) for word in ("dnf", "curl", "http"))


def test_it_has_nothing_of_the_day_or_the_machine(base):
    text = render(ROOT, base, ORIGIN)
    assert text == render(ROOT, base, ORIGIN)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert str(ROOT) not in text
    assert "useradd" not in " ".join(rest for _, rest in instructions(text))


def test_a_repository_that_the_image_lacks_is_fetched_first():
    text = render(ROOT, SPECS.bases["almalinux-9-gui"], ORIGIN)
    assert text.index("install epel-release") < text.index("xcb-util-cursor")
    assert "--enablerepo=crb" in text


def test_hadolint_finds_nothing(base, tmp_path):
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("there is no hadolint for this machine")
    file = tmp_path / "Containerfile"
    file.write_text(render(ROOT, base, ORIGIN))
    argv = [program, "--no-color", "--failure-threshold", "style", file]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ("", "which image it begins from"),
        ("docker.io/library/almalinux:9", "its digest is missing"),
        ("almalinux:9", "no image in a registry"),
        (f"docker.io/library/almalinux@sha256:{'a' * 63}", "no image in a registry"),
    ],
)
def test_an_image_that_is_not_pinned_is_refused(origin, says):
    with pytest.raises(UsageError, match=says) as caught:
        render(ROOT, BASES[0], origin)
    assert caught.value.remedy


SMALL = """\
name = "small"
title = "Small"
family = "{family}"
suite = "9"
variant = "{variant}"
packages = ["glibc"]
"""


@pytest.mark.parametrize(
    ("family", "variant", "says"),
    [
        ("almalinx", "dnf", r"small.toml: family: .*'almalinx' \(did you mean 'almalinux'\?\)"),
        ("almalinux", "dnff", r"small.toml: variant: .*'dnff' \(did you mean 'dnf'\?\)"),
    ],
)
def test_a_wrong_spec_is_named_with_its_key(checkout, family, variant, says):
    checkout.write("specs/bases/small.toml", SMALL.format(family=family, variant=variant))
    with pytest.raises(SpecError, match=says):
        render(ROOT, checkout.specs().bases["small"], ORIGIN)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a verb on this checkout: (status, printed, complaint)."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LONGRUN_CONFIG", raising=False)

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(ROOT, list(argv))
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_the_verb_prints_it_and_nothing_else(run):
    code, out, err = run("base", "almalinux-9-ci", "--render", "--from", ORIGIN)
    assert (code, err) == (0, "")
    assert out == render(ROOT, SPECS.bases["almalinux-9-ci"], ORIGIN)


def test_without_render_it_says_what_is_missing_here(run):
    code, out, err = run("base", "almalinux-9-ci")
    assert (code, out) == (8, "")
    assert "nothing was built" in err
    assert "container engine" in err
    assert "registry" in err
    assert "remedy: ./build.py base almalinux-9-ci --render --from " in err


def test_a_base_of_packages_has_no_containerfile(run):
    code, out, err = run("base", "debian-12-ci", "--render", "--from", ORIGIN)
    assert (code, out) == (2, "")
    assert "not from a Containerfile" in err


def test_an_image_upon_a_base_that_was_not_built_is_refused(run):
    code, _, err = run("image", "ci", "--base", "almalinux-9-ci")
    assert code == 3
    assert "has no lock yet" in err


def test_that_bases_have_a_family_makes_none_of_them_anew():
    """The family is in no key: a base of Debian is what it was before there was another."""
    step = plan_base(SPECS, SPECS.releases["2026.1"], SPECS.bases["debian-12-ci"], None)
    assert set(step.material["params"]["base"]) == {
        "name", "suite", "variant", "components", "packages",
    }  # fmt: skip
