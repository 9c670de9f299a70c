"""A made CPython prefix, configured for one place, must answer for another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longrun.errors import BuildError
from longrun.relocate import layout, polyglot, read_sysconfigdata, relocate

BUILT_FOR = "/__somewhere__"

SYSCONFIGDATA = f"""\
# system configuration generated and used by the sysconfig module
build_time_vars = {{'CC': 'cc',
 'CFLAGS': '-Wsign-compare -DNDEBUG -O3',
 'CFLAGS_NODIST': '-O3 -flto=thin -g0',
 'CONFIG_ARGS': "'--prefix={BUILT_FOR}' 'LDSHARED=cc -shared -Wl,--version-script=exports.map'",
 'HAVE_FORK': 1,
 'INCLUDEPY': '{BUILT_FOR}/include/python3.13',
 'LDLIBRARY': 'libpython3.13.a',
 'LDSHARED': 'cc -shared -Wl,--version-script=exports.map',
 'LIBDIR': '{BUILT_FOR}/lib',
 'MODULE_ZLIB_CFLAGS': '-I{BUILT_FOR}/work/deps/include',
 'PY_CORE_LDFLAGS': '-flto=thin -s',
 'abs_srcdir': '{BUILT_FOR}/source',
 'prefix': '{BUILT_FOR}'}}
"""

MAKEFILE = f"""\
CC=\t\tcc
LDSHARED=\tcc -shared $(PY_LDFLAGS)
CFLAGS_NODIST=\t-O3 \\
\t-flto
MODOBJS=  Modules/a.o \\
\tModules/b.o
prefix=\t\t{BUILT_FOR}
LIBDIR=\t\t$(prefix)/lib
BINDIR=\t\t{BUILT_FOR}/bin
show:
\t@echo "$(BINDIR) $(LIBDIR) $(CC) $(LDSHARED) $(MODOBJS) ($(CFLAGS_NODIST))"
"""

PC = f"""\
prefix={BUILT_FOR}
exec_prefix=${{prefix}}
libdir=${{exec_prefix}}/lib

Name: Python
Version: 3.13
Libs: -L${{libdir}} -lpython3.13
"""

CONFIG = f"""\
#!/bin/sh
installed_prefix ()
{{
    RESULT=$(dirname $(cd $(dirname "$1") && pwd -P))
    echo $RESULT
}}
prefix_real=$(installed_prefix "$0")
prefix="{BUILT_FOR}"
libdir=$(echo "${{prefix}}/lib" | sed "s#$prefix#$prefix_real#")
CFLAGS=$(echo "-O1 -flto" | sed "s#$prefix#$prefix_real#")
LIBS=" -lbuild  -lm"
LIBS_EMBED="-lpython3.13 -lbuild  -lm"
BASECFLAGS=" -Wunreachable-code"
LDLIBRARY="libpython3.13.a"
OPT="-DNDEBUG -g0"
echo "$libdir|$CFLAGS|$LIBS|$LIBS_EMBED|$BASECFLAGS|$OPT|$LDLIBRARY"
"""

SCRIPT = f"#!{BUILT_FOR}/bin/python3.13\nimport sys\nprint(sys.argv)\n"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A tree as `make install` leaves it, its interpreter being the one that runs the test."""
    files = {
        "lib/python3.13/os.py": "",
        "lib/python3.13/_sysconfigdata__linux_x86_64-linux-gnu.py": SYSCONFIGDATA,
        "lib/python3.13/config-3.13-x86_64-linux-gnu/Makefile": MAKEFILE,
        "lib/python3.13/config-3.13-x86_64-linux-gnu/python-config.py": SCRIPT,
        "lib/pkgconfig/python-3.13-embed.pc": PC,
        "bin/python3.13-config": CONFIG,
        "bin/pydoc3.13": SCRIPT,
        "bin/python3.13": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }
    for name, text in files.items():
        path = tmp_path / "built" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.startswith("bin/"):
            path.chmod(0o755)
    (tmp_path / "built/lib/pkgconfig/python3-embed.pc").symlink_to("python-3.13-embed.pc")
    relocate(tmp_path / "built", BUILT_FOR)
    return (tmp_path / "built").rename(tmp_path / "moved")


def output(*argv: str | Path, **env: str) -> str:
    return subprocess.run(
        [str(word) for word in argv],
        check=True,
        text=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", **env},
    ).stdout.strip()


def test_sysconfig_names_the_running_prefix_and_a_console_s_compiler(prefix):
    data = prefix / "lib/python3.13/_sysconfigdata__linux_x86_64-linux-gnu.py"
    scope: dict[str, object] = {}
    exec(data.read_text(), scope)
    values = scope["build_time_vars"]
    assert isinstance(values, dict)
    assert values["INCLUDEPY"] == f"{sys.base_prefix}/include/python3.13"
    assert values["prefix"] == sys.base_prefix
    assert values["LDSHARED"] == "gcc -shared"
    assert (values["CC"], values["HAVE_FORK"]) == ("gcc", 1)
    assert values["LDLIBRARY"] == "libpython3.13.so"
    assert "lto" not in repr(values)


def test_what_only_the_build_of_cpython_used_is_gone_from_sysconfig(prefix):
    values = read_sysconfigdata(layout(prefix).sysconfigdata)
    for name in ("CFLAGS_NODIST", "PY_CORE_LDFLAGS", "MODULE_ZLIB_CFLAGS", "abs_srcdir"):
        assert name not in values


def test_the_makefile_finds_its_prefix_from_any_directory(prefix, tmp_path):
    makefile = layout(prefix).config / "Makefile"
    expected = f"{prefix}/bin {prefix}/lib gcc gcc -shared Modules/a.o Modules/b.o ()"
    assert output("make", "-s", "-f", makefile, "-C", "/", "show") == expected


def test_pkgconfig_files_point_beside_themselves(prefix):
    text = (prefix / "lib/pkgconfig/python-3.13-embed.pc").read_text()
    assert "prefix=${pcfiledir}/../..\n" in text
    assert "Libs: -Wl,-rpath,${libdir} -L${libdir} -lpython3.13\n" in text
    assert (prefix / "lib/pkgconfig/python3-embed.pc").is_symlink()


@pytest.mark.parametrize("linked", [False, True])
def test_the_config_script_tells_where_it_is(prefix, tmp_path, linked):
    script = prefix / "bin/python3.13-config"
    if linked:
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin/python3.13-config"
        script.symlink_to(prefix / "bin/python3.13-config")
    libdir, cflags, libs, embed, base, opt, library = output(script).split("|")
    assert libdir == f"{prefix}/lib"
    assert cflags == ""
    assert libs.split() == ["-ldl", "-lm"]
    assert embed.split() == [f"-Wl,-rpath,{prefix}/lib", "-lpython3.13", "-ldl", "-lm"]
    assert "-Wunreachable-code" not in base
    assert "-O3" in opt
    assert library == "libpython3.13.so"


@pytest.mark.parametrize("linked", [False, True])
def test_scripts_start_the_interpreter_beside_them(prefix, tmp_path, linked):
    script = prefix / "bin/pydoc3.13"
    if linked:
        script = tmp_path / "a name with spaces"
        script.symlink_to(prefix / "bin/pydoc3.13")
    assert output(script, "a b", "$c") == repr([str(script), "a b", "$c"])


def test_a_script_deeper_in_the_prefix_finds_the_interpreter_too(prefix):
    script = layout(prefix).config / "python-config.py"
    script.chmod(0o755)
    assert output(script, "x") == repr([str(script), "x"])


def test_a_polyglot_is_a_string_to_python():
    compile(polyglot("python3.13") + "print()", "script", "exec")


def test_the_place_of_the_build_is_nowhere_left(prefix):
    found = subprocess.run(
        ["grep", "-rl", BUILT_FOR, str(prefix)], check=False, capture_output=True, text=True
    )
    assert found.stdout == ""


def test_a_file_that_was_not_thought_of_is_named(tmp_path, prefix):
    forgotten = prefix / "lib/python3.13/new.bin"
    forgotten.write_bytes(b"\0" + BUILT_FOR.encode() + b"/lib\0")
    # as if freshly installed again
    (layout(prefix).sysconfigdata).write_text(SYSCONFIGDATA)
    (layout(prefix).config / "Makefile").write_text(MAKEFILE)
    (prefix / "bin/python3.13-config").write_text(CONFIG)
    with pytest.raises(BuildError, match=r"still in lib/python3\.13/new\.bin"):
        relocate(prefix, BUILT_FOR)


def test_a_tree_without_an_interpreter_is_refused(tmp_path):
    (tmp_path / "lib").mkdir()
    with pytest.raises(BuildError, match="expected one python3"):
        relocate(tmp_path, BUILT_FOR)


def test_a_script_that_changed_upstream_is_noticed(prefix):
    script = prefix / "bin/python3.13-config"
    (layout(prefix).sysconfigdata).write_text(SYSCONFIGDATA)
    (layout(prefix).config / "Makefile").write_text(MAKEFILE)
    script.write_text(CONFIG.replace('installed_prefix "$0"', "pwd"))
    with pytest.raises(BuildError, match=r"python3\.13-config: expected one"):
        relocate(prefix, BUILT_FOR)
    assert os.access(script, os.X_OK)
