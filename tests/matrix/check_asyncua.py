"""asyncua, OPC UA: a server and its clients: subscriptions, methods, refusals, events, restart.

Values of several types and an array, a write of the wrong type and one without right, time
stamps and quality, methods with arguments and their errors, data changes in order, an event, two
clients at once, the synchronous client, a server killed and started again with the client noticing
and coming back, and a server that Ctrl-C ends.
"""

import asyncio
import contextlib
import logging
import signal
import sys

import numpy as np
import scene
from asyncua import Client, Server, ua, uamethod
from asyncua.sync import Client as SyncClient

SPACE = "urn:check:ring"


@uamethod
def scale(_parent, values, factor):
    """Multiply an array."""
    if factor == 0:
        return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
    return [float(value * factor) for value in values]


async def serve(port):
    """Be a server with a magnet."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/check")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace(SPACE)
    magnet = await server.nodes.objects.add_object(space, "Magnet")
    current = await magnet.add_variable(space, "Current", 0.0)
    await current.set_writable()
    await magnet.add_variable(space, "Serial", "M-7")
    wave = await magnet.add_variable(space, "Wave", [0.0], ua.VariantType.Double)
    await wave.set_writable()
    counter = await magnet.add_variable(space, "Counter", 0, ua.VariantType.UInt32)
    arguments = [ua.VariantType.Double, ua.VariantType.Double]
    await magnet.add_method(space, "Scale", scale, arguments, [ua.VariantType.Double])
    kind = await server.create_custom_event_type(
        space, "Quench", ua.ObjectIds.BaseEventType, [("Cell", ua.VariantType.Int32)]
    )
    events = await server.get_event_generator(kind, magnet)

    @uamethod
    async def quench(_parent, cell):
        events.event.Cell = cell
        events.event.Message = ua.LocalizedText("quench")
        await events.trigger()

    @uamethod
    async def count(_parent, upto):
        for number in range(1, upto + 1):
            await counter.write_value(number, ua.VariantType.UInt32)

    await magnet.add_method(space, "Quench", quench, [ua.VariantType.Int32], [])
    await magnet.add_method(space, "Count", count, [ua.VariantType.Int32], [])
    with contextlib.suppress(asyncio.CancelledError):
        async with server:
            print("ready", flush=True)
            await asyncio.sleep(3600)
    print("stopped", flush=True)


class Heard:
    """What a subscription tells."""

    def __init__(self):
        self.values, self.events, self.states = [], [], []

    def datachange_notification(self, _node, value, _data):
        """Keep a value."""
        self.values.append(value)

    def event_notification(self, event):
        """Keep an event."""
        self.events.append(event)

    def status_change_notification(self, status):
        """Keep a state."""
        self.states.append(status)


async def until(what, condition, seconds=20.0):
    """Wait while the loop goes on."""
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:g} s")


async def refused(awaitable):
    """The error that an awaitable raises."""
    try:
        await awaitable
    except ua.UaStatusCodeError as error:
        return type(error).__name__
    raise AssertionError("not refused")


async def magnet_of(client):
    """The magnet and the number of its name space."""
    space = await client.get_namespace_index(SPACE)
    return await client.nodes.objects.get_child(f"{space}:Magnet"), space


async def values(client):
    """Values, methods, refusals."""
    magnet, space = await magnet_of(client)
    current = await magnet.get_child(f"{space}:Current")
    await current.write_value(2.5)
    data = await current.read_data_value()
    scene.expect(
        "a value there and back", (data.Value.Value, data.StatusCode.is_good()), (2.5, True)
    )
    scene.expect(
        "with a time", data.SourceTimestamp is not None or data.ServerTimestamp is not None, True
    )
    why = await refused(current.write_value("high"))
    scene.expect("a value of the wrong type is refused", why, "BadTypeMismatch")
    why = await refused(current.write_value(7, ua.VariantType.Int16))
    scene.expect("an integer for a double too", why, "BadTypeMismatch")
    serial = await magnet.get_child(f"{space}:Serial")
    why = await refused(serial.write_value("M-8"))
    scene.expect(
        "a value without right to write", why in ("BadNotWritable", "BadUserAccessDenied"), True
    )
    scene.expect("both stay", (await current.read_value(), await serial.read_value()), (2.5, "M-7"))
    wave = await magnet.get_child(f"{space}:Wave")
    wanted = np.sin(np.linspace(0, 9, 20_000))
    await wave.write_value([float(v) for v in wanted])
    scene.expect("an array of 20000", np.array_equal(await wave.read_value(), wanted), True)
    found = await magnet.call_method(f"{space}:Scale", [1.0, 2.0], 1.5)
    scene.expect("a method", found, [1.5, 3.0])
    why = await refused(magnet.call_method(f"{space}:Scale", [1.0], 0.0))
    scene.expect("a method that refuses", why, "BadInvalidArgument")
    why = await refused(magnet.get_child(f"{space}:Nothing"))
    scene.expect("a node that is not there", why, "BadNoMatch")
    names = {(await node.read_browse_name()).Name for node in await magnet.get_children()}
    scene.expect("browsing", {"Current", "Serial", "Wave", "Scale"} <= names, True)
    several = await client.read_values([current, serial])
    scene.expect("several at once", several, [2.5, "M-7"])


async def subscriptions(client, other):
    """Data changes and events."""
    magnet, space = await magnet_of(client)
    counter = await magnet.get_child(f"{space}:Counter")
    heard = Heard()
    subscription = await client.create_subscription(50, heard)
    handle = await subscription.subscribe_data_change(counter, queuesize=200)
    await until("first value", lambda: heard.values == [0])
    scene.step("a subscription begins with the value")
    their, _ = await magnet_of(other)
    await their.call_method(f"{space}:Count", ua.Variant(100, ua.VariantType.Int32))
    await until("changes", lambda: 100 in heard.values)
    scene.expect("100 changes in order", heard.values, list(range(101)))
    kind = await client.nodes.base_event_type.get_child(f"{space}:Quench")
    await subscription.subscribe_events(magnet, kind)
    await their.call_method(f"{space}:Quench", ua.Variant(14, ua.VariantType.Int32))
    await until("event", lambda: heard.events)
    event = heard.events[0]
    scene.expect(
        "an event with a field of its own", (event.Cell, event.Message.Text), (14, "quench")
    )
    await subscription.unsubscribe(handle)
    await their.call_method(f"{space}:Count", ua.Variant(5, ua.VariantType.Int32))
    await asyncio.sleep(0.4)
    scene.expect("nothing after unsubscribe", len(heard.values), 101)
    await subscription.delete()


async def first(url, server):
    """All with one server, which then dies."""
    client = Client(url, timeout=5, watchdog_intervall=0.5)
    async with Client(url) as other:
        await client.connect()
        await values(client)
        await subscriptions(client, other)
    lost = []

    async def on_loss(error):
        lost.append(error)

    client.connection_lost_callback = on_loss
    server.end(9)
    await until("loss", lambda: lost)
    scene.step("the loss is told")
    try:
        await client.check_connection()
    except (ConnectionError, ua.UaError, TimeoutError):
        scene.step("and asked for")
    else:
        raise AssertionError("connected to nobody")
    with contextlib.suppress(ConnectionError, ua.UaError):
        await asyncio.wait_for(client.disconnect(), 10)
    return client


async def second(url):
    """The next server, with a client of the same kind."""
    heard = Heard()
    async with Client(url) as client:
        magnet, space = await magnet_of(client)
        current = await magnet.get_child(f"{space}:Current")
        subscription = await client.create_subscription(50, heard)
        await subscription.subscribe_data_change(current)
        await current.write_value(-4.25)
        await until("value", lambda: -4.25 in heard.values)
        scene.expect("connected again, subscribed again", heard.values[-1], -4.25)


def main():
    """One server, then none, then the next."""
    logging.disable(logging.CRITICAL)
    port = scene.free_port()
    url = f"opc.tcp://127.0.0.1:{port}/check"
    with scene.child(*scene.itself("serve", str(port))) as server:
        scene.wait_for("server", lambda: server.says("ready"), 40)
        asyncio.run(first(url, server))
    with scene.child(*scene.itself("serve", str(port))) as server:
        scene.wait_for("server", lambda: server.says("ready"), 40)
        asyncio.run(second(url))
        with SyncClient(url) as client:
            space = client.get_namespace_index(SPACE)
            node = client.nodes.objects.get_child([f"{space}:Magnet", f"{space}:Current"])
            scene.expect("the synchronous client", node.read_value(), -4.25)
        scene.expect("Ctrl-C ends the server", server.end(signal.SIGINT), 0)
        scene.expect("in order", server.says("stopped"), True)
    scene.step("all of asyncua")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(int(sys.argv[2])))
    else:
        main()
