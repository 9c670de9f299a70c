"""The GitLab template: what of GitLab's rules can be held without GitLab, and what scripts quote.

GitLab's own schema is held by the integration test, whose gitlab-ci-local has it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "deploy/gitlab/longrun.gitlab-ci.yml"
PAGE = ROOT / "docs/how-to/gitlab-ci.md"

STAGES = ("build", "test", "deploy")
"""Those that GitLab has where nobody names any: a project's own jobs go there, too."""

OF_A_JOB = {
    *("after_script", "artifacts", "before_script", "cache", "coverage", "dependencies"),
    *("extends", "image", "interruptible", "needs", "parallel", "rules", "script", "stage"),
    "variables",
}
OF_ARTIFACTS = {"exclude", "expire_in", "expose_as", "name", "paths", "reports", "when"}
REPORTS = {"codequality", "coverage_report", "dotenv", "junit"}
OF_RULES = {"allow_failure", "changes", "exists", "if", "variables", "when"}
INPUT_KEYS = {"default", "description", "options", "regex", "type"}
SCRIPTS = ("before_script", "script", "after_script")


class Strict(yaml.SafeLoader):
    """YAML in which no key is given twice: the second would win without a word."""


def mapping(loader: Strict, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    assert len(dict(pairs)) == len(pairs), f"twice in {[key for key, _ in pairs]}"
    return dict(pairs)


Strict.add_constructor("tag:yaml.org,2002:map", mapping)

HEADER, BODY = yaml.load_all(TEMPLATE.read_text(encoding="utf-8"), Strict)
INPUTS = HEADER["spec"]["inputs"]
JOBS = {name: body for name, body in BODY.items() if name not in ("workflow",)}


def merged(name: str) -> dict[str, Any]:
    """A job with what it extends; mappings are merged, as GitLab does."""
    job = JOBS[name]
    base = merged(job["extends"]) if "extends" in job else {}
    found = {**base, **job}
    found["variables"] = {**base.get("variables", {}), **job.get("variables", {})}
    return found


def strings(value: object) -> Iterator[str]:
    """Every string in some YAML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings(list(value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def scripts(name: str) -> list[str]:
    """The lines that a job runs."""
    return [line for key in SCRIPTS for line in merged(name).get(key, [])]


visible = pytest.mark.parametrize("name", [name for name in JOBS if not name.startswith(".")])


def test_the_jobs_are_those_of_the_page():
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in JOBS if f"| `{name}` |" not in page and name != ".longrun"] == []
    assert [name for name in INPUTS if f"| `{name}` |" not in page] == []


def test_inputs_are_told_of_and_used():
    text = yaml.dump(BODY)
    assert set(re.findall(r"\$\[\[ *inputs\.([\w-]+) *\]\]", text)) == set(INPUTS)
    for name, spec in INPUTS.items():
        assert spec.keys() <= INPUT_KEYS, name
        assert spec["description"].endswith("."), name
        assert "default" in spec, f"{name}: a project must include the template with one line"
        if "regex" in spec:
            assert re.search(spec["regex"], spec["default"]), name
            assert not re.search(spec["regex"], spec["default"] + '"; rm -rf ~ #'), name
            assert not re.search(spec["regex"], ""), f"{name}: pip takes no empty brackets"


@visible
def test_a_job_has_keys_that_gitlab_knows(name):
    job = merged(name)
    assert job.keys() <= OF_A_JOB
    assert job["stage"] in STAGES
    assert job["script"]
    assert job["artifacts"].keys() <= OF_ARTIFACTS if "artifacts" in job else True
    assert job.get("artifacts", {}).get("reports", {}).keys() <= REPORTS
    for rule in job.get("rules", BODY["workflow"]["rules"]):
        assert rule.keys() <= OF_RULES
    for line in scripts(name):
        assert isinstance(line, str), f"{line}: a colon and a space made it a mapping"


@visible
def test_a_job_takes_artefacts_of_jobs_before_it(name):
    for needed in merged(name).get("dependencies", []):
        assert STAGES.index(JOBS[needed]["stage"]) < STAGES.index(JOBS[name]["stage"])
        assert "paths" in JOBS[needed]["artifacts"]


def test_what_leaves_the_pipeline_waits_for_every_job_of_it():
    """``needs`` would let a job pass those that failed, of the template and of the project."""
    for name in ("publish", "pages"):
        assert "needs" not in JOBS[name]
        assert JOBS[name]["stage"] == STAGES[-1]
        assert JOBS[name]["rules"]


@visible
def test_scripts_are_shell(name):
    text = "\n".join(scripts(name))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@visible
def test_no_input_is_written_into_a_script(name):
    """GitLab pastes inputs in as they are; as values of variables they can be quoted."""
    assert [line for line in scripts(name) if "$[[" in line] == []


def unquoted(line: str) -> list[str]:
    """The expansions of a line of shell that are not within double quotes."""
    text = re.sub(r"'[^']*'", "", line)
    while (inner := re.sub(r'"\$\([^()"]*\)"|"[^"$]*\$\([^()"]*\)[^"$]*"', "", text)) != text:
        text = inner
    return re.findall(r"\$[\w{(]\S*", re.sub(r'"[^"]*"', "", text))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('ls "$A" dist/*-"${B#v}".gz', []),
        ("echo $A", ["$A"]),
        ('echo "$A"$B', ["$B"]),
        ('echo "all: $(ls dist)"', []),
        ('echo $(ls "$A")', ["$(ls"]),
        ("awk '{print $1}'", []),
    ],
)
def test_what_counts_as_quoted(line, found):
    assert unquoted(line) == found


@visible
def test_scripts_quote_all_data(name):
    assert [found for line in scripts(name) for found in unquoted(line)] == []


@visible
def test_scripts_use_variables_that_are_there(name):
    named = {word for line in scripts(name) for word in re.findall(r"\$\{?([A-Z_]+)", line)}
    given = merged(name)["variables"].keys()
    assert {word for word in named - given if not word.startswith("CI_")} == set()


@visible
def test_pip_runs_in_an_environment_only(name):
    """No pip outside of one: the prefix of the image has none, and gets none."""
    lines = scripts(name)
    if any(re.search(r"\b(pip|build|twine|pytest|sphinx)\b", line) for line in lines):
        made, entered = merged(name)["before_script"]
        assert re.fullmatch(r'python"\$PYTHON" -m venv --system-site-packages (\S+)', made)
        assert entered == f". {made.split()[-1]}/bin/activate"
        assert not made.split()[-1].startswith("$CI_PROJECT_DIR"), "sdists would have it"


def test_the_template_names_no_host_and_holds_no_secret():
    for text in strings(BODY):
        assert "://" not in text
    secrets = {
        name: value
        for job in JOBS.values()
        for name, value in job.get("variables", {}).items()
        if re.search("PASSWORD|TOKEN|SECRET", name)
    }
    assert set(secrets.values()) == {"$CI_JOB_TOKEN"}


def test_reports_are_files_that_a_person_can_fetch_too():
    for name in JOBS:
        artifacts = JOBS[name].get("artifacts", {})
        reports = [text for text in strings(artifacts.get("reports", {})) if "." in text]
        assert set(reports) <= set(artifacts.get("paths", [])), name


def test_the_cache_begins_anew_with_the_requirements_and_is_of_one_interpreter():
    cache = JOBS[".longrun"]["cache"]
    assert cache["key"]["files"] == ["pyproject.toml"]
    assert "$PYTHON" in cache["key"]["prefix"]
    (path,) = cache["paths"]
    assert JOBS[".longrun"]["variables"]["PIP_CACHE_DIR"] == f"$CI_PROJECT_DIR/{path}"
