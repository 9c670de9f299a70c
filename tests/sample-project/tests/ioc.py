"""A monitor's IOC, on loopback; says on stdout when it answers."""

from caproto.server import PVGroup, pvproperty, run


class Monitor(PVGroup):
    signals = pvproperty(value=[3.0, 1.0, 1.0, 3.0])


async def ready(async_lib):
    print("ready", flush=True)


if __name__ == "__main__":
    run(Monitor(prefix="SAMPLE:").pvdb, interfaces=["127.0.0.1"], startup_hook=ready)
