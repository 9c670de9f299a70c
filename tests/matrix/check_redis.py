"""redis-py with a redis-server of its own: values, streams, subscriptions, transactions, restart.

Numbers as bytes of numpy, atomic transactions under WATCH, blocking reads, a stream with a group,
publish and subscribe from a thread, server-side errors, TTL, the asyncio client, a unix socket
without TCP, and a server killed and started again with its append-only file (the client comes
back, the data too). Needs redis-server of the system.
"""

import asyncio
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import redis
import redis.asyncio
import scene
from redis.backoff import ConstantBackoff
from redis.retry import Retry


def serve(directory, socket):
    """The command of a server that nobody but the check sees."""
    program = shutil.which("redis-server")
    if not program:
        raise AssertionError("no redis-server in this system")
    words = f"--port 0 --unixsocket {socket} --dir {directory} --save --appendonly yes"
    return [program, *words.replace("--save", "--save ''").split(), "--appendfsync", "always"]


def refused(error, call, *arguments, **options):
    """The text of the error that a call raises."""
    try:
        call(*arguments, **options)
    except error as found:
        return str(found)
    raise AssertionError(f"{call} did not raise {error}")


def values(client):
    """Values, transactions, streams, limits."""
    wave = np.linspace(0, 1, 100_000)
    client.set("wave", wave.tobytes())
    scene.expect(
        "800 kB there and back", np.array_equal(np.frombuffer(client.get("wave")), wave), True
    )
    client.hset("motor", mapping={"position": "1.5", "unit": "µm"})
    scene.expect("a hash", client.hgetall("motor"), {b"position": b"1.5", b"unit": "µm".encode()})
    why = refused(redis.ResponseError, client.incr, "motor")
    scene.expect("the wrong kind of key is refused", why.startswith("WRONGTYPE"), True)
    client.set("short", 1, px=80)
    scene.wait_for("expired", lambda: client.get("short") is None)
    scene.step("a key expires")
    with client.pipeline() as pipe:
        pipe.watch("count")
        pipe.multi()
        pipe.incr("count")
        client.set("count", 41)
        scene.expect("a transaction overtaken", bool(refused(redis.WatchError, pipe.execute)), True)
    with client.pipeline() as pipe:
        scene.expect("a transaction", pipe.incr("count").get("count").execute(), [42, b"42"])
    double = client.register_script("return redis.call('GET', KEYS[1]) * ARGV[1]")
    scene.expect("a script in the server", double(keys=["count"], args=[2]), 84)

    begin = time.monotonic()
    scene.expect("a blocking read without data", client.blpop(["queue"], timeout=1), None)
    scene.expect("took its second", 0.8 < time.monotonic() - begin < 10, True)
    timer = threading.Timer(0.2, client.rpush, ("queue", "scan 7"))
    timer.start()
    scene.expect("a blocking read", client.blpop(["queue"], timeout=10), (b"queue", b"scan 7"))
    timer.join()

    for number in range(20):
        client.xadd("readings", {"n": number}, maxlen=10, approximate=False)
    scene.expect("a stream keeps its length", client.xlen("readings"), 10)
    client.xgroup_create("readings", "archive", id="0")
    batch = client.xreadgroup("archive", "a", {"readings": ">"}, count=4)
    entries = next(iter(batch.values() if isinstance(batch, dict) else [batch[0][1]]))
    # one flavour of the protocol wraps the entries in one more list
    entries = entries[0] if isinstance(entries[0], list) else entries
    scene.expect(
        "a group reads its oldest", [f[b"n"] for _, f in entries], [b"10", b"11", b"12", b"13"]
    )
    client.xack("readings", "archive", entries[0][0])
    scene.expect("what is not acknowledged", client.xpending("readings", "archive")["pending"], 3)


def subscriptions(client):
    """Publish and subscribe, the reader in a thread."""
    heard = []
    reader = client.pubsub(ignore_subscribe_messages=True)
    reader.psubscribe(**{"ring/*": lambda m: heard.append((m["channel"], m["data"]))})
    thread = reader.run_in_thread(sleep_time=0.02)
    scene.wait_for("subscribed", lambda: client.pubsub_numpat() == 1)
    for number in range(100):
        client.publish("ring/bpm", number)
    client.publish("linac/bpm", 0)
    scene.wait_for("messages", lambda: len(heard) >= 100)
    scene.expect("messages in order", heard, [(b"ring/bpm", b"%d" % n) for n in range(100)])
    thread.stop()
    thread.join(10)
    scene.expect("the reader ends", thread.is_alive(), False)


async def together(path):
    """The asyncio client."""
    # the ordinary pool refuses what is more than it holds; this one waits
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=20,
        timeout=30,
        connection_class=redis.asyncio.UnixDomainSocketConnection,
        path=path,
        decode_responses=True,
    )
    async with redis.asyncio.Redis.from_pool(pool) as client:
        await asyncio.gather(*(client.incr("parallel") for _ in range(200)))
        scene.expect("200 at once", await client.get("parallel"), "200")
        async with client.pubsub() as reader:
            await reader.subscribe("alarm")
            scene.expect("subscribed", (await reader.get_message(timeout=10))["type"], "subscribe")
            await client.publish("alarm", "vacuum")
            message = await reader.get_message(ignore_subscribe_messages=True, timeout=10)
            scene.expect("a message awaited", message["data"], "vacuum")
        try:
            async with asyncio.timeout(0.3):
                await client.blpop(["nothing"], timeout=30)
        except TimeoutError:
            scene.step("a blocking read cancelled")
        scene.expect("the client is of use afterwards", await client.get("parallel"), "200")


def main():
    """Everything with one server, then without it, then with the next."""
    with tempfile.TemporaryDirectory(prefix="check-redis-") as directory:
        path = str(Path(directory) / "s")
        client = redis.Redis(unix_socket_path=path, retry=Retry(ConstantBackoff(0.05), 2))

        def up():
            try:
                return client.ping()
            except (redis.ConnectionError, redis.BusyLoadingError):
                return False

        with scene.child(*serve(directory, path)) as server:
            scene.wait_for("server", up)
            values(client)
            subscriptions(client)
            asyncio.run(together(path))
            client.set("last", "word")
            server.end(signal.SIGKILL)
        scene.expect(
            "without the server it fails",
            bool(refused(redis.ConnectionError, client.get, "last")),
            True,
        )
        with scene.child(*serve(directory, path)) as server:
            scene.wait_for("server", up)
            scene.expect("the same client comes back, and the data", client.get("last"), b"word")
            scene.expect("scripts are loaded anew", client.eval("return 5", 0), 5)
            scene.expect("SIGTERM ends the server in order", server.end(), 0)
        client.close()
    scene.step("all of redis")


if __name__ == "__main__":
    main()
