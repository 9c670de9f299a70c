"""pyqtgraph: a plot drawn offscreen, its curve's pixels, live data from a thread; on each Qt.

The same on PyQt6, PyQt5 and PySide6, a process each: a curve and an image have their colours
where their data are, also after a pan and in an exported PNG; a thread that acquires data feeds a
strip chart while the window is drawn; gaps (NaN) stay gaps; a region is dragged with the mouse.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import qt_scene
import scene

BINDINGS = ("PyQt6", "PyQt5", "PySide6")


def shown(pg, plot, x, y):  # type: ignore[no-untyped-def]
    """The colours of the pixels around a point of a plot's coordinates."""
    image = plot.grab().toImage()
    point = plot.mapFromScene(plot.getViewBox().mapViewToScene(pg.Point(x, y)))
    # On Qt 5 pyqtgraph turns scaling on, and a screen of 100 dpi has 1.04 pixels to the point.
    ratio = image.devicePixelRatio()
    at_x, at_y, around = round(point.x() * ratio), round(point.y() * ratio), range(-1, 2)
    return {image.pixelColor(at_x + dx, at_y + dy).name() for dx in around for dy in around}


def settle(qt, plot, what):  # type: ignore[no-untyped-def]
    """Let a plot be laid out: axes learn their size when they are drawn, and may move all else."""
    seen: list[object] = [None]

    def still() -> bool:
        plot.grab()
        seen.append(plot.getViewBox().sceneBoundingRect())
        return plot.isVisible() and len(seen) > 4 and seen[-1] == seen[-2] == seen[-3]

    qt_scene.turn(qt, what, still)


def drawing(pg, qt, directory: Path) -> None:  # type: ignore[no-untyped-def]
    """A curve with a gap, an image, their pixels, an exported picture."""
    import numpy as np
    import pyqtgraph.exporters

    plot = pg.PlotWidget(background="#ffffff")
    plot.resize(500, 400)
    x = np.linspace(0, 10, 2001)
    y = x**2
    y[(x > 4.5) & (x < 5.5)] = np.nan
    plot.plot(x, y, pen=pg.mkPen("#ff0000", width=3), connect="finite")
    plot.setRange(xRange=(0, 10), yRange=(0, 100), padding=0)
    plot.show()
    settle(qt, plot, "a plot")
    for at in (3.0, 7.0):
        assert "#ff0000" in shown(pg, plot, at, at**2), f"no curve at {at}"
        scene.expect(f"only ground beside {at}", shown(pg, plot, at, at**2 + 20), {"#ffffff"})
    scene.expect("a gap in the data is a gap", shown(pg, plot, 5.0, 25.0), {"#ffffff"})
    plot.setXRange(5.6, 8, padding=0)
    settle(qt, plot, "a panned plot")
    assert "#ff0000" in shown(pg, plot, 7.0, 49.0), "no curve after a pan"
    scene.step("a curve has its colour where its data are, also after a pan")

    path = directory / "plot.png"
    exporter = pyqtgraph.exporters.ImageExporter(plot.plotItem)
    exporter.parameters()["width"] = 1000
    exporter.export(str(path))
    picture = qt.Gui.QImage(str(path))
    scene.expect("an exported picture has its width", picture.width(), 1000)
    assert qt_scene.colours(picture).get("#ff0000", 0) > 500, "no curve in the exported picture"
    plot.close()

    camera = pg.PlotWidget(background="#000000")
    camera.resize(400, 400)
    frame = np.zeros((50, 40), dtype=np.uint16)
    frame[10:20, 5:15] = 4095
    item = pg.ImageItem(frame, axisOrder="row-major", levels=(0, 4095))
    camera.addItem(item)
    camera.setRange(xRange=(0, 40), yRange=(0, 50), padding=0)
    camera.show()
    settle(qt, camera, "an image")
    scene.expect("a camera's spot is white", shown(pg, camera, 10, 15), {"#ffffff"})
    scene.expect("and all else is black", shown(pg, camera, 30, 40), {"#000000"})
    camera.close()


def live(pg, qt) -> None:  # type: ignore[no-untyped-def]
    """A strip chart fed by a thread while it is drawn, and a region moved with the mouse."""
    import numpy as np

    class Source(qt.Core.QObject):  # type: ignore[misc]
        data = qt.Signal(object)

    plot = pg.PlotWidget(background="#ffffff")
    plot.resize(500, 300)
    curve = plot.plot(pen=pg.mkPen("#0000ff", width=3))
    plot.setRange(xRange=(0, 300), yRange=(0, 300), padding=0)
    plot.show()
    settle(qt, plot, "a strip chart")
    window_thread, drawn_in = threading.get_ident(), set()
    history: list[int] = []
    source = Source()

    def take(values):  # type: ignore[no-untyped-def]
        drawn_in.add(threading.get_ident())
        history.extend(values)
        curve.setData(np.arange(len(history)), np.array(history, dtype=float))

    source.data.connect(take, qt.Core.Qt.ConnectionType.QueuedConnection)

    def acquire() -> None:
        for number in range(0, 300, 3):
            source.data.emit([number, number + 1, number + 2])
            time.sleep(0.005)

    thread = threading.Thread(target=acquire)
    thread.start()
    pictures = []
    while len(history) < 300:
        length = len(history)
        qt_scene.turn(qt, "data of the thread", lambda than=length: len(history) > than)
        if len(pictures) < 3 and len(history) > 60 * (len(pictures) + 1):
            pictures.append(qt_scene.colours(plot.grab().toImage()).get("#0000ff", 0))
    thread.join()
    pictures.append(qt_scene.colours(plot.grab().toImage()).get("#0000ff", 0))
    scene.expect("all data of a thread come, in order", history, list(range(300)))
    scene.expect("they are drawn in the window's thread", drawn_in, {window_thread})
    assert pictures == sorted(pictures), pictures
    assert 0 < pictures[0] < pictures[-1] / 2, pictures
    assert "#0000ff" in shown(pg, plot, 250, 250), "no curve at the end"
    scene.step("the curve grows while data come")

    region = pg.LinearRegionItem(values=(50, 100))
    plot.addItem(region)
    settle(qt, plot, "a region")
    changes: list[object] = []
    region.sigRegionChanged.connect(lambda *_: changes.append(region.getRegion()))
    test, view = qt.Test.QTest, plot.viewport()
    left, none = qt.Core.Qt.MouseButton.LeftButton, qt.Core.Qt.KeyboardModifier.NoModifier

    def at(value: float):  # type: ignore[no-untyped-def]
        return plot.mapFromScene(plot.getViewBox().mapViewToScene(pg.Point(value, 280)))

    test.mouseMove(view, at(75))
    test.mousePress(view, left, none, at(75))
    for value in (90, 120, 150, 175):
        event = qt.Gui.QMouseEvent(
            qt.Core.QEvent.Type.MouseMove,
            qt.Core.QPointF(at(value)),
            qt.Core.QPointF(view.mapToGlobal(at(value))),
            qt.Core.Qt.MouseButton.NoButton,
            left,
            none,
        )
        qt.Core.QCoreApplication.sendEvent(view, event)
        time.sleep(0.05)
    test.mouseRelease(view, left, none, at(175))
    qt_scene.turn(qt, "the region's change", lambda: changes)
    low, high = region.getRegion()
    assert abs(low - 150) < 5, (low, high)
    assert abs(high - 200) < 5, (low, high)
    scene.step("a region follows the mouse")
    plot.close()


def one(name: str) -> int:
    """All of it on one Qt."""
    os.environ["PYQTGRAPH_QT_LIB"] = name
    with qt_scene.offscreen() as directory:
        import pyqtgraph as pg

        scene.expect("pyqtgraph uses the Qt it is told to", pg.Qt.QT_LIB, name)
        qt = qt_scene.binding(name)
        pg.mkQApp("check")
        pg.setConfigOptions(antialias=False)
        drawing(pg, qt, directory)
        live(pg, qt)
    return 0


def main() -> int:
    """A process for each Qt; its exit status counts, as it stands at its very end."""
    for name in BINDINGS:
        print(f"--- {name}", flush=True)
        status = subprocess.run(scene.itself(name), timeout=50, check=False).returncode
        scene.expect(f"pyqtgraph on {name} ends well", status, 0)
    return 0


if __name__ == "__main__":
    sys.exit(one(sys.argv[1]) if sys.argv[1:] else main())
