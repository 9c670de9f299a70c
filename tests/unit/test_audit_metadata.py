"""What distributions say of themselves is held against what is installed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from prefix_maker import LIBRARY, PROGRAM, MadePrefix, make_prefix, shared

from longrun.audit import Policy, Report, audit
from longrun.audit.metadata_checks import CHECKS
from longrun.audit.report import ERROR, WARNING
from longrun.model import Floor

PACKAGES = f"{LIBRARY}/site-packages"
POLICY = Policy(floor=Floor(arch="x86_64", glibc="2.28"), sealed=True)
UNSEALED = replace(POLICY, sealed=False)
MARKER = "share/longrun/prefix.json"


class Site:
    """The site-packages of a made prefix."""

    def __init__(self, prefix: MadePrefix) -> None:
        self.prefix = prefix

    def install(
        self,
        name: str,
        version: str = "1.0",
        *headers: str,
        files: Mapping[str, str] | None = None,
        there: Iterable[str] = (),
        tags: Iterable[str] = ("py3-none-any",),
    ) -> None:
        """Install a distribution; ``files`` are written, those that are ``there`` recorded too."""
        info = f"{name}-{version}.dist-info"
        metadata = [f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}", *headers]
        written = {
            f"{info}/METADATA": "\n".join(metadata) + "\n\nName: of the description\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags),
            **(files or {}),
        }
        for path, text in written.items():
            self.write(path, text)
        lines = [self.line(path) for path in (*written, *there)]
        self.write(f"{info}/RECORD", "".join(lines) + f"{info}/RECORD,,\n")

    def write(self, path: str, text: str) -> None:
        """Write a file; sources with their bytecode, as a sealed prefix has it."""
        write = self.prefix.source if path.endswith(".py") else self.prefix.write
        write(f"{PACKAGES}/{path}", text)

    def line(self, path: str) -> str:
        """The line of RECORD for a file."""
        data = (self.prefix.root / PACKAGES / path).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        return f"{path},sha256={digest},{len(data)}\n"

    def text(self, path: str) -> str:
        """What a file has."""
        return (self.prefix.root / PACKAGES / path).read_text()

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file, without its RECORD."""
        text = self.text(path)
        assert old in text
        self.prefix.write(f"{PACKAGES}/{path}", text.replace(old, new))

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.prefix.remove(f"{PACKAGES}/{path}")


DEMO = ("demo/__init__.py", "demo/_native.abi3.so", "demo.libs/libbundled-12ab.so.1")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    prefix = make_prefix(tmp_path / "prefix")
    prefix.write(MARKER, json.dumps({"version": "3.13.5"}))
    made = Site(prefix)
    tags = ("cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64",)
    made.install("demo", "1.0", there=DEMO, tags=tags)
    yield made
    prefix.open()


def findings(site: Site, policy: Policy = POLICY) -> list[tuple[str, str, str, str]]:
    report = audit(site.prefix.root, policy)
    assert set(CHECKS) <= set(report.checked)
    return [(f.check, f.path, f.severity, f.message) for f in report.findings if f.check in CHECKS]


def of_check(report: Report, check: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.check == check]


def test_healthy_distributions_pass(site: Site) -> None:
    site.install("other", "2.0", "Requires-Dist: demo (>=1.0)", files={"other.py": "x = 1\n"})
    site.write("README.txt", "This directory contains packages.\n")
    assert audit(site.prefix.root, POLICY).findings == ()


def test_a_prefix_without_distributions_passes(tmp_path: Path) -> None:
    prefix = make_prefix(tmp_path / "prefix")
    assert set(CHECKS) <= set(audit(prefix.root, Policy()).checked)
    assert audit(prefix.root, POLICY).ok
    prefix.open()


def test_a_prefix_without_python_is_not_checked(tmp_path: Path) -> None:
    assert set(CHECKS) <= set(audit(tmp_path, Policy()).not_checked)


Break = Callable[[Site], None]
BROKEN: dict[str, tuple[Break, str, str, str, str]] = {}


def broken(check: str, path: str, message: str, severity: str = ERROR) -> Callable[[Break], Break]:
    def register(function: Break) -> Break:
        assert function.__name__ not in BROKEN
        BROKEN[function.__name__] = (function, check, path, message, severity)
        return function

    return register


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata(site: Site, name: str) -> None:
    break_it, check, path, message, severity = BROKEN[name]
    break_it(site)
    ((found_check, found_path, found_severity, text),) = findings(site)
    assert (found_check, found_path, found_severity) == (check, f"{PACKAGES}{path}", severity)
    assert re.search(message, text), text


# -- requires -----------------------------------------------------------------------------------


@broken("requires", "/pyepics-3.5.10.dist-info/METADATA", r"^pyepics 3\.5\.10 requires pyparsing, ")
def missing_requirement(site: Site) -> None:
    site.install("pyepics", "3.5.10", "Requires-Dist: pyparsing")


@broken("requires", "/tool-2.dist-info/METADATA", r"^tool 2 needs demo<1,>=0\.3, found 1\.0$")
def version_conflict(site: Site) -> None:
    site.install("tool", "2", "Requires-Dist: demo >=0.3, <1")


@broken("requires", "/tool-2.dist-info/METADATA", r"^tool 2 needs Python <3\.13, found 3\.13\.5$")
def other_python(site: Site) -> None:
    site.install("tool", "2", "Requires-Python: <3.13")


@broken("requires", "/tool-2.dist-info/METADATA", r"^tool 2 needs Python >=3\.13\.6, found 3\.13\.")
def newer_micro_version_of_python(site: Site) -> None:
    site.install("tool", "2", "Requires-Python: >=3.13.6")


@broken("requires", "/demo-2.0.dist-info", r"^demo is installed 2 times: demo 1\.0, demo 2\.0$")
def two_versions(site: Site) -> None:
    site.install("demo", "2.0")


@broken("requires", "/x.y_z-1.dist-info", r"^x-y-z is installed 2 times: X_Y\.Z 1, x\.y_z 1$")
def two_spellings(site: Site) -> None:
    site.install("X_Y.Z", "1")
    site.install("x.y_z", "1")


@broken("requires", "/tool-2.dist-info/METADATA", "cannot be read: it is that of other 2")
def metadata_of_another(site: Site) -> None:
    site.install("tool", "2")
    site.edit("tool-2.dist-info/METADATA", "Name: tool", "Name: other")
    record(site, "tool-2")


@broken("requires", "/tool-2.dist-info/METADATA", "cannot be read: it is that of tool 3")
def metadata_of_another_version(site: Site) -> None:
    site.install("tool", "2")
    site.edit("tool-2.dist-info/METADATA", "Version: 2", "Version: 3")
    record(site, "tool-2")


@broken("requires", "/tool-2.dist-info/METADATA", "cannot be read: Invalid version: 'two'")
def no_version(site: Site) -> None:
    site.install("tool", "2")
    site.edit("tool-2.dist-info/METADATA", "Version: 2", "Version: two")
    record(site, "tool-2")


@broken("requires", "/tool-2.dist-info/METADATA", "cannot be read: Name is missing")
def no_name(site: Site) -> None:
    site.install("tool", "2")
    site.edit("tool-2.dist-info/METADATA", "Name: tool\n", "")
    record(site, "tool-2")


@broken("requires", "/tool-2.dist-info/METADATA", "cannot be read: it is missing")
def no_metadata(site: Site) -> None:
    site.install("tool", "2")
    site.remove("tool-2.dist-info/METADATA")
    record(site, "tool-2", without="METADATA")


@broken("requires", "/tool-2.dist-info/METADATA", "cannot be checked: .* demo=>1: ", WARNING)
def requirement_that_cannot_be_parsed(site: Site) -> None:
    site.install("tool", "2", "Requires-Dist: demo=>1", "Requires-Dist: demo")


@broken("requires", "/tool-2.dist-info/METADATA", r"Requires-Python: >=3\.\*: not a", WARNING)
def python_that_cannot_be_parsed(site: Site) -> None:
    site.install("tool", "2", "Requires-Python: >=3.*")


@broken("requires", "/base-1.dist-info/METADATA", "^base 1 with the extra fast requires gone, ")
def requirement_of_an_extra_that_is_asked_for(site: Site) -> None:
    site.install("base", "1", "Provides-Extra: fast", 'Requires-Dist: gone; extra == "fast"')
    site.install("tool", "2", "Requires-Dist: base[Fast]")


@broken("requires", "/base-1.dist-info/METADATA", "^base 1 with the extra b requires gone, ")
def requirement_of_an_extra_of_an_extra(site: Site) -> None:
    site.install(
        "base", "1", 'Requires-Dist: base[b]; extra=="a"', 'Requires-Dist: gone; "b"==extra'
    )
    site.install("tool", "2", "Requires-Dist: base[a]")


def record(site: Site, stem: str, *, without: str = "RECORD") -> None:
    """Write the RECORD of a distribution again, after its metadata was changed."""
    info = f"{stem}.dist-info"
    names = [name for name in ("METADATA", "WHEEL") if name != without]
    site.write(f"{info}/RECORD", "".join(site.line(f"{info}/{name}") for name in names))


@pytest.mark.parametrize(
    "requirement",
    [
        "demo",
        "Demo==1.0",
        "demo[unknown]>=1",
        "demo @ https://example.invalid/demo.whl",
        'gone; extra == "docs"',
        'gone; python_version < "3.13"',
        'gone; python_full_version < "3.13.5"',
        'gone; sys_platform == "win32"',
        'gone; platform_machine != "x86_64"',
        'gone; implementation_name == "pypy"',
        'gone; platform_release >= "20.9.0"',
    ],
)
def test_requirements_that_are_met(site: Site, requirement: str) -> None:
    site.install("tool", "2", f"Requires-Dist: {requirement}")
    assert findings(site) == []


def test_a_pre_release_meets_a_requirement(site: Site) -> None:
    site.install("base", "2.0rc1")
    site.install("tool", "2", "Requires-Dist: base>=1.5")
    assert findings(site) == []


def test_a_requirement_without_an_extra_is_told_once(site: Site) -> None:
    site.install("base", "1", "Requires-Dist: gone")
    site.install("tool", "2", "Requires-Dist: base[a,b]")
    assert len(findings(site)) == 1


def test_the_full_version_is_in_cpythons_header(site: Site) -> None:
    site.prefix.remove(MARKER)
    site.install("tool", "2", "Requires-Python: <3.13.4")
    report = audit(site.prefix.root, POLICY)
    assert report.not_checked["requires"] == "the interpreter's full version is not known"
    assert "tags" in report.checked
    header = '/* */\n#define PY_VERSION      \t"3.13.4+"\n'
    site.prefix.write("include/python3.13/patchlevel.h", header)
    ((*_, message),) = findings(site)
    assert message.endswith("found 3.13.4")


@pytest.mark.parametrize("text", ["[]", "{", '{"version": "3.12.1"}', '{"version": 3}'])
def test_a_marker_that_says_nothing(site: Site, text: str) -> None:
    site.prefix.write(MARKER, text)
    assert "requires" in audit(site.prefix.root, POLICY).not_checked


def test_without_a_floor_the_interpreter_tells_the_processor(site: Site) -> None:
    site.install("tool", "2", 'Requires-Dist: gone; platform_machine == "x86_64"')
    assert len(of_check(audit(site.prefix.root, Policy()), "requires")) == 1
    site.prefix.write(PROGRAM, b"#!/bin/sh\n", 0o555)
    report = audit(site.prefix.root, Policy())
    assert report.not_checked["requires"] == "the interpreter's processor is not known"


def test_an_old_distribution_meets_a_requirement(site: Site) -> None:
    """Before wheels there was no RECORD: what can be checked is, the rest is told."""
    site.write("old-0.9-py3.13.egg-info", "Metadata-Version: 1.0\nName: old\nVersion: 0.9\n")
    site.write("older.egg-info/PKG-INFO", "Metadata-Version: 1.0\nName: older\nVersion: 0.8\n")
    site.install("tool", "2", "Requires-Dist: old>=0.9", "Requires-Dist: older")
    found = findings(site, UNSEALED)
    assert {check for check, *_ in found} == {"tags", "records"}
    assert {severity for _, _, severity, _ in found} == {WARNING}
    assert {f"{PACKAGES}/old-0.9-py3.13.egg-info", f"{PACKAGES}/older.egg-info"} <= {
        path for _, path, *_ in found
    }


# -- tags ---------------------------------------------------------------------------------------


def with_tag(site: Site, *tags: str) -> None:
    site.install("tool", "2", tags=tags)


@pytest.mark.parametrize(
    "tag",
    [
        "py3-none-any",
        "py2.py3-none-any",
        "py313-none-any",
        "cp313-cp313-manylinux_2_28_x86_64",
        "cp313-cp313-manylinux_2_5_x86_64",
        "cp313-none-manylinux1_x86_64",
        "cp38-abi3-manylinux2010_x86_64",
        "py3-none-manylinux2014_x86_64",
        "cp313-cp313-manylinux_2_34_x86_64.manylinux_2_28_x86_64",
    ],
)
def test_tags_that_fit(site: Site, tag: str) -> None:
    with_tag(site, tag)
    assert findings(site) == []


def test_one_of_several_tags_fits(site: Site) -> None:
    with_tag(site, "cp312-cp312-manylinux_2_34_x86_64", "cp313-cp313-manylinux_2_17_x86_64")
    assert findings(site) == []


WHEEL = "/tool-2.dist-info/WHEEL"


@broken(
    "tags",
    WHEEL,
    r"^tool 2 is for cp313-cp313-manylinux_2_34_x86_64, the prefix is Python 3\.13 on "
    r"manylinux_2_28_x86_64; required by one 1, two 1$",
)
def above_the_floor(site: Site) -> None:
    with_tag(site, "cp313-cp313-manylinux_2_34_x86_64")
    site.install("one", "1", "Requires-Dist: tool")
    site.install("two", "1", "Requires-Dist: Tool>1")
    site.install("three", "1", 'Requires-Dist: tool; sys_platform == "win32"')


@broken("tags", WHEEL, "is for cp312-cp312-manylinux_2_17_x86_64, .* required by nothing here")
def for_another_interpreter(site: Site) -> None:
    with_tag(site, "cp312-cp312-manylinux_2_17_x86_64")


@broken("tags", WHEEL, "is for cp313-cp313t-manylinux_2_17_x86_64")
def for_a_free_threaded_interpreter(site: Site) -> None:
    with_tag(site, "cp313-cp313t-manylinux_2_17_x86_64")


@broken("tags", WHEEL, "aarch64")
def for_another_processor(site: Site) -> None:
    with_tag(site, "cp313-cp313-manylinux_2_17_aarch64")


@broken("tags", WHEEL, "musllinux")
def for_another_c_library(site: Site) -> None:
    with_tag(site, "cp313-cp313-musllinux_1_2_x86_64")


@broken("tags", WHEEL, r"tool 2 was built locally, not for distribution: cp313-cp313-l", WARNING)
def built_locally(site: Site) -> None:
    with_tag(site, "cp313-cp313-linux_x86_64")


@broken("tags", WHEEL, "does not tell what tool 2 was built for: it has no Tag")
def without_tags(site: Site) -> None:
    with_tag(site)


@broken("tags", WHEEL, "does not tell what tool 2 was built for: ")
def tag_that_is_none(site: Site) -> None:
    with_tag(site, "nonsense")


@broken("tags", WHEEL, "does not tell what tool 2 was built for: it is missing")
def without_wheel(site: Site) -> None:
    site.install("tool", "2")
    site.remove("tool-2.dist-info/WHEEL")
    record(site, "tool-2", without="WHEEL")


def test_a_distribution_that_is_no_wheel_is_wrong_only_in_a_sealed_prefix(site: Site) -> None:
    without_wheel(site)
    assert [severity for *_, severity, _ in findings(site, UNSEALED)] == [WARNING]


def test_tags_of_aarch64(site: Site) -> None:
    floor = Floor(arch="aarch64", glibc="2.28")
    with_tag(site, "cp313-cp313-manylinux2014_aarch64")
    site.install("demo", tags=("py3-none-any",), there=DEMO)
    report = audit(site.prefix.root, Policy(floor=floor))
    assert of_check(report, "tags") == []
    with_tag(site, "cp313-cp313-manylinux1_aarch64")
    assert len(of_check(audit(site.prefix.root, Policy(floor=floor)), "tags")) == 1


def test_tags_without_a_floor_are_not_checked(site: Site) -> None:
    assert "no floor" in audit(site.prefix.root, Policy()).not_checked["tags"]


# -- records ------------------------------------------------------------------------------------


@broken("records", "/demo/extra.txt", r"is in the RECORD of demo 1\.0: not there")
def recorded_file_is_missing(site: Site) -> None:
    append(site, "demo/extra.txt,,\n")


def append(site: Site, line: str) -> None:
    text = site.text("demo-1.0.dist-info/RECORD")
    site.write("demo-1.0.dist-info/RECORD", text + line)


@broken("records", "/demo/__init__.py", "changed after it was installed")
def changed_file(site: Site) -> None:
    site.write("demo/__init__.py", site.text("demo/__init__.py").upper())


@broken("records", "/demo/__init__.py", "of another size")
def longer_file(site: Site) -> None:
    site.write("demo/__init__.py", site.text("demo/__init__.py") + "x = 1\n")


@broken("records", "/demo/__init__.py", "of another size")
def file_that_was_empty(site: Site) -> None:
    line = site.line("demo/__init__.py")
    site.edit("demo-1.0.dist-info/RECORD", line, "demo/__init__.py,,0\n")


@broken("records", "/demo", r"^2 files, such as .*, are in the RECORD of demo 1\.0: not there")
def several_files_are_missing(site: Site) -> None:
    append(site, "demo/a.txt,,\ndemo/b/c.txt,sha256=abc,3\n")


@broken("records", "/demo/data", "no file")
def recorded_directory(site: Site) -> None:
    site.install("tool", "2", files={"demo/data/x.txt": "x"})
    append(site, "demo/data,,\n")


@broken("records", "/tool-2.dist-info/RECORD", "tool 2: the line 'x,sha256=1' is not path, hash")
def damaged_record(site: Site) -> None:
    site.install("tool", "2")
    site.write("tool-2.dist-info/RECORD", "x,sha256=1\n")


@broken("records", "/tool-2.dist-info/RECORD", "which files are of tool 2: .*can't decode")
def record_that_is_no_text(site: Site) -> None:
    site.install("tool", "2")
    site.prefix.write(f"{PACKAGES}/tool-2.dist-info/RECORD", b"\xff,,\n")


@broken("records", "/tool-2.dist-info/RECORD", "which files are of tool 2: it is missing")
def no_record(site: Site) -> None:
    site.install("tool", "2")
    site.remove("tool-2.dist-info/RECORD")


@broken("records", "/demo/__init__.py", "hash other than sha256 is not compared", WARNING)
def other_hash(site: Site) -> None:
    site.edit("demo-1.0.dist-info/RECORD", "demo/__init__.py,sha256=", "demo/__init__.py,sha512=")


@broken("records", "/shared.txt", "is in the RECORDs of one 1 and two 1, with different content")
def file_of_two(site: Site) -> None:
    site.install("one", "1", files={"shared.txt": "one"})
    site.install("two", "1", files={"shared.txt": "two"})
    line = site.text("one-1.dist-info/RECORD").splitlines()[2]
    site.edit("one-1.dist-info/RECORD", line, "shared.txt,,")


@broken("records", "/shared.txt", "RECORDs of one 1 and two 1, with the same content", WARNING)
def same_file_of_two(site: Site) -> None:
    site.install("one", "1", files={"shared.txt": "one"})
    site.install("two", "1", files={"shared.txt": "one"})


@broken("records", "/stray.txt", "is in the RECORD of no distribution")
def stray_file(site: Site) -> None:
    site.write("stray.txt", "x")


@broken(
    "records", "/demo", "2 files, such as .*demo/a.txt, .*demo/b/c.txt, are in the RECORD of no"
)
def stray_files(site: Site) -> None:
    site.write("demo/a.txt", "x")
    site.write("demo/b/c.txt", "x")


@broken("records", "/demo/link", "is in the RECORD of no distribution")
def stray_link(site: Site) -> None:
    site.prefix.link(f"{PACKAGES}/demo/link", "__init__.py")


@broken("records", "/demo/__pycache__/gone.cpython-313.pyc", "is in the RECORD of no distribution")
def stray_bytecode(site: Site) -> None:
    site.prefix.bytecode(f"{PACKAGES}/demo/gone.py", "")


def test_a_stray_file_is_wrong_only_in_a_sealed_prefix(site: Site) -> None:
    stray_file(site)
    assert [severity for *_, severity, _ in findings(site, UNSEALED)] == [WARNING]


@broken("records", "/demo-1.0.dist-info/RECORD", "^2 files, such as .*/etc/x.* outside the pre")
def files_outside_the_prefix(site: Site) -> None:
    append(site, "../../../../outside,,\n/etc/x,,\n")


@broken("records", "/demo-1.0.dist-info/RECORD", "^/etc/x is in the RECORD of demo 1.0: outside")
def file_outside_the_prefix(site: Site) -> None:
    append(site, "/etc/x,,\n")


def test_a_file_of_the_standard_library(site: Site) -> None:
    append(site, site.line("../os.py"))
    ((_, path, severity, message),) = findings(site)
    assert (path, severity) == (f"{LIBRARY}/os.py", ERROR)
    assert "in the interpreter's own library" in message


def test_a_file_that_two_distributions_claim(site: Site) -> None:
    """The last one installed has it: the other one's RECORD lies."""
    site.install("one", "1", files={"shared.txt": "one"})
    site.install("two", "1", files={"shared.txt": "two"})
    texts = [message for *_, message in findings(site)]
    assert texts == [
        "is in the RECORD of one 1: changed after it was installed",
        "is in the RECORDs of one 1 and two 1, with different content",
    ]


def test_programs_are_recorded_too(site: Site) -> None:
    site.prefix.write("bin/demo", "#!/bin/sh\n", 0o555)
    append(site, site.line("../../../bin/demo"))
    assert findings(site) == []
    site.prefix.write("bin/demo", "#!/bin/false\n"[:10], 0o555)
    ((_, path, _, message),) = findings(site)
    assert path == "bin/demo"
    assert message.endswith("changed after it was installed")


def test_bytecode_comes_and_goes(site: Site) -> None:
    append(site, "demo/__pycache__/gone.cpython-312.pyc,sha256=abc,3\n")
    append(site, "demo/__pycache__/__init__.cpython-313.pyc,sha256=abc,3\n")
    assert findings(site) == []


def test_a_record_may_leave_out_itself_and_its_signatures(site: Site) -> None:
    site.edit("demo-1.0.dist-info/RECORD", "demo-1.0.dist-info/RECORD,,\n", "")
    site.write("demo-1.0.dist-info/RECORD.jws", "{}")
    assert findings(site) == []


def test_names_in_quotes(site: Site) -> None:
    site.install("tool", "2", files={"a b.txt": "x"})
    site.write("tool, too.txt", "x")
    _, _, rest = site.line("tool, too.txt").rpartition("too.txt")
    append(site, f'"tool, too.txt"{rest}')
    assert findings(site) == []


def test_a_distribution_without_record(site: Site) -> None:
    site.install("tool", "2", files={"tool.txt": "x"})
    site.remove("tool-2.dist-info/RECORD")
    found = {(path, severity) for _, path, severity, _ in findings(site, UNSEALED)}
    info = f"{PACKAGES}/tool-2.dist-info"
    assert found == {(f"{info}/RECORD", WARNING), (f"{PACKAGES}/tool.txt", WARNING)}
    assert {severity for _, _, severity, _ in findings(site)} == {ERROR}


def test_a_big_file_is_compared(site: Site) -> None:
    big = "x" * (3 << 20)
    site.install("tool", "2", files={"tool.bin": big})
    assert findings(site) == []
    site.prefix.write(f"{PACKAGES}/tool.bin", big[:-1] + "y")
    ((_, path, _, message),) = findings(site)
    assert path == f"{PACKAGES}/tool.bin"
    assert message.endswith("changed after it was installed")


def test_what_wheels_put_into_bin_is_of_wheels(site: Site) -> None:
    """A program of a wheel may need what wheels may need, not only what the interpreter may."""
    needed = ("libc.so.6", "libgcc_s.so.1", "libother.so.3")
    site.prefix.write("bin/ruff", shared(needed=needed), 0o555)
    policy = replace(POLICY, needed=frozenset({"libc.so.6"}))
    errors = [f for f in audit(site.prefix.root, policy).findings if f.severity == ERROR]
    assert [f.check for f in errors] == ["needed", "needed"]
    append(site, site.line("../../../bin/ruff"))
    (finding,) = (f for f in audit(site.prefix.root, policy).findings if f.path == "bin/ruff")
    assert (finding.check, finding.severity) == ("needed", WARNING)
    assert finding.message.endswith("not every system has: libother.so.3")
    assert "libgcc_s" not in finding.message


# -- pth ----------------------------------------------------------------------------------------


def with_pth(site: Site, text: str) -> None:
    site.install("tool", "2", files={"tool.pth": text})


@broken("pth", "/tool.pth", "of tool 2 runs code at every start .*: import tool_hook", WARNING)
def code_in_pth(site: Site) -> None:
    with_pth(site, "# comment\n\nimport tool_hook; tool_hook.install()\n")


@broken("pth", "/tool.pth", "of tool 2 adds /srv/checkout/src, which is outside the prefix")
def absolute_pth(site: Site) -> None:
    with_pth(site, "demo\n/srv/checkout/src\n")


@broken("pth", "/tool.pth", r"adds \.\./\.\./\.\./\.\./src, which is outside")
def leaving_pth(site: Site) -> None:
    with_pth(site, "../../../../src\n")


@broken("pth", "/tool.pth", "runs code", WARNING)
def code_after_a_byte_order_mark(site: Site) -> None:
    with_pth(site, "\ufeffimport\ttool_hook\n")


def test_a_pth_of_nobody(site: Site) -> None:
    site.write("stray.pth", "import evil\n")
    messages = [message for check, *_, message in findings(site) if check == "pth"]
    assert messages == [
        "of no distribution runs code at every start of the interpreter: import evil"
    ]


def test_a_pth_is_read_without_distributions(tmp_path: Path) -> None:
    prefix = make_prefix(tmp_path / "prefix")
    prefix.write(f"{PACKAGES}/stray.pth", "/srv\n")
    (finding,) = audit(prefix.root, POLICY).findings
    assert finding.check == "pth"
    prefix.open()


def test_pth_that_is_harmless(site: Site) -> None:
    """Only those directly in site-packages are read; models for machine learning are pth too."""
    with_pth(site, "# import x\n\ndemo\n../site-packages/demo.libs\n")
    site.install("models", "1", files={"models/weights.pth": "import x\n"})
    assert findings(site) == []


# -- all ----------------------------------------------------------------------------------------


def test_every_check_is_broken_once() -> None:
    assert {check for _, check, *_ in BROKEN.values()} == set(CHECKS)


def test_nothing_is_paid_for_what_is_not_there(tmp_path: Path) -> None:
    prefix = make_prefix(tmp_path / "prefix")
    code = (
        "import sys, pathlib; from longrun.audit import *; "
        "report = audit(pathlib.Path(sys.argv[1]), Policy()); "
        "assert 'records' in report.checked; assert 'packaging' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    argv = [sys.executable, "-c", code, str(prefix.root)]
    subprocess.run(argv, env=environment, check=True)
    prefix.open()
