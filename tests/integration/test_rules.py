"""The rules of a control room, held by the interpreter itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import BARE, attempt, call


def test_user_site_packages_are_off_whatever_the_user_does(prefix, tmp_path):
    user = tmp_path / "home" / ".local" / "lib" / f"python{prefix.version}" / "site-packages"
    user.mkdir(parents=True)
    (user / "intruder.py").write_text("print('loaded')")
    (user / "intruder.pth").write_text("import sys; sys.stderr.write('ran')\n")
    (user / "usercustomize.py").write_text("raise SystemExit('ran')")
    home = {"HOME": str(tmp_path / "home")}
    say = "import site, sys; print(site.ENABLE_USER_SITE, [p for p in sys.path if '.local' in p])"
    assert call(prefix.python, "-c", say, env=home) == "False []"
    assert attempt(prefix.python, "-c", "import intruder", env=home).returncode == 1
    forced = {**home, "PYTHONUSERBASE": str(tmp_path / "home" / ".local"), "PYTHONNOUSERSITE": ""}
    assert call(prefix.python, "-c", say, env=forced) == "False []"
    call(prefix.python, "-m", "venv", "--system-site-packages", "--without-pip", tmp_path / "env")
    assert call(tmp_path / "env/bin/python", "-c", say, env=home) == "False []"


def test_site_says_that_the_user_directory_is_off(prefix):
    done = attempt(prefix.python, "-m", "site", "--user-site", env={"HOME": "/home/op"})
    assert done.returncode == 1
    assert done.stdout.strip() == f"/home/op/.local/lib/python{prefix.version}/site-packages"


def test_ensurepip_refuses_in_the_base_and_says_what_to_do(prefix):
    done = attempt(prefix.python, "-m", "ensurepip")
    assert done.returncode == 1
    assert f"python{prefix.version} -m venv my-env" in done.stderr
    assert "Traceback" not in done.stderr


def test_ensurepip_works_in_an_environment(prefix, tmp_path):
    call(prefix.python, "-m", "venv", "--without-pip", tmp_path / "env")
    call(tmp_path / "env/bin/python", "-m", "ensurepip")
    assert (tmp_path / "env/bin/pip3").exists()


def test_the_base_has_no_pip(prefix):
    assert attempt(prefix.python, "-m", "pip", "--version").returncode == 1
    packages = prefix.path / "lib" / f"python{prefix.version}" / "site-packages"
    assert [path.name for path in packages.iterdir()] == ["README.txt"]


@pytest.mark.parametrize("option", [[], ["--user"]])
def test_pip_from_elsewhere_is_refused_with_what_to_do(prefix, tmp_path, option):
    """pip itself reads EXTERNALLY-MANAGED, even a pip that runs from a wheel."""
    (wheel,) = (prefix.path / "lib" / f"python{prefix.version}").glob("ensurepip/_bundled/pip-*")
    if int(wheel.name.removeprefix("pip-").split(".")[0]) < 23:
        pytest.skip(f"{wheel.name} is older than PEP 668")
    done = attempt(
        prefix.python, f"{wheel}/pip", "install", "--no-index", *option, "six", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "externally-managed-environment" in done.stderr
    assert "make a virtual environment" in done.stderr.lower()
    assert f"python{prefix.version} -m venv" in done.stderr


STORE = "/etc/ssl/certs/ca-certificates.crt"
FETCH = """
import ssl, sys, urllib.request
print(urllib.request.urlopen(f"https://localhost:{sys.argv[1]}/", timeout=20).read().decode())
"""
SERVE = """
import http.server, ssl, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *a): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server = http.server.HTTPServer(("127.0.0.1", 0), Hello)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority of our own, and a certificate of it for localhost."""
    place = tmp_path_factory.mktemp("ca")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    new += ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Control room"]
    # since 3.13 the default context is strict about what RFC 5280 asks of an authority
    call(*new, "-addext", "keyUsage=critical,keyCertSign,cRLSign", cwd=place)
    call(
        *("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem"),
        *("-out", "request.pem", "-subj", "/CN=localhost"),
        cwd=place,
    )
    (place / "names").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
    )
    call(
        *("openssl", "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "cert.pem"),
        cwd=place,
    )
    return place


@pytest.fixture
def server(prefix, authority):
    """The port of an https server with the authority's certificate."""
    process = subprocess.Popen(
        [prefix.python, "-c", SERVE, authority / "cert.pem", authority / "key.pem"],
        stdout=subprocess.PIPE,
        text=True,
        env=BARE,
    )
    assert process.stdout
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def test_an_unknown_authority_is_refused(prefix, server):
    done = attempt(prefix.python, "-c", FETCH, server)
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_ssl_cert_file_is_honoured(prefix, server, authority):
    env = {"SSL_CERT_FILE": str(authority / "ca.pem")}
    assert call(prefix.python, "-c", FETCH, server, env=env) == "hello"


def test_authorities_can_be_given_in_der(prefix, authority):
    say = """
import ssl, sys
der = ssl.PEM_cert_to_DER_cert(open(sys.argv[1]).read())
print(len(ssl.create_default_context(cadata=der).get_ca_certs()))
"""
    assert call(prefix.python, "-c", say, authority / "ca.pem") == "1"


STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
)
"""Where Debian, EL 7 and later, and SUSE keep the authorities that the system trusts."""


@pytest.mark.parametrize("bundle", STORES)
def test_an_authority_that_only_the_system_knows_is_found(
    prefix, server, authority, tmp_path, bundle
):
    """In a mount namespace whose /etc and /var hold one distribution's bundle and no other."""
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/etc", "--tmpfs", "/var"]
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    bind = ["--ro-bind", hosts, "/etc/hosts", "--ro-bind", authority / "ca.pem", bundle]
    for directory in ("/var/tmp", "/etc/ssl"):
        bind += ["--dir", directory]
    inside = [*bwrap, *bind]
    if attempt(*inside, "true").returncode != 0:
        pytest.skip("bubblewrap cannot make a mount namespace here")
    assert call(*inside, prefix.python, "-c", FETCH, server) == "hello"


def test_the_defaults_name_the_system_s_store(prefix):
    if not Path(STORE).exists():
        pytest.skip("not a Debian")
    say = "import ssl; print(ssl.get_default_verify_paths().cafile)"
    assert call(prefix.python, "-c", say) == STORE
