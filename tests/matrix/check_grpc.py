"""grpcio without generated code: calls, streams, deadlines, errors, a server that restarts.

Generic handlers carry bytes. A unary call and streams in all directions; a deadline that passes
on the client is seen by the server; a status with details and trailing metadata; a client that
cancels a stream ends it on the server; a channel finds a server that was killed and started
again; large messages and their limit; asyncio; Ctrl-C ends a server in order; no thread is left
that keeps the process.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent import futures

import scene

# A site's proxy must not stand between two processes of one machine.
for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

import grpc  # noqa: E402 - reads the environment
import grpc.aio  # noqa: E402

SERVICE = "check.Supply"
cancelled = threading.Event()


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Give back what came; metadata too."""
    sent = dict(context.invocation_metadata())
    context.set_trailing_metadata((("answer-to", sent.get("question", "nothing")),))
    if request == b"refuse":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "interlock: Tür offen")
    if request == b"break":
        raise ValueError("a defect of the server")
    return request


def sleepy(_request: bytes, context: grpc.ServicerContext) -> bytes:
    """Take longer than any deadline; tell when the caller has gone."""
    while context.is_active():
        time.sleep(0.02)
    cancelled.set()
    return b""


def count(request: bytes, context: grpc.ServicerContext):  # type: ignore[no-untyped-def]
    """Numbers without end, until the caller has gone."""
    # A generator is not resumed after the end, so nothing behind its last yield would run.
    context.add_callback(cancelled.set)
    number = int(request)
    while context.is_active():
        yield str(number).encode()
        number += 1


def add(requests, _context) -> bytes:  # type: ignore[no-untyped-def]
    """The sum of a stream."""
    return str(sum(int(request) for request in requests)).encode()


def both(requests, _context):  # type: ignore[no-untyped-def]
    """Each of a stream, doubled, as it comes."""
    for request in requests:
        yield request * 2


def pid(_request: bytes, _context: object) -> bytes:
    """Which process serves."""
    return str(os.getpid()).encode()


def handlers() -> grpc.GenericRpcHandler:
    """What the service can do; without serializers, messages are bytes."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Sleep": grpc.unary_unary_rpc_method_handler(sleepy),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Add": grpc.stream_unary_rpc_method_handler(add),
            "Both": grpc.stream_stream_rpc_method_handler(both),
            "Pid": grpc.unary_unary_rpc_method_handler(pid),
        },
    )


def server(port: str) -> tuple[grpc.Server, int]:
    """A server on a port of loopback."""
    # Without this a second server may share a port with a first that hangs.
    made = grpc.server(
        futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=8
    )
    made.add_generic_rpc_handlers((handlers(),))
    bound = made.add_insecure_port(f"127.0.0.1:{port}")
    made.start()
    return made, bound


def serve(port: str) -> None:
    """The child: a server until it is killed or interrupted."""
    made, _ = server(port)
    print("serving", flush=True)
    try:
        made.wait_for_termination()
    except KeyboardInterrupt:
        assert made.stop(1).wait(10), "the server does not stop"
        print("stopped", flush=True)


def status_of(call) -> grpc.RpcError:  # type: ignore[no-untyped-def]
    """The error that a call ends with."""
    try:
        result = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"no error but {result!r}")


def calls(port: int) -> None:
    """All kinds of calls within one process."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(20)
        ask = channel.unary_unary(f"/{SERVICE}/Echo")
        data = bytes(range(256)) * 4000
        answer, call = ask.with_call(data, timeout=15, metadata=(("question", "42"),))
        assert answer == data
        trailing = dict(call.trailing_metadata())
        scene.expect("a megabyte and metadata come back", trailing.get("answer-to"), "42")
        error = status_of(lambda: ask(b"refuse", timeout=15))
        refused = (grpc.StatusCode.FAILED_PRECONDITION, "interlock: Tür offen")
        scene.expect("a refusal with its reason", (error.code(), error.details()), refused)
        error = status_of(lambda: ask(b"break", timeout=15))
        scene.expect("a defect of the server", error.code(), grpc.StatusCode.UNKNOWN)
        error = status_of(lambda: channel.unary_unary(f"/{SERVICE}/None")(b"", timeout=15))
        scene.expect("a method that is not", error.code(), grpc.StatusCode.UNIMPLEMENTED)
        error = status_of(lambda: ask(b"x" * (5 << 20), timeout=15))
        scene.expect("over 4 MiB", error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

        begin = time.monotonic()
        error = status_of(lambda: channel.unary_unary(f"/{SERVICE}/Sleep")(b"", timeout=0.5))
        took = time.monotonic() - begin
        scene.expect("a deadline passes", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        assert 0.4 < took < 5, f"a deadline of 0.5 s took {took:.2f} s"
        assert cancelled.wait(10), "the server was not told"
        scene.step("and the server is told")

        cancelled.clear()
        stream = channel.unary_stream(f"/{SERVICE}/Count")(b"5", timeout=30)
        first = [int(next(stream)) for _ in range(100)]
        scene.expect("a stream from the server", first, list(range(5, 105)))
        stream.cancel()
        scene.expect(
            "a cancelled stream",
            status_of(lambda: list(stream)).code(),
            grpc.StatusCode.CANCELLED,
        )
        assert cancelled.wait(10), "the server was not told of a cancelled stream"
        scene.step("ends on the server too")
        total = channel.stream_unary(f"/{SERVICE}/Add")(
            (str(number).encode() for number in range(1001)), timeout=15
        )
        scene.expect("a stream to the server", total, b"500500")
        go = threading.Semaphore(1)

        def one_by_one():  # type: ignore[no-untyped-def]
            for number in range(20):
                assert go.acquire(timeout=10)
                yield str(number).encode()

        doubled = []
        for answer in channel.stream_stream(f"/{SERVICE}/Both")(one_by_one(), timeout=20):
            doubled.append(answer)
            go.release()
        wanted = [str(number).encode() * 2 for number in range(20)]
        scene.expect("a stream in both directions, turn by turn", doubled, wanted)

        with futures.ThreadPoolExecutor(8) as pool:
            texts = [str(number).encode() for number in range(200)]
            # More than the server takes at once are refused, not queued: five it takes.
            gate = threading.Semaphore(5)

            def gated(text: bytes) -> bytes:
                with gate:
                    return ask(text, timeout=20, wait_for_ready=True)

            scene.expect("calls from many threads", list(pool.map(gated, texts)), texts)


async def with_asyncio(port: int) -> None:
    """The same service by way of asyncio."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = channel.unary_stream(f"/{SERVICE}/Count")(b"0", timeout=20)
        first = [int(await stream.read()) for _ in range(10)]
        stream.cancel()
        scene.expect("asyncio: a stream", first, list(range(10)))
        try:
            await channel.unary_unary(f"/{SERVICE}/Sleep")(b"", timeout=0.3)
        except grpc.aio.AioRpcError as error:
            scene.expect("a deadline", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("no deadline in asyncio")


def restart() -> None:
    """One channel across a server's end and its new start."""
    port = str(scene.free_port())
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/Pid")
        error = status_of(lambda: ask(b"", timeout=10))
        scene.expect("no server yet", error.code(), grpc.StatusCode.UNAVAILABLE)
        seen: list[grpc.ChannelConnectivity] = []
        channel.subscribe(seen.append, try_to_connect=True)
        pids = []
        for number in (signal.SIGKILL, signal.SIGINT):
            with scene.child(*scene.itself("serve", port)) as child:
                scene.wait_for("the server", lambda child=child: child.says("serving"))
                pids.append(int(ask(b"", timeout=20, wait_for_ready=True)))
                scene.expect("the child serves", pids[-1], child.popen.pid)
                status = child.end(number)
                if number == signal.SIGINT:
                    scene.expect("Ctrl-C ends a server", (status, child.says("stopped")), (0, True))
            error = status_of(lambda: ask(b"", timeout=10))
            scene.expect("without a server", error.code(), grpc.StatusCode.UNAVAILABLE)
        assert pids[0] != pids[1]
        ready = grpc.ChannelConnectivity.READY
        assert seen.count(ready) >= 2, seen
        scene.step("the channel told that it was ready, lost, and ready again")
        channel.unsubscribe(seen.append)


def main() -> int:
    """All of it."""
    restart()
    made, port = server("0")
    calls(port)
    asyncio.run(with_asyncio(port))
    assert made.stop(1).wait(10), "the server does not stop"
    scene.expect("a stopped server listens no more", scene.listening(port), False)
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[2]) if sys.argv[1:2] == ["serve"] else main())
