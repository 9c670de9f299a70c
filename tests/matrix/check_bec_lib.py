"""bec-lib against a redis-server of the system: messages sent and received by its connector.

Device readings, scan messages and alarms with arrays go through redis and come back equal: as
values, as publications to callbacks, as lists and streams, in a pipeline; a message of the wrong
type for its topic is refused; another process publishes; the connector ends with its threads, and
without a server it says so. Needs redis-server.
"""

import shutil
import sys
import tempfile
import threading

import scene


def connector(port: int):  # type: ignore[no-untyped-def]
    """A connector to the server."""
    from bec_lib.redis_connector import RedisConnector

    return RedisConnector(f"127.0.0.1:{port}")


def readback(number: int, name: str = "samx"):  # type: ignore[no-untyped-def]
    """A reading of a motor."""
    from bec_lib import messages

    signals = {name: {"value": number / 8, "timestamp": 1_790_000_000.0 + number}}
    return messages.DeviceMessage(signals=signals, metadata={"scan_id": "µ-1", "point": number})


def publish(port: str) -> int:
    """The child: another service that publishes readings."""
    from bec_lib.endpoints import MessageEndpoints

    sender = connector(int(port))
    for number in range(50):
        sender.set_and_publish(MessageEndpoints.device_readback("samx"), readback(number))
    sender.shutdown()
    return 0


def values(port: int) -> None:
    """Values, lists, streams, pipelines."""
    import numpy as np
    from bec_lib import messages
    from bec_lib.endpoints import MessageEndpoints

    bec = connector(port)
    motor = MessageEndpoints.device_readback("samx")
    scene.expect("nothing there yet", bec.get(motor), None)
    bec.set_and_publish(motor, readback(3))
    scene.expect("a reading comes back", bec.get(motor), readback(3))

    image = (np.arange(512 * 512) % 4096).astype("u2").reshape(512, 512)
    monitor = MessageEndpoints.device_preview("eiger", "image")
    preview = messages.DevicePreviewMessage(device="eiger", signal="image", data=image)
    bec.xadd(monitor, {"data": preview}, max_size=5)
    found = bec.xread(monitor, from_start=True)
    data = found[0]["data"].data
    assert data.dtype == image.dtype, data.dtype
    assert (data == image).all()
    scene.step("an image by way of a stream, every pixel and its type")

    refused = None
    try:
        bec.set_and_publish(motor, preview)
    except Exception as error:
        refused = type(error).__name__
    scene.expect("a message of the wrong type", refused, "IncompatibleMessageForEndpoint")
    bec.delete(motor)
    pipe = bec.pipeline()
    bec.set_and_publish(motor, readback(5), pipe=pipe)
    scene.expect("a pipeline waits", bec.get(motor), None)
    pipe.execute()
    scene.expect("and is executed", bec.get(motor), readback(5))
    bec.shutdown()


def callbacks(port: int) -> None:
    """Publications of another process reach callbacks, until they are taken off."""
    from bec_lib.endpoints import MessageEndpoints

    before = {thread.name for thread in threading.enumerate()}
    bec = connector(port)
    seen: list[object] = []
    motor = MessageEndpoints.device_readback("samx")

    def take(message, **_options):  # type: ignore[no-untyped-def]
        seen.append(message.value)

    bec.register(motor, cb=take)
    with scene.child(*scene.itself("publish", str(port))) as child:
        scene.wait_for("fifty readings", lambda: len(seen) >= 50, 30)
        assert child.popen.wait(20) == 0, child.text()
    scene.expect("readings of another process, in order", seen, [readback(n) for n in range(50)])
    bec.unregister(motor, cb=take)
    bec.set_and_publish(motor, readback(77))
    other: list[object] = []
    second = MessageEndpoints.device_readback("samy")

    # bec-lib holds callbacks weakly: one without a name of its own would be gone at once.
    def take_other(message, **_options):  # type: ignore[no-untyped-def]
        other.append(message.value)

    bec.register(second, cb=take_other)
    bec.set_and_publish(second, readback(1, "samy"))
    scene.wait_for("another motor", lambda: other)
    scene.expect("a callback that was taken off is not called", len(seen), 50)
    bec.shutdown()

    def left() -> set[str]:
        return {thread.name for thread in threading.enumerate()} - before

    scene.wait_for("the end of its threads", lambda: not left())
    scene.step("its threads end with a connector")


def main() -> int:
    """All of it."""
    program = shutil.which("redis-server")
    if not program:
        raise AssertionError("no redis-server on the machine")
    port = scene.free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = f"--port {port} --bind 127.0.0.1 --appendonly no --dir {directory}"
        with scene.child(program, *options.split(), "--save", "") as server:
            scene.wait_for("redis", lambda: server.popen.poll() is None and scene.listening(port))
            values(port)
            callbacks(port)
        lost = connector(port)
        scene.expect("without a server it says so", lost.redis_server_is_running(), False)
        lost.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(publish(sys.argv[2]) if sys.argv[1:2] == ["publish"] else main())
