"""Writes down that a program starts and ends; ``site`` executes it (docs/decisions/0012).

Loaded by every start of every program, so it is short, imports nothing that is not there already,
and never fails: what cannot be written is not. One line of JSON each, by one write, into the user's
file of the spool; no spool, no lines. Never arguments, values of the environment, or where the user
is. Docstrings, annotations and f-strings would be loaded at each start too, and so are not used.
"""

import _imp
import _thread
import posix
import sys
import time

# written when the prefix or the layer is sealed
RELEASE = ""
LAYER = ""

# mode 1733: a user can make a file there, and see no other's
SPOOL = b"/var/spool/longrun/usage"

# a site's administrator makes this file to have nothing written
OFF = b"/etc/longrun/usage-off"

# bytes of a line: one write of less than a page is never torn by another's
LONGEST = 3900

# bytes of a user's file; the agent empties it, and without one it must not fill the disk
MOST = 64 << 20

FLAGS = posix.O_WRONLY | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC

SYSTEMS = (b"GITLAB_CI", b"GITHUB_ACTIONS", b"JENKINS_URL", b"CI")
FORBIDDEN = (b"PYTHONPATH", b"PYTHONHOME", b"LD_LIBRARY_PATH", b"LD_PRELOAD")


# Write the start record; at exit, the end record follows. A directory in the environment, for
# `longrun-usage show`, must have the file already: whoever can set the environment of another's
# program cannot make it create anything.
def start():
    # type: () -> None
    spool, flags, user = SPOOL, FLAGS | posix.O_CREAT, posix.geteuid()
    wanted = posix.environ.get(b"LONGRUN_USAGE")
    if wanted:
        if wanted[:1] != b"/" or user != posix.getuid():
            return
        spool, flags = wanted, FLAGS
    if posix.access(OFF, posix.F_OK) or not _thread._is_main_interpreter():  # type: ignore[attr-defined]
        return
    path = b"%b/%d.jsonl" % (spool, user)
    wall, begin, pid = time.time_ns(), time.monotonic_ns(), posix.getpid()
    identity = "%d-%x" % (pid, wall)
    if append(path, flags, start_record(identity, wall, pid)):
        callback = end(path, flags, identity, begin, pid, len(sys.modules))  # type: ignore[no-untyped-call]
        next(callback)
        # an import would take ten times as long, and put the module where programs see it
        spec = type(sys.implementation)(name="atexit")  # type: ignore[call-arg]
        atexit = _imp.create_builtin(spec)  # type: ignore[arg-type]
        _imp.exec_builtin(atexit)
        atexit.register(callback.close)


# Write a line at the end of the user's own file; whether that went well.
def append(path, flags, text):
    # type: (bytes, int, str) -> bool
    line = text.encode()
    for _ in range(2):
        try:
            file = posix.open(path, flags, 0o600)
        except BlockingIOError:
            continue  # the agent took the file away after its name was looked up
        try:
            mode, _, _, links, user, _, size, *_ = posix.fstat(file)
            written = (
                links == 1
                and mode & 0o170022 == 0o100000
                and user == posix.geteuid()
                and size < MOST
                and len(line) <= LONGEST
                and may_grow(size + len(line))
                and posix.write(file, line) == len(line)
            )
        finally:
            posix.close(file)
        if links:  # else the agent has removed it
            return written
    return False


# Whether a file may have that size: beyond the limit, SIGXFSZ would kill the program. Python
# ignores the signal, unless a program embeds it or wants the signal itself.
def may_grow(size):
    # type: (int) -> bool
    signal = sys.modules.get("_signal")  # its first import would take over Ctrl-C
    if signal and signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN:
        return True
    file = posix.open(b"/proc/self/limits", posix.O_CLOEXEC)
    try:
        line = posix.read(file, 4096).partition(b"Max file size")[2].split(None, 1)[0]
    finally:
        posix.close(file)
    return line == b"unlimited" or size <= int(line)


def start_record(identity, wall, pid):
    # type: (str, int, int) -> str
    how, name, program = kind(sys.orig_argv, sys.argv)
    environment, flags = posix.environ, sys.flags
    system = ""
    for variable in SYSTEMS:
        if variable in environment:
            system = variable.partition(b"_")[0].lower().decode()
            break
    names = ""
    for variable in FORBIDDEN:
        # an empty value has no effect, and PYTHON... has none under -E and -I
        if environment.get(variable) and not (flags.ignore_environment and b"PY" in variable):
            names += ',"%s"' % variable.decode()
    letters = ""
    # in the order of sys.flags; a dot for what is not told
    for letter, value in zip("di.OBs.Evbq.I", flags, strict=False):
        if value and letter != ".":
            letters += letter
    return (
        '{"v":1,"k":"start","id":"%s","t":%d.%06d,"pid":%d,"ppid":%d,"py":"%d.%d.%d","release":%s,'
        '"layer":%s,"prefix":%s,"base":%s,"exe":%s,"how":"%s","name":%s,"ci":%s,"forbidden":[%s],'
        '"flags":"%s"}\n'
        % (
            *(identity, *divmod(wall // 1000, 1000000), pid, posix.getppid()),
            *sys.version_info[:3],
            *(quoted(RELEASE), quoted(LAYER), quoted(sys.prefix), quoted(sys.base_prefix)),
            *(quoted(program), how, quoted(name, 120), quoted(system), names[1:], letters),
        )
    )


# How the program was started, its name, and the executable where that is no `python`.
def kind(given, words):
    # type: (list[str], list[str]) -> tuple[str, str, str]
    first = words[0] if words else ""
    # parsed by nobody, the words are those of a program that embeds Python
    embedded = not given or (first and len(given) == len(words))
    program = ""
    if embedded or "/python" not in sys.executable[-12:]:
        program = posix.readlink("/proc/self/exe")
    if embedded:
        return "embedded", program.rpartition("/")[2], program
    word = given[-len(words)]
    if first == "-m":
        # in one word with the option, as in -Impip
        return "module", word.partition("m")[2] if word[:1] == "-" else word, program
    if first == "-c":
        name = word.partition("from multiprocessing.")[2].partition(" ")[0]
        if name in ("spawn", "forkserver", "resource_tracker"):
            return "child", "multiprocessing." + name, program
        return "command", "", program
    if first in ("", "-"):
        terminal = sys.flags.interactive or posix.isatty(0)
        return "interactive" if terminal else "stdin", "", program
    return "script", first.rstrip("/").rpartition("/")[2], program


# Write the end record when closed, unless this is a fork of the program. A generator, since a
# handler of the program's can fail at the first instruction of any function, and what leaves a
# callback is printed. Closing one goes on inside of its `try`.
def end(path, flags, identity, begin, pid, known):  # type: ignore[no-untyped-def]
    try:
        try:
            yield
        except GeneratorExit:
            if posix.getpid() == pid:
                append(path, flags, end_record(identity, time.monotonic_ns() - begin, known))
    except BaseException:
        return


# The interpreter leaves in sys._exit_status how the program ends (patches/cpython); one that
# embeds Python does not.
def end_record(identity, wall, known):
    # type: (str, int, int) -> str
    how, status, name = "unknown", "null", ""
    value = getattr(sys, "_exit_status", None)
    if value:
        status = value[0] & 255
        how = "status" if status else "ok"
        exception = getattr(sys, "last_type", None)
        if value[1] and exception:
            how, name = "exception", exception.__name__
            if exception is KeyboardInterrupt:
                status = "null"  # Ctrl-C ends the process by its signal
    text, size, more = "", LONGEST - 1400, 0
    for path, names in used(known).items():
        line = '","'.join(sorted(names))
        if len(line) > size:
            line = line[:size].rpartition('","')[0]
            more += len(names) - line.count(",") - bool(line)
        size -= len(line)
        if line:
            text += ',%s:["%s"]' % (quoted(path), line)
    return (
        '{"v":1,"k":"end","id":"%s","t":%d.%06d,"s":%d.%06d,"exit":"%s","code":%s,"exc":%s,'
        '"use":{%s},"more":%d}\n'
        % (
            *(identity, *divmod(time.time_ns() // 1000, 1000000), *divmod(wall // 1000, 1000000)),
            *(how, status, quoted(name, 120), text[1:], more),
        )
    )


# Names below each site directory that modules were imported from: numpy, yaml. A namespace package
# has no file of its own: those in it are looked at. So many modules were there when the program
# began; what is read of the others is in their own dictionaries: nothing is loaded by asking.
def used(known):
    # type: (int) -> dict[str, set[str]]
    tail = "/%s/python%d.%d/site-packages/" % (sys.platlibdir, *sys.version_info[:2])
    prefixes = sys.prefix, sys.base_prefix
    names = {}  # type: dict[str, set[str]]
    spaces = set()  # type: set[str]
    for name, module in list(sys.modules.copy().items())[known:]:
        if "." in name and (not spaces or name.rpartition(".")[0] not in spaces):
            continue
        try:
            value = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue
        path = value.get("__file__")
        if path:
            # not the module's own name: one can stand in for another
            path, _, word = path.partition(tail) if type(path) is str else ("", "", "")
            if word and path in prefixes:
                word = word.partition("/")[0].partition(".")[0]
                if word.isidentifier():
                    names.setdefault(path + tail[:-1], set()).add(word)
        elif "__path__" in value:
            spaces.add(name)
    return names


# A string of JSON, `null` for none; cut after so many bytes.
def quoted(text, size=500):
    # type: (str, int) -> str
    if not text:
        return "null"
    if not (text.isascii() and text.isprintable() and len(text) <= size):
        for word in text:
            if not word.isprintable():
                text = text.replace(word, "?")
        text = text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
    return '"%s"' % text.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "_longrun_usage":
    start()
