"""xtrack: a FODO cell against the thin-lens formula and against MAD-X.

Needs a C compiler on the machine: xtrack makes its kernels at run time with cffi (half a minute;
without the xsuite package, which has them ready, it wants to be told that it may). Tunes and beta
functions, tracking of many particles against the phase advance, a strength that is changed by a
variable, a line through JSON, an aperture that loses what it has to.
"""

import math
import os
import shutil
import sys
import tempfile

import check_cpymad
import scene
from check_cpymad import LENGTH, close, formula

os.environ["XSUITE_ALLOW_KERNEL_COMPILATION"] = "1"

STRENGTHS = (0.05, 0.3, 0.6, 0.95)
MOMENTUM = 450e9


def madx() -> dict[float, tuple[float, float]]:
    """What MAD-X says of the same cell: tune and beta in the focusing lens."""
    found = {}
    with check_cpymad.Madx(stdout=False) as program:
        program.input(check_cpymad.CELL.format(k=0.3, length=2 * LENGTH, half=LENGTH))
        for k in STRENGTHS:
            program.globals["k"] = k
            table = program.twiss(sequence="cell")
            names = [name.split(":")[0] for name in table.name]
            found[k] = (table.summary.q1, float(table.betx[names.index("qf")]))
    return found


def main() -> int:
    """All of it."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        raise AssertionError("no C compiler: xtrack cannot make its kernels")
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # cffi builds where it is
        os.environ["TMPDIR"] = tempfile.tempdir = directory
        import numpy as np
        import xtrack as xt

        line = xt.Line(
            elements=[
                xt.Multipole(knl=[0, 0.3]),
                xt.Drift(length=LENGTH),
                xt.Multipole(knl=[0, -0.3]),
                xt.Drift(length=LENGTH),
                xt.LimitEllipse(a=0.02, b=0.02),
            ],
            element_names=["qf", "d1", "qd", "d2", "pipe"],
        )
        line.particle_ref = xt.Particles(p0c=MOMENTUM, mass0=xt.PROTON_MASS_EV)
        line.vars["k"] = 0.3
        line.element_refs["qf"].knl[1] = line.vars["k"]
        line.element_refs["qd"].knl[1] = -line.vars["k"]
        line.build_tracker()
        scene.step("kernels are compiled")

        # Tracking first: x(n+1) + x(n-1) = 2 cos(mu) x(n) for each particle and turn.
        wanted = formula(0.3)
        start = np.linspace(-1e-5, 1e-5, 11)
        particles = line.build_particles(x=start, y=-start)
        line.track(particles, num_turns=200, turn_by_turn_monitor=True)
        twice = 2 * math.cos(2 * math.pi * wanted["q"])
        for plane in (line.record_last_track.x, line.record_last_track.y):
            assert plane.shape == (11, 200), plane.shape
            error = plane[:, 2:] + plane[:, :-2] - twice * plane[:, 1:-1]
            assert np.abs(error).max() < 1e-12, np.abs(error).max()
        scene.step("tracked particles have the phase advance of the formula")

        far = line.build_particles(x=[0.0, 0.005, 0.05], px=0)
        line.track(far, num_turns=50)
        alive = dict(zip(far.particle_id.tolist(), far.state.tolist(), strict=True))
        scene.expect(
            "an aperture loses what is outside",
            [alive[n] > 0 for n in range(3)],
            [True, True, False],
        )

        for k, (tune, beta) in madx().items():
            line.vars["k"] = k
            wanted = formula(k)
            optics = line.twiss(method="4d")
            close("horizontal tune", optics.qx, wanted["q"], 1e-6)
            close("vertical tune", optics.qy, wanted["q"], 1e-6)
            close("beta x in the focusing lens", optics["betx", "qf"], wanted["high"], 1e-6)
            close("beta x in the other", optics["betx", "qd"], wanted["low"], 1e-6)
            close("beta y in the focusing lens", optics["bety", "qf"], wanted["low"], 1e-6)
            close("chromaticity", optics.dqx, wanted["dq"], 1e-3)
            close("tune of MAD-X", optics.qx, tune, 1e-6)
            close("beta of MAD-X", optics["betx", "qf"], beta, 1e-6)
        scene.step("optics are those of the formula and of MAD-X, for strengths by a variable")

        line.vars["k"] = 0.3
        line.to_json("line.json")
        again = xt.Line.from_json("line.json")
        scene.expect("a line through JSON", list(again.element_names), list(line.element_names))
        again.vars["k"] = 0.6
        scene.expect("keeps its variables", float(again["qd"].knl[1]), -0.6)
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
