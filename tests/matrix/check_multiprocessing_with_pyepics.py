"""multiprocessing out of a process whose libraries have threads: libca, gRPC, BLAS.

A scan farms out its analysis while a monitor and a gRPC server run. Children by spawn and by the
forkserver can do all that the parent can: linear algebra, Channel Access, gRPC. Children by fork
can compute; Channel Access they can by pyepics' CAProcess (for gRPC see check_grpc_with_fork). No
child hangs, the parent's monitor, server and channel go on meanwhile, and it ends in order.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scene import HERE, child, epics, expect, itself, repeater, step, wait_for

NAME = "check:turns"
FORKS = 8

# Threads of BLAS also where the machine has fewer cores.
os.environ["OPENBLAS_NUM_THREADS"] = "4"


def by_blas() -> float:
    """A product large enough for several threads, of whole numbers."""
    import numpy as np

    a = np.arange(400 * 400, dtype=float).reshape(400, 400) % 7
    return float((a @ a).sum())


def by_ca() -> object:
    """What Channel Access gives."""
    import epics as pyepics

    return pyepics.caget(NAME, timeout=10, connection_timeout=10, use_monitor=False)


def by_grpc(port: int) -> bytes:
    """What a gRPC server answers, by a channel of one's own."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return bytes(channel.unary_unary("/check/Echo")(b"x", timeout=10, wait_for_ready=True))


def answer(sender: Any, work: Callable[..., object], *arguments: object) -> None:
    """What a child does."""
    sender.send(work(*arguments))


def serve() -> tuple[Any, int]:
    """A gRPC server in this process, and its port."""
    import grpc

    class Echo(grpc.GenericRpcHandler):
        def service(self, _details: object) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda asked, _: b"<" + asked + b">")

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def ask(make: Callable[..., Any], what: str, work: Callable[..., object], *words: object) -> object:
    """What a child answers; AssertionError where it hangs or fails."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = make(target=answer, args=(sender, work, *words))
    process.start()
    sender.close()
    try:
        if not receiver.poll(30):
            raise AssertionError(f"{what}: no answer")
        found = receiver.recv()
        process.join(20)
        expect(f"{what}: the child ends", process.exitcode, 0)
    finally:
        if process.exitcode is None:
            process.kill()
            process.join()
        receiver.close()
    return found


def children(port: int) -> None:
    """All that children can do, by each way to start them."""
    from epics.multiproc import CAProcess

    product = by_blas()
    for method in ("spawn", "forkserver"):
        make = multiprocessing.get_context(method).Process
        expect(f"{method}: BLAS", ask(make, method, by_blas), product)
        expect(f"{method}: Channel Access", ask(make, method, by_ca), 7)
        expect(f"{method}: gRPC", ask(make, method, by_grpc, port), b"<x>")
    fork = multiprocessing.get_context("fork").Process
    for _ in range(FORKS):
        expect("fork: BLAS", ask(fork, "fork", by_blas), product)
    # CAProcess has no way of its own to choose
    multiprocessing.set_start_method("fork", force=True)
    for _ in range(2):
        expect("fork by CAProcess: Channel Access", ask(CAProcess, "CAProcess", by_ca), 7)


def program() -> None:
    """The parent, with all its threads."""
    import epics as pyepics
    import grpc

    server, port = serve()
    seen: list[int] = []
    pv = pyepics.PV(NAME, auto_monitor=True, callback=lambda value, **_: seen.append(value))
    expect("the parent connects", pv.wait_for_connection(10), True)
    beat = pyepics.PV("check:moved", auto_monitor=True)
    expect("and again", beat.wait_for_connection(10), True)
    stop = threading.Event()
    asked: list[bytes] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/check/Echo")

        def go_on() -> None:
            while not stop.wait(0.01):
                asked.append(call(b"y", timeout=20))

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            wait_for("traffic", lambda: len(asked) > 10 and seen)
            children(port)
        except BaseException:
            stop.set()
            raise
        pv.put(8, wait=True, timeout=10)
        wait_for("the parent's monitor", lambda: seen[-1] == 8)
        before = len(asked)
        wait_for("the parent's gRPC", lambda: len(asked) > before + 10)
        stop.set()
        thread.join()
    expect("every call was answered", set(asked), {b"<y>"})
    expect("the server stops", server.stop(1).wait(10), True)
    step("all but the end")


def main() -> None:
    """The IOC and the parent."""
    epics()
    with repeater(), child(sys.executable, HERE / "check_pyepics.py", "ioc") as server:
        wait_for("IOC", lambda: server.says("ready"))
        with child(*itself("program")) as started:
            wait_for("the end", lambda: started.popen.poll() is not None, 90)
            expect("it ends in order", started.popen.returncode, 0)
        expect("and the IOC by its signal", server.end(signal.SIGKILL), -signal.SIGKILL)
    step("all of multiprocessing with pyepics")


if __name__ == "__main__":
    program() if sys.argv[1:] == ["program"] else main()
