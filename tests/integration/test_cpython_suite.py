"""The parts of CPython's own suite that see what Longrun changes: libraries and the system."""

from __future__ import annotations

import os

from longrun.selftest import run_suite

TESTS = [
    "test_bz2",
    "test_ctypes",
    "test_curses",
    "test_dbm",
    "test_dbm_gnu",
    "test_dbm_ndbm",
    "test_decimal",
    "test_ensurepip",
    "test_hashlib",
    "test_lzma",
    "test_posix",
    "test_pyexpat",
    "test_re",
    "test_readline",
    "test_select",
    "test_site",
    "test_socket",
    "test_sqlite3",
    "test_ssl",
    "test_sysconfig",
    "test_threading",
    "test_time",
    "test_uuid",
    "test_venv",
    "test_zlib",
]


def test_the_relevant_parts_of_cpythons_suite_pass(prefix, plan, tmp_path):
    name = f"cpython-{prefix.version}"
    (source,) = prefix.entry(f"source/{name}").iterdir()
    verdict = run_suite(
        plan.find(f"interpreter/{name}").spec,
        prefix.entry(f"prefix/{name}"),
        prefix.entry(f"interpreter/{name}"),
        source,
        TESTS,
        jobs=len(os.sched_getaffinity(0)),
        log=tmp_path / "log",
        line=lambda _: None,
    )
    assert verdict.ok, f"{verdict}\n{(tmp_path / 'log').read_text()[-6000:]}"
    assert verdict.run > 3000
