"""What a prefix is held against. What a policy does not know, the report calls "not checked"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longrun.audit.api import KeptApi
from longrun.errors import AuditError
from longrun.model import Floor, Interpreter

LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
"""Processor to the dynamic linker that its ABI names."""

GLIBC_LIBRARIES = frozenset(
    ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "libutil.so.1", "librt.so.1")
    + tuple(Path(loader).name for loader in LOADERS.values())
)
"""What the interpreter itself may need: glibc, and nothing that a bare console could lack."""

PEP600_LIBRARIES = GLIBC_LIBRARIES | {
    "libanl.so.1",
    "libatomic.so.1",
    "libexpat.so.1",
    "libgcc_s.so.1",
    "libGL.so.1",
    "libglib-2.0.so.0",
    "libgobject-2.0.so.0",
    "libgthread-2.0.so.0",
    "libICE.so.6",
    "libmvec.so.1",
    "libnsl.so.1",
    "libresolv.so.2",
    "libSM.so.6",
    "libstdc++.so.6",
    "libX11.so.6",
    "libXext.so.6",
    "libXrender.so.1",
    "libz.so.1",
}
"""What wheels may need of the system: the list that auditwheel enforces for PEP 600's tags."""

# The newest versions of libstdc++ and libgcc that systems with this glibc have: the table that
# PEP 600's tags use, and for 2.28 what EL8 (gcc 8.5) ships. A floor uses the last row not above it.
_CXX = {
    (2, 17): {"GLIBCXX": "3.4.19", "CXXABI": "1.3.7", "GCC": "4.8.0"},
    (2, 24): {"GLIBCXX": "3.4.22", "CXXABI": "1.3.10", "GCC": "4.8.0"},
    (2, 27): {"GLIBCXX": "3.4.24", "CXXABI": "1.3.11", "GCC": "7.0.0"},
    (2, 28): {"GLIBCXX": "3.4.25", "CXXABI": "1.3.11", "GCC": "7.0.0"},
    (2, 31): {"GLIBCXX": "3.4.28", "CXXABI": "1.3.12", "GCC": "7.0.0"},
    (2, 34): {"GLIBCXX": "3.4.29", "CXXABI": "1.3.13", "GCC": "7.0.0"},
    (2, 35): {"GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"},
}

FOREIGN_SYMBOLS: Mapping[str, re.Pattern[str]] = {
    library: re.compile(pattern)
    for library, pattern in {
        "OpenSSL": r"(SSL|TLS|DTLS|CRYPTO|OPENSSL|OSSL|EVP|BIO|BN|RSA|DSA|DH|EC|ECDSA|X509|X509V3"
        r"|ASN1|PEM|PKCS5|PKCS7|PKCS12|PKCS8|ERR|RAND|HMAC|CMAC|AES|OBJ|CMS|OCSP|ENGINE|CONF)_\w",
        "SQLite": r"sqlite3_",
        "ncurses": r"_nc_|(initscr|newterm|endwin|stdscr|curscr|newscr|setupterm|cur_term|tputs"
        r"|tparm|tigetstr|tigetnum|tgetent|tgetstr|wrefresh|waddch|wgetch|newwin|new_panel)$",
        "readline": r"_?rl_|_?history_|(readline|add_history|using_history)$",
        "Tcl/Tk": r"(Tcl|Tk|Ttk)(_\w|[A-Zp])",
        "X11": r"(_X|X)[A-Z][a-z]|(xcb|XRender|FT)_\w|Xft[A-Z]|Fc[A-Z]",
        "zlib": r"((de|in)flate|adler32|crc32|(un)?compress2?|zlib(Version|CompileFlags))($|[A-Z_])"
        r"|gz(open|read|write|close|dopen|seek|gets|puts)|_tr_|z_errmsg$",
        "bzip2": r"BZ2_",
        "xz": r"lzma_",
        "zstd": r"ZSTD_",
        "expat": r"XML_",
        "libffi": r"ffi_",
        "mpdecimal": r"mpd_",
        "gdbm": r"_?gdbm_|n?dbm_",
        "libuuid": r"uuid_",
    }.items()
}
"""Libraries that are linked in statically, and the symbols that tell that one leaks out."""

_SHORTEST_PATH = 5  # "/" or "/tmp" as a forbidden path would be found in half of all files


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the audit holds a prefix against; None means that this is not known, so not checked.

    ``forbidden`` maps what a path is ("store", "staging") to the path that no file may hold.
    ``sealed`` asks for what Longrun promises of its own prefixes: no write bits, bytecode that is
    not checked against its source, EXTERNALLY-MANAGED, no pip. ``needed`` holds for the
    interpreter, ``needed_packages`` below site-packages. ``hook`` is the source of the start-up
    hook, with nothing filled in.
    """

    floor: Floor | None = None
    needed: frozenset[str] | None = None
    needed_packages: frozenset[str] = PEP600_LIBRARIES
    foreign_symbols: Mapping[str, re.Pattern[str]] = field(default_factory=lambda: FOREIGN_SYMBOLS)
    forbidden: Mapping[str, str] | None = None
    modules: frozenset[str] | None = None
    api: KeptApi | None = None
    hook: str | None = None
    sealed: bool = False

    def __post_init__(self) -> None:
        for label, path in (self.forbidden or {}).items():
            if len(path) < _SHORTEST_PATH or not path.startswith("/"):
                raise AuditError(
                    f"cannot search for the {label} path {path!r}: it is too short or not absolute",
                    remedy="use a directory of its own, not / or /tmp",
                )

    def limits(self) -> dict[str, str]:
        """The highest symbol version allowed, by prefix: GLIBC, GLIBCXX, CXXABI and GCC."""
        if self.floor is None:
            return {}
        glibc = version(self.floor.glibc)
        rows = [row for since, row in _CXX.items() if since <= glibc]
        return {"GLIBC": self.floor.glibc, **(rows[-1] if rows else {})}


def version(text: str) -> tuple[int, ...]:
    """``2.28`` as something to compare; () where it is no version (``PRIVATE``)."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def policy_for(
    interpreter: Interpreter,
    floor: Floor,
    *,
    forbidden: Mapping[str, str],
    api: KeptApi | None = None,
    hook: str | None = None,
    shipped: Iterable[str] | None = None,
) -> Policy:
    """The policy of a prefix that Longrun builds: all checks, with the spec's own module list.

    ``forbidden``: the constant prefix and the build, staging and store paths, by what they are.
    ``shipped`` replaces the interpreter's modules where a prefix is not of the whole interpreter.
    """
    return Policy(
        floor=floor,
        needed=GLIBC_LIBRARIES,
        forbidden=dict(forbidden),
        modules=frozenset(interpreter.modules if shipped is None else shipped),
        api=api,
        hook=hook,
        sealed=True,
    )


def policy_for_path(prefix: Path, *, floor: Floor | None = None) -> Policy:
    """The policy for a prefix of which nothing is known: what holds of any relocatable one."""
    own = str(prefix.resolve())
    # below /usr, the path itself says nothing: everything of the system names it
    forbidden = {"prefix's own": own} if len(own) >= _SHORTEST_PATH else None
    return Policy(floor=floor, needed=PEP600_LIBRARIES, forbidden=forbidden)
