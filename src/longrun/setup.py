"""What the machine must have: programs of the system, and the packages that bring them.

Standard library only: ``build.py`` uses it before there is an environment.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from longrun.errors import SetupError
from longrun.run import find_tool, succeeds


@dataclass(frozen=True)
class Tool:
    """A program, the packages that hold it, and how to see that it is really usable.

    ``probe`` is a command that must succeed; without one, the program's being there is enough.
    What is no program, such as libraries, is there if its probe succeeds.
    The names for dnf are from EL 9's package lists and were not tried.
    """

    name: str
    apt: str
    dnf: str
    why: str
    probe: tuple[str, ...] = ()
    program: bool = True

    def present(self) -> bool:
        """Whether the machine has it."""
        if self.program and find_tool(self.name) is None:
            return False
        return not self.probe or succeeds(self.probe)


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("make", "make", "make", "runs the makefiles of most sources"),
        Tool("patch", "patch", "patch", "applies patches"),
        Tool(
            "perl",
            "perl",
            "perl-interpreter perl-core",
            "OpenSSL's Configure",
            ("perl", "-MFile::Compare", "-MPod::Usage", "-e1"),
        ),
        Tool("pkg-config", "pkg-config", "pkgconf-pkg-config", "finds the libraries built before"),
        Tool("autoconf", "autoconf", "autoconf", "sources without a configure script"),
        Tool("automake", "automake", "automake", "sources without a configure script"),
        Tool("libtoolize", "libtool", "libtool", "sources without a configure script"),
        Tool("tclsh", "tcl", "tcl", "assembles SQLite's amalgamation"),
        Tool("gperf", "gperf", "gperf", "fontconfig's object names"),
        # the matrix
        Tool("bwrap", "bubblewrap", "bubblewrap", "matrix: a cage for each check"),
        Tool("mmdebstrap", "mmdebstrap", "mmdebstrap", "matrix: makes the roots of Debian systems"),
        Tool("javac", "default-jdk-headless", "java-17-openjdk-devel", "matrix: Java bridges"),
        Tool("java", "default-jdk-headless", "java-17-openjdk-headless", "matrix: Java bridges"),
        Tool("redis-server", "redis-server", "redis", "matrix: a Redis server"),
        Tool("mosquitto", "mosquitto", "mosquitto", "matrix: an MQTT broker"),
        Tool("cc", "gcc libc6-dev", "gcc glibc-devel", "matrix: xtrack compiles at run time"),
        # images
        Tool("ssh-keygen", "openssh-client", "openssh", "images: signs them, and checks that"),
        # the tests of a built prefix
        Tool("gcc", "gcc", "gcc", "tests: what consoles compile extensions with"),
        Tool(
            "ld",
            "libc6-dev",
            "glibc-devel",
            "tests: what consoles compile extensions with",
            ("sh", "-c", "echo '#include <stdio.h>' | gcc -E - >/dev/null"),
        ),
        Tool(
            "qemu-aarch64",
            "qemu-user libc6-arm64-cross",
            "qemu-user",
            "tests: runs a program of another processor",
            ("test", "-e", "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1"),
        ),
        Tool("Xvfb", "xvfb", "xorg-x11-server-Xvfb", "tests: a screen for tkinter"),
        Tool(
            "Qt's libraries",
            "libdbus-1-3 libegl1 libfontconfig1 libgl1 libglib2.0-0 libgssapi-krb5-2 libstdc++6 "
            "libxkbcommon0",
            "dbus-libs fontconfig glib2 krb5-libs libglvnd-egl libglvnd-glx libstdc++ libxkbcommon",
            "tests: what Qt's wheels take from the system",
            (
                "sh",
                "-c",
                "for name in dbus-1 EGL fontconfig GL glib-2.0 gssapi_krb5 stdc++ xkbcommon; do"
                ' /sbin/ldconfig -p | grep -qF "lib$name.so" || exit 1; done',
            ),
            program=False,
        ),
        Tool("gpg", "gnupg", "gnupg2", "tests: signs a source"),
        Tool("gpgv", "gpgv", "gnupg2", "checks signatures of sources"),
        Tool("setpriv", "util-linux", "util-linux", "tests: an unprivileged user"),
        Tool("readelf", "binutils", "binutils", "tests: a second opinion on ELF files"),
        Tool(
            "podman", "podman runc catatonit", "podman runc", "tests: a container engine for checks"
        ),
        Tool(
            "docker-registry",
            "docker-registry",
            "docker-distribution",
            "tests: a registry of container images",
        ),
        Tool("skopeo", "skopeo", "skopeo", "tests: a second opinion on container images"),
        Tool("rsync", "rsync", "rsync", "tests: copies files for GitLab's jobs"),
        Tool("openssl", "openssl", "openssl", "tests: makes certificates"),
        Tool("zstd", "zstd", "zstd", "tests: plain tar unpacks the archive"),
        Tool("git", "git", "git", "tests: a fresh checkout"),
        Tool("mvn", "maven", "maven", "tests: the jars of an OpenSearch node"),
        Tool(
            "rsyslogd",
            "rsyslog rsyslog-elasticsearch",
            "rsyslog rsyslog-elasticsearch rsyslog-mmjsonparse",
            "tests: events through rsyslog",
            (
                "sh",
                "-c",
                "for place in /usr/lib/*/rsyslog /usr/lib64/rsyslog; do"
                ' test -e "$place/omelasticsearch.so" && exit 0; done; exit 1',
            ),
        ),
    )
}

TEST_TOOLS = (
    "gcc",
    "ld",
    "qemu-aarch64",
    "Xvfb",
    "Qt's libraries",
    "gpg",
    "gpgv",
    "setpriv",
    "bwrap",
    "podman",
    "docker-registry",
    "skopeo",
    "rsync",
    "readelf",
    "ssh-keygen",
    "openssl",
    "zstd",
    "git",
    "mmdebstrap",
    "javac",
    "java",
    "redis-server",
    "mosquitto",
    "cc",
    "mvn",
    "rsyslogd",
)
"""What `./build.py test` needs beside what a build needs."""


def missing_tools(names: Iterable[str]) -> list[Tool]:
    """The named tools that the machine lacks; SetupError for a name not in the table."""
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        raise SetupError(
            f"tools: {', '.join(unknown)}: not in the table of packages",
            remedy="add the program and its packages to TOOLS in src/longrun/setup.py",
        )
    wanted = dict.fromkeys(names)
    return [TOOLS[name] for name in wanted if not TOOLS[name].present()]


def install_commands(packages: list[str]) -> list[list[str]]:
    """The commands that install packages on this machine; apt's or dnf's."""
    if shutil.which("apt-get"):
        return [["apt-get", "update"], ["apt-get", "install", "--yes", *packages]]
    return [["dnf", "install", "--assumeyes", *packages]]


def packages_of(tools: Iterable[Tool]) -> list[str]:
    """The packages that hold the tools, by this machine's names."""
    apt = shutil.which("apt-get") is not None
    names = [name for tool in tools for name in (tool.apt if apt else tool.dnf).split()]
    return sorted(dict.fromkeys(names))


def require(names: Iterable[str], *, install: bool) -> None:
    """See to it that the tools are there: install them, or raise SetupError with the command."""
    missing = missing_tools(names)
    if not missing:
        return
    packages = packages_of(missing)
    if not install:
        wanted = ", ".join(f"{tool.name} ({tool.why})" for tool in missing)
        raise SetupError(
            f"this machine lacks {wanted}",
            remedy=f"{' && '.join(map(shlex.join, install_commands(packages)))}"
            "\n  or add --setup, which runs that command"
            + ("" if shutil.which("apt-get") else " (dnf's package names were not tried)"),
        )
    install_packages(packages)
    still = [tool.name for tool in missing if not tool.present()]
    if still:
        raise SetupError(f"installed {', '.join(packages)}, but still missing: {', '.join(still)}")


def install_packages(packages: list[str]) -> None:
    """Install packages with the system's package program; SetupError where that fails."""
    print(f"installing {len(packages)} system packages: {' '.join(packages)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in install_commands(packages):
        try:
            done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise SetupError(f"{command[0]}: not found", remedy="install by hand") from error
        if done.returncode:
            raise SetupError(
                f"{shlex.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}",
                remedy="run it by hand (it needs root), then this again",
            )
