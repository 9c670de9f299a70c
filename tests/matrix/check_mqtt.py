"""paho-mqtt with a mosquitto of its own: QoS, retained values, last will, reconnecting, TCP and v5.

Publish and subscribe with wildcards in QoS 0 to 2, a big payload, the last will of a client that
is killed, messages kept for a client with a session, properties and reason codes of MQTT 5, and a
broker killed and started again (the client reconnects by itself). Needs mosquitto of the system.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import scene
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


def serve(directory, port):
    """The command of a broker on loopback; its settings lie in the directory."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    program = shutil.which("mosquitto", path=path)
    if not program:
        raise AssertionError("no mosquitto in this system")
    settings = Path(directory, "settings")
    # root would become another user, who may not read the directory
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stdout\n"
        "max_queued_messages 1000\n"
    )
    return [program, "-c", str(settings)]


class Client:
    """A client with a network thread and what it heard."""

    def __init__(self, name, *, version=mqtt.MQTTv311, clean=None):
        self.heard, self.reasons, self.connects, self.disconnects = [], [], 0, 0
        self.lock = threading.Lock()
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, name, protocol=version, clean_session=clean
        )
        self.mqtt.reconnect_delay_set(1, 2)
        self.topics = []
        self.mqtt.on_connect = self._connected
        self.mqtt.on_disconnect = self._disconnected
        self.mqtt.on_message = self._message
        self.mqtt.on_subscribe = lambda *a: self.reasons.append([str(c) for c in a[3]])

    def _connected(self, client, _data, _flags, code, _properties):
        if code.is_failure:
            raise AssertionError(f"connection refused: {code}")
        self.connects += 1
        for topic, qos in self.topics:
            client.subscribe(topic, qos)

    def _disconnected(self, *_):
        self.disconnects += 1

    def _message(self, _client, _data, message):
        with self.lock:
            self.heard.append(message)

    def start(self, port, **options):
        """Connect and wait for it."""
        before = self.connects
        self.mqtt.connect("127.0.0.1", port, keepalive=5, **options)
        self.mqtt.loop_start()
        scene.wait_for("connected", lambda: self.connects > before)
        return self

    def subscribe(self, topic, qos=0):
        """Subscribe now and after every reconnection."""
        count = len(self.reasons)
        self.topics.append((topic, qos))
        self.mqtt.subscribe(topic, qos)
        scene.wait_for("subscribed", lambda: len(self.reasons) > count)

    def payloads(self, topic):
        """What was heard on a topic."""
        with self.lock:
            return [m.payload for m in self.heard if m.topic == topic]

    def stop(self):
        """Disconnect and end the thread."""
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def doomed(port):
    """Connect with a last will and wait for the end, as another process."""
    client = Client("doomed")
    client.mqtt.will_set("status/doomed", "dead", qos=1, retain=True)
    client.start(port)
    client.mqtt.publish("status/doomed", "alive", qos=1, retain=True).wait_for_publish(10)
    print("connected", flush=True)
    threading.Event().wait(60)


def messages(port):
    """Publish and subscribe."""
    listener, talker = Client("listener").start(port), Client("talker").start(port)
    listener.subscribe("ring/+/current", 2)
    for qos in (0, 1, 2):
        for number in range(50):
            sent = talker.mqtt.publish(f"ring/q{qos}/current", str(number), qos=qos)
        sent.wait_for_publish(10)
        scene.expect(f"QoS {qos}: sent", sent.is_published(), True)
        topic = f"ring/q{qos}/current"
        scene.wait_for("messages", lambda topic=topic: len(listener.payloads(topic)) >= 50)
        wanted = [b"%d" % n for n in range(50)]
        scene.expect(f"QoS {qos}: all, once, in order", listener.payloads(topic), wanted)
    wave = np.random.default_rng(1).normal(size=200_000)
    talker.mqtt.publish("ring/wave/current", wave.tobytes(), qos=1)
    scene.wait_for("wave", lambda: listener.payloads("ring/wave/current"))
    found = np.frombuffer(listener.payloads("ring/wave/current")[0])
    scene.expect("1.6 MB of numpy", np.array_equal(found, wave), True)
    talker.mqtt.publish("ring/deep/er/current", "x", qos=1).wait_for_publish(10)
    talker.mqtt.publish("ring/end/current", "x", qos=1)
    scene.wait_for("end", lambda: listener.payloads("ring/end/current"))
    scene.expect("a wildcard is one level", listener.payloads("ring/deep/er/current"), [])
    try:
        talker.mqtt.publish("ring/+/current", "x")
    except ValueError:
        scene.step("publishing to a wildcard is refused")
    else:
        raise AssertionError("published to a wildcard")

    talker.mqtt.publish("mode", "shutdown", qos=1, retain=True).wait_for_publish(10)
    late = Client("late").start(port)
    late.subscribe("mode", 1)
    scene.wait_for("retained", lambda: late.payloads("mode"))
    kept = late.heard[0]
    scene.expect(
        "a retained value for a late client", (kept.payload, kept.retain), (b"shutdown", 1)
    )
    late.stop()

    keeper = Client("keeper", clean=False).start(port)
    keeper.subscribe("log", 1)
    keeper.stop()
    for number in range(10):
        talker.mqtt.publish("log", str(number), qos=1).wait_for_publish(10)
    keeper = Client("keeper", clean=False).start(port)
    scene.wait_for("kept", lambda: len(keeper.payloads("log")) >= 10)
    scene.expect(
        "messages kept for a session", keeper.payloads("log"), [b"%d" % n for n in range(10)]
    )
    keeper.stop()
    return listener, talker


def will(port, listener):
    """The last will of a client that is killed."""
    listener.subscribe("status/#", 1)
    with scene.child(*scene.itself("doomed", str(port))) as client:
        scene.wait_for("client", lambda: client.says("connected"))
        scene.wait_for("alive", lambda: listener.payloads("status/doomed") == [b"alive"])
        client.end(signal.SIGKILL)
        scene.wait_for("dead", lambda: listener.payloads("status/doomed") == [b"alive", b"dead"])
        scene.step("the last will of a client killed")


def version_5(port):
    """Properties, options and reason codes of MQTT 5."""
    client = Client("five", version=mqtt.MQTTv5).start(port, clean_start=True)
    client.mqtt.subscribe("own", options=SubscribeOptions(qos=1, noLocal=True))
    client.subscribe("answers", 1)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "answers"
    properties.CorrelationData = b"\x00\x07"
    properties.UserProperty = ("unit", "µm")
    client.mqtt.publish("own", "not to myself", qos=1)
    client.mqtt.publish("answers", "yes", qos=1, properties=properties)
    scene.wait_for("answer", lambda: client.payloads("answers"))
    found = client.heard[-1].properties
    scene.expect(
        "properties", (found.CorrelationData, found.UserProperty), (b"\x00\x07", [("unit", "µm")])
    )
    scene.expect("no echo where none is wanted", client.payloads("own"), [])
    client.stop()
    scene.expect("disconnected once", client.disconnects, 1)


def main():
    """Everything with one broker, then without it, then with the next."""
    port = scene.free_port()
    with tempfile.TemporaryDirectory(prefix="check-mqtt-") as directory:
        with scene.child(*serve(directory, port)) as broker:
            scene.wait_for(
                "broker", lambda: broker.popen.poll() is not None or scene.listening(port)
            )
            listener, talker = messages(port)
            will(port, listener)
            version_5(port)
            broker.end(signal.SIGKILL)
            scene.wait_for("loss", lambda: listener.disconnects and talker.disconnects)
            scene.step("the loss of the broker is told")
        # retained: the listener may be back later than the talker
        queued = talker.mqtt.publish("ring/again/current", "sent while away", qos=1, retain=True)
        scene.expect("publishing without a broker is told", queued.rc, mqtt.MQTT_ERR_NO_CONN)
        with scene.child(*serve(directory, port)) as broker:
            scene.wait_for("back", lambda: len(listener.reasons) >= 4 and talker.connects > 1, 30)
            scene.step("both clients connect again by themselves")
            again = [b"sent while away"]
            scene.wait_for("waiting", lambda: listener.payloads("ring/again/current") == again)
            scene.step("what was waiting is sent")
            talker.mqtt.publish("ring/new/current", "5", qos=1)
            scene.wait_for("message", lambda: listener.payloads("ring/new/current") == [b"5"])
            scene.step("the subscription works again")
            for client in (listener, talker):
                client.stop()
            scene.expect("SIGTERM ends the broker in order", broker.end(), 0)
    scene.expect("no thread remains", threading.active_count(), 1)
    scene.step("all of MQTT")


if __name__ == "__main__":
    if sys.argv[1:2] == ["doomed"]:
        doomed(int(sys.argv[2]))
    else:
        main()
