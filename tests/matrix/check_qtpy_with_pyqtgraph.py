"""Which Qt a program gets where three are installed, and that it is one for all in it.

qtpy (and PyDM by it), pyqtgraph, matplotlib and taurus each choose a binding. They take the one
that is imported already, so whatever comes first decides for all: a binding itself, one of them by
its own order, or ``QT_API`` for qtpy. Two bindings of the same Qt in one process cannot share an
application: that ends at once, with words that say so.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

import qt_scene
import scene

BINDINGS = ("PyQt5", "PyQt6", "PySide6")

# What is imported first, with which QT_API, and the binding that all of them then have.
FIRST = (
    ("PyQt5", "", "PyQt5"),
    ("PyQt6", "", "PyQt6"),
    ("PySide6", "", "PySide6"),
    ("qtpy", "", "PyQt5"),
    ("pyqtgraph", "", "PyQt6"),
    ("taurus", "", "PyQt5"),
    ("qtpy", "pyside6", "PySide6"),
    ("taurus", "pyqt6", "PyQt6"),
)


def chosen(name: str) -> str:
    """The binding that a package has chosen; for a binding, its own name."""
    if name in BINDINGS:
        importlib.import_module(f"{name}.QtWidgets")
        return name
    modules: dict[str, tuple[str, str]] = {
        "qtpy": ("qtpy", "API_NAME"),
        "pyqtgraph": ("pyqtgraph.Qt", "QT_LIB"),
        "matplotlib": ("matplotlib.backends.qt_compat", "QT_API"),
        "taurus": ("taurus.external.qt", "API_NAME"),
    }
    module, attribute = modules[name]
    found: ModuleType = importlib.import_module(module)
    return str(getattr(found, attribute))


def loaded() -> set[str]:
    """The Qt libraries in the process, by the package they are of."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "Core.so" in line and "/libQt" in line}
    return {path.split("site-packages/")[-1].split("/")[0] for path in paths}


def agree(first: str, wanted: str) -> int:
    """The program: one of them first, then all, then a plot in a window."""
    with qt_scene.offscreen() as directory:
        os.environ["MPLCONFIGDIR"] = str(directory)  # its font cache; else it complains of no home
        scene.expect(f"{first} chooses", chosen(first), wanted)
        others = ("qtpy", "pyqtgraph", "matplotlib", "taurus")
        for name in others:
            scene.expect(f"{name} agrees", chosen(name), wanted)
        importlib.import_module("pydm.widgets")
        scene.expect("one Qt in the process, with PyDM", loaded(), {wanted})
        import pyqtgraph

        qt = qt_scene.binding(wanted)
        app = qt.Widgets.QApplication([wanted])
        window = qt.Widgets.QWidget()
        layout = qt.Widgets.QVBoxLayout(window)
        plot = pyqtgraph.PlotWidget(background="#1f8a4c")
        layout.addWidget(plot)
        window.show()
        qt_scene.turn(qt, "a window", window.isVisible)
        found = qt_scene.colours(window.grab().toImage())
        scene.expect("a plot in a window is drawn", found.get("#1f8a4c", 0) > 500, True)
        qt.Core.QTimer.singleShot(50, app.quit)
        return int(app.exec())


def main() -> int:
    """Each order in a process of its own."""
    os.environ.pop("QT_API", None)
    for first, api, wanted in FIRST:
        env = {"QT_API": api} if api else {}
        with scene.child(*scene.itself("agree", first, wanted), env=env) as program:
            scene.wait_for("the end", lambda program=program: program.popen.poll() is not None, 60)
            what = f"{first} first{f', QT_API={api}' if api else ''}: all on {wanted}"
            scene.expect(what, program.popen.returncode, 0)
    return 0


if __name__ == "__main__":
    sys.exit(agree(*sys.argv[2:]) if sys.argv[1:2] == ["agree"] else main())
