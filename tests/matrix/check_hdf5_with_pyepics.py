"""h5py in the callbacks of pyepics: an archiver in one process, and a viewer of its file.

Monitors call from threads of libca, which write waves and scalars into a file with gzip, while
other threads of Python read the same file, make new ones and compute; h5py has one lock for all of
that. A child reads along (SWMR) what the callbacks write. Nothing that was heard is missing in the
file, also after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from scene import HERE, child, epics, expect, itself, repeater, step, wait_for

PREFIX = "check:"
COUNT = 100
LENGTH = 4000


def wave(number: int) -> Any:
    """What wave a number has."""
    import numpy as np

    return np.sin(np.arange(LENGTH) / 50) * (number + 1)


def archiver(directory: str) -> None:
    """The program: what monitors tell goes to a file."""
    import epics as pyepics
    import h5py
    import numpy as np

    callers: set[int] = set()
    heard = {"turns": 0, "wave": 0}
    file = h5py.File(Path(directory, "run.h5"), "w", libver="latest", locking=False)
    options = {"chunks": True, "compression": "gzip"}
    turns = file.create_dataset("turns", (0,), maxshape=(None,), dtype="i8", **options)
    waves = file.create_dataset("wave", (0, LENGTH), maxshape=(None, LENGTH), dtype="f8", **options)
    file.swmr_mode = True

    def append(dataset: Any, value: Any) -> None:
        callers.add(threading.get_ident())
        count = dataset.shape[0]
        dataset.resize(count + 1, axis=0)
        dataset[count] = value
        dataset.flush()

    def by_turns(value: int, **_: object) -> None:
        append(turns, value)
        heard["turns"] += 1

    def by_wave(value: Any, **_: object) -> None:
        # the first may be what the IOC began with
        if len(value) == LENGTH:
            append(waves, value)
            heard["wave"] += 1

    first = pyepics.PV(PREFIX + "turns", auto_monitor=True, callback=by_turns)
    second = pyepics.PV(PREFIX + "wave", auto_monitor=True, callback=by_wave)
    expect("both connect", (first.wait_for_connection(10), second.wait_for_connection(10)), (1, 1))
    stop = threading.Event()
    files: list[int] = []
    others = [
        threading.Thread(target=scribble, args=(Path(directory, f"{n}.h5"), stop, files))
        for n in range(3)
    ]
    for thread in others:
        thread.start()
    print("archives", flush=True)
    for number in range(COUNT):
        first.put(number, wait=True, timeout=10)
        second.put(wave(number), wait=True, timeout=10)
        if number % 20 == 0:
            # read in this thread what another one is writing
            assert turns.shape[0] <= number + 2, turns.shape
            turns[: number // 2].sum()
    wait_for("all heard", lambda: heard["turns"] > COUNT and heard["wave"] >= COUNT, 30)
    stop.set()
    for thread in others:
        thread.join()
    expect("other threads wrote files meanwhile", len(files) > 3, True)
    expect("written by threads of libca", threading.get_ident() in callers, False)
    expect("scalars, all and in order", list(turns[1:]), list(range(COUNT)))
    wanted = np.array([wave(number) for number in range(COUNT)])
    expect("waves, whole ones", np.array_equal(waves[...][-COUNT:], wanted), True)
    print("waits", flush=True)
    try:
        while True:
            pyepics.poll(evt=0.01, iot=1.0)
    except KeyboardInterrupt:
        first.clear_callbacks()
        second.clear_callbacks()
        file.close()
        print(f"closed with {heard['turns']}", flush=True)
    sys.exit(7)


def scribble(path: Path, stop: threading.Event, files: list[int]) -> None:
    """Write a file and read it back, over and over, as an application beside the archiver."""
    import h5py
    import numpy as np

    number = 0
    while not stop.is_set():
        number += 1
        data = np.arange(20_000) * number
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=data, compression="lzf")
        with h5py.File(path, "r") as file:
            assert np.array_equal(file["data"][...], data), "another thread's data"
        files.append(number)


def viewer(path: str) -> None:
    """A reader of the file that is being written."""
    import h5py

    with h5py.File(path, "r", libver="latest", swmr=True, locking=False) as file:
        for least in (20, 60, COUNT):

            def grown(least: int = least) -> bool:
                file["turns"].refresh()
                return bool(file["turns"].shape[0] >= least)

            wait_for(f"{least} values", grown, 40)
        values = list(file["turns"][1:COUNT])
        expect("read along, in order", values, list(range(COUNT - 1)))


def main() -> None:
    """The IOC, the archiver and the viewer."""
    epics()
    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"  # not every file system has locks
    ioc = (sys.executable, HERE / "check_pyepics.py", "ioc")
    scratch = tempfile.TemporaryDirectory(prefix="check-")
    with scratch as directory, repeater(), child(*ioc) as server:
        wait_for("IOC", lambda: server.says("ready"))
        with child(*itself("archiver", directory)) as program:
            wait_for("the archiver", lambda: program.says("archives"))
            with child(*itself("viewer", str(Path(directory, "run.h5")))) as reader:
                wait_for("all archived", lambda: program.says("waits"), 60)
                wait_for("all read", lambda: reader.popen.poll() is not None, 30)
                expect("another process reads along", reader.popen.returncode, 0)
            expect("Ctrl-C ends it", program.end(signal.SIGINT), 7)
            expect("with the file closed", "closed with" in program.text(), True)
        left(Path(directory, "run.h5"))
    step("all of h5py with pyepics")


def left(path: Path) -> None:
    """The file that is left opens for writing, so it was closed in order."""
    import h5py

    with h5py.File(path, "r+", locking=False) as file:
        expect("what is left", list(file["turns"][1 : COUNT + 1]), list(range(COUNT)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["archiver"]:
        archiver(sys.argv[2])
    elif sys.argv[1:2] == ["viewer"]:
        viewer(sys.argv[2])
    else:
        main()
