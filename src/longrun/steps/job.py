"""What a builder is given: the step, the entries it may read, and where to work and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from longrun.fs import Record
from longrun.model import Floor, Spec


class Run(Protocol):
    """Starts a program and waits; output goes to the step's log.

    ``env`` is added to a clean environment: PATH of the system, HOME and TMPDIR in the work
    directory, LC_ALL=C.UTF-8, TZ=UTC, SOURCE_DATE_EPOCH, MAKEFLAGS with the shared jobserver.
    There is no network unless that is asked for; after ``timeout`` seconds it is killed.
    Raises BuildError where the program is missing, killed, or its exit status is not 0.
    """

    def __call__(
        self,
        argv: list[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Path | None = None,
        network: bool = False,
        timeout: float | None = None,
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One step being realised.

    ``inputs`` maps ``kind/name`` (such as ``library/zlib``) to the read-only tree of that entry;
    it holds the step's inputs, and of libraries also their inputs. A source's tree holds one file.
    ``patches`` are the spec's patches, in order; ``data`` are further files of the checkout that
    are part of the key, by name. ``out`` is an empty directory that becomes the
    entry's tree; ``work`` is an empty scratch directory that vanishes; ``cache`` may be kept by the
    builder between builds (compiler caches only: nothing in it may change an output). ``say``
    shows a line of progress; ``log`` is the step's log, to which a builder may add. ``files`` gives
    the records of an input. A builder that knows the sha256 of files in ``out`` already puts them
    into ``known``, by path: they are not read again.
    """

    spec: Spec
    floor: Floor
    epoch: int
    inputs: Mapping[str, Path]
    patches: tuple[Path, ...]
    data: Mapping[str, Path]
    out: Path
    work: Path
    cache: Path
    jobs: int
    run: Run
    log: Path
    say: Callable[[str], None]
    files: Callable[[str], tuple[Record, ...]]
    known: dict[str, str] = field(default_factory=dict)

    def source(self, name: str) -> Path:
        """The one file of a source input."""
        (file,) = self.inputs[f"source/{name}"].iterdir()
        return file
