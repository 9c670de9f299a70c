"""gRPC in children by fork of a process that uses gRPC: each opens a channel of its own.

A fork copies the descriptors of gRPC's threads but not the threads; its library has handlers that
are to put that right. One channel is busy in the parent while the children are made.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading

from check_multiprocessing_with_pyepics import ask, by_grpc, serve
from scene import expect, step

FORKS = 200


def failures(port: int) -> int:
    """0 where all children are answered; else the number of the first one that is not."""
    fork = multiprocessing.get_context("fork").Process
    for number in range(1, FORKS + 1):
        try:
            found = ask(fork, "fork", by_grpc, port)
        except (AssertionError, EOFError) as error:
            print(f"child {number}: {error!r}", flush=True)
            return number
        assert found == b"<x>", found
    return 0


def main() -> None:
    """Many forks, for it is a race."""
    import grpc

    server, port = serve()
    stop = threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/check/Echo")

        def go_on() -> None:
            while not stop.wait(0.005):
                assert call(b"y", timeout=20) == b"<y>"

        thread = threading.Thread(target=go_on)
        thread.start()
        failed = failures(port)
        stop.set()
        thread.join()
    server.stop(1).wait(10)
    expect("children by fork that gRPC fails in, the first", failed, 0)
    step("all of gRPC with fork")


if __name__ == "__main__":
    os.environ["GRPC_VERBOSITY"] = "NONE"  # it tells of every fork
    sys.exit(main())
