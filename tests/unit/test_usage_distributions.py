"""Distributions: names that were imported become versions, and no user's trap catches the agent."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from usage_maker import Desk, end, start

from longrun.usage import child, distributions
from longrun.usage.distributions import EVERYBODY, Distributions
from longrun.usage.resolve import MOST_BYTES, canonical, look

ROOT = os.getuid() == 0


def distribution(site: Path, name: str, version: str, record: str = "", top: str = "") -> Path:
    """A distribution's metadata in a site directory."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    if record:
        (info / "RECORD").write_text(record)
    if top:
        (info / "top_level.txt").write_text(top)
    return info


def names(site: Path) -> dict[str, list[list[str]]]:
    found = look(str(site), None, trusted=False)
    assert found is not None
    return found["names"]


@pytest.fixture
def site(tmp_path):
    place = tmp_path / "site"
    place.mkdir()
    return place


def test_import_names_lead_to_distributions(site):
    distribution(site, "pillow", "12.0.0", "PIL/__init__.py,sha256=x,1\n../../../bin/x,,\n")
    distribution(site, "PyYAML", "6.0.2", "yaml/__init__.py,,\n_yaml.cpython-313-x.so,,\n")
    distribution(site, "six", "1.17.0", "six.py,,\n__pycache__/six.cpython-313.pyc,,\n")
    distribution(site, "old_one", "1.0", top="old\nnot a name\n")
    assert names(site) == {
        "PIL": [["pillow", "12.0.0"]],
        "yaml": [["pyyaml", "6.0.2"]],
        "_yaml": [["pyyaml", "6.0.2"]],
        "six": [["six", "1.17.0"]],
        "old": [["old-one", "1.0"]],
    }


def test_the_metadata_of_older_tools_is_read(site):
    egg = site / "python_apt-2.6.0.egg-info"
    egg.mkdir()
    (egg / "top_level.txt").write_text("apt\n")
    (site / "thing-1.2-py3.11.egg-info").mkdir()
    (site / "thing-1.2-py3.11.egg-info" / "top_level.txt").write_text("thing\n")
    assert names(site) == {"apt": [["python-apt", "2.6.0"]], "thing": [["thing", "1.2"]]}


def test_a_name_that_several_share_counts_for_each(site):
    distribution(site, "protobuf", "6.0", "google/protobuf/__init__.py,,\n")
    distribution(site, "googleapis_common_protos", "1.7", "google/api/__init__.py,,\n")
    assert names(site) == {"google": [["googleapis-common-protos", "1.7"], ["protobuf", "6.0"]]}


def test_a_directory_that_did_not_change_is_not_read_again(site):
    distribution(site, "six", "1.17.0", "six.py,,\n")
    stamp = look(str(site), None, trusted=False)["stamp"]
    assert look(str(site), stamp, trusted=False) == {"stamp": stamp}
    distribution(site, "attrs", "25.1", "attr/__init__.py,,\n")
    assert "attr" in look(str(site), stamp, trusted=False)["names"]


@pytest.mark.parametrize("place", ["/nonexistent", "/etc/hostname", "", "x"])
def test_what_is_no_directory_has_no_names(place, site, monkeypatch):
    monkeypatch.chdir(site)
    assert look(place, None, trusted=False) is None or place == ""


def test_traps_in_metadata_are_stepped_over(site, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("shadow.py,,\n")
    distribution(site, "linked", "1").joinpath("RECORD").symlink_to(secret)
    os.mkfifo(distribution(site, "fifo", "1") / "RECORD")
    (site / "link-1.dist-info").symlink_to(tmp_path)
    (site / "file-1.dist-info").write_text("x")
    os.truncate(distribution(site, "huge", "1", "huge.py,,\n") / "RECORD", MOST_BYTES + 1)
    distribution(site, "good", "1", "good.py,,\n")
    assert names(site) == {"good": [["good", "1"]]}


@pytest.mark.skipif(not ROOT, reason="only root makes files of others")
def test_only_what_root_alone_can_change_is_trusted(tmp_path):
    assert look("/usr/lib", None, trusted=True)
    assert look(str(tmp_path), None, trusted=True) is None  # /tmp is everybody's


def test_names_compare_as_indexes_compare_them():
    assert canonical("Ruamel_yaml..clib") == "ruamel-yaml-clib"


class Oracle:
    """Stands for the child: answers from a table, and remembers what it was asked."""

    def __init__(self, *trusted: str) -> None:
        self.trusted = set(trusted)
        self.asked: list[tuple[list[str], int]] = []
        self.hangs: set[str] = set()

    def __call__(self, question: list[tuple[str, str | None]], uid: int) -> bytes:
        self.asked.append(([place for place, _ in question], uid))
        lines = []
        for place, known in question:
            if place in self.hangs:
                break
            if uid == EVERYBODY and place not in self.trusted:
                lines.append([place, None])
            elif known == "1":
                lines.append([place, {"stamp": "1"}])
            else:
                names = {"numpy": [["numpy", place.strip("/")]]}
                lines.append([place, {"stamp": "1", "names": names}])
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.fixture
def found(tmp_path):
    desk = Desk(tmp_path)

    def make(oracle: Oracle) -> Distributions:
        return Distributions(desk.state, oracle)

    return make


def test_a_trusted_directory_is_looked_at_once_for_everybody(found):
    oracle = Oracle("/opt")
    known = found(oracle)
    known.look([(1000, "/opt"), (1001, "/opt")])
    known.look([(1002, "/opt")])
    assert oracle.asked == [(["/opt"], EVERYBODY)]
    for uid in (0, 1000, 1001, 1002):
        assert known.packages(uid, {"/opt": ("numpy", "other")}) == {"numpy": "opt"}


def test_a_users_directory_is_looked_at_as_that_user_and_kept_for_that_user(found):
    oracle = Oracle()
    known = found(oracle)
    known.look([(1000, "/home")])
    assert oracle.asked == [(["/home"], EVERYBODY), (["/home"], 1000)]
    assert known.packages(1000, {"/home": ("numpy",)}) == {"numpy": "home"}
    assert known.packages(1001, {"/home": ("numpy",)}) == {}


def test_roots_programs_have_nobody_look_elsewhere(found):
    oracle = Oracle()
    known = found(oracle)
    known.look([(0, "/home/me")])
    assert oracle.asked == [(["/home/me"], EVERYBODY)]
    assert known.packages(0, {"/home/me": ("numpy",)}) == {}


def test_what_was_found_outlives_the_agent(found):
    oracle = Oracle("/opt")
    found(oracle).look([(1000, "/opt")])
    again = found(oracle)
    again.look([(1000, "/opt")])
    assert again.packages(1000, {"/opt": ("numpy",)}) == {"numpy": "opt"}


def test_a_directory_that_hangs_keeps_the_others_waiting_only_once(found):
    oracle = Oracle("/a", "/b", "/c", "/d")
    oracle.hangs = {"/b"}
    known = found(oracle)
    known.look([(1000, place) for place in ("/a", "/b", "/c", "/d")])
    for place in ("/a", "/c", "/d"):
        assert known.packages(1000, {place: ("numpy",)}) == {"numpy": place[1:]}
    assert known.packages(1000, {"/b": ("numpy",)}) == {}
    oracle.asked.clear()
    known.begin()
    known.look([(1000, "/b"), (1000, "/c")])
    assert oracle.asked == [(["/c"], EVERYBODY)]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\n",
        b"[1]\n",
        b"[[], {}]\n",
        b"[" * 10_000,
        b'["/opt", {"stamp": 7, "names": {}}]\n',
        b'["/opt", {"stamp": "1", "names": [1]}]\n',
        b'["/opt", {"stamp": "1", "names": {"numpy": "x"}}]\n',
        b'["/opt", {"stamp": "1", "names": {"numpy": [["a"], [1, 2], ["\\u001b[2J", "1"]]}}]\n',
        b'["/etc", {"stamp": "1", "names": {"numpy": [["numpy", "1"]]}}]\n',
    ],
)
def test_a_child_that_says_nonsense_is_not_believed(found, said):
    known = found(lambda question, uid: said)
    known.look([(1000, "/opt")])
    assert known.packages(1000, {"/opt": ("numpy",), "/etc": ("numpy",)}) == {}


def test_an_event_has_the_versions_of_what_was_imported(tmp_path):
    site = tmp_path / "site"
    distribution(site, "six", "1.17.0", "six.py,,\n")
    desk = Desk(tmp_path)
    desk.agent._distributions = Distributions(desk.state, lambda q, _: b"".join(_answers(q)))
    (event,) = desk.round(start(1), end(1, use={str(site): ["six", "mine"]}))
    assert event.packages == {"six": "1.17.0"}


def _answers(question):
    for place, known in question:
        yield json.dumps([place, look(place, known, trusted=False)]).encode() + b"\n"


# the child itself


def test_a_child_has_none_of_the_agents_files_and_answers(tmp_path):
    with (tmp_path / "secret").open("w"):
        work = lambda: [str(sorted(os.listdir("/proc/self/fd"))).encode()]  # noqa: E731
        output = child.answer(work, uid=None, seconds=10, most=1000)
    assert output == b"['0', '1']"  # its pipe, and the directory it lists


@pytest.mark.skipif(not ROOT, reason="only root becomes another user")
def test_a_child_is_the_user_and_cannot_be_root_again():
    def work():
        with pytest.raises(PermissionError):
            os.setuid(0)
        yield f"{os.getresuid()} {os.getresgid()} {os.getgroups()}".encode()

    groups = os.getgroups()
    os.setgroups([4, 27])
    try:
        output = child.answer(work, uid=61234, seconds=10, most=1000)
    finally:
        os.setgroups(groups)
    assert output == b"(61234, 61234, 61234) (65534, 65534, 65534) []"


@pytest.mark.skipif(not ROOT, reason="only root becomes another user")
def test_a_users_child_reads_nothing_that_the_user_cannot(tmp_path, monkeypatch):
    place = tmp_path / "private"
    distribution(place, "six", "1.17.0", "six.py,,\n")
    place.chmod(0o700)
    desk = Desk(tmp_path)
    known = Distributions(desk.state)
    known.look([(61234, str(place))])
    assert known.packages(61234, {str(place): ("six",)}) == {}


def test_a_child_that_hangs_or_talks_for_ever_is_ended():
    def hang():
        yield b"first\n"
        time.sleep(1000)

    def talk():
        while True:
            yield b"x" * 1000

    assert child.answer(hang, uid=None, seconds=0.5, most=1000) == b"first\n"
    assert 5000 < len(child.answer(talk, uid=None, seconds=60, most=5000)) < 100_000
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_child_that_fails_is_the_end_of_the_child_only():
    def fail():
        yield b"first\n"
        raise KeyboardInterrupt

    assert child.answer(fail, uid=None, seconds=10, most=1000) == b"first\n"


def test_the_agent_asks_as_nobody_and_as_the_user(monkeypatch):
    asked = []
    monkeypatch.setattr(distributions, "answer", lambda *_, uid, **__: asked.append(uid) or b"")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    distributions._ask([("/opt", None)], EVERYBODY)
    distributions._ask([("/opt", None)], 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    distributions._ask([("/opt", None)], EVERYBODY)
    assert asked == [child.nobody(), 1000, None]
