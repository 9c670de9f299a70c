"""Keys of SSH and files of allowed signers."""

from __future__ import annotations

import subprocess
from pathlib import Path

NAMES = ("alice@example.org", "releases@example.org")
"""Who the key belongs to, in the files that ``allow`` writes."""


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new private key; the public one is beside it."""
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)]
    subprocess.run(argv, check=True)
    return path


def allow(path: Path, key: Path, options: str = 'namespaces="longrun-image"') -> Path:
    """A file that allows a key."""
    kind, content, *_ = key.with_suffix(".pub").read_text().split()
    path.write_text(f"# who may sign\n{','.join(NAMES)} {options} {kind} {content}\n")
    return path
