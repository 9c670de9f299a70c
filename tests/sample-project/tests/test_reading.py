import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

READS = "import bpm; print(bpm.read_position('SAMPLE', timeout=60))"


@pytest.fixture
def channel_access():
    """The variables of servers and clients that see nothing but this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {
        **os.environ,
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": port,
    }


@pytest.fixture
def ioc(channel_access):
    argv = [sys.executable, Path(__file__).with_name("ioc.py")]
    with subprocess.Popen(argv, env=channel_access, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.terminate()


def test_position_from_an_ioc(ioc, channel_access):
    done = subprocess.run(
        [sys.executable, "-c", READS], env=channel_access, capture_output=True, text=True
    )
    assert done.stdout == "(5.0, 0.0)\n", done.stderr
