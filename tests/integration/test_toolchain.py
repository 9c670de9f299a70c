"""One toolchain for every floor and processor, whatever the building machine is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from programs import call

from longrun.model import Floor
from longrun.run import JobServer, Programs, Runner
from longrun.steps.job import Job
from longrun.steps.toolchain import environment

PROGRAM = r"""
#include <math.h>
#include <pthread.h>
#include <stdio.h>
static void *thread(void *value) { *(double *)value = pow(*(double *)value, 2); return value; }
int main(int count, char **arguments) {
    double value = count + 1;
    pthread_t id;
    pthread_create(&id, 0, thread, &value);
    pthread_join(id, 0);
    printf("%.0f %s\n", value, __FILE__);
    return 0;
}
"""


@pytest.fixture
def compile_program(plan, store, tmp_path):
    """Compile PROGRAM for a floor, as a step would; gives the program and the step's job."""

    def compile_for(floor: Floor) -> Path:
        toolchain = plan.find("toolchain/zig")
        entry = store.get(toolchain.key)
        assert entry is not None
        work = tmp_path / floor.tag
        work.mkdir()
        runner = Runner(
            work=work,
            private=tmp_path / "private",
            log=tmp_path / "log",
            epoch=0,
            jobserver=JobServer(1),
            programs=Programs(),
        )
        job = Job(
            spec=toolchain.spec,
            floor=floor,
            epoch=0,
            inputs={toolchain.id: entry.tree},
            patches=(),
            data={},
            out=tmp_path,
            work=work,
            cache=tmp_path / "cache",
            jobs=1,
            run=runner,
            log=tmp_path / "log",
            say=print,
            files=lambda name: (),
        )
        (work / "program.c").write_text(PROGRAM)
        job.run(
            ["cc", "program.c", "-O2", "-lm", "-pthread", "-o", "program"], env=environment(job)
        )
        return work / "program"

    return compile_for


@pytest.mark.parametrize("glibc", ["2.17", "2.28"])
def test_a_program_needs_no_newer_glibc_than_the_floor(compile_program, glibc):
    program = compile_program(Floor(arch="x86_64", glibc=glibc))
    assert call(program) == "4 program.c"
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", call("readelf", "-V", program))
    highest = max((int(major), int(minor)) for major, minor in versions)
    assert highest <= tuple(int(part) for part in glibc.split("."))


def test_another_processor_is_only_another_floor(compile_program):
    """Run by qemu-user with Debian's aarch64 C library."""
    program = compile_program(Floor(arch="aarch64", glibc="2.17"))
    assert "AArch64" in call("readelf", "-h", program)
    emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    assert call(*emulator, program) == "4 program.c"


def test_the_path_of_the_work_directory_is_not_in_the_program(compile_program, tmp_path):
    program = compile_program(Floor(arch="x86_64", glibc="2.28"))
    assert str(tmp_path).encode() not in program.read_bytes()
