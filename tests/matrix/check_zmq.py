"""pyzmq: request and reply, publish and subscribe, a server that restarts, timeouts, a clean end.

A server child is killed and started again on its port: the request that was lost is told by a
timeout, the socket is made anew (the "lazy pirate"), and a subscriber finds the new publisher by
itself. A poller waits as long as it is told; arrays go without a copy; a slow subscriber loses
old messages at its limit, not memory; Curve keeps strangers out; a context ends while another
thread waits in it, and with messages that nobody takes; Ctrl-C ends a wait.
"""

import asyncio
import os
import signal
import sys
import threading
import time

import scene
import zmq
import zmq.asyncio
import zmq.auth


def server(reply_port: str, publish_port: str) -> None:
    """The child: answers requests, publishes a counter."""
    context = zmq.Context()
    reply = context.socket(zmq.REP)
    reply.bind(f"tcp://127.0.0.1:{reply_port}")
    publish = context.socket(zmq.PUB)
    publish.bind(f"tcp://127.0.0.1:{publish_port}")
    print("serving", flush=True)
    poller = zmq.Poller()
    poller.register(reply, zmq.POLLIN)
    count = 0
    while True:
        if poller.poll(20):
            parts = reply.recv_multipart()
            if parts[0] != b"silence":
                reply.send_multipart([b"reply", *reversed(parts)])
            else:
                time.sleep(60)
        publish.send_multipart([b"counter", str(count).encode()])
        publish.send_multipart([b"other", b"x"])
        count += 1


def restart(context: zmq.Context) -> None:
    """Requests and subscriptions across a server's end and its new start."""
    ports = [str(scene.free_port()), str(scene.free_port())]

    def ask() -> zmq.Socket:
        socket = context.socket(zmq.REQ)
        socket.linger = 0
        socket.connect(f"tcp://127.0.0.1:{ports[0]}")
        return socket

    subscriber = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.RECONNECT_IVL, 50)
    subscriber.subscribe(b"counter")
    subscriber.connect(f"tcp://127.0.0.1:{ports[1]}")
    # The client is there before the server: it has to wait, not to fail.
    request = ask()
    request.send_multipart([b"a", b"", b"\x00\xff" * 1000])
    with scene.child(*scene.itself("server", *ports)) as child:
        scene.wait_for("the server", lambda: child.says("serving"))
        assert request.poll(15_000), "no reply"
        wanted = [b"reply", b"\x00\xff" * 1000, b"", b"a"]
        scene.expect("parts of a request come back", request.recv_multipart(), wanted)
        try:
            request.recv(zmq.NOBLOCK)
        except zmq.ZMQError as error:
            scene.expect("no reply without a request", error.errno, zmq.EFSM)
        assert subscriber.poll(10_000), "no publication"
        values = [subscriber.recv_multipart() for _ in range(5)]
        assert all(topic == b"counter" for topic, _ in values), values
        numbers = [int(number) for _, number in values]
        first = numbers[0]
        scene.expect("what is subscribed comes in order", numbers, list(range(first, first + 5)))

        request.send(b"silence")
        begin = time.monotonic()
        scene.expect("a request without a reply", request.poll(300), 0)
        took = time.monotonic() - begin
        assert 0.28 < took < 3, f"a timeout of 0.3 s took {took:.3f} s"
        child.end(signal.SIGKILL)
    request.close()
    while subscriber.poll(200):
        subscriber.recv_multipart()
    request = ask()
    request.send(b"again")
    with scene.child(*scene.itself("server", *ports)) as child:
        scene.wait_for("the new server", lambda: child.says("serving"))
        assert request.poll(15_000), "no reply after the restart"
        scene.expect("the new server replies", request.recv_multipart(), [b"reply", b"again"])
        assert subscriber.poll(15_000), "a subscriber does not find the new publisher"
        scene.expect("a subscriber finds it", subscriber.recv_multipart()[0], b"counter")
    request.close()
    subscriber.close()


def inside(context: zmq.Context) -> None:
    """In one process: arrays without a copy, the high-water mark, asyncio, Curve."""
    import numpy as np

    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    port = pull.bind_to_random_port("tcp://127.0.0.1")
    push.connect(f"tcp://127.0.0.1:{port}")
    image = np.arange(2048 * 2048, dtype="u2").reshape(2048, 2048)
    tracker = push.send(image, copy=False, track=True)
    assert pull.poll(15_000)
    received = np.frombuffer(pull.recv(copy=False).buffer, dtype="u2").reshape(2048, 2048)
    assert (received == image).all()
    tracker.wait(10)
    scene.step("an image goes without a copy, and it is told when its memory is free")
    push.close()
    pull.close()

    publisher, slow = context.socket(zmq.XPUB), context.socket(zmq.SUB)
    publisher.sndhwm, slow.rcvhwm = 10, 10
    publisher.bind("inproc://slow")
    slow.subscribe(b"")
    slow.connect("inproc://slow")
    scene.expect("a subscription is told to the publisher", publisher.recv(), b"\x01")
    for number in range(1000):
        publisher.send(str(number).encode())
    taken = []
    while slow.poll(100):
        taken.append(int(slow.recv()))
    scene.expect("a slow subscriber has what its limit holds", taken, list(range(20)))
    publisher.close()
    slow.close()

    async def many() -> int:
        with zmq.asyncio.Context() as own:
            answer, ask = own.socket(zmq.ROUTER), own.socket(zmq.DEALER)
            chosen = answer.bind_to_random_port("tcp://127.0.0.1")
            ask.connect(f"tcp://127.0.0.1:{chosen}")

            async def serve() -> None:
                while True:
                    who, text = await answer.recv_multipart()
                    await answer.send_multipart([who, text * 2])

            task = asyncio.create_task(serve())
            total = 0
            for number in range(200):
                await ask.send(str(number).encode())
            for number in range(200):
                reply = await asyncio.wait_for(ask.recv(), 10)
                assert reply == str(number).encode() * 2, (number, reply)
                total += 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            answer.close(0)
            ask.close(0)
            return total

    scene.expect("asyncio: requests and replies", asyncio.run(many()), 200)

    public, secret = zmq.curve_keypair()
    closed, friend, stranger = (context.socket(kind) for kind in (zmq.PULL, zmq.PUSH, zmq.PUSH))
    closed.curve_server, closed.curve_secretkey = True, secret
    port = closed.bind_to_random_port("tcp://127.0.0.1")
    for socket, key in ((friend, public), (stranger, zmq.curve_keypair()[0])):
        socket.linger = 0
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = key
        socket.connect(f"tcp://127.0.0.1:{port}")
    stranger.send(b"stranger")
    friend.send(b"friend")
    assert closed.poll(10_000), "Curve lets nobody in"
    got = [closed.recv()]
    while closed.poll(300):
        got.append(closed.recv())
    scene.expect("Curve lets in who has the key of the server", got, [b"friend"])
    for socket in (closed, friend, stranger):
        socket.close()


def ends() -> None:
    """A context's end reaches a thread that waits, and does not wait for lost messages."""
    context = zmq.Context()
    found: list[int] = []

    def wait() -> None:
        socket = context.socket(zmq.PULL)
        socket.bind("inproc://nobody")
        try:
            socket.recv()
        except zmq.ContextTerminated as error:
            found.append(error.errno)
        socket.close()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    context.term()
    thread.join(10)
    scene.expect("the end of a context wakes who waits in it", found, [zmq.ETERM])

    context = zmq.Context()
    lost = context.socket(zmq.PUSH)
    lost.connect(f"tcp://127.0.0.1:{scene.free_port()}")
    for _ in range(10):
        lost.send(b"nobody takes this")
    begin = time.monotonic()
    context.destroy(linger=100)
    took = time.monotonic() - begin
    assert took < 5, f"{took:.1f} s"
    scene.step("a context with messages that nobody takes ends after its linger time")

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind("inproc://nobody")
        socket.rcvtimeo = 20_000
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            socket.recv()
        except KeyboardInterrupt:
            scene.step("Ctrl-C ends a wait")
        else:
            raise AssertionError("a message of nobody")
        timer.join()


def main() -> int:
    """All of it."""
    with zmq.Context() as context:
        restart(context)
        inside(context)
    scene.expect("the context is closed", context.closed, True)
    ends()
    return 0


if __name__ == "__main__":
    sys.exit(server(*sys.argv[2:4]) if sys.argv[1:2] == ["server"] else main())
