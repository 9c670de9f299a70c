"""What is made of the words in which CPython's suite reports."""

from __future__ import annotations

from longrun.selftest import Counts, read_counts, read_verdict

GOOD = """\
0:01:02 load avg: 1.00 [3/3] test_ssl passed

== Tests result: SUCCESS ==

1 test skipped:
    test_curses

2 tests OK.

Total duration: 1 min 2 sec
Total tests: run=2,367 skipped=31
Total test files: run=3/3 skipped=1
Result: SUCCESS
"""

BAD = """\
== Tests result: FAILURE ==

10 slowest tests:
- test_venv: 12.2 sec

2 tests failed:
    test_site test_ssl

1 test OK.

Total duration: 12.2 sec
Total tests: run=400 failures=3 skipped=2
Total test files: run=3/3 failed=2
Result: FAILURE
"""


JUNIT = """<testsuites tests="5" errors="1" failures="2">
<testsuite><testcase name="a"/><testcase name="b"><skipped/></testcase>
<testcase name="c"><error/></testcase><testcase name="d"><failure/></testcase></testsuite>
<testsuite><testcase name="c"/><testcase name="d"><failure/></testcase></testsuite>
</testsuites>
"""


def test_tests_are_counted(tmp_path):
    (tmp_path / "result.xml").write_text(JUNIT)
    assert read_counts(tmp_path / "result.xml") == Counts(run=4, failures=1, skipped=1)
    (tmp_path / "half.xml").write_text(JUNIT[:50])
    assert read_counts(tmp_path / "half.xml") == Counts()
    assert read_counts(tmp_path / "none.xml") == Counts()


def test_a_run_without_failures_is_good():
    assert read_verdict(GOOD, {}, 0, Counts(run=2367)).ok


def test_what_failed_is_named_and_what_is_known_to_fail_is_told_apart():
    verdict = read_verdict(BAD, {"test_site": "user site-packages are off"}, 2, Counts())
    assert verdict.failed_files == ("test_site", "test_ssl")
    assert verdict.surprises == ("test_ssl",)
    assert verdict.known == {"test_site": "user site-packages are off"}
    assert not verdict.ok


def test_what_passes_when_it_is_run_again_alone_did_not_fail():
    assert read_verdict(BAD + GOOD, {}, 0, Counts(run=400)).ok
    twice = BAD + BAD.replace("test_site test_ssl", "test_ssl")
    assert read_verdict(twice, {}, 2, Counts(run=400)).failed_files == ("test_ssl",)


def test_failures_that_are_all_known_are_no_failure():
    known = {"test_site": "by design", "test_ssl": "by design", "test_other": "never seen"}
    verdict = read_verdict(BAD, known, 2, Counts())
    assert verdict.ok
    assert "test_other" not in verdict.known


def test_a_suite_that_did_not_come_to_its_end_is_not_good():
    assert not read_verdict("Fatal Python error: Segmentation fault\n", {}, -11, Counts()).ok
