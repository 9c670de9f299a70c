"""uproot and awkward: a ROOT file written and read, ragged arrays, histograms, damage.

Trees with flat, ragged and nested branches, appended in several baskets and compressed four ways,
come back bit for bit, whole, in ranges and in chunks, with a cut and an expression; histograms
with their errors; an update in place; a file that is cut off and a damaged basket are refused.
"""

import sys
import tempfile
from pathlib import Path

import awkward as ak
import numpy as np
import scene
import uproot

EVENTS = 5000


def events() -> dict[str, object]:
    """What a detector would give: a number of hits for each event, also none."""
    random = np.random.default_rng(7)
    hits = ak.Array(
        ak.contents.ListOffsetArray(
            ak.index.Index64(np.concatenate([[0], np.cumsum(np.arange(EVENTS) % 5)])),
            ak.contents.NumpyArray(random.normal(size=int((np.arange(EVENTS) % 5).sum()))),
        )
    )
    return {
        "number": np.arange(EVENTS, dtype=np.int64),
        "stamp": np.arange(EVENTS, dtype=np.uint64) * 10**12,
        "current": random.uniform(0, 300, EVENTS).astype(np.float32),
        "beam": np.arange(EVENTS) % 3 == 0,
        "position": random.normal(size=(EVENTS, 3)),
        "energy": hits,
    }


def same(found: ak.Array, wanted: object) -> bool:
    """Whether two arrays, ragged or not, have the same values in the same shape."""
    return bool(ak.array_equal(ak.Array(found), ak.Array(wanted), dtype_exact=False))


def trees(directory: Path) -> None:
    """Trees with all compressions, in two parts."""
    data = events()
    sizes = {}
    for name, compression in {
        "none": None,
        "zlib": uproot.ZLIB(5),
        "lzma": uproot.LZMA(3),
        "lz4": uproot.LZ4(4),
        "zstd": uproot.ZSTD(5),
    }.items():
        path = directory / f"{name}.root"
        with uproot.recreate(path, compression=compression) as file:
            types = {key: ak.type(ak.Array(value)).content for key, value in data.items()}
            types["position"] = np.dtype(("f8", (3,)))
            types["energy"] = "var * float64"
            tree = file.mktree("run/events", types)
            for part in (slice(0, 1234), slice(1234, EVENTS)):
                tree.extend({key: value[part] for key, value in data.items()})
        sizes[name] = path.stat().st_size
        with uproot.open(path) as file:
            tree = file["run/events"]
            scene.expect(f"{name}: number of events", tree.num_entries, EVENTS)
            for key, value in data.items():
                assert same(tree[key].array(), value), f"{name}: {key}"
        scene.step(f"{name}: every branch comes back")
    assert all(sizes[name] < sizes["none"] for name in ("zlib", "lzma", "zstd", "lz4")), sizes

    path = directory / "zstd.root"
    with uproot.open(f"{path}:run/events") as tree:
        part = tree["energy"].array(entry_start=1230, entry_stop=1240)
        scene.expect(
            "a range across two baskets", part.tolist(), data["energy"][1230:1240].tolist()
        )
        cut = tree.arrays(["number", "double"], "beam", aliases={"double": "current * 2"})
        chosen = np.asarray(data["beam"])
        assert same(cut["number"], data["number"][chosen])
        assert np.allclose(cut["double"], data["current"][chosen] * 2)
        scene.step("a cut and an expression")
        frame = tree.arrays(["number", "current"], library="pd")
        assert frame["current"].to_numpy().tobytes() == data["current"].tobytes()
        scene.step("as a table of pandas")
    sums = [
        float(ak.sum(chunk["energy"]))
        for chunk in uproot.iterate(f"{path}:run/events", ["energy"], step_size=700)
    ]
    scene.expect("chunks", len(sums), 8)
    assert abs(sum(sums) - float(ak.sum(data["energy"]))) < 1e-9
    both = uproot.concatenate([f"{path}:run/events", f"{directory / 'lz4.root'}:run/events"])
    scene.expect("two files as one", len(both), 2 * EVENTS)


def ragged() -> None:
    """awkward alone: what it computes on ragged arrays, held against plain Python."""
    array = ak.Array([[1.5, -2.0, 3.0], [], [4.0], [0.5, 0.25]])
    scene.expect("sums of lists", ak.sum(array, axis=1).tolist(), [4.5 - 2.0, 0.0, 4.0, 0.75])
    scene.expect("the highest, also of none", ak.max(array, axis=1).tolist(), [3.0, None, 4.0, 0.5])
    scene.expect("a cut within", array[array > 1].tolist(), [[1.5, 3.0], [], [4.0], []])
    pairs = ak.combinations(array, 2)
    scene.expect("pairs", ak.num(pairs).tolist(), [3, 0, 0, 1])
    records = ak.Array([{"pv": "SR:I", "v": [1, 2]}, {"pv": "ü", "v": None}])
    again = ak.from_buffers(*ak.to_buffers(records))
    scene.expect("records through buffers", again.tolist(), records.tolist())
    scene.expect("through JSON", ak.from_json(ak.to_json(records)).tolist(), records.tolist())
    try:
        array + ak.Array([[1.0], [], [4.0], [0.5, 0.25]])
    except ValueError:
        scene.step("lists of different lengths are not added")
    else:
        raise AssertionError("lists of different lengths were added")


def histograms(directory: Path) -> None:
    """Histograms, strings and an update; then damage."""
    path = directory / "histograms.root"
    values = np.random.default_rng(3).normal(size=10_000)
    counts, edges = np.histogram(values, bins=40, range=(-4, 4))
    plane = np.histogram2d(values, values[::-1], bins=(10, 20), range=((-4, 4), (-3, 3)))
    with uproot.recreate(path) as file:
        file["profile/x"] = (counts, edges)
        file["plane"] = plane
        file["title"] = "Strahlprofil"
    with uproot.update(path) as file:
        file["profile/y"] = (counts[::-1], edges)
        file["title"] = "Strahlprofil, neu"
    with uproot.open(path) as file:
        keys = sorted(file.keys(cycle=False, recursive=True))
        scene.expect("keys", keys, sorted({"profile", "profile/x", "profile/y", "plane", "title"}))
        for key, wanted in (("profile/x", counts), ("profile/y", counts[::-1])):
            found, found_edges = file[key].to_numpy()
            assert (found == wanted).all(), key
            assert np.allclose(found_edges, edges)
        assert np.allclose(file["profile/x"].errors(), np.sqrt(counts))
        assert (file["plane"].values() == plane[0]).all()
        scene.expect("the newest of two with a name", str(file["title"]), "Strahlprofil, neu")
    scene.step("histograms with edges and errors, in one and two dimensions")

    whole = (directory / "zlib.root").read_bytes()
    cut = directory / "cut.root"
    cut.write_bytes(whole[: len(whole) // 2])
    torn = directory / "torn.root"
    with uproot.open(directory / "zlib.root") as file:
        place = file["run/events/current"].basket_key(1)
        middle = place.data_cursor.index + place.data_compressed_bytes // 2
    torn.write_bytes(whole[:middle] + b"\xaa" * 50 + whole[middle + 50 :])
    for bad in (cut, torn):
        try:
            with uproot.open(bad) as file:
                file["run/events"].arrays()
        except Exception as error:
            scene.step(f"{bad.stem}: refused with {type(error).__name__}")
        else:
            raise AssertionError(f"{bad.stem}: damaged data were read")


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ragged()
        trees(directory)
        histograms(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
