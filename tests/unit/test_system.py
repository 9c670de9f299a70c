"""Roots of systems: what is asked of mmdebstrap, and what becomes of its answer."""

from __future__ import annotations

import stat
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from job_maker import make_job

from longrun.errors import BuildError, SetupError, SourceError
from longrun.model import System
from longrun.steps import system
from longrun.steps.job import Job

SPEC = System(name="old", title="Old 1", glibc="2.28", packages=("bash", "gcc"))
FIRST, SECOND = "https://one.example.org/debian", "https://two.example.org/debian"


@pytest.fixture
def asked(monkeypatch) -> list[list[str]]:
    """What mmdebstrap was asked; its answer is a small root, from the second archive only."""
    seen: list[list[str]] = []
    monkeypatch.setattr(system, "find_tool", lambda name: f"/usr/bin/{name}")
    return seen


def make(directory: Path, asked: list[list[str]], *, good: str = SECOND) -> Job:
    job = make_job(directory, SPEC, {})
    plain = job.run

    def run(argv: list[str], **options: object) -> None:
        if "mmdebstrap" not in argv[0]:
            plain(argv)
            return
        asked.append(argv)
        assert options.get("network") is True
        if argv[-1] != good:
            Path(argv[-2]).write_bytes(b"half a root")
            raise BuildError("no Release file")
        write_root(Path(argv[-2]))

    return replace(job, run=run)


def write_root(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, kind in (("./etc", tarfile.DIRTYPE), ("./dev", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            tar.addfile(member)
        for name, mode in (
            ("./packages.txt", 0o644),
            ("./etc/hosts", 0o644),
            ("./etc/hostname", 0o644),
            ("./etc/machine-id", 0o444),
            ("./var/log/dpkg.log", 0o644),
            ("./usr/bin/su", 0o4755),
        ):
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uid = mode, 3, 1234
            tar.addfile(member, BytesIO(b"x y"))
        device = tarfile.TarInfo("./dev/null")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(device)


def test_the_next_archive_is_asked_where_one_does_not_have_it(tmp_path, asked):
    job = make(tmp_path, asked)
    system.build(job, [FIRST, SECOND], offline=False)
    assert [argv[-1] for argv in asked] == [FIRST, SECOND]
    assert "old" in asked[0]
    assert "--include=bash,gcc" in asked[0]
    assert (job.out / "root" / "etc" / "hosts").read_bytes() == b"x y"


def test_nothing_of_the_machine_the_moment_or_of_rights_is_kept(tmp_path, asked):
    job = make(tmp_path, asked)
    system.build(job, [SECOND], offline=False)
    root = job.out / "root"
    assert not (root / "etc" / "hostname").exists()
    assert not (root / "etc" / "machine-id").exists()
    assert not (root / "var" / "log" / "dpkg.log").exists()
    assert not (root / "dev" / "null").exists()
    assert not stat.S_IMODE((root / "usr" / "bin" / "su").stat().st_mode) & 0o7022
    assert (root / "usr" / "bin" / "su").stat().st_uid != 1234
    assert (job.out / "packages.txt").read_bytes() == b"x y"
    assert not (root / "packages.txt").exists()


def test_each_archive_that_failed_is_named(tmp_path, asked):
    job = make(tmp_path, asked, good="none")
    with pytest.raises(BuildError, match=f"{FIRST}: no Release file; {SECOND}: no Release file"):
        system.build(job, [FIRST, SECOND], offline=False)


def test_without_an_archive_a_network_or_the_program_the_remedy_is_named(
    tmp_path, asked, monkeypatch
):
    job = make(tmp_path, asked)
    with pytest.raises(SetupError, match="no address of a Debian archive") as caught:
        system.build(job, [], offline=False)
    assert "archives" in caught.value.remedy
    with pytest.raises(SourceError, match="offline") as offline:
        system.build(job, [FIRST], offline=True)
    assert "without --offline" in offline.value.remedy
    monkeypatch.setattr(system, "find_tool", lambda name: None)
    with pytest.raises(SetupError, match="mmdebstrap") as missing:
        system.build(job, [FIRST], offline=False)
    assert "apt-get install" in missing.value.remedy
