"""cpymad (MAD-X in a process of its own): a FODO cell against the thin-lens formula.

Tunes and beta functions for several strengths, matching of a tune, a survey of a bent cell, the
chromaticity of thin lenses, tracking against the phase advance; an error in MAD-X's language is
told, a crash of MAD-X raises and leaves no process; two of them at once do not mix.
"""

import io
import math
import os
import sys
import tempfile

import scene
from cpymad.madx import Madx

LENGTH = 2.0

CELL = """
k := {k};
beam, particle=proton, pc=450;
qf: multipole, knl:={{0, k}};
qd: multipole, knl:={{0, -k}};
cell: sequence, refer=centre, l={length};
qf, at=0;
qd, at={half};
endsequence;
use, sequence=cell;
"""


def formula(k: float) -> dict[str, float]:
    """A cell of two thin lenses of +k and -k, a drift of LENGTH after each; in the focusing one."""
    half = math.asin(LENGTH * k / 2)  # half the phase advance
    scale = 2 * LENGTH / math.sin(2 * half)
    return {
        "q": half / math.pi,
        "high": scale * (1 + math.sin(half)),
        "low": scale * (1 - math.sin(half)),
        "dq": -math.tan(half) / math.pi,
    }


def close(what: str, found: float, wanted: float, within: float = 1e-8) -> None:
    """Two numbers are the same but for rounding."""
    if not abs(found - wanted) <= within * max(1.0, abs(wanted)):
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")


def gone(pid: int) -> bool:
    """Whether a process is no more (a zombie has ended too)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def started(madx: Madx) -> int:
    """The process of a MAD-X."""
    return int(madx._process.pid)


def optics(madx: Madx) -> None:
    """Tunes and beta functions."""
    for k in (0.05, 0.3, 0.6, 0.95):
        wanted = formula(k)
        madx.globals["k"] = k
        table = madx.twiss(sequence="cell")
        close("horizontal tune", table.summary.q1, wanted["q"])
        close("vertical tune", table.summary.q2, wanted["q"])
        names = [name.split(":")[0] for name in table.name]
        focusing, defocusing = names.index("qf"), names.index("qd")
        close("beta x in the focusing lens", table.betx[focusing], wanted["high"])
        close("beta x in the other", table.betx[defocusing], wanted["low"])
        close("beta y in the focusing lens", table.bety[focusing], wanted["low"])
        close("beta y in the other", table.bety[defocusing], wanted["high"])
        # MAD-X derives by pt, which for this beam is delta but for 2e-6.
        close("chromaticity", table.summary.dq1, wanted["dq"], 1e-4)
    scene.step("tunes, beta functions and chromaticity of a FODO cell are those of the formula")

    madx.globals["k"] = 1.2
    try:
        madx.twiss(sequence="cell")
    except RuntimeError:
        scene.step("a cell that is not stable is an error")
    else:
        raise AssertionError("optics of a cell that is not stable")


def work(madx: Madx) -> None:
    """Matching, tracking, an expression, an error."""
    madx.globals["k"] = 0.3
    madx.use(sequence="cell")
    madx.match(
        sequence="cell",
        constraints=[{"range": "#e", "mux": 0.25}],
        vary=["k"],
        method=("lmdif", {"calls": 500, "tolerance": 1e-20}),
    )
    close("strength for a quarter of a turn", abs(madx.globals["k"]), math.sqrt(2) / LENGTH, 1e-7)
    scene.step("a strength is matched to a phase advance")

    madx.globals["k"] = 0.3
    wanted = formula(0.3)
    madx.use(sequence="cell")
    madx.input("track, onepass=false, onetable=true, dump; start, x=1e-6; run, turns=64; endtrack;")
    orbit = madx.table.trackone
    turns = [x for x, turn in zip(orbit.x, orbit.turn, strict=True)]
    # x(n) = x0 (cos(n mu) + alpha sin(n mu)); within a thin lens alpha jumps, sums do not:
    # x(n+1) + x(n-1) = 2 cos(mu) x(n).
    twice = 2 * math.cos(2 * math.pi * wanted["q"])
    rows = sorted(zip(orbit.turn, turns, strict=True))
    x = [value for _, value in dict(rows).items()]
    assert len(x) > 60, len(x)
    for before, here, after in zip(x, x[1:], x[2:], strict=False):
        close("tracking", (before + after) * 1e6, twice * here * 1e6, 1e-6)
    scene.step("a tracked particle has the phase advance of the optics")

    madx.input("half := k / 2; twice = 2 * k;")
    madx.globals["k"] = 0.4
    scene.expect("a deferred expression follows", madx.globals["half"], 0.2)
    scene.expect("an immediate one does not", madx.globals["twice"], 0.6)


def ends() -> None:
    """A crash of MAD-X, two at once, none left."""
    one, two = Madx(stdout=False), Madx(stdout=False)
    pids = [started(one), started(two)]
    one.input("a = 1;")
    two.input("a = 2;")
    scene.expect("two do not mix", (one.globals["a"], two.globals["a"]), (1.0, 2.0))
    one._process.kill()
    try:
        one.input("a = 3;")
        one.globals["a"]
    except Exception as error:
        scene.step(f"a killed MAD-X is told: {type(error).__name__}")
    else:
        raise AssertionError("a killed MAD-X answered")
    scene.expect("the other lives", two.globals["a"], 2.0)
    two.quit()
    scene.wait_for("the end of both", lambda: all(gone(pid) for pid in pids))
    scene.step("no MAD-X is left")


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # MAD-X writes its files where it is
        output = io.BytesIO()
        with Madx(stdout=output.write) as madx:
            pid = started(madx)
            madx.input(CELL.format(k=0.3, length=2 * LENGTH, half=LENGTH))
            optics(madx)
            work(madx)
            madx.input("show, qf;")
            madx.input("nonsense is not a command;")
        assert b"multipole" in output.getvalue(), "no output of MAD-X"
        assert b"warning" in output.getvalue().lower(), "nonsense was taken without a word"
        scene.step("what MAD-X prints is given, a warning of nonsense too")
        scene.wait_for("MAD-X's end", lambda: gone(pid))
        ends()
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
