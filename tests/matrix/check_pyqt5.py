"""PyQt5: a panel drawn offscreen, keys and clicks, threads, timers, Ctrl-C, a clean exit.

The window is rendered to an image whose pixels are looked at (also through PNG and JPEG files);
a set point keeps its limits; values of a QThread and of a Python thread arrive in the window's
thread; an exception in a slot is told; SIGINT ends an idle event loop. Offline, no display.
"""

import sys

import qt_scene

if __name__ == "__main__":
    sys.exit(qt_scene.main("PyQt5"))
