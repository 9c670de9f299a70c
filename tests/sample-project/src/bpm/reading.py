"""The buttons' signals over Channel Access."""

import epics

from bpm.position import position


def read_position(name, timeout=10.0):
    """Give the position that a monitor sees; TimeoutError where its IOC does not answer."""
    signals = epics.caget(f"{name}:signals", timeout=timeout)
    if signals is None:
        raise TimeoutError(f"{name}:signals does not answer")
    return position(signals)
