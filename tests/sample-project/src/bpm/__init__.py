"""Beam positions from the signals of four buttons, and from an IOC."""

from bpm.position import position
from bpm.reading import read_position

__all__ = ["position", "read_position"]
