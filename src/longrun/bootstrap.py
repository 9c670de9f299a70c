"""The environment of Longrun's own program: made once from a hash-locked list, then only entered.

Standard library only. Entering is a change of ``sys.path`` in this process: no second start.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

LOCK = "requirements.lock"
READY = ".ready"


def enter_environment(root: Path, argv: list[str]) -> None:
    """Make the environment if it is not there, and let this process import from it.

    Exits with the errors' own code and a remedy where it cannot be made.
    """
    environment = environment_path(root, cache_directory())
    if not (environment / READY).exists():
        from longrun.errors import LongrunError

        try:
            _make(root, environment, install="--setup" in argv)
        except LongrunError as error:
            print(f"build.py: {error.message}", file=sys.stderr)
            if error.remedy:
                print(f"  remedy: {error.remedy}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            # what is there of it has no mark that it is ready, and is made anew
            print("\nbuild.py: interrupted; the same command begins again", file=sys.stderr)
            sys.exit(130)
    sys.path.insert(1, str(site_packages(environment)))
    sys.path[:] = [path for path in sys.path if not _foreign(path)]
    os.environ["LONGRUN_ENVIRONMENT"] = str(environment)


def _foreign(path: str) -> bool:
    """Whether a path is another site directory, whose packages must not stand in for ours."""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return path in named or "dist-packages" in path


def cache_directory() -> Path:
    """The cache directory, as ``config`` finds it; without a file to read, without its imports."""
    environ = os.environ
    if named := environ.get("LONGRUN_CACHE"):
        return Path(named).absolute()
    home = environ.get("HOME") or os.path.expanduser("~")
    user = Path(environ.get("XDG_CONFIG_HOME") or f"{home}/.config") / "longrun/config.toml"
    if environ.get("LONGRUN_CONFIG") or user.exists() or os.path.exists("/etc/longrun/config.toml"):
        from longrun.config import load_config

        return load_config(environ).cache
    cache = environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else f"{home}/.cache") / "longrun"


def environment_path(root: Path, cache: Path) -> Path:
    """Where the environment of this lock and this Python is."""
    identity = f"{sys.version}\0{os.path.realpath(sys.executable)}\0".encode()
    identity += (root / LOCK).read_bytes()
    return cache / "environments" / hashlib.sha256(identity).hexdigest()[:16]


def site_packages(environment: Path) -> Path:
    """Where an environment keeps its packages."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def _make(root: Path, environment: Path, *, install: bool) -> None:
    import fcntl
    import shutil

    from longrun.errors import SetupError

    _require_venv(install=install)
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
        lock = (environment.parent / f"{environment.name}.lock").open("w")
    except OSError as error:
        raise SetupError(
            f"{error.filename}: {error.strerror}",
            remedy="set LONGRUN_CACHE to a directory that you can write to",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (environment / READY).exists():  # another process made it meanwhile
            return
        print(f"preparing Longrun's own environment, once: {environment}", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(environment)])
        _run(
            [
                str(environment / "bin" / "python"),
                *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--no-deps", "--only-binary=:all:"),
                *("--requirement", str(root / LOCK)),
            ]
        )
        (environment / READY).touch()


def _require_venv(*, install: bool) -> None:
    import importlib.util

    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    from longrun.errors import SetupError
    from longrun.setup import install_packages

    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if not install:
        raise SetupError(
            f"{sys.executable} cannot make virtual environments (no venv or ensurepip)",
            remedy=f"apt-get install {package}   (or add --setup, which runs that)",
        )
    install_packages([package])
    importlib.invalidate_caches()


def _run(argv: list[str]) -> None:
    import subprocess

    from longrun.errors import SetupError

    # a user's PYTHONPATH or PIP_TARGET would put other things into the environment
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "PIP_TARGET"}
    done = subprocess.run(argv, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(
            f"{' '.join(argv[:5])} ... failed:\n{(done.stdout + done.stderr).strip()[-2000:]}",
            remedy="without a package index, give pip one (pip config set global.index-url ...) "
            "or a directory of wheels (PIP_FIND_LINKS with PIP_NO_INDEX=1)",
        )
