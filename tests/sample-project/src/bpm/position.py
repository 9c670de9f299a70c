"""What four buttons say of where the beam is."""

import numpy

SCALE = 10.0
"""Millimetres for a full difference; of the geometry of the chamber."""


def position(signals):
    """Give x and y of the beam in mm from the signals of buttons A, B, C, D, anticlockwise."""
    a, b, c, d = numpy.asarray(signals, dtype=float)
    total = a + b + c + d
    if not total > 0:
        raise ValueError("no beam: the signals add up to nothing")
    x = SCALE * (a + d - b - c) / total
    y = SCALE * (a + b - c - d) / total
    return float(x), float(y)
