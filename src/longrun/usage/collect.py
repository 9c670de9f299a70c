"""From the spool into the state: every line that is a record, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longrun.usage.config import DAY
from longrun.usage.machine import boot_of
from longrun.usage.record import BadRecord, Bounds, Record, Start, parse, rescue
from longrun.usage.spool import Claim, Claimed, Refused, Spool
from longrun.usage.state import Chunk, Line, State

PART = 1 << 20
"""Bytes that are read, and kept in one transaction, at a time."""

MOST = 256 << 20
"""Bytes of one user's file between two rounds; what is behind is refused."""

HELD = DAY
"""Seconds after which a file that somebody still has open for writing is given up."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What it takes to read lines: times that are believed, and boots (when, id)."""

    bounds: Bounds
    boots: Sequence[tuple[float, str]]


def collect(spool: Spool, state: State, reader: Reader, stop: Callable[[], bool]) -> bool:
    """Claim everything that is in the spool and read it; whether all of it was read."""
    state.count(_refused(spool.claim()))
    claims = spool.claims()
    state.forget_files(claim.name for claim in claims)
    for claim in claims:
        if stop():
            return False
        try:
            with spool.reading(claim) as file:
                done = read_claim(file, claim, state, reader, stop)
                if done:
                    spool.remove(claim)  # below the lease: see spool.py
        except Refused as refused:
            state.count(_refused({str(refused): 1}))
            spool.remove(claim)
    return not stop()


def read_claim(
    file: Claimed, claim: Claim, state: State, reader: Reader, stop: Callable[[], bool]
) -> bool:
    """Read what is new of a claimed file; whether that was all there will ever be."""
    final = file.lease()
    offset = state.offset(claim.name)
    while (part := file.read(offset, PART)) and not stop():
        chunk = read_part(part, offset, claim, reader, last=final and len(part) < PART)
        if chunk.offset == offset:
            break
        offset = chunk.offset
        if offset > MOST:
            chunk.counts["refused: file too large"] = 1
            state.keep(chunk)
            return True
        state.keep(chunk)
    if stop():
        return False
    if not final and time.time() - claim.since > HELD:
        state.count(_refused({"held open": 1}))
        return True
    return final and file.leased()


def read_part(part: bytes, offset: int, claim: Claim, reader: Reader, *, last: bool) -> Chunk:
    """The records of a part that begins at an offset; the last part may lack a line's end."""
    end = len(part) if last else part.rfind(b"\n") + 1
    if not end and len(part) == PART:
        end = PART  # no line is as long as this: it is refused piece by piece
    chunk = Chunk(name=claim.name, offset=offset + end)
    for line in part[:end].split(b"\n"):
        if line:
            _read_line(line, claim.uid, reader, chunk)
    return chunk


def _read_line(line: bytes, uid: int, reader: Reader, chunk: Chunk) -> None:
    try:
        _keep(parse(line, reader.bounds), line, uid, reader, chunk)
    except BadRecord as bad:
        reason = f"refused: {bad}"
        chunk.counts[reason] = chunk.counts.get(reason, 0) + 1
        if rest := rescue(line):
            _read_line(rest, uid, reader, chunk)


def _keep(record: Record, line: bytes, uid: int, reader: Reader, chunk: Chunk) -> None:
    if isinstance(record, Start):
        boot = boot_of(record.t, reader.boots)
        chunk.starts.append(Line(record.id, uid, boot, line))
    else:
        boot = boot_of(record.t - (record.seconds or 0.0), reader.boots)
        chunk.ends.append(Line(record.id, uid, boot, line))


def _refused(counts: dict[str, int]) -> dict[str, int]:
    return {f"refused: {reason}": count for reason, count in counts.items()}
