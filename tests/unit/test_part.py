"""What a layer of an image holds of the steps that it is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from job_maker import make_job

from longrun import fs
from longrun.model import Part
from longrun.oci.layer import Member
from longrun.steps.part import members


@pytest.fixture
def hold(tmp_path: Path) -> Callable[..., dict[str, Member]]:
    """What a part holds of two trees that share a directory, by path."""
    for step, file in (("one", "share/longrun/prefix.json"), ("two", "share/doc.txt")):
        path = tmp_path / step / file
        path.parent.mkdir(parents=True)
        path.write_text(step)

    def of(**fields: object) -> dict[str, Member]:
        spec = Part(title="t", compressor="c", of=("wheel/one", "wheel/two"), top="opt", **fields)
        inputs = {f"wheel/{name}": tmp_path / name for name in ("one", "two")}
        job = make_job(tmp_path / "job", spec, inputs)
        job = replace(job, files=lambda name: fs.scan(inputs[name]))
        found = list(members(job, spec))
        assert len({member.path for member in found}) == len(found)
        return {member.path: member for member in found}

    return of


SHARED = {"opt/share", "opt/share/longrun"}


def test_it_holds_all_of_its_steps_and_what_they_share_once(hold):
    assert set(hold()) == SHARED | {"opt/share/longrun/prefix.json", "opt/share/doc.txt"}


def test_it_leaves_out_what_is_named_but_not_what_is_above(hold):
    assert set(hold(without=("share/longrun/prefix.json",))) == SHARED | {"opt/share/doc.txt"}


def test_it_takes_only_what_is_named(hold):
    assert set(hold(only=("share", "share/doc.txt"))) == {"opt/share", "opt/share/doc.txt"}


def test_links_and_texts_are_beside_and_programs_can_be_run(hold):
    found = hold(links={"bin/python": "/opt/bin/python"}, texts={"a": "text", "b": "#!/bin/sh\n"})
    assert (found["bin/python"].kind, found["bin/python"].target) == (fs.LINK, "/opt/bin/python")
    assert (found["a"].mode, found["b"].mode) == (0o644, 0o755)
    assert found["b"].content == b"#!/bin/sh\n"
