"""pymodbus over TCP: registers, coils, refusals, two kinds of client, a server lost and found.

A server of its own process with four kinds of data; every reading and writing function; values of
more than one register; the exceptions of the protocol; a device that is not there; many requests
at once from the asyncio client, which connects again by itself after the server was killed.
"""

import asyncio
import logging
import struct
import sys

import scene
from pymodbus.client import AsyncModbusTcpClient, ModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.server import StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def serve(port):
    """Be a device with a hundred of everything."""
    device = SimDevice(
        id=1,
        simdata=(
            [SimData(0, values=False, count=100, datatype=DataType.BITS)],
            [SimData(0, values=[True, False] * 50, datatype=DataType.BITS)],
            [SimData(0, values=0, count=100, datatype=DataType.REGISTERS)],
            [SimData(0, values=list(range(1000, 1100)), datatype=DataType.REGISTERS)],
        ),
    )
    print("ready", flush=True)
    await StartAsyncTcpServer(device, address=("127.0.0.1", port))


def values(client):
    """Every function of reading and writing."""
    scene.expect(
        "input registers",
        client.read_input_registers(5, count=3, device_id=1).registers,
        [1005, 1006, 1007],
    )
    scene.expect(
        "inputs", client.read_discrete_inputs(0, count=5, device_id=1).bits[:5], [1, 0, 1, 0, 1]
    )
    client.write_register(3, 0xBEEF, device_id=1)
    client.write_registers(10, [1, 2, 65535], device_id=1)
    found = client.read_holding_registers(0, count=14, device_id=1).registers
    scene.expect("holding registers", found, [0, 0, 0, 0xBEEF, *[0] * 6, 1, 2, 65535, 0])
    client.write_coil(7, True, device_id=1)
    client.write_coils(20, [True, False, True] * 4, device_id=1)
    found = client.read_coils(18, count=15, device_id=1).bits[:15]
    scene.expect("coils", found, [False, False, *[True, False, True] * 4, False])
    scene.expect("one coil", client.read_coils(7, count=1, device_id=1).bits[0], True)
    client.mask_write_register(address=3, and_mask=0x00FF, or_mask=0x1200, device_id=1)
    scene.expect(
        "a mask", client.read_holding_registers(3, count=1, device_id=1).registers, [0x12EF]
    )
    both = client.readwrite_registers(
        read_address=10, read_count=2, write_address=11, values=[77], device_id=1
    )
    scene.expect("written and read in one", both.registers, [1, 77])
    kinds = client.DATATYPE
    for value, kind in ((-1.5, kinds.FLOAT32), (2**40 + 1, kinds.UINT64), (-7, kinds.INT32)):
        words = client.convert_to_registers(value, kind)
        client.write_registers(40, words, device_id=1)
        words = client.read_holding_registers(40, count=len(words), device_id=1).registers
        scene.expect(
            f"{kind.name} there and back", client.convert_from_registers(words, kind), value
        )

    for what, reply, code in (
        ("an address over the end", client.read_holding_registers(95, count=10, device_id=1), 2),
        ("a write over the end", client.write_register(5000, 1, device_id=1), 2),
        ("input registers over the end", client.read_input_registers(100, count=1, device_id=1), 2),
    ):
        scene.expect(f"{what} is refused", (reply.isError(), reply.exception_code), (True, code))
    reply = client.read_coils(0, count=1, device_id=9)
    scene.expect("a device that is not there", reply.isError(), True)
    for what, call in (
        (
            "more registers than a frame holds",
            lambda: client.read_holding_registers(0, count=126, device_id=1),
        ),
        ("a value of more than 16 bits", lambda: client.write_register(0, 65536, device_id=1)),
    ):
        try:
            refused = call().isError()
        except (ModbusException, ValueError, struct.error):
            refused = True
        scene.expect(f"{what} is refused", refused, True)
    scene.expect(
        "and the line is of use",
        client.read_input_registers(0, count=1, device_id=1).registers,
        [1000],
    )


async def together(port, end, start):
    """The asyncio client, which sees the server die and come back."""
    traces = []
    client = AsyncModbusTcpClient(
        "127.0.0.1",
        port=port,
        timeout=2,
        reconnect_delay=0.1,
        reconnect_delay_max=0.5,
        trace_connect=traces.append,
    )
    scene.expect("the asyncio client connects", await client.connect(), True)
    reads = await asyncio.gather(
        *(client.read_input_registers(n, count=2, device_id=1) for n in range(50))
    )
    scene.expect(
        "50 requests at once",
        [r.registers for r in reads],
        [[1000 + n, 1001 + n] for n in range(50)],
    )
    await end()
    try:
        reply = await client.read_coils(0, count=1, device_id=1)
        failed = reply.isError()
    except (ModbusException, OSError):
        failed = True
    scene.expect("the loss is told", (failed, client.connected), (True, False))
    await start()
    for _ in range(200):
        if client.connected:
            break
        await asyncio.sleep(0.1)
    reply = await client.read_input_registers(8, count=1, device_id=1)
    scene.expect("it connects again by itself", reply.registers, [1008])
    scene.expect("connections are told", traces, [True, False, True])
    client.close()


def main():
    """One server, then none, then the next."""
    logging.disable(logging.CRITICAL)
    port = scene.free_port()
    client = ModbusTcpClient("127.0.0.1", port=port, timeout=3, retries=1)
    scene.expect("nobody there", client.connect(), False)
    with scene.child(*scene.itself("serve", str(port))) as first:
        scene.wait_for("server", lambda: first.says("ready") and scene.listening(port))
        scene.expect("connected", client.connect(), True)
        values(client)

        async def end():
            first.end(9)

        children = []

        async def start():
            children.append(scene.child(*scene.itself("serve", str(port))))
            server = children[0].__enter__()
            # in a thread: the client's loop goes on
            await asyncio.to_thread(
                scene.wait_for, "server", lambda: server.says("ready") and scene.listening(port)
            )

        try:
            asyncio.run(together(port, end, start))
            try:
                client.read_coils(0, count=1, device_id=1)
                scene.step("the client connects again with the next request")
            except (ConnectionException, OSError):
                scene.step("the client tells of the loss")
            scene.expect("connected again", client.connect(), True)
            found = client.read_holding_registers(3, count=1, device_id=1)
            scene.expect("the new server has new data", found.registers, [0])
            client.close()
        finally:
            for started in children:
                started.__exit__(None, None, None)
    scene.step("all of pymodbus")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        main()
