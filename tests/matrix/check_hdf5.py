"""h5py: SWMR between two processes, compression, strings, a writer that is killed.

A writer child appends to a file in single-writer-multiple-reader mode while this process reads
along; killed in the middle of it, it leaves a file that still reads. Compressed data come back
bit for bit and damaged ones are refused; strings, attributes, references and time stamps survive.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import scene

# Lock files do not work on every file system (NFS, a container's overlay); SWMR needs none.
LOCKING = {"HDF5_USE_FILE_LOCKING": "FALSE"}


def writer(path: str) -> int:
    """The child: frames without end, one flush each."""
    with h5py.File(path, "w", libver="latest") as file:
        image = file.create_dataset(
            "image",
            (0, 64, 64),
            maxshape=(None, 64, 64),
            chunks=(1, 64, 64),
            dtype="u2",
            compression="gzip",
            shuffle=True,
        )
        stamp = file.create_dataset("stamp", (0,), maxshape=(None,), chunks=(256,), dtype="i8")
        image.attrs["detector"] = "Kamera µ1"
        file.swmr_mode = True
        print("writing", flush=True)
        number = 0
        while True:
            image.resize(number + 1, axis=0)
            image[number] = frame(number)
            image.flush()
            # The stamp comes last: a reader that sees it may rely on the frame.
            stamp.resize(number + 1, axis=0)
            stamp[number] = number * 1000
            stamp.flush()
            number += 1


def frame(number: int) -> np.ndarray:
    """What frame a number has; a reader can tell a torn one."""
    return (np.arange(64 * 64).reshape(64, 64) * 7 + number * 13).astype("u2")


def swmr(directory: Path) -> None:
    """Read along with a writer, kill it, read what it left."""
    path = directory / "run.h5"
    with scene.child(*scene.itself("writer", str(path)), env=LOCKING) as child:
        scene.wait_for("the writer", lambda: child.says("writing"))
        with h5py.File(path, "r", libver="latest", swmr=True, locking=False) as file:
            image, stamp = file["image"], file["stamp"]

            def grown(least: int) -> int:
                stamp.refresh()
                image.refresh()
                return int(stamp.shape[0]) if stamp.shape[0] >= least else 0

            seen = 0
            for _ in range(5):
                seen = scene.wait_for("more frames", lambda least=seen + 5: grown(least))
                last = min(seen, image.shape[0]) - 1
                assert (image[last] == frame(last)).all(), f"frame {last} is torn"
                assert stamp[seen - 1] == (seen - 1) * 1000
            scene.step("a reader sees frames come, whole ones, while they are written")
            scene.expect("an attribute is there", image.attrs["detector"], "Kamera µ1")
            try:
                image[0] = 0
            except (OSError, TypeError, ValueError, KeyError, RuntimeError):
                scene.step("a reader cannot write")
            else:
                raise AssertionError("a reader wrote")
        status = child.end(signal.SIGKILL)
        scene.expect("the writer is killed while it writes", status, -signal.SIGKILL)

    with h5py.File(path, "r", locking=False, swmr=True) as file:
        left = min(file["stamp"].shape[0], file["image"].shape[0])
        assert left >= seen, f"{left} frames left of {seen} that were read"
        for number in range(seen):
            assert (file["image"][number] == frame(number)).all(), f"frame {number} after the kill"
            assert file["stamp"][number] == number * 1000
    scene.step("after that, everything a reader had seen is still there")

    # The killed writer's mark stays in the file: for writing it must be cleared first.
    try:
        h5py.File(path, "r+", locking=False).close()
    except OSError:
        scene.step("the file of a killed writer is not opened for writing just like that")
    else:
        raise AssertionError("a file still marked as being written was opened for writing")


def compression(directory: Path) -> None:
    """Filters give back every bit; damage is noticed."""
    path = directory / "filters.h5"
    data = (np.arange(200_000) % 1000).astype("f8").reshape(400, 500)
    data[3, 4], data[5, 6] = np.nan, -np.inf
    filters = {"plain": {}, "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf"}}
    with h5py.File(path, "w") as file:
        for name, options in filters.items():
            chunks = {"chunks": (40, 500), "fletcher32": True, "shuffle": True} if options else {}
            file.create_dataset(name, data=data, **options, **chunks)
    with h5py.File(path, "r") as file:
        for name in filters:
            assert file[name][...].tobytes() == data.tobytes(), name
        sizes = {name: file[name].id.get_storage_size() for name in filters}
        offset = file["gzip"].id.get_chunk_info(2).byte_offset
        assert sizes["gzip"] < sizes["plain"] / 10, sizes
        assert sizes["lzf"] < sizes["plain"] / 2, sizes
        part = file["gzip"][10:300:7, [1, 5, 77]]
        assert (part == data[10:300:7][:, [1, 5, 77]]).all(), "a selection"
    scene.step("gzip, lzf, shuffle and check sums give back every bit, and are smaller")
    with open(path, "r+b") as raw:
        raw.seek(offset + 20)
        raw.write(b"\xff\x00\xff\x00")
    with h5py.File(path, "r") as file:
        try:
            file["gzip"][...]
        except OSError:
            scene.step("a damaged chunk is refused")
        else:
            raise AssertionError("a damaged chunk was read")
        assert (file["lzf"][0] == data[0]).all()


def structure(directory: Path) -> None:
    """Strings, compounds, enumerations, references, links to other files."""
    path = directory / "structure.h5"
    names = ["Quadrupol Ä", "", "束流", "q" * 5000]
    record = np.dtype([("pv", "S20"), ("value", "f8"), ("severity", "u1")])
    with h5py.File(path, "w", track_order=True) as file:
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
        file.create_dataset("fixed", data=np.array([b"abc", b"de"], dtype="S5"))
        rows = np.array([(b"SR:CURRENT", 299.5, 0), (b"SR:LIFE", 9.25, 2)], dtype=record)
        table = file.create_dataset("archive/table", data=rows)
        table.attrs["rate"] = 10.0
        modes = h5py.enum_dtype({"off": 0, "on": 1}, basetype="i4")
        file.create_dataset("mode", data=[1, 0, 1], dtype=modes)
        ragged = file.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("i4"))
        ragged[0], ragged[1] = [1, 2, 3], []
        file.attrs["entry"] = table.ref
        file["link"] = h5py.SoftLink("/archive/table")
        file["other"] = h5py.ExternalLink("filters.h5", "/lzf")
        file["gone"] = h5py.ExternalLink("missing.h5", "/x")
        when = np.array(["2026-10-25T01:59:59.123456789"], dtype="M8[ns]")
        file["when"] = when.astype(h5py.opaque_dtype(when.dtype))
    with h5py.File(path, "r") as file:
        scene.expect("strings", file["names"].asstr()[...].tolist(), names)
        scene.expect("bytes", file["fixed"][...].tolist(), [b"abc", b"de"])
        assert (file["link"][...] == rows).all()
        assert file[file.attrs["entry"]].name == "/archive/table"
        assert file["archive/table"]["value"].tolist() == [299.5, 9.25]
        scene.step("a table, a link to it and a reference to it")
        enumeration = h5py.check_enum_dtype(file["mode"].dtype)
        scene.expect("an enumeration's names", enumeration, {"off": 0, "on": 1})
        scene.expect("ragged rows", [row.tolist() for row in file["ragged"]], [[1, 2, 3], []])
        scene.expect("a link to another file", file["other"].shape, (400, 500))
        assert (file["when"][...] == when).all()
        try:
            file["gone"]
        except KeyError:
            scene.step("a time to the nanosecond; a dangling link is told")
        else:
            raise AssertionError("a dangling link led somewhere")


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ.update(LOCKING)
        swmr(directory)
        compression(directory)
        structure(directory)
    return 0


if __name__ == "__main__":
    sys.exit(writer(sys.argv[2]) if sys.argv[1:2] == ["writer"] else main())
