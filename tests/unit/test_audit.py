"""The audit: a healthy prefix passes; each way to break it is found by one check, with a remedy."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefix_maker import (
    API,
    BUNDLED,
    HOOK,
    HOOK_TEXT,
    JSON,
    LIBRARY,
    LOADER,
    NATIVE,
    PROGRAM,
    SSL,
    SUFFIX,
    MadePrefix,
    make_prefix,
    shared,
    wheel,
)

from longrun import audit as audit_room
from longrun.audit import (
    CHECKS,
    KeptApi,
    Policy,
    audit,
    load_kept_api,
    metadata_checks,
    policy_for_path,
    require,
)
from longrun.audit import archives as archives_module
from longrun.audit.policy import GLIBC_LIBRARIES, policy_for
from longrun.audit.render import lines, verdict
from longrun.audit.report import ERROR, WARNING
from longrun.errors import AuditError, SpecError
from longrun.model import Floor

PACKAGES = f"{LIBRARY}/site-packages"
STORE = "/home/builder/.cache/longrun/store"
KEPT = KeptApi(
    reference="Debian's python3.13",
    names={"os": ("close", "fork"), "time": ("sleep",)},
    have=("HAVE_FORK",),
)
POLICY = Policy(
    floor=Floor(arch="x86_64", glibc="2.28"),
    needed=GLIBC_LIBRARIES,
    forbidden={"constant prefix": "/__longrun__", "store": STORE},
    modules=frozenset({"_ssl", "_json"}),
    api=KEPT,
    hook=HOOK_TEXT,
    sealed=True,
)
TOOL = "bin/tool"


@pytest.fixture
def prefix(tmp_path: Path) -> Iterator[MadePrefix]:
    made = make_prefix(tmp_path / "prefix")
    yield made
    made.open()


def test_a_healthy_prefix_passes(prefix: MadePrefix) -> None:
    report = audit(prefix.root, POLICY)
    assert report.findings == ()
    assert report.ok
    assert report.checked == tuple(CHECKS)
    assert report.not_checked == {}
    require(report)


Break = Callable[[MadePrefix], None]
BROKEN: dict[str, tuple[Break, str, str, str, str]] = {}
"""Name to: what breaks the prefix, the check that finds it, the file, words of the message."""


def broken(check: str, path: str, message: str, severity: str = ERROR) -> Callable[[Break], Break]:
    def register(function: Break) -> Break:
        assert function.__name__ not in BROKEN
        BROKEN[function.__name__] = (function, check, path, message, severity)
        return function

    return register


# -- executables and shared objects -------------------------------------------------------------


@broken("elf", SSL, "damaged ELF file")
def truncated_elf(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(exports=("PyInit__ssl",))[:200], 0o555)


@broken("elf", SSL, "is for aarch64, the prefix is for x86_64")
def other_processor(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(machine=183, exports=("PyInit__ssl",)), 0o555)


OTHER = f"{PACKAGES}/demo/clibs/other.so"


@broken("elf", OTHER, "is for aarch64", WARNING)
def library_for_another_processor_in_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(OTHER, shared(machine=183))


@broken("elf", OTHER, "not a 64-bit little-endian ELF file", WARNING)
def library_for_32_bits_in_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(OTHER, shared()[:4] + b"\x01" + shared()[5:])


@broken("elf", SSL, "not a 64-bit little-endian ELF file")
def extension_module_for_32_bits(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared()[:4] + b"\x01" + shared()[5:], 0o555)


@broken("elf", NATIVE, "damaged ELF file")
def truncated_elf_in_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared()[:200])


@broken("elf", PROGRAM, "dynamic linker /nix/store/ld.so")
def other_loader(prefix: MadePrefix) -> None:
    prefix.write(PROGRAM, shared(type_=2, interpreter="/nix/store/ld.so"), 0o555)


@broken("versions", SSL, r"needs GLIBC_2\.34, GLIBC_2\.29; the floor has GLIBC_2\.28")
def newer_glibc(prefix: MadePrefix) -> None:
    names = ("GLIBC_2.2.5", "GLIBC_2.29", "GLIBC_2.34")
    prefix.write(SSL, shared(versions={"libc.so.6": names}), 0o555)


@broken("versions", SSL, r"GLIBC_ABI_DT_RELR")
def relative_relocations(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(versions={"libc.so.6": ("GLIBC_ABI_DT_RELR",)}), 0o555)


@broken("versions", SSL, "GLIBC_PRIVATE: not a public interface")
def private_glibc(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(versions={"libc.so.6": ("GLIBC_PRIVATE",)}), 0o555)


@broken("versions", NATIVE, r"GLIBCXX_3\.4\.26; the floor has GLIBCXX_3\.4\.25")
def newer_libstdcxx(prefix: MadePrefix) -> None:
    needs = {"libstdc++.so.6": ("GLIBCXX_3.4.9", "GLIBCXX_3.4.26")}
    prefix.write(NATIVE, shared(versions=needs, exports=("PyInit__native",)))


@broken("versions", NATIVE, r"CXXABI_1\.3\.13; the floor has CXXABI_1\.3\.11")
def newer_cxxabi(prefix: MadePrefix) -> None:
    needs = {"libstdc++.so.6": ("CXXABI_FLOAT128", "CXXABI_1.3.13")}
    prefix.write(NATIVE, shared(versions=needs, exports=("PyInit__native",)))


@broken("versions", f"{PACKAGES}/demo/helper.so", "nothing that is imported needs", WARNING)
def helper_of_a_wheel_needs_newer_glibc(prefix: MadePrefix) -> None:
    needs = {"libc.so.6": ("GLIBC_2.34",)}
    prefix.write(f"{PACKAGES}/demo/helper.so", shared(versions=needs))


@broken("versions", BUNDLED, r"needs GLIBC_2\.34; the floor has GLIBC_2\.28$")
def bundled_library_of_an_imported_module_needs_newer_glibc(prefix: MadePrefix) -> None:
    needs = {"libc.so.6": ("GLIBC_2.34",)}
    prefix.write(BUNDLED, shared(soname="libbundled-12ab.so.1", versions=needs))


@broken("versions", NATIVE, r"GLIBCXX_3\.4\.26; the floor")
def libstdcxx_of_another_wheel_is_not_found(prefix: MadePrefix) -> None:
    prefix.write(f"{PACKAGES}/other.libs/libstdc++.so.6", shared(soname="libstdc++.so.6"))
    needs = {"libstdc++.so.6": ("GLIBCXX_3.4.26",)}
    prefix.write(NATIVE, shared(versions=needs, exports=("PyInit__native",)))


@broken("needed", SSL, r"needs libssl\.so\.3, which neither the prefix nor every system has")
def system_library(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(needed=("libc.so.6", "libssl.so.3")), 0o555)


@broken("needed", SSL, r"needs libstdc\+\+")
def library_that_only_wheels_may_need(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(needed=("libstdc++.so.6",)), 0o555)


@broken("needed", NATIVE, "no RUNPATH leads there", WARNING)
def bundled_library_without_runpath(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(needed=("libbundled-12ab.so.1",)))


@broken("needed", NATIVE, r"system what not every system has: libEGL\.so\.1", WARNING)
def wheel_expects_a_desktop(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(needed=("libEGL.so.1",)))


@broken(
    "needed",
    f"{PACKAGES}/demo",
    r"libEGL\.so\.1 \(2 files\), libxkbcommon\.so\.0 \(plugin\.so\)",
    WARNING,
)
def wheel_expects_a_desktop_in_several_files(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(needed=("libEGL.so.1",)))
    needed = ("libEGL.so.1", "libxkbcommon.so.0")
    prefix.write(f"{PACKAGES}/demo/plugin.so", shared(needed=needed))


@pytest.mark.parametrize("kind", ["rpath", "runpath"])
def test_a_library_is_found_on_behalf_of_its_loader(prefix: MadePrefix, kind: str) -> None:
    """RPATH holds for all that is loaded for a file; RUNPATH for what the file itself needs."""
    first = ("libbundled-12ab.so.1",)
    prefix.write(
        NATIVE,
        shared(needed=first, exports=("PyInit__native",), **{kind: "$ORIGIN/../demo.libs"}),
    )
    prefix.write(BUNDLED, shared(soname="libbundled-12ab.so.1", needed=("libsecond.so",)))
    prefix.write(f"{PACKAGES}/demo.libs/libsecond.so", shared(soname="libsecond.so"))
    found = [(finding.check, finding.path) for finding in audit(prefix.root, POLICY).findings]
    assert found == ([] if kind == "rpath" else [("needed", BUNDLED)])


def test_a_library_that_is_loaded_already_needs_no_path(prefix: MadePrefix) -> None:
    both = ("libsecond.so", "libbundled-12ab.so.1")
    prefix.write(
        NATIVE, shared(needed=both, runpath="$ORIGIN/../demo.libs", exports=("PyInit__native",))
    )
    prefix.write(BUNDLED, shared(soname="libbundled-12ab.so.1", needed=("libsecond.so",)))
    prefix.write(f"{PACKAGES}/demo.libs/libsecond.so", shared(soname="libsecond.so"))
    assert audit(prefix.root, POLICY).findings == ()


def test_a_library_is_found_through_a_link(prefix: MadePrefix) -> None:
    prefix.link(f"{PACKAGES}/demo.libs/libdemo.so", "libbundled-12ab.so.1")
    needed, exports = ("libdemo.so",), ("PyInit__native",)
    prefix.write(NATIVE, shared(needed=needed, runpath="$ORIGIN/../demo.libs", exports=exports))
    assert audit(prefix.root, POLICY).findings == ()


@broken("needed", PROGRAM, "no RUNPATH leads there")
def program_does_not_find_its_library(prefix: MadePrefix) -> None:
    prefix.write("lib/libpython3.13.so.1.0", shared(soname="libpython3.13.so.1.0"))
    needed = ("libpython3.13.so.1.0",)
    prefix.write(PROGRAM, shared(type_=2, interpreter=LOADER, needed=needed), 0o555)


@broken("runpath", SSL, "RUNPATH '/usr/lib/x' is not relative to")
def absolute_runpath(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$ORIGIN:/usr/lib/x"), 0o555)


@broken("runpath", SSL, "RPATH '/opt/x/lib' is not relative")
def absolute_rpath(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(rpath="/opt/x/lib"), 0o555)


@broken("runpath", SSL, "is empty: libraries would be taken from the current directory")
def empty_runpath_entry(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$ORIGIN:"), 0o555)


@broken("runpath", SSL, "leads out of the prefix")
def runpath_out_of_the_prefix(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$ORIGIN/../../../../lib"), 0o555)


@broken("runpath", "top.so", "leads out of the prefix")
def runpath_out_of_the_prefix_from_its_top(prefix: MadePrefix) -> None:
    prefix.write("top.so", shared(runpath="$ORIGIN/../lib"))


def test_library_at_the_top_of_the_prefix(prefix: MadePrefix) -> None:
    prefix.write("libtop.so", shared())
    prefix.write(SSL, shared(runpath="$ORIGIN/../../..", needed=("libtop.so",)), 0o555)
    assert audit(prefix.root, POLICY).findings == ()


@broken("runpath", SSL, "is not relative to")
def runpath_to_another_token(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$ORIGIN/$LIB"), 0o555)


@broken("runpath", SSL, "is not relative to")
def runpath_with_another_word(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$ORIGINAL/lib"), 0o555)


@pytest.mark.parametrize("entry", ["$ORIGIN", "${ORIGIN}/../..", "$ORIGIN/../../../", "$ORIGIN/x"])
def test_runpaths_that_are_allowed(prefix: MadePrefix, entry: str) -> None:
    prefix.write(SSL, shared(runpath=entry, exports=("PyInit__ssl",)), 0o555)
    assert audit(prefix.root, POLICY).findings == ()


@broken("runpath", SSL, "leads out of the prefix")
def runpath_out_and_back(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$ORIGIN/../../../../prefix/lib"), 0o555)


@broken("runpath", NATIVE, "not relative")
def runpath_of_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(runpath="/opt/_internal/lib:$ORIGIN/../demo.libs"))


@broken(
    "runpath", f"{PACKAGES}/demo", r"not relative .*\(2 files, such as _native\..*, plugin\.so\)"
)
def runpath_of_several_files_of_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(runpath="/opt/_internal/lib:$ORIGIN/../demo.libs"))
    prefix.write(f"{PACKAGES}/demo/plugin.so", shared(runpath="/opt/_internal/lib"))


@broken("runpath", NATIVE, "is empty: libraries would be taken from the current directory")
def empty_runpath_entry_of_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(runpath=":$ORIGIN/../demo.libs"))


@broken("runpath", SSL, "not relative")
def runpath_beside_origin(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(runpath="$LIB/x"), 0o555)


@pytest.mark.parametrize(
    ("library", "symbol"),
    [
        ("OpenSSL", "SSL_CTX_new"),
        ("OpenSSL", "EVP_sha256"),
        ("SQLite", "sqlite3_open_v2"),
        ("ncurses", "_nc_setupscreen"),
        ("ncurses", "initscr"),
        ("readline", "rl_bind_key"),
        ("readline", "readline"),
        ("Tcl/Tk", "Tcl_CreateInterp"),
        ("Tcl/Tk", "TclpAlloc"),
        ("Tcl/Tk", "Tk_MainLoop"),
        ("X11", "XOpenDisplay"),
        ("X11", "xcb_connect"),
        ("X11", "FcInit"),
        ("zlib", "inflate"),
        ("zlib", "deflateInit_"),
        ("zlib", "crc32"),
        ("expat", "XML_Parse"),
        ("libffi", "ffi_call"),
        ("bzip2", "BZ2_bzCompress"),
        ("xz", "lzma_code"),
        ("mpdecimal", "mpd_add"),
        ("gdbm", "gdbm_open"),
        ("libuuid", "uuid_generate"),
        ("zstd", "ZSTD_compress"),
    ],
)
def test_exported_symbols(prefix: MadePrefix, library: str, symbol: str) -> None:
    prefix.write(SSL, shared(exports=("PyInit__ssl", symbol)), 0o555)
    (finding,) = audit(prefix.root, POLICY).findings
    assert (finding.check, finding.path, finding.severity) == ("exports", SSL, ERROR)
    assert finding.message == f"exports 1 symbols of {library}, {symbol}"
    assert "version script" in finding.remedy


@pytest.mark.parametrize("symbol", ["PyInit__ssl", "PyInitU_x", "_end", "__bss_start"])
def test_symbols_that_a_module_may_export(prefix: MadePrefix, symbol: str) -> None:
    prefix.write(SSL, shared(exports=(symbol,)), 0o555)
    assert audit(prefix.root, POLICY).findings == ()


@pytest.mark.parametrize("symbol", ["PyErr_Format", "_Py_NoneStruct", "PyExpat_XML_Parse", "Py_AE"])
def test_the_interpreter_exports_its_own(prefix: MadePrefix, symbol: str) -> None:
    prefix.write(PROGRAM, shared(type_=2, interpreter=LOADER, exports=(symbol,)), 0o555)
    assert audit(prefix.root, POLICY).findings == ()


@broken("exports", SSL, "exports 1 symbols besides PyInit_, helper", WARNING)
def module_exports_a_helper(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(exports=("PyInit__ssl", "helper")), 0o555)


@broken("exports", PROGRAM, "exports 1 symbols of SQLite")
def interpreter_exports_a_library(prefix: MadePrefix) -> None:
    exports = ("Py_Main", "sqlite3_open")
    prefix.write(PROGRAM, shared(type_=2, interpreter=LOADER, exports=exports), 0o555)


@broken("exports", NATIVE, "of OpenSSL", WARNING)
def module_of_a_wheel_exports_a_library(prefix: MadePrefix) -> None:
    prefix.write(NATIVE, shared(exports=("PyInit__native", "SSL_new")))


@broken("execstack", SSL, "makes the stack executable: PT_GNU_STACK has X")
def executable_stack(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(stack=7), 0o555)


@broken("execstack", SSL, "has no PT_GNU_STACK")
def no_stack_header(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(stack=None), 0o555)


@broken("relro", SSL, "has no PT_GNU_RELRO")
def no_relro(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(relro=False), 0o555)


@broken("bind-now", SSL, "is not BIND_NOW")
def lazy_binding(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(bind_now=False), 0o555)


@broken("bind-now", BUNDLED, "is not BIND_NOW", WARNING)
def lazy_binding_in_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(BUNDLED, shared(bind_now=False))


@broken("textrel", SSL, "relocations in its code")
def text_relocations(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(textrel=True), 0o555)


# -- files --------------------------------------------------------------------------------------


@broken("paths", SSL, rf"holds the store path at byte \d+: {STORE}/openssl/lib")
def store_path_in_elf(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(extra=f"\0{STORE}/openssl/lib\0".encode()), 0o555)


@broken(
    "paths", "lib/pkgconfig/python.pc", "constant prefix path 2 times, first at byte 7: prefix="
)
def constant_prefix_in_text(prefix: MadePrefix) -> None:
    prefix.write("lib/pkgconfig/python.pc", "prefix=/__longrun__\nlibdir=/__longrun__/lib\n")


@broken("paths", f"{LIBRARY}/__pycache__/os.cpython-313.pyc", "/__longrun__/lib/os.py")
def constant_prefix_in_bytecode(prefix: MadePrefix) -> None:
    source = (prefix.root / f"{LIBRARY}/os.py").read_text()
    prefix.bytecode(f"{LIBRARY}/os.py", source, body=b"\xda\x16/__longrun__/lib/os.py\xe9")


@broken("paths", "lib/libpython3.13.a", "holds the store path")
def store_path_in_static_archive(prefix: MadePrefix) -> None:
    prefix.write("lib/libpython3.13.a", f"!<arch>\nx.o/   {STORE}/x.c".encode())


@broken("paths", f"{LIBRARY}/ensurepip/_bundled/pip-25-any.whl", r"path in pip/b\.py at byte 9")
def store_path_in_wheel(prefix: MadePrefix) -> None:
    members = {"pip/a.py": b"pass", "pip/b.py": f"prefix = {STORE}".encode()}
    prefix.write(f"{LIBRARY}/ensurepip/_bundled/pip-25-any.whl", wheel(members))


MEGABYTE = 1 << 20


@pytest.mark.parametrize("offset", [0, 5, MEGABYTE - 5, MEGABYTE, 2 * MEGABYTE + 9])
def test_path_in_a_big_file(prefix: MadePrefix, offset: int) -> None:
    """Big files are read in parts: what lies across two of them is found too, at its place."""
    data = bytearray(3 * MEGABYTE)
    data[offset : offset + len(STORE)] = STORE.encode()
    prefix.write("share/big", bytes(data))
    (finding,) = audit(prefix.root, POLICY).findings
    assert (finding.check, finding.path) == ("paths", "share/big")
    assert f"holds the store path at byte {offset}: {STORE}" in finding.message


def test_paths_with_a_common_beginning_are_told_apart(prefix: MadePrefix) -> None:
    prefix.write("share/big", bytes(2 * MEGABYTE) + f"{STORE}/x".encode())
    prefix.write("share/none", f"{STORE[:-3]}".encode())
    forbidden = {"store": STORE, "work": f"{STORE[:-3]}work", "other": "/__longrun__"}
    (finding,) = audit(prefix.root, replace(POLICY, forbidden=forbidden)).findings
    assert (finding.path, "store path" in finding.message) == ("share/big", True)


def test_a_big_library_is_read(prefix: MadePrefix) -> None:
    needed = ("libc.so.6", "libssl.so.3")
    prefix.write(SSL, shared(needed=needed) + bytes(2 * MEGABYTE), 0o555)
    (finding,) = audit(prefix.root, POLICY).findings
    assert (finding.check, finding.path) == ("needed", SSL)


def test_a_big_archive_is_searched(prefix: MadePrefix) -> None:
    text = os.urandom(MEGABYTE).hex() + STORE
    prefix.write("share/big.gz", gzip.compress(text.encode() * 2))
    (finding,) = audit(prefix.root, POLICY).findings
    assert f"path in (unpacked) 2 times, first at byte {2 * MEGABYTE}" in finding.message


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_store_path_in_compressed_file(
    prefix: MadePrefix, compress: Callable[[bytes], bytes]
) -> None:
    prefix.write("share/man/python.1.z", compress(f"see{STORE}{'x' * 1000}".encode()))
    (finding,) = audit(prefix.root, POLICY).findings
    assert (finding.check, finding.path) == ("paths", "share/man/python.1.z")
    assert "holds the store path in (unpacked) at byte 3" in finding.message


@broken("paths", "share/nested.zip", r"path in inner\.zip!deep\.txt at byte 0")
def store_path_in_archive_in_archive(prefix: MadePrefix) -> None:
    prefix.write("share/nested.zip", wheel({"inner.zip": wheel({"deep.txt": STORE.encode()})}))


@broken("paths", "share/broken.zip", "could not be searched inside", WARNING)
def damaged_archive(prefix: MadePrefix) -> None:
    prefix.write("share/broken.zip", wheel({"a": b"a" * 1000})[:60])


@broken("modes", TOOL, "is setuid")
def setuid(prefix: MadePrefix) -> None:
    prefix.write(TOOL, b"", 0o4555)


@broken("modes", TOOL, "is setgid")
def setgid(prefix: MadePrefix) -> None:
    prefix.write(TOOL, b"", 0o2555)


@broken("modes", "share", "has the sticky bit")
def sticky(prefix: MadePrefix) -> None:
    prefix.chmod("share", 0o1555)


@broken("modes", "share/empty", "is writable by everyone")
def world_writable(prefix: MadePrefix) -> None:
    prefix.chmod("share/empty", 0o446)


@broken("modes", "share/empty", "is writable")
def writable(prefix: MadePrefix) -> None:
    prefix.chmod("share/empty", 0o644)


@broken("modes", "share", "is writable")
def writable_directory(prefix: MadePrefix) -> None:
    prefix.chmod("share", 0o755)


@broken("modes", "share/empty", "cannot be read by everyone: mode 440")
def not_for_everyone(prefix: MadePrefix) -> None:
    prefix.chmod("share/empty", 0o440)


@broken("modes", "bin", "cannot be read by everyone: mode 554")
def directory_not_for_everyone(prefix: MadePrefix) -> None:
    prefix.chmod("bin", 0o554)


@broken("links", "bin/python", "nothing is there")
def dangling_link(prefix: MadePrefix) -> None:
    prefix.link("bin/python", "python3.12")


@broken("links", "bin/python", "it is absolute")
def absolute_link(prefix: MadePrefix) -> None:
    prefix.link("bin/python", str(prefix.root / "bin/python3.13"))


@broken("links", "share/zoneinfo", "it leaves the prefix")
def leaving_link(prefix: MadePrefix) -> None:
    prefix.link("share/zoneinfo", "../../../../usr")


@broken("links", "share/loop", "goes round in a circle")
def circular_link(prefix: MadePrefix) -> None:
    prefix.link("share/loop", "loop")


@broken("paths", "share/link", "holds the constant prefix path")
def link_target_with_a_path(prefix: MadePrefix) -> None:
    prefix.open()
    (prefix.root / "share/__longrun__").mkdir()
    prefix.link("share/link", ".//__longrun__")


def test_links_that_are_allowed(prefix: MadePrefix) -> None:
    prefix.link("share/top", "..")
    prefix.link("share/python", "top/bin/python3")
    assert audit(prefix.root, POLICY).findings == ()


@broken("kinds", "share/pipe", "is a FIFO")
def fifo(prefix: MadePrefix) -> None:
    prefix.open()
    os.mkfifo(prefix.root / "share/pipe", 0o444)
    prefix.close()


@broken("kinds", "share/s", "is a socket")
def unix_socket(prefix: MadePrefix) -> None:
    prefix.open()
    with socket.socket(socket.AF_UNIX) as made:
        directory = os.open(prefix.root / "share", os.O_RDONLY)
        made.bind(f"/proc/self/fd/{directory}/s")  # the real path can be too long for a socket
        os.close(directory)
    prefix.chmod("share/s", 0o444)
    prefix.close()


@broken("names", r"share/a\nb", "control character")
def newline_in_name(prefix: MadePrefix) -> None:
    prefix.write("share/a\nb", b"")


@broken("names", r"share/\udcff", "not UTF-8")
def name_that_is_not_utf8(prefix: MadePrefix) -> None:
    prefix.write("share/\udcff", b"")


@broken("shebangs", TOOL, "this path may be another or missing")
def interpreter_elsewhere(prefix: MadePrefix) -> None:
    prefix.write(TOOL, "#!/usr/local/bin/python3.13\n", 0o555)


@broken("shebangs", TOOL, "the first Python of PATH")
def env_python_in_bin(prefix: MadePrefix) -> None:
    prefix.write(TOOL, "#!/usr/bin/env python3\n", 0o555)


@broken("shebangs", TOOL, "names no absolute path")
def relative_shebang(prefix: MadePrefix) -> None:
    prefix.write(TOOL, "#!python3\n", 0o555)


@broken("shebangs", TOOL, "127 bytes")
def long_shebang(prefix: MadePrefix) -> None:
    prefix.write(TOOL, f"#!/bin/sh {'x' * 130}\n", 0o555)


def test_shebangs_that_are_allowed(prefix: MadePrefix) -> None:
    prefix.write("bin/script", "#!/bin/sh\n", 0o555)
    prefix.write("bin/perl-script", "#!/usr/bin/env perl\n", 0o555)
    prefix.write("share/sample", "#!/usr/bin/env python3\n", 0o555)
    prefix.write("share/text", "#!/nowhere/python\n", 0o444)
    assert audit(prefix.root, POLICY).findings == ()


@broken("shebangs", f"{PACKAGES}/demo/run.py", "may be another or missing", WARNING)
def interpreter_elsewhere_in_a_wheel(prefix: MadePrefix) -> None:
    prefix.source(f"{PACKAGES}/demo/run.py", "#!/usr/bin/python\n")
    prefix.chmod(f"{PACKAGES}/demo/run.py", 0o555)


def test_a_script_in_a_package_starts_any_python(prefix: MadePrefix) -> None:
    prefix.source(f"{PACKAGES}/demo/run.py", "#!/usr/bin/env python3\n")
    prefix.chmod(f"{PACKAGES}/demo/run.py", 0o555)
    assert audit(prefix.root, POLICY).findings == ()


@broken("libtool", f"{PACKAGES}/demo/libfoo.la", "libtool archive", WARNING)
def libtool_archive_in_a_wheel(prefix: MadePrefix) -> None:
    prefix.write(f"{PACKAGES}/demo/libfoo.la", b"# libfoo.la")


@broken("libtool", "lib/libfoo.la", "libtool archive")
def libtool_archive(prefix: MadePrefix) -> None:
    prefix.write("lib/libfoo.la", b"# libfoo.la")


# -- Python -------------------------------------------------------------------------------------


@broken("modules", f"{LIBRARY}/lib-dynload/_ssl.*.so", "the extension module _ssl is missing")
def missing_module(prefix: MadePrefix) -> None:
    prefix.remove(SSL)


@broken("modules", f"{LIBRARY}/lib-dynload/_surplus.{SUFFIX}", "not in the spec's list")
def surplus_module(prefix: MadePrefix) -> None:
    prefix.write(f"{LIBRARY}/lib-dynload/_surplus.{SUFFIX}", shared())


@broken("modules", f"{LIBRARY}/lib-dynload/_ssl.so", "a second file of module _ssl")
def module_twice(prefix: MadePrefix) -> None:
    prefix.write(f"{LIBRARY}/lib-dynload/_ssl.so", shared())


OS = f"{LIBRARY}/os.py"
OS_PYC = f"{LIBRARY}/__pycache__/os.cpython-313.pyc"


def recompile(prefix: MadePrefix, **options: int) -> None:
    prefix.bytecode(OS, (prefix.root / OS).read_text(), **options)  # type: ignore[arg-type]


def test_remedies_fit_the_file(prefix: MadePrefix) -> None:
    recompile(prefix, body=STORE.encode())  # type: ignore[arg-type]
    prefix.write(SSL, shared(extra=STORE.encode()), 0o555)
    prefix.write("share/empty", STORE)
    remedies = {f.path: f.remedy for f in audit(prefix.root, POLICY).findings}
    assert "compileall" in remedies[OS_PYC]
    assert "-ffile-prefix-map" in remedies[SSL]
    assert "relative" in remedies["share/empty"]


@broken("bytecode", OS_PYC, "magic number 3495, wanted 3571")
def bytecode_of_another_interpreter(prefix: MadePrefix) -> None:
    recompile(prefix, magic=3495)


@broken("bytecode", OS_PYC, "keeps its time stamp")
def bytecode_by_time_stamp(prefix: MadePrefix) -> None:
    recompile(prefix, flags=0)


@broken("bytecode", OS_PYC, "checked-hash")
def bytecode_checked(prefix: MadePrefix) -> None:
    recompile(prefix, flags=3)


@broken("bytecode", OS_PYC, "cut off")
def bytecode_cut_off(prefix: MadePrefix) -> None:
    prefix.write(OS_PYC, (prefix.root / OS_PYC).read_bytes()[:9])


@broken("bytecode", f"{LIBRARY}/__pycache__/gone.cpython-313.pyc", rf"{LIBRARY}/gone\.py is not")
def bytecode_without_source(prefix: MadePrefix) -> None:
    prefix.bytecode(f"{LIBRARY}/gone.py", "")


@broken("bytecode", f"{LIBRARY}/new.py", "has no bytecode")
def source_without_bytecode(prefix: MadePrefix) -> None:
    prefix.write(f"{LIBRARY}/new.py", "x = 1\n")


def test_sources_with_dots_in_their_names(prefix: MadePrefix) -> None:
    prefix.source(f"{PACKAGES}/demo/__init__.tmpl.py", "x = 1\n")
    cached = f"{PACKAGES}/demo/__pycache__/__init__.tmpl.cpython-313.pyc"
    data = (prefix.root / cached).read_bytes()
    prefix.write(cached.replace(".pyc", ".opt-1.pyc"), data)
    assert audit(prefix.root, POLICY).findings == ()


def test_warnings_of_sources_are_not_printed(prefix: MadePrefix) -> None:
    prefix.write(f"{LIBRARY}/new.py", "x = '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (finding,) = audit(prefix.root, POLICY).findings
    assert finding.check == "bytecode"


@broken("sources", OS, r"changed after os\.cpython-313\.pyc was compiled")
def edited_source(prefix: MadePrefix) -> None:
    prefix.write(OS, (prefix.root / OS).read_text() + "import evil\n")


def test_a_file_that_is_no_python_needs_no_bytecode(prefix: MadePrefix) -> None:
    prefix.write(f"{LIBRARY}/site-packages/demo/template.py", "def {{ name }}(:\n")
    assert audit(prefix.root, POLICY).findings == ()


API_JSON = "share/longrun/api.json"


def change_api(prefix: MadePrefix, **changes: object) -> None:
    prefix.write(API_JSON, json.dumps({**API, **changes}))


@broken("api", API_JSON, r"os\.fork is gone; Debian's python3\.13 has it")
def lost_function(prefix: MadePrefix) -> None:
    change_api(prefix, names={"os": ["close"], "time": ["sleep"]})


@broken("api", API_JSON, "HAVE_FORK is gone")
def lost_macro(prefix: MadePrefix) -> None:
    change_api(prefix, have=[])


@broken("api", API_JSON, r"time\.nap is new", WARNING)
def new_function(prefix: MadePrefix) -> None:
    change_api(prefix, names={"os": ["close", "fork"], "time": ["sleep", "nap", "_private"]})


@broken("api", API_JSON, "not a list of names")
def damaged_api(prefix: MadePrefix) -> None:
    prefix.write(API_JSON, b'{"names": {"os": 3}}')


@broken("externally-managed", f"{LIBRARY}/EXTERNALLY-MANAGED", "missing or empty")
def not_externally_managed(prefix: MadePrefix) -> None:
    prefix.remove(f"{LIBRARY}/EXTERNALLY-MANAGED")


@broken("externally-managed", f"{LIBRARY}/EXTERNALLY-MANAGED", "missing or empty")
def empty_externally_managed(prefix: MadePrefix) -> None:
    prefix.write(f"{LIBRARY}/EXTERNALLY-MANAGED", b"")


@broken("hook", HOOK, "the start-up hook is missing")
def no_hook(prefix: MadePrefix) -> None:
    prefix.remove(HOOK)
    prefix.remove(f"{LIBRARY}/__pycache__/_longrun_usage.cpython-313.pyc")


@broken("hook", HOOK, "is not the start-up hook of this checkout")
def another_hook(prefix: MadePrefix) -> None:
    prefix.source(HOOK, HOOK_TEXT.replace("pass", "return"))


@broken("hook", PROGRAM, "its frozen site does not call the start-up hook")
def site_without_hook(prefix: MadePrefix) -> None:
    prefix.write(PROGRAM, shared(type_=2, interpreter=LOADER, extra=b""), 0o555)


@broken("hook", "lib/libpython3.13.so.1.0", "its frozen site does not call the start-up hook")
def library_whose_site_calls_no_hook(prefix: MadePrefix) -> None:
    prefix.write("lib/libpython3.13.so.1.0", shared(extra=b""), 0o555)


@broken("no-pip", "bin/pip3.13", "installed in the base")
def pip_program(prefix: MadePrefix) -> None:
    prefix.write("bin/pip3.13", "#!/bin/sh\n", 0o555)


@broken("no-pip", f"{PACKAGES}/pip", "installed in the base")
def pip_package(prefix: MadePrefix) -> None:
    prefix.write(f"{PACKAGES}/pip/py.typed", b"")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_prefix(prefix: MadePrefix, name: str) -> None:
    break_it, check, path, message, severity = BROKEN[name]
    break_it(prefix)
    report = audit(prefix.root, POLICY)
    found = [(finding.check, finding.path, finding.severity) for finding in report.findings]
    assert found == [(check, path, severity)]
    (finding,) = report.findings
    assert re.search(message, finding.message)
    assert finding.remedy
    assert report.ok == (severity == WARNING)


def test_every_check_is_broken_once() -> None:
    elsewhere = {"readable", *metadata_checks.CHECKS}
    assert {check for _, check, *_ in BROKEN.values()} | elsewhere == set(CHECKS)


def test_unreadable_file(prefix: MadePrefix, monkeypatch: pytest.MonkeyPatch) -> None:
    # root reads everything, so the failure has to be made
    def refuse(path: str, *args: object, **kwargs: object) -> object:
        if str(path).endswith("share/empty"):
            raise PermissionError(13, "Permission denied")
        return open(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("longrun.audit.content.open", refuse, raising=False)
    (finding,) = audit(prefix.root, POLICY).findings
    assert (finding.check, finding.path) == ("readable", "share/empty")
    assert "Permission denied" in finding.message


def test_size_bomb_is_reported_and_cheap(
    prefix: MadePrefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives_module, "_MOST_BYTES", 1_000_000)
    bomb = gzip.compress(bytes(50_000_000))
    for _ in range(2):
        bomb = gzip.compress(bomb)
    prefix.write("share/bomb.gz", bomb)
    start = time.monotonic()
    (finding,) = audit(prefix.root, POLICY).findings
    assert (finding.check, finding.severity) == ("paths", WARNING)
    assert time.monotonic() - start < 2


def test_accepted_losses_are_no_findings(prefix: MadePrefix) -> None:
    change_api(prefix, names={"os": ["close"], "time": ["sleep"]})
    accepted = replace(KEPT, accepted={"os.fork": "glibc 2.30"})
    assert audit(prefix.root, replace(POLICY, api=accepted)).findings == ()


def test_accepted_loss_that_is_none(prefix: MadePrefix) -> None:
    accepted = replace(KEPT, accepted={"os.fork": "glibc 2.30"})
    (finding,) = audit(prefix.root, replace(POLICY, api=accepted)).findings
    assert finding.severity == WARNING
    assert "listed as accepted" in finding.message


# -- policies -----------------------------------------------------------------------------------


def test_what_is_not_known_is_not_checked(prefix: MadePrefix) -> None:
    report = audit(prefix.root, Policy())
    assert set(report.not_checked) == {
        "versions",
        "needed",
        "paths",
        "modules",
        "api",
        "externally-managed",
        "no-pip",
        "hook",
    }
    assert not set(report.checked) & set(report.not_checked)
    assert report.ok


def test_policy_for_any_path_finds_the_prefixs_own_path(prefix: MadePrefix) -> None:
    prefix.write("share/config", f"home = {prefix.root}\n")
    report = audit(prefix.root, policy_for_path(prefix.root))
    assert [(f.check, f.path) for f in report.findings] == [("paths", "share/config")]


def test_policy_for_a_path_that_says_nothing() -> None:
    assert policy_for_path(Path("/usr")).forbidden is None


def test_bytecode_by_time_stamp_is_wrong_only_in_a_sealed_prefix(prefix: MadePrefix) -> None:
    prefix.bytecode(OS, "the bytes of a hash are time and size here", flags=0)
    assert audit(prefix.root, replace(POLICY, sealed=False)).findings == ()


def test_without_a_magic_number_bytecode_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.13").mkdir(parents=True)
    (tmp_path / "lib/python3.13/os.py").touch()
    report = audit(tmp_path, Policy())
    assert report.python == "3.13"
    assert {"bytecode", "sources"} <= set(report.not_checked)


def test_two_pythons_are_none(prefix: MadePrefix) -> None:
    prefix.write("lib/python3.12/os.py", b"")
    assert audit(prefix.root, Policy()).python == ""


def test_no_python_and_a_prefix_without_bytecode_number(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    report = audit(tmp_path, replace(POLICY, sealed=False))
    assert {"modules", "bytecode", "sources", "api"} <= set(report.not_checked)
    assert report.python == ""


def test_bytecode_before_3_11_has_another_hash(tmp_path: Path) -> None:
    library = tmp_path / "lib/python3.10"
    (library / "importlib").mkdir(parents=True)
    (library / "os.py").touch()
    text = "MAGIC_NUMBER = (3439).to_bytes(2, 'little') + b'\\r\\n'\n"
    (library / "importlib/_bootstrap_external.py").write_text(text)
    report = audit(tmp_path, Policy())
    assert "3.11" in report.not_checked["sources"]
    assert "bytecode" in report.checked


def test_magic_number_of_3_14_is_in_a_header(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.14").mkdir(parents=True)
    (tmp_path / "lib/python3.14/os.py").touch()
    header = tmp_path / "include/python3.14/internal/pycore_magic_number.h"
    header.parent.mkdir(parents=True)
    header.write_text("/* */\n#define PYC_MAGIC_NUMBER 3627\n")
    (tmp_path / "lib/python3.14/x.pyc").write_bytes(bytes(16))
    (finding,) = audit(tmp_path, Policy()).findings
    assert "wanted 3627" in finding.message


@pytest.mark.parametrize(
    ("glibc", "expected"),
    [
        ("2.17", {"GLIBCXX": "3.4.19", "CXXABI": "1.3.7", "GCC": "4.8.0"}),
        ("2.28", {"GLIBCXX": "3.4.25", "CXXABI": "1.3.11", "GCC": "7.0.0"}),
        ("2.30", {"GLIBCXX": "3.4.25", "CXXABI": "1.3.11", "GCC": "7.0.0"}),
        ("2.41", {"GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"}),
    ],
)
def test_limits_of_libstdcxx_follow_the_floor(glibc: str, expected: dict[str, str]) -> None:
    floor = Floor(arch="x86_64", glibc=glibc)
    assert Policy(floor=floor).limits() == {"GLIBC": glibc, **expected}


@pytest.mark.parametrize("path", ["", "/", "/tmp", "relative/path"])
def test_forbidden_paths_that_would_be_everywhere(path: str) -> None:
    with pytest.raises(AuditError, match="staging"):
        Policy(forbidden={"staging": path})


def test_policy_for_an_interpreter_takes_the_modules_of_its_spec() -> None:
    class Spec:
        modules = ("_ssl", "_json")

    policy = policy_for(Spec(), POLICY.floor, forbidden={"store": STORE}, api=KEPT)  # type: ignore[arg-type]
    assert policy.modules == {"_ssl", "_json"}
    assert (policy.sealed, policy.needed, policy.api) == (True, GLIBC_LIBRARIES, KEPT)


def test_kept_api_file(tmp_path: Path) -> None:
    directory = tmp_path / "specs/interpreters"
    directory.mkdir(parents=True)
    assert load_kept_api(tmp_path, "cpython-3.13") is None
    path = directory / "cpython-3.13.api.toml"
    path.write_text('reference = "x"\nhave = ["A"]\n[names]\nos = ["a", "_b"]\n')
    kept = load_kept_api(tmp_path, "cpython-3.13")
    assert kept
    assert kept.qualified() == {"os.a", "A"}
    path.write_text('reference = "x"\nhave = "A"\n[names]\n')
    with pytest.raises(SpecError, match=r"cpython-3\.13\.api\.toml: have"):
        load_kept_api(tmp_path, "cpython-3.13")


# -- report -------------------------------------------------------------------------------------


def test_report_counts_and_highest_versions(prefix: MadePrefix) -> None:
    prefix.write(SSL, shared(versions={"libc.so.6": ("GLIBC_2.9", "GLIBC_2.30")}), 0o555)
    report = audit(prefix.root, POLICY)
    assert (report.highest["GLIBC"].version, report.highest["GLIBC"].path) == ("2.30", SSL)
    assert "GLIBCXX" not in report.highest
    assert report.counts["elf"] == 5
    assert (report.counts["errors"], report.counts["links"]) == (1, 1)
    assert report.python == "3.13"
    assert report.platform == "manylinux_2_28_x86_64"


@pytest.mark.parametrize("name", ["CXXABI_FLOAT128", "GLIBCXX_3.4.25", "GCC_7.0.0", "ZLIB_1.9"])
def test_versions_that_the_floor_has(prefix: MadePrefix, name: str) -> None:
    prefix.write(NATIVE, shared(versions={"libstdc++.so.6": (name,)}))
    assert audit(prefix.root, POLICY).findings == ()


def test_versions_of_a_bundled_library_are_its_own(prefix: MadePrefix) -> None:
    needs = {"libbundled-12ab.so.1": ("GLIBCXX_3.4.33",)}
    prefix.write(JSON, shared(versions=needs), 0o555)
    assert audit(prefix.root, POLICY).findings == ()


def test_json_is_stable(prefix: MadePrefix) -> None:
    prefix.chmod("share/empty", 0o644)
    found = json.loads(json.dumps(audit(prefix.root, POLICY).to_json()))
    assert list(found) == [
        "schema",
        "prefix",
        "python",
        "platform",
        "ok",
        "findings",
        "checked",
        "not_checked",
        "highest",
        "counts",
        "seconds",
    ]
    assert found["schema"] == 1
    assert found["ok"] is False
    assert found["findings"] == [
        {
            "path": "share/empty",
            "message": "is writable",
            "remedy": "seal it with mode 444",
            "severity": "error",
            "check": "modes",
        }
    ]


def test_lines_name_check_file_and_remedy(prefix: MadePrefix) -> None:
    for number in range(8):
        prefix.write(f"share/{number}", b"", 0o644)
    prefix.write(JSON, shared(exports=("helper",)), 0o555)
    report = audit(prefix.root, replace(POLICY, api=None))
    text = "\n".join(lines(report))
    assert "FAIL  modes (8)" in text
    assert "      share/0\n        is writable" in text
    assert "-> seal it with mode 444" in text
    assert "share/5" not in text
    assert "and 3 more" in text
    assert "warn  exports (1)" in text
    assert "not checked: api: no kept list of names is given" in text
    assert verdict(report) == "The prefix does not pass: 8 errors, 1 warning."
    assert [f.severity for f in report.findings] == [ERROR] * 8 + [WARNING]
    assert max(map(len, text.splitlines()[1:])) <= 100
    passed = next(line for line in text.splitlines() if line.startswith("passed: "))
    assert "modes" not in passed
    assert "exports" in passed


def test_require_names_the_first_errors(prefix: MadePrefix) -> None:
    for number in range(8):
        prefix.write(f"share/{number}", b"", 0o644)
    with pytest.raises(AuditError) as caught:
        require(audit(prefix.root, POLICY))
    assert "modes: share/0: is writable" in caught.value.message
    assert "and 3 more" in caught.value.message
    assert caught.value.remedy == "seal it with mode 444"


def test_a_missing_prefix(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such directory"):
        audit(tmp_path / "gone", POLICY)


def test_nothing_is_executed(prefix: MadePrefix, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    for name in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.execv", "os.fork"):
        monkeypatch.setattr(name, refuse)
    assert audit_room.audit(prefix.root, POLICY).ok


ROOT = Path(__file__).resolve().parents[2]
KEPT_FILES = sorted((ROOT / "specs/interpreters").glob("*.api.toml"))


@pytest.mark.parametrize("path", KEPT_FILES, ids=lambda path: path.name)
def test_kept_lists_of_the_checkout(path: Path) -> None:
    kept = load_kept_api(ROOT, path.name.removesuffix(".api.toml"))
    assert kept
    assert set(kept.accepted) <= kept.qualified()
    assert all(len(reason) > 10 for reason in kept.accepted.values())
    assert "os.fork" in kept.qualified()
    assert path.with_name(path.name.replace(".api.toml", ".toml")).is_file()
