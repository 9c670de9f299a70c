"""python-snap7: a PLC's data block over S7, read and written from outside, and lost and found.

A server with data blocks, flags and inputs in a process of its own; bytes, reals, bits, strings
and several variables at once; the edge of a block and a block that is not there; two clients at a
time and the asyncio client; events of the server; a PLC killed and started again (the client
says so, connects again by hand and, if told to, by itself).
"""

import asyncio
import contextlib
import ctypes
import logging
import sys
import threading
import time

import numpy as np
import scene
import snap7
from snap7.async_client import AsyncClient
from snap7.server import Server
from snap7.type import Area, SrvArea
from snap7.util import (
    get_bool,
    get_int,
    get_real,
    get_string,
    set_bool,
    set_int,
    set_real,
    set_string,
)


def serve(port):
    """Be a PLC that counts."""
    server = Server(log=False)
    block, flags, inputs = (ctypes.c_char * 256)(), (ctypes.c_char * 64)(), (ctypes.c_char * 16)()
    inputs[3] = 0x5A
    server.register_area(SrvArea.DB, 1, block)
    server.register_area(SrvArea.MK, 0, flags)
    server.register_area(SrvArea.PE, 0, inputs)
    server.start_to("127.0.0.1", port)
    print("ready", flush=True)
    while True:
        while event := server.pick_event():
            print(f"event {event.EvtCode:#x}", flush=True)
        time.sleep(0.05)


def refused(call, *arguments):
    """The error that a call raises."""
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError(f"{call.__name__} {arguments} did not fail")


def values(plc, port, server):
    """Data there and back."""
    scene.expect("connected", plc.get_connected(), True)
    plc.db_write(1, 0, bytearray(range(256)))
    scene.expect("a whole block", plc.db_read(1, 0, 256), bytearray(range(256)))
    data = bytearray(64)
    set_real(data, 0, 12.5)
    set_int(data, 4, -321)
    set_bool(data, 6, 3, True)
    set_string(data, 8, "SR magnet", 20)
    plc.db_write(1, 16, data)
    found = plc.db_read(1, 16, 64)
    kinds = get_real(found, 0), get_int(found, 4), get_bool(found, 6, 3), get_string(found, 8)
    scene.expect("real, integer, bit, string", kinds, (12.5, -321, True, "SR magnet"))
    scene.expect("bytes are in a PLC's order", bytes(plc.db_read(1, 16, 4)), b"\x41\x48\x00\x00")
    scene.expect("what lies around is as it was", plc.db_read(1, 80, 2), bytearray([80, 81]))
    wave = np.linspace(-1, 1, 40, dtype=">f4")
    plc.db_write(1, 90, bytearray(wave.tobytes()))
    scene.expect(
        "an array of reals", np.frombuffer(plc.db_read(1, 90, 160), ">f4").tolist(), wave.tolist()
    )
    plc.write_area(Area.MK, 0, 5, bytearray(b"\x81"))
    scene.expect("flags", plc.read_area(Area.MK, 0, 4, 3), bytearray(b"\x00\x81\x00"))
    scene.expect("inputs", plc.read_area(Area.PE, 0, 3, 1), bytearray(b"\x5a"))
    items = [
        {"area": Area.DB, "db_number": 1, "start": 16, "size": 4},
        {"area": Area.MK, "db_number": 0, "start": 5, "size": 1},
    ]
    _, several = plc.read_multi_vars(items)
    scene.expect("several at once", [bytes(v) for v in several], [b"\x41\x48\x00\x00", b"\x81"])
    scene.expect("the state of the CPU", "Run" in plc.get_cpu_state(), True)

    why = refused(plc.db_read, 77, 0, 4)
    scene.expect(
        "a block that is not there", isinstance(why, (RuntimeError, snap7.error.S7Error)), True
    )
    why = refused(plc.db_read, 1, 250, 20)
    scene.expect("over the edge", isinstance(why, (RuntimeError, snap7.error.S7Error)), True)
    why = refused(plc.db_write, 1, 250, bytearray(20))
    scene.expect(
        "written over the edge", isinstance(why, (RuntimeError, snap7.error.S7Error)), True
    )

    failures = []

    def count(offset):
        try:
            with contextlib.closing(Closing("127.0.0.1", port)) as other:
                for number in range(100):
                    other.plc.db_write(1, offset, bytearray([number]))
                    if other.plc.db_read(1, offset, 1) != bytearray([number]):
                        raise AssertionError(f"at {offset}: not {number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count, args=(offset,)) for offset in (0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scene.expect("three clients at a time", failures, [])
    scene.wait_for("events", lambda: server.says("event 0x8") and server.says("event 0x80"))
    scene.step("the server tells of clients that come and go")


class Closing:
    """A client that closes."""

    def __init__(self, host, port):
        self.plc = snap7.Client()
        self.plc.connect(host, 0, 1, port)

    def close(self):
        """Disconnect."""
        self.plc.disconnect()


async def together(port):
    """The asyncio client."""
    client = AsyncClient()
    await client.connect("127.0.0.1", 0, 1, port)
    await client.db_write(1, 200, bytearray(b"async"))
    reads = await asyncio.gather(*(client.db_read(1, 200 + n, 1) for n in range(5)))
    scene.expect("the asyncio client", b"".join(map(bytes, reads)), b"async")
    await client.disconnect()


def main():
    """Everything with one PLC, then without it, then with the next."""
    # what fails on purpose is told twice otherwise
    logging.disable(logging.ERROR)
    port = scene.free_port()
    plc = snap7.Client()
    scene.expect("nobody there", refused(plc.connect, "127.0.0.1", 0, 1, port) is not None, True)
    with scene.child(*scene.itself("serve", str(port))) as server:
        scene.wait_for("server", lambda: server.says("ready"))
        plc.connect("127.0.0.1", 0, 1, port)
        steady = snap7.Client(auto_reconnect=True, max_retries=5, retry_delay=0.2)
        steady.connect("127.0.0.1", 0, 1, port)
        values(plc, port, server)
        asyncio.run(together(port))
        scene.expect("the other client", len(steady.db_read(1, 0, 4)), 4)
        server.end(9)
    why = refused(plc.db_read, 1, 0, 4)
    scene.expect("the loss is told", isinstance(why, (OSError, snap7.error.S7Error)), True)
    with scene.child(*scene.itself("serve", str(port))) as server:
        scene.wait_for("server", lambda: server.says("ready"))
        scene.expect("a client that connects by itself", steady.db_read(1, 0, 2), bytearray(2))
        plc.disconnect()
        plc.connect("127.0.0.1", 0, 1, port)
        plc.db_write(1, 0, bytearray(b"\x07"))
        scene.expect("a client connected again", steady.db_read(1, 0, 1), bytearray(b"\x07"))
        plc.disconnect()
        steady.disconnect()
        scene.expect("disconnected", plc.get_connected(), False)
    scene.step("all of snap7")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
