"""Running programs as a console's user does: a bare environment, and no rights of root's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# below a file nothing can be made, not even by root
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/dev/null", "LC_ALL": "C.UTF-8"}
NOBODY = 65534


def attempt(
    *argv: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and give what came of it, whatever that is."""
    return subprocess.run(
        [str(word) for word in argv],
        env={**BARE, **(env or {})},
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def call(*argv: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program prints; fails the test, with all that it said, where it does not succeed."""
    done = attempt(*argv, env=env, cwd=cwd)
    command = " ".join(str(word) for word in argv)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def unprivileged() -> list[str]:
    """The words before a command that take root's rights away; none for an ordinary user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv of util-linux is needed to run as an ordinary user"
    return [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def index() -> dict[str, str]:
    """The variables by which pip finds the package index that this machine is set up for."""
    found = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.endswith("_proxy")}
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        if name in os.environ:
            found[name] = os.environ[name]
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True
    )
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].upper().replace("-", "_")
        found.setdefault(f"PIP_{name}", value.strip("'\""))
    return found
