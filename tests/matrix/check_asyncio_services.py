"""uvloop and websockets: a status service, its clients, cancelled and interrupted cleanly.

On uvloop and on asyncio's own loop: messages of text and bytes both ways, many clients, a
broadcast, back pressure, a message over the limit, a client that vanishes, a server that is
stopped with clients connected, a client that reconnects by itself; a cancelled handler tidies up;
a child process and a thread's callback on the loop; SIGINT and SIGTERM end a service with
status 0 and no warning of something left pending.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time

import scene

# A site's proxy must not stand between two processes of one machine.
for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

import uvloop  # noqa: E402
import websockets  # noqa: E402
from websockets.asyncio.client import connect  # noqa: E402
from websockets.asyncio.server import broadcast, serve  # noqa: E402

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


async def talk(websocket) -> None:  # type: ignore[no-untyped-def]
    """A handler: JSON requests get answers, bytes come back reversed."""
    # A service that stops may close a connection between a request and its answer.
    with contextlib.suppress(websockets.ConnectionClosedOK):
        async for message in websocket:
            if isinstance(message, bytes):
                await websocket.send(message[::-1])
                continue
            request = json.loads(message)
            if request.get("do") == "close":
                await websocket.close(4001, "Schicht zu Ende")
                return
            await websocket.send(json.dumps({"answer": request["n"] * 2}))


def service(loop: str, port: str) -> int:
    """The child: a service until a signal ends it."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serve(talk, "127.0.0.1", int(port)):
            print("serving", type(asyncio.get_running_loop()).__module__, flush=True)
            await stop.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        print(f"stopped, {len(left)} left", flush=True)

    with asyncio.Runner(loop_factory=LOOPS[loop], debug=True) as runner:
        runner.run(run())
    return 0


async def round_trips() -> None:
    """One process: messages, many clients, limits."""
    async with serve(talk, "127.0.0.1", 0, max_size=1 << 20) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        async with connect(url) as client:
            await client.send(json.dumps({"n": 21}))
            scene.expect("a question", json.loads(await client.recv()), {"answer": 42})
            data = os.urandom(900_000)
            await client.send(data)
            assert await client.recv() == data[::-1]
            await asyncio.wait_for(await client.ping(), 10)
            scene.step("bytes, and a ping")
            try:
                await asyncio.wait_for(client.recv(), 0.1)
            except TimeoutError:
                await client.send(json.dumps({"n": 1}))
                scene.expect("after a timeout", json.loads(await client.recv()), {"answer": 2})
            else:
                raise AssertionError("a message out of nowhere")
            await client.send(json.dumps({"do": "close"}))
            try:
                await client.recv()
            except websockets.ConnectionClosed as closed:
                found = (closed.rcvd.code, closed.rcvd.reason)
                scene.expect("closed with code and reason", found, (4001, "Schicht zu Ende"))
        async with connect(url) as client:
            await client.send(b"x" * ((1 << 20) + 1))
            try:
                await client.recv()
            except websockets.ConnectionClosed as closed:
                scene.expect("a message over the limit", closed.rcvd.code, 1009)

        async def one(number: int) -> int:
            async with connect(url) as client:
                for turn in range(5):
                    await client.send(json.dumps({"n": number * turn}))
                    assert json.loads(await client.recv()) == {"answer": number * turn * 2}
                return number

        answers = await asyncio.gather(*(one(number) for number in range(40)))
        scene.expect("forty clients at once", answers, list(range(40)))


async def publishing() -> None:
    """A broadcast, a client that vanishes, a handler that is cancelled."""
    tidy: list[str] = []

    async def handler(websocket) -> None:  # type: ignore[no-untyped-def]
        try:
            await websocket.wait_closed()
        finally:
            tidy.append("tidied")

    async with serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        async with connect(url) as one, connect(url) as two:
            gone = await connect(url)
            gone.transport.abort()  # no closing handshake, as when a console loses its power
            while len(server.connections) > 2 or not tidy:
                await asyncio.sleep(0.01)
            scene.expect("a client that vanished is tidied away", tidy, ["tidied"])
            for number in range(100):
                broadcast(server.connections, str(number))
            wanted = [str(number) for number in range(100)]
            for client in (one, two):
                scene.expect("a broadcast", [await client.recv() for _ in range(100)], wanted)
            server.close()
            await asyncio.wait_for(server.wait_closed(), 15)
            for client in (one, two):
                with contextlib.suppress(websockets.ConnectionClosed):
                    await client.recv()
            scene.expect("a stopped server says it goes away", one.close_code, 1001)
    scene.expect("all handlers tidied up", tidy, ["tidied"] * 3)


async def on_the_loop() -> None:
    """Cancelling, timeouts, a thread, a child process, a server of streams."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    async def worker() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # tidying up may wait as well
            seen.append("cancelled")
            raise

    begin = time.monotonic()
    try:
        async with asyncio.timeout(0.2):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(worker())
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    took = time.monotonic() - begin
    assert 0.18 < took < 5, f"{took:.3f} s"
    scene.expect("a timeout cancels a group, each of it tidies up", seen, ["cancelled"] * 3)

    came: asyncio.Queue[int] = asyncio.Queue()

    def thread() -> None:
        for number in range(500):
            loop.call_soon_threadsafe(came.put_nowait, number)

    started = threading.Thread(target=thread)
    started.start()
    values = [await asyncio.wait_for(came.get(), 10) for _ in range(500)]
    started.join()
    scene.expect("callbacks of a thread, in order", values, list(range(500)))
    text = await asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread())
    scene.expect("work in a thread", text, False)

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(3)",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(b"beam" * 50_000), 20)
    assert output == b"BEAM" * 50_000
    scene.expect("a child process", process.returncode, 3)

    async def lines(reader, writer) -> None:  # type: ignore[no-untyped-def]
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(lines, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(200):
            writer.write(f"read {number}\r\n".encode())
        replies = [await reader.readline() for _ in range(200)]
        writer.close()
        await writer.wait_closed()
        scene.expect("lines over TCP", replies, [f"READ {n}\r\n".encode() for n in range(200)])


async def reconnecting(loop: str) -> None:
    """A client outlives its service, twice: killed, then asked to stop."""
    port = str(scene.free_port())
    answers: list[int] = []
    lost: list[str] = []

    async def client() -> None:
        async for websocket in connect(f"ws://127.0.0.1:{port}", open_timeout=5):
            try:
                while True:
                    await websocket.send(json.dumps({"n": 1}))
                    answers.append(json.loads(await websocket.recv())["answer"])
                    await asyncio.sleep(0.02)
            except websockets.ConnectionClosed as closed:
                lost.append("closed" if closed.rcvd else "cut")

    task = asyncio.create_task(client())
    for number, how in ((signal.SIGKILL, "cut"), (signal.SIGINT, "closed")):
        with scene.child(*scene.itself("service", loop, port)) as child:
            await asyncio.to_thread(
                scene.wait_for, "service", lambda child=child: child.says("serving " + loop)
            )
            already = len(answers)
            async with asyncio.timeout(25):
                while len(answers) < already + 5:
                    await asyncio.sleep(0.02)
            status = await asyncio.to_thread(child.end, number)
            if number == signal.SIGINT:
                scene.expect("SIGINT ends a service with a client", status, 0)
                scene.expect("tidily", child.text().splitlines()[1:], ["stopped, 0 left"])
            async with asyncio.timeout(10):
                while not lost:
                    await asyncio.sleep(0.02)
            scene.expect(f"the client saw it {how} and had found it", lost.pop(), how)
    task.cancel()
    result = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(result, asyncio.CancelledError), result
    scene.step("a client that reconnects is cancelled")


def main() -> int:
    """All of it on both loops."""
    for name, factory in LOOPS.items():
        print(f"--- {name}", flush=True)
        problems: list[str] = []

        async def everything(name: str = name, problems: list[str] = problems) -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context["message"]))
            assert type(loop).__module__.startswith(name), type(loop)
            await round_trips()
            await publishing()
            await on_the_loop()
            await reconnecting(name)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            scene.expect("no task is left", left, set())

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(everything())
        scene.expect("nothing was told to the loop's handler of errors", problems, [])
    return 0


if __name__ == "__main__":
    sys.exit(service(*sys.argv[2:4]) if sys.argv[1:2] == ["service"] else main())
