"""A container engine is found, or why not; what it is told, without one."""

from __future__ import annotations

import http.server
import io
import json
import os
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from longrun import engine
from longrun.config import AUTO, BUBBLEWRAP, CONTAINER, load_config
from longrun.engine import Engines, find_engine, held, knock, left_over, sockets, tar_of
from longrun.errors import BuildError, SetupError, SpecError

SOURCE = Path(engine.__file__).parents[1]


class Answers(http.server.BaseHTTPRequestHandler):
    """An engine that is there and can do nothing."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/version":
            self.answer(200, {"ApiVersion": "1.41"})
        elif path == "/_ping":
            self.answer(200, "OK")
        elif path.endswith("/json"):
            self.server.asked.append(path)
            self.answer(200, [])
        else:
            self.answer(404, {"message": "page not found"})

    def do_POST(self):
        self.answer(500, {"message": "cgroups: cannot find cgroup mount destination"})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

    def address_string(self):
        return ""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture
def unfit(tmp_path):
    """The socket of an engine that lists nothing and refuses everything else."""
    with Server(str(tmp_path / "e.sock"), Answers) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def listening(tmp_path):
    """A socket at which somebody listens and never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mute.sock"))
        listener.listen()
        yield tmp_path / "mute.sock"


def at(path) -> dict[str, str]:
    return {"DOCKER_HOST": f"unix://{path}"}


def find(choice, environ):
    return find_engine(choice, environ, threading.Event())


def test_an_engine_that_answers_is_found(unfit):
    found = find(AUTO, at(unfit.server_address))
    assert found is not None
    assert str(found.path) == unfit.server_address


def test_a_site_that_wants_bubblewrap_gets_no_engine(unfit):
    assert find(BUBBLEWRAP, at(unfit.server_address)) is None


def test_without_an_engine_there_is_none_unless_the_site_asks_for_it(tmp_path):
    environ = at(tmp_path / "no.sock")
    assert find(AUTO, environ) is None
    with pytest.raises(SetupError, match=r"no\.sock: No such file or directory") as caught:
        find(CONTAINER, environ)
    assert "podman system service" in caught.value.remedy


def test_a_socket_that_nobody_listens_at_any_more_is_no_engine(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert find(AUTO, at(tmp_path / "dead.sock")) is None
    with pytest.raises(SetupError, match=r"dead\.sock: Connection refused"):
        find(CONTAINER, at(tmp_path / "dead.sock"))


def test_an_engine_that_hangs_is_not_waited_for(listening, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    assert find(AUTO, at(listening)) is None
    assert knock(listening) == "no answer within 0.1 s"


def test_a_socket_that_this_user_may_not_use_is_named_only_where_an_engine_is_asked_for(
    listening, monkeypatch
):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(engine.socket.socket, "connect", refuse)  # root may use every socket
    assert find(AUTO, at(listening)) is None
    with pytest.raises(SetupError, match=r"mute\.sock: Permission denied") as caught:
        find(CONTAINER, at(listening))
    assert "usermod -aG docker" in caught.value.remedy
    assert "systemctl --user start podman.socket" in caught.value.remedy


def test_what_is_no_engine_is_not_used(tmp_path, unfit, monkeypatch):
    monkeypatch.setattr(engine, "PING", b"GET /other HTTP/1.0\r\n\r\n")
    assert knock(Path(unfit.server_address)) == "what answers is no container engine"


def test_an_engine_on_another_machine_cannot_see_a_prefix(tmp_path):
    environ = {"DOCKER_HOST": "tcp://there:2375", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert sockets(environ) == ()
    with pytest.raises(SetupError, match=r"DOCKER_HOST is tcp://there:2375"):
        find(CONTAINER, environ)


def test_docker_is_asked_before_podman_and_the_users_own_engine_before_the_systems():
    names = [str(path) for path in sockets({"XDG_RUNTIME_DIR": "/run/user/7"})]
    assert names == [
        "/var/run/docker.sock",
        "/run/user/7/docker.sock",
        "/run/user/7/podman/podman.sock",
        "/run/podman/podman.sock",
    ]
    assert not [name for name in map(str, sockets({})) if "user" in name]


def test_where_no_engine_is_asked_the_sdk_is_not_loaded(tmp_path):
    """It takes longer to load than a cell under bubblewrap takes to start."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from longrun.engine import Engines\n"
        "from pathlib import Path\n"
        f"engines = Engines('auto', {at(tmp_path / 'no.sock')!r})\n"
        "assert engines.image(Path('/'), 'd', Path('/')) is None\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"docker", "requests"} & set(done.stdout.split())


@pytest.fixture
def root(tmp_path):
    """A system's root, as the store has it."""
    root = tmp_path / "root"
    for name in ("etc", "tmp", "var/tmp", "opt/site", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "opt/site/secret").write_text("theirs")
    (root / "usr/bin/tool").write_text("#!/bin/sh\n")
    (root / "usr/bin/tool").chmod(0o555)
    os.link(root / "usr/bin/tool", root / "usr/bin/same")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc").chmod(0o555)
    return root


def test_an_engine_that_cannot_run_a_container_is_given_up_once_for_all(unfit, root, tmp_path):
    engines = Engines(AUTO, at(unfit.server_address))
    assert engines.image(root, "d" * 64, tmp_path) is None
    asked = len(unfit.asked)
    assert asked
    assert engines.image(root, "e" * 64, tmp_path) is None
    assert len(unfit.asked) == asked


def test_an_engine_that_is_asked_for_and_cannot_is_an_error_with_its_words(unfit, root, tmp_path):
    engines = Engines(CONTAINER, at(unfit.server_address))
    with pytest.raises(SetupError, match="cannot find cgroup mount") as caught:
        engines.image(root, "d" * 64, tmp_path)
    assert "engine" in caught.value.remedy


def test_an_interrupted_run_does_not_go_on_under_bubblewrap(unfit, root, tmp_path):
    engines = Engines(AUTO, at(unfit.server_address))
    engines.stop()
    with pytest.raises(BuildError, match="interrupted"):
        engines.image(root, "d" * 64, tmp_path)


def test_the_tar_of_a_root_is_the_root_without_what_a_cage_hides(root):
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_of(root)))) as tar:
        found = {member.name: member for member in tar}
        assert tar.extractfile("etc/passwd").read() == b"root:x:0:0::/root:/bin/sh\n"
    names = "bin etc etc/passwd opt tmp usr usr/bin usr/bin/same usr/bin/tool var var/tmp"
    assert sorted(found) == names.split()
    assert found["bin"].linkname == "usr/bin"
    assert found["usr/bin/tool"].mode == 0o555
    assert found["etc"].mode == 0o555
    assert {found[name].mode for name in ("opt", "tmp", "var/tmp")} == {0o1777}
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}


def test_a_root_is_sent_in_pieces(root, monkeypatch):
    (root / "usr/big").write_bytes(bytes(3 * engine.CHUNK))
    (root / "usr/z").write_text("last")
    assert len([piece for piece in tar_of(root) if piece]) > 1


def container(out, *, machine=None, state="running", created=0.0):
    labels = {"longrun.machine": machine or socket.gethostname(), "longrun.out": str(out)}
    return {"Labels": labels, "State": state, "Created": created}


def test_a_container_is_left_over_once_its_run_is_dead(tmp_path):
    with held(tmp_path):
        assert not left_over(container(tmp_path))
        assert not left_over(container(tmp_path, state="exited"))
    assert left_over(container(tmp_path))
    assert left_over(container(tmp_path / "gone"))


def test_the_lock_of_a_killed_run_is_gone(tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from longrun.engine import held\n"
        "from pathlib import Path\n"
        f"with held(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"held\n"
        assert not left_over(container(tmp_path))
        run.kill()
    assert left_over(container(tmp_path))


def test_another_machines_container_is_left_over_a_day_after_its_end(tmp_path):
    now = time.time()
    gone = tmp_path / "not-here"
    assert not left_over(container(gone, machine="other"))
    assert not left_over(container(gone, machine="other", state="exited", created=now - 3600))
    assert left_over(container(gone, machine="other", state="exited", created=now - 90_000))


def test_the_site_says_which_in_its_configuration(tmp_path):
    file = tmp_path / "config.toml"
    environ = {"LONGRUN_CONFIG": str(file), "HOME": str(tmp_path)}
    file.write_text("")
    assert load_config(environ).engine == AUTO
    file.write_text('engine = "bubblewrap"\n')
    assert load_config(environ).engine == BUBBLEWRAP
    file.write_text('engine = "dockr"\n')
    with pytest.raises(SpecError, match="engine: expected 'auto', 'container' or 'bubblewrap'"):
        load_config(environ)
