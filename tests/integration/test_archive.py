"""What a user downloads: one file that plain tar unpacks, and that says what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from programs import call

from longrun import fs


@pytest.fixture(scope="session")
def manifest(prefix) -> dict:
    return json.loads((prefix.path / "MANIFEST.json").read_bytes())


def test_the_manifest_is_the_first_entry_and_all_is_in_one_directory(prefix):
    unpacked = subprocess.Popen(["zstd", "-dc", prefix.archive], stdout=subprocess.PIPE)
    assert unpacked.stdout is not None
    with tarfile.open(fileobj=unpacked.stdout, mode="r|") as tar:
        members = list(tar)
    assert unpacked.wait() == 0
    top = prefix.path.name
    assert members[0].name == f"{top}/MANIFEST.json"
    assert {member.name.split("/")[0] for member in members} == {top}
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    assert len({member.mtime for member in members}) == 1
    names = [member.name for member in members[1:]]
    assert names == sorted(names)


def test_every_file_is_as_the_manifest_says(prefix, manifest):
    listed = {row["path"]: row for row in manifest["files"]}
    found = set()
    for path, entry in fs.walk(prefix.path):
        if path == "MANIFEST.json":
            continue
        found.add(path)
        row = listed[path]
        if row["type"] == "link":
            assert os.readlink(entry.path) == row["target"]
            continue
        assert stat.S_IMODE(entry.stat().st_mode) == int(row["mode"], 8), path
        if row["type"] == "file":
            assert hashlib.sha256(Path(entry.path).read_bytes()).hexdigest() == row["sha256"], path
    assert found == listed.keys()


def test_the_provenance_names_every_input(prefix, manifest):
    rows = {row["id"]: row for row in manifest["provenance"]}
    assert {f"interpreter/cpython-{prefix.version}", "library/openssl", "toolchain/zig"} <= set(
        rows
    )
    for row in manifest["provenance"]:
        assert row["version"]
        assert row["licence"]
        assert len(row["sha256"]) == 64
        assert row["urls"]
    assert rows["library/openssl"]["licence"] == "Apache-2.0"
    assert rows[f"interpreter/cpython-{prefix.version}"]["patches"]
    assert manifest["platform"] == "manylinux_2_28_x86_64"


def test_the_sums_in_dist_fit(prefix):
    call("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=ROOT / "dist")
    assert prefix.archive.name in (ROOT / "dist" / "SHA256SUMS").read_text()


def test_licences_of_all_that_is_inside_are_there(prefix):
    licences = {path.name for path in (prefix.path / "share/licenses").iterdir()}
    assert {"cpython", "openssl", "sqlite", "ncurses", "readline", "tcl", "libX11"} <= licences
