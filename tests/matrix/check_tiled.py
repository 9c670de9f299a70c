"""tiled's client: arrays and tables written to a server, found and read again.

A server of tiled's own is not in the stack (specs/packages/tiled.toml says why): a stand-in on
loopback speaks as much of its protocol as the client needs, and keeps what it got in a file. An
array in chunks, in part and lazily, types that are easily lost, a table and its columns by Arrow,
metadata, pages of a catalog, a name that is taken and one that is not there; a key that is missing
or wrong; a server that asks to try again; the server killed, missed, and started again.
"""

import io
import json
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import scene

KEY = "0123456789abcdef" * 4
BASE = "/api/v1/"
ARROW = "application/vnd.apache.arrow.file"


class Catalog:
    """What the server keeps: entries by path, and the parts of arrays and tables."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        root = {"structure_family": "container", "metadata": {}, "specs": []}
        self.entries: dict[str, dict] = {"": root}
        self.parts: dict[tuple[str, str], bytes] = {}
        if self.file.exists():
            self.entries, self.parts = pickle.loads(self.file.read_bytes())

    def save(self) -> None:
        """Keep it for the next server: all of it or nothing."""
        new = self.file.with_suffix(".new")
        new.write_bytes(pickle.dumps((self.entries, self.parts)))
        new.replace(self.file)

    def below(self, path: str) -> list[str]:
        """The paths of a container's entries."""
        return sorted(p for p in self.entries if p and p.rpartition("/")[0] == path)


class Server(BaseHTTPRequestHandler):
    """The protocol."""

    protocol_version = "HTTP/1.1"
    catalog: Catalog
    refusals: list[int]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, body: object, status: int = 200, kind: str = "application/x-msgpack") -> None:
        """Send an answer; errors are JSON, the rest is msgpack or bytes."""
        import msgpack

        if not isinstance(body, bytes):
            body = msgpack.packb(body) if status == 200 else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind if status == 200 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do(self) -> None:
        """Answer a request."""
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        where = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(where.query).items()}
        self.columns = parse_qs(where.query).get("column", [])
        verb, _, path = where.path.removeprefix(BASE).partition("/")
        if not verb:
            self.answer(self.about())
        elif self.headers.get("Authorization") != f"Apikey {KEY}":
            self.answer({"detail": "Invalid API key"}, 401)
        elif self.refusals:
            self.answer({"detail": "not now"}, self.refusals.pop())
        elif verb in ("array", "table"):
            part, _, path = path.partition("/")
            getattr(self, f"{self.command}_{verb}")(part, path)
        elif self.command == "GET" and path not in self.catalog.entries:
            self.answer({"detail": f"No such entry: {path}"}, 404)
        else:
            getattr(self, f"{self.command}_{verb}")(path)

    do_GET = do_POST = do_PUT = do

    def about(self) -> dict:
        """What the server says of itself."""
        authentication = {"required": True, "providers": [], "links": None}
        lists = {"formats": {}, "aliases": {}, "queries": [], "meta": {}}
        links = {"self": self.url("")}
        about = {"api_version": 0, "library_version": "0", "authentication": authentication}
        return {**about, **lists, "links": links}

    def url(self, path: str) -> str:
        """An address of this server."""
        return f"http://127.0.0.1:{self.server.server_port}{BASE}{path}"

    def item(self, path: str) -> dict:
        """An entry as the client sees it."""
        entry = self.catalog.entries[path]
        family = entry["structure_family"]
        links = {"self": self.url(f"metadata/{path}")}
        structure: object = {"contents": None, "count": len(self.catalog.below(path))}
        if family == "container":
            links["search"] = self.url(f"search/{path}")
        else:
            structure = entry["data_sources"][0]["structure"]
            links["full"] = self.url(f"{family}/full/{path}")
        if family == "array":
            block = ",".join(f"{{{number}}}" for number in range(len(structure["shape"])))
            links["block"] = self.url(f"array/block/{path}?block={block}")
        if family == "table":
            links["partition"] = self.url(f"table/partition/{path}?partition={{index}}")
        attributes = {
            "ancestors": path.split("/")[:-1] if path else [],
            "structure": structure,
            "structure_family": family,
            "metadata": entry["metadata"],
            "specs": entry["specs"],
            "sorting": [{"key": "_", "direction": 1}],
            "access_blob": {},
        }
        return {"id": path.rpartition("/")[2], "attributes": attributes, "links": links}

    def GET_metadata(self, path: str) -> None:
        """An entry."""
        self.answer({"data": self.item(path)})

    def POST_metadata(self, path: str) -> None:
        """A new entry."""
        asked = json.loads(self.body)
        new = "/".join(filter(None, (path, asked["id"])))
        if new in self.catalog.entries:
            self.answer({"detail": f"{new} exists"}, 409)
        else:
            self.catalog.entries[new] = asked
            self.catalog.save()
            self.answer({"id": asked["id"], "links": self.item(new)["links"]})

    def GET_search(self, path: str) -> None:
        """A page of a container."""
        found = self.catalog.below(path)
        start = int(self.query.get("page[offset]", 0))
        size = min(int(self.query.get("page[limit]", 10)), 10)
        page = [self.item(entry) for entry in found[start : start + size]]
        more = self.url(f"search/{path}?page[offset]={start + size}&page[limit]={size}")
        links = {"next": more if start + size < len(found) else None}
        self.answer({"data": page, "links": links, "meta": {"count": len(found)}})

    def PUT_array(self, part: str, path: str) -> None:
        """A block of an array, or all of it, which is its only block."""
        structure = self.catalog.entries[path]["data_sources"][0]["structure"]
        block = self.query.get("block") or ",".join("0" for _ in structure["shape"])
        self.catalog.parts[path, block] = self.body
        self.catalog.save()
        self.answer({})

    def GET_array(self, part: str, path: str) -> None:
        """A block of an array, or a slice of all of it."""
        import numpy
        from tiled.ndslice import NDSlice
        from tiled.structures.array import ArrayStructure

        structure = ArrayStructure.from_json(
            self.catalog.entries[path]["data_sources"][0]["structure"]
        )
        kind = structure.data_type.to_numpy_dtype()
        array = numpy.empty(structure.shape, dtype=kind)
        for (where, block), data in self.catalog.parts.items():
            if where == path:
                at = [int(number) for number in block.split(",") if number]
                starts = [sum(c[:n]) for c, n in zip(structure.chunks, at, strict=True)]
                sizes = [c[n] for c, n in zip(structure.chunks, at, strict=True)]
                place = tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))
                array[place] = numpy.frombuffer(data, dtype=kind).reshape(sizes)
                if part == "block" and block == self.query["block"]:
                    array = array[place]
                    break
        if asked := self.query.get("slice"):
            array = array[tuple(NDSlice.from_numpy_str(asked))]
        self.answer(numpy.ascontiguousarray(array).tobytes(), kind="application/octet-stream")

    def PUT_table(self, part: str, path: str) -> None:
        """A partition of a table, or all of it."""
        self.catalog.parts[path, self.query.get("partition", "0")] = self.body
        self.catalog.save()
        self.answer({})

    def GET_table(self, part: str, path: str) -> None:
        """A partition of a table, or columns of it."""
        import pyarrow

        data = self.catalog.parts[path, self.query.get("partition", "0")]
        with pyarrow.ipc.open_file(data) as file:
            table = file.read_all()
        if self.columns:
            table = table.select(self.columns)
        out = io.BytesIO()
        with pyarrow.ipc.new_file(out, table.schema) as file:
            file.write_table(table)
        self.answer(out.getvalue(), kind=ARROW)


def serve(port: str, file: str) -> None:
    """The server."""
    Server.catalog, Server.refusals = Catalog(file), []
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Server)
    # the next two requests get an answer that is to be tried again
    signal.signal(signal.SIGUSR1, lambda *_: Server.refusals.extend([503, 503]))
    print("ready", flush=True)
    server.serve_forever()


def client(port: int, key: str | None = KEY, **options: object):
    """A client at the root of the catalog."""
    from tiled.client import from_uri

    return from_uri(f"http://127.0.0.1:{port}{BASE}", api_key=key, **options)


def refused(call: Callable[..., object], *arguments: object, **options: object) -> int:
    """The HTTP status that a call is refused with."""
    from httpx import HTTPStatusError

    try:
        call(*arguments, **options)
    except HTTPStatusError as error:
        return error.response.status_code
    raise AssertionError(f"{call} {arguments} is not refused")


def arrays(root) -> None:
    """Arrays: in chunks, in part, of types that are easily lost."""
    import dask.array
    import numpy

    images = numpy.arange(4 * 300 * 400, dtype="u2").reshape(4, 300, 400)
    chunked = dask.array.from_array(images, chunks=(1, 300, 200))
    node = root.write_array(chunked, key="images", metadata={"µ": "metal"}, dims=["n", "y", "x"])
    node = root["images"]
    scene.expect("chunks", node.chunks, ((1, 1, 1, 1), (300,), (200, 200)))
    scene.expect("all of them", numpy.array_equal(node.read(), images), True)
    scene.expect("type and labels", (node.dtype, node.dims), (numpy.dtype("u2"), ("n", "y", "x")))
    scene.expect("metadata", dict(node.metadata), {"µ": "metal"})
    part = node[2, 10:20, ::100]
    scene.expect("a part", numpy.array_equal(part, images[2, 10:20, ::100]), True)
    block = node.read_block((3, 0, 1))
    scene.expect("a block", numpy.array_equal(block, images[3:, :, 200:]), True)
    for what, array in {
        "complex": numpy.array([1 + 2j, -1j]),
        "big_endian": numpy.arange(5, dtype=">f8"),
        "flags": numpy.array([[True], [False]]),
        "times": numpy.array(["2026-11-21T12:00:00"], dtype="M8[s]"),
        "text": numpy.array(["µ", "metal"]),
        "empty": numpy.zeros((0, 3)),
    }.items():
        root.write_array(array, key=what)
        read = root[what].read()
        found = (read.dtype, read.shape, read.tolist())
        scene.expect(what, found, (array.dtype, array.shape, array.tolist()))


def tables(root) -> None:
    """A table, and columns of it."""
    import numpy
    import pandas

    energy = numpy.linspace(7, 8, 1000)
    frame = pandas.DataFrame({"energy": energy, "counts": range(1000), "name": ["µ"] * 1000})
    frame.loc[3, "energy"] = numpy.nan
    root.write_table(frame, key="spectrum", metadata={"edge": "Fe K"})
    node = root["spectrum"]
    scene.expect("columns", list(node.columns), ["energy", "counts", "name"])
    read = node.read()
    numbers = ["energy", "counts"]
    scene.expect("a table", (read[numbers].equals(frame[numbers]), len(read)), (True, 1000))
    scene.expect("its text", list(read["name"][:2]), ["µ", "µ"])
    some = node.read(["counts"])
    scene.expect("some columns", (list(some.columns), int(some["counts"][999])), (["counts"], 999))


def catalog(root) -> None:
    """Containers, more of them than a page has."""
    runs = root.create_container("runs", metadata={"beamline": "check"})
    for number in range(25):
        runs.create_container(f"run{number:02}", metadata={"scan": {"id": number}})
    scene.expect("all runs, over pages", list(runs), [f"run{number:02}" for number in range(25)])
    ids = [run.metadata["scan"]["id"] for run in runs.values()]
    scene.expect("with their metadata", ids, list(range(25)))
    scene.expect("by position", runs.keys().first(), "run00")
    scene.expect("by a path", root["runs", "run07"].metadata["scan"]["id"], 7)
    scene.expect("a name that is taken", refused(runs.create_container, "run02"), 409)
    try:
        runs["run99"]
    except KeyError:
        scene.step("a name that is not there")
    else:
        raise AssertionError("a name that is not there is found")


def lazily(port: int) -> None:
    """The same by dask, which reads what is asked for."""
    root = client(port, structure_clients="dask")
    images = root["images"].read()
    kind = (type(images).__module__.split(".")[0], images.shape)
    scene.expect("lazily", kind, ("dask", (4, 300, 400)))
    total = sum(number % 65_536 for number in range(360_000, 360_005))
    scene.expect("computed", int(images[3, 0, :5].astype("i8").sum().compute()), total)
    counts = root["spectrum"].read()["counts"]
    scene.expect("a table lazily", int(counts.sum().compute()), 499_500)


def keys(port: int) -> None:
    """Without a key, and with a wrong one."""
    scene.expect("a wrong key", refused(client, port, "f" * 64), 401)
    try:
        client(port, None)
    except RuntimeError as error:
        scene.expect("no key", "requires API key" in str(error), True)
    else:
        raise AssertionError("no key is let in")


def away(node) -> None:
    """A server that is gone."""
    from httpx import ConnectError

    start = time.monotonic()
    try:
        node[0]
    except ConnectError:
        scene.expect("a server that is gone", time.monotonic() - start < 15, True)
    else:
        raise AssertionError("a server that is gone is not told")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="check-tiled-") as directory:
        # the client would try ten times, for 45 s, and keep keys in the home
        settings = {"CACHE_DIR": f"{directory}/cache", "RETRY_ATTEMPTS": "4", "RETRY_TIMEOUT": "8"}
        os.environ.update({f"TILED_{name}": value for name, value in settings.items()})
        port = scene.free_port()
        server = scene.itself("serve", str(port), f"{directory}/catalog")
        with scene.child(*server) as served:
            scene.wait_for("server", lambda: served.says("ready"))
            root = client(port)
            arrays(root)
            tables(root)
            catalog(root)
            lazily(port)
            keys(port)
            images = root["images"]
            served.popen.send_signal(signal.SIGUSR1)
            time.sleep(0.2)
            scene.expect("not now is tried again", int(images[0, 0, 7]), 7)
            served.end(signal.SIGKILL)
        away(images)
        with scene.child(*server) as served:
            scene.wait_for("server again", lambda: served.says("ready"))
            scene.expect("the client goes on", int(images[3, 0, 1]), 360_001 % 65_536)
            scene.expect("and writes", list(root.write_array([1, 2], key="later").read()), [1, 2])
            scene.expect("its table is kept", len(root["spectrum"].read()), 1000)
    scene.step("all of tiled")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        main()
