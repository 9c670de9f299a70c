"""Every module that a prefix promises does something real; importing it proves little."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from programs import BARE, attempt, call

WORK = {
    "sqlite3": """
import sqlite3
db = sqlite3.connect(":memory:")
db.execute("CREATE VIRTUAL TABLE log USING fts5(text)")
db.executemany("INSERT INTO log VALUES (?)", [("magnet quench",), ("beam dump",)])
assert db.execute("SELECT text FROM log WHERE log MATCH 'quen*'").fetchall() == [("magnet quench",)]
db.execute("CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)")
db.execute("INSERT INTO box VALUES (1, 0, 2)")
assert db.execute("SELECT id FROM box WHERE x1 > 1").fetchone() == (1,)
assert db.execute("SELECT json_extract('{\\"a\\": 3}', '$.a'), sqrt(16)").fetchone() == (3, 4.0)
db.enable_load_extension(True)
""",
    "dbm.gnu": """
import dbm.gnu
with dbm.gnu.open("g.db", "c") as db:
    db[b"k"] = b"v"
with dbm.gnu.open("g.db") as db:
    assert db[b"k"] == b"v"
import dbm
assert dbm.whichdb("g.db") == "dbm.gnu"
""",
    "dbm.ndbm": """
import dbm.ndbm
with dbm.ndbm.open("n", "c") as db:
    db[b"k"] = b"v"
with dbm.ndbm.open("n") as db:
    assert db[b"k"] == b"v"
""",
    "compression": """
import bz2, lzma, zlib
data = bytes(range(256)) * 400
for codec in (bz2, zlib):
    assert codec.decompress(codec.compress(data)) == data
for form in (lzma.FORMAT_XZ, lzma.FORMAT_ALONE):
    packed = lzma.compress(data, format=form)
    assert len(packed) < len(data) / 10 and lzma.decompress(packed) == data
assert lzma.is_check_supported(lzma.CHECK_SHA256)
""",
    "hashlib": """
import hashlib, hmac
known = {
    "md5": "900150983cd24fb0d6963f7d28e17f72",
    "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "sha3_256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d524b4d5e1e4f4f1c9f4e"[:0],
    "sha512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    "ripemd160": "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
}
for name, digest in known.items():
    assert hashlib.new(name, b"abc").hexdigest().startswith(digest), name
for name in hashlib.algorithms_guaranteed:
    made = hashlib.new(name, b"abc")
    made.digest(16) if name.startswith("shake") else made.digest()
import _hashlib
assert hashlib.sha256 is _hashlib.openssl_sha256, "not OpenSSL's"
assert len(hashlib.scrypt(b"p", salt=b"s", n=16, r=8, p=1)) == 64
""",
    "ssl": """
import ssl
context = ssl.create_default_context()
names = [cipher["name"] for cipher in context.get_ciphers()]
assert "TLS_AES_256_GCM_SHA384" in names
assert ssl.HAS_TLSv1_3 and ssl.HAS_SNI and ssl.HAS_ALPN
assert ssl.OPENSSL_VERSION_INFO >= (3, 5)
""",
    "decimal": """
import decimal, _decimal
assert decimal.Decimal is _decimal.Decimal
with decimal.localcontext() as context:
    context.prec = 60
    text = str(decimal.Decimal(2).sqrt())
assert text == "1.41421356237309504880168872420969807856967187537694807317668"
""",
    "uuid": """
import uuid, _uuid
assert _uuid.has_uuid_generate_time_safe
assert uuid.uuid1().version == 1 and uuid.uuid1() != uuid.uuid1()
""",
    "pyexpat": """
import pyexpat, xml.etree.ElementTree as tree
assert tree.fromstring("<a b='1'>\\u00e9</a>").text == "\\u00e9"
assert tuple(map(int, pyexpat.EXPAT_VERSION.split("_")[1].split("."))) >= (2, 6, 0)
""",
    "ctypes": """
import ctypes
compare = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.POINTER(ctypes.c_int)] * 2)
values = (ctypes.c_int * 4)(3, 1, 4, 2)
ctypes.CDLL(None).qsort(values, 4, 4, compare(lambda a, b: a[0] - b[0]))
assert list(values) == [1, 2, 3, 4]
class Pair(ctypes.Structure):
    _fields_ = [("quot", ctypes.c_int), ("rem", ctypes.c_int)]
div = ctypes.CDLL(None).div
div.restype = Pair
assert (div(7, 2).quot, div(7, 2).rem) == (3, 1)
from ctypes.util import find_library
assert find_library("c") == "libc.so.6"
""",
    "multiprocessing": """
import multiprocessing as mp, time
from multiprocessing import shared_memory
def work(semaphore, memory):
    with semaphore:
        mine = shared_memory.SharedMemory(memory)
        mine.buf[0] = 42
        mine.close()
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = mp.get_context(method)
        semaphore = context.Semaphore(0)
        memory = shared_memory.SharedMemory(create=True, size=8)
        child = context.Process(target=work, args=(semaphore, memory.name))
        child.start(); semaphore.release(); child.join(60)
        assert (child.exitcode, memory.buf[0]) == (0, 42), method
        memory.close(); memory.unlink()
    start = time.monotonic()
    assert not mp.Semaphore(0).acquire(timeout=0.2) and time.monotonic() - start < 5
""",
    "sockets and signals": """
import asyncio, signal, socket, select, fcntl, resource, termios, syslog, mmap
a, b = socket.socketpair(socket.AF_UNIX)
a.send(b"x")
assert select.select([b], [], [], 5)[0] == [b] and b.recv(1) == b"x"
assert hasattr(socket, "AF_CAN") and hasattr(socket, "AF_PACKET")
poll = select.epoll(); poll.register(b, select.EPOLLIN); a.send(b"y")
assert poll.poll(5)[0][0] == b.fileno()
async def main():
    process = await asyncio.create_subprocess_exec("true")
    return await process.wait()
assert asyncio.run(main()) == 0
""",
    "time zones": """
import zoneinfo, datetime
zone = zoneinfo.ZoneInfo("Europe/Zurich")
assert datetime.datetime(2026, 7, 1, tzinfo=zone).utcoffset() == datetime.timedelta(hours=2)
""",
}


@pytest.mark.parametrize("what", WORK)
def test_module_does_its_work(prefix, tmp_path, what):
    (tmp_path / "work.py").write_text(WORK[what])
    call(prefix.python, "work.py", cwd=tmp_path)


FUTEX = "202 "  # the number of the system call on x86_64


def test_locks_do_not_wait_on_the_clock_of_the_day(prefix):
    """A step of that clock, as a time server makes it, must not prolong a wait: see patch 0007."""
    say = """
import threading, time
lock = threading.Lock(); lock.acquire()
start = time.monotonic()
assert not lock.acquire(timeout=0.3)
assert 0.29 < time.monotonic() - start < 5
assert not threading.Event().wait(0.1)
"""
    call(prefix.python, "-c", say)
    with subprocess.Popen(
        [str(prefix.python), "-c", "import threading; threading.Event().wait(60)"], env=BARE
    ) as program:
        syscall = Path(f"/proc/{program.pid}/syscall")
        while not syscall.read_text().startswith(FUTEX):
            assert program.poll() is None
            time.sleep(0.01)
        operation = int(syscall.read_text().split()[2], 16)
        program.kill()
    assert operation & 0x7F == 9, "FUTEX_WAIT_BITSET: until a point in time, or for ever"
    assert not operation & 0x100, "FUTEX_CLOCK_REALTIME"


WAITS = {
    "an event": "threading.Event().wait()",
    "a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a lock with a timeout": "lock = threading.Lock(); lock.acquire(); lock.acquire(timeout=60)",
    "a queue": "queue.Queue().get()",
}


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_wait(prefix, what, number):
    """Ctrl-C, and a handler of SIGTERM that raises, reach a server that does nothing but wait."""
    say = f"""
import os, queue, signal, sys, threading, time
def end(number, frame):
    sys.exit(7)
signal.signal(signal.{number}, end)
def later():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.{number})
threading.Thread(target=later).start()
watch = threading.Thread(target=lambda: (time.sleep(20), os._exit(1)), daemon=True)
watch.start()
{WAITS[what]}
"""
    ended = subprocess.run([str(prefix.python), "-c", say], env=BARE, timeout=60, check=False)
    assert ended.returncode == 7


def test_locks_are_handed_over_without_loss(prefix):
    """Eight threads fight for one lock, with timeouts and signals between: no wake-up is lost."""
    say = """
import signal, threading
signal.signal(signal.SIGALRM, lambda number, frame: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
lock, count = threading.Lock(), 0
def work(timeout):
    global count
    for turn in range(5000):
        while not lock.acquire(timeout=timeout):
            pass
        count += 1
        lock.release()
threads = [threading.Thread(target=work, args=[timeout]) for timeout in (-1, 0.0001, 1, -1) * 2]
for thread in threads: thread.start()
for thread in threads: thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
assert count == 40000, count
"""
    call(prefix.python, "-c", say)


def talk(argv: list[str], send: list[tuple[bytes, bytes]], cwd) -> bytes:
    """Run a program on a terminal; after each expected output send a text. Gives all output."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        env = {**BARE, "TERM": "xterm", "HOME": str(cwd), "PYTHON_BASIC_REPL": "1"}
        os.execve(argv[0], argv, env)
    output = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if send and send[0][0] in output:
            os.write(terminal, send.pop(0)[1])
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                output += os.read(terminal, 65536)
            except OSError:
                break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, output.decode()
    assert not send, output.decode()
    return output


def test_readline_edits_completes_and_remembers(prefix, tmp_path):
    steps = [
        (b">>> ", b"word_number_one = 17\n"),
        (b"17\r\n>>> ", b"word_num\t * 3\n"),
        # Control-A goes to the beginning of the line, Control-E to its end
        (b"51\r\n>>> ", b"2 + 2\x01(\x05) * 100 # \xc3\xa9\n"),
        (b"400\r\n>>> ", b"exit()\n"),
    ]
    output = talk([str(prefix.python), "-q"], steps, tmp_path)
    assert b"word_number_one * 3" in output
    assert (tmp_path / ".python_history").exists()


CURSES = """
import curses, curses.panel, json, sys
def main(screen):
    curses.start_color()
    under = curses.newwin(5, 20, 2, 2); under.addstr(1, 1, "under\\u00e9")
    above = curses.newwin(5, 20, 3, 4); above.addstr(1, 1, "above")
    panels = [curses.panel.new_panel(window) for window in (under, above)]
    curses.panel.update_panels(); curses.doupdate()
    assert curses.panel.top_panel() is panels[1] and panels[0].above() is panels[1]
    panels[1].hide(); curses.panel.update_panels(); curses.doupdate()
    screen.keypad(True)
    assert screen.getch() == curses.KEY_UP, "the arrow key is not known"
    assert curses.tigetnum("colors") >= 8
curses.wrapper(main)
"""


def test_curses_draws_panels_and_reads_keys(prefix, tmp_path):
    (tmp_path / "draw.py").write_text(CURSES)
    steps = [("under\u00e9".encode(), b"\x1bOA")]
    output = talk([str(prefix.python), "draw.py"], steps, tmp_path)
    assert b"above" in output


@pytest.mark.parametrize("terminal", ["xterm-256color", "linux", "vt100", "screen", "tmux"])
def test_terminals_are_known_without_a_terminfo_database(prefix, terminal):
    say = "import curses; curses.setupterm(); print(curses.tigetstr('clear') is not None)"
    env = {"TERM": terminal, "TERMINFO": "/nonexistent", "TERMINFO_DIRS": "/nonexistent"}
    assert call(prefix.python, "-c", say, env=env) == "True"


TK = """
import json, tkinter, tkinter.ttk, turtle
root = tkinter.Tk()
label = tkinter.ttk.Label(root, text="Str\\u00f6m \\u2713", font=("DejaVu Sans", 20))
label.pack(); root.update()
image = tkinter.PhotoImage(width=4, height=4); image.put("#ff0000", (1, 1))
print(json.dumps({
    "patch": root.tk.call("info", "patchlevel"), "library": root.tk.exprstring("$tcl_library"),
    "tk": root.tk.exprstring("$tk_library"), "width": label.winfo_width(),
    "pixel": image.get(1, 1), "clock": root.tk.call("clock", "format", 0, "-gmt", 1),
    "family": root.tk.call("font", "actual", "TkDefaultFont", "-family"),
}))
root.destroy()
"""


@pytest.fixture(scope="module")
def display():
    """An X server of our own."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("Xvfb is not installed")
    read, write = os.pipe()
    process = subprocess.Popen(
        [server, "-displayfd", str(write), "-nolisten", "tcp", "-screen", "0", "800x600x24"],
        pass_fds=[write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()
    assert number, "Xvfb did not start"
    yield f":{number}"
    process.kill()
    process.wait()


@pytest.mark.parametrize("way", ["base", "environment", "copy", "link to the program"])
def test_tkinter_draws(prefix, display, tmp_path, way):
    python = prefix.python
    if way in ("environment", "copy"):
        how = "--copies" if way == "copy" else "--symlinks"
        call(python, "-m", "venv", how, "--without-pip", tmp_path / "env")
        python = tmp_path / "env/bin/python"
    elif way == "link to the program":
        python = tmp_path / "py"
        python.symlink_to(prefix.python)
    told = json.loads(call(python, "-c", TK, env={"DISPLAY": display, "HOME": str(tmp_path)}))
    assert told["library"] == f"{prefix.path}/lib/tcl8.6"
    assert told["tk"] == f"{prefix.path}/lib/tk8.6"
    assert told["width"] > 40
    assert told["pixel"] == [255, 0, 0]
    assert "1970" in told["clock"]
    assert told["family"]


def test_tkinter_without_a_display_says_so(prefix):
    done = attempt(prefix.python, "-c", "import tkinter; tkinter.Tk()")
    assert "no display name" in done.stderr


def test_libraries_inside_do_not_meet_those_of_the_process(prefix, tmp_path):
    """With other libraries of the same names loaded first and visible to all, nothing changes."""
    names = ("libcrypto.so.3", "libssl.so.3", "libsqlite3.so.0", "libz.so.1", "libexpat.so.1")
    say = f"""
import ctypes, os
loaded = []
for name in {names!r}:
    try:
        ctypes.CDLL(name, mode=os.RTLD_GLOBAL | os.RTLD_NOW); loaded.append(name)
    except OSError:
        pass
import hashlib, pyexpat, sqlite3, ssl, zlib
print(ssl.OPENSSL_VERSION, sqlite3.sqlite_version, zlib.ZLIB_RUNTIME_VERSION, pyexpat.EXPAT_VERSION)
hashlib.sha256(b"x").hexdigest(); ssl.create_default_context()
sqlite3.connect(":memory:").execute("select 1")
"""
    plain = call(prefix.python, "-c", say.replace(repr(names), "()"))
    assert call(prefix.python, "-c", say) == plain


def test_a_serial_line_takes_a_speed(prefix):
    """What the C library of the floor knows as B9600, whatever headers the toolchain has."""
    program = """
import os, termios
end = os.openpty()[1]
for speed in (termios.B9600, termios.B115200, termios.B4000000):
    line = termios.tcgetattr(end)
    line[4] = line[5] = speed
    termios.tcsetattr(end, termios.TCSANOW, line)
    assert termios.tcgetattr(end)[4:6] == [speed, speed]
print(termios.B9600, termios.B115200, hasattr(termios, "B14400"))
"""
    assert call(prefix.python, "-c", program) == "13 4098 False"
