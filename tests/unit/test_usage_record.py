"""Records: what is accepted of lines that anybody can write."""

from __future__ import annotations

import json

import pytest
from usage_maker import NOW, end, record_id, start

from longrun.usage.record import MAX_LINE, BadRecord, Bounds, End, Start, parse, rescue

TIMES = Bounds(earliest=NOW - 1000, latest=NOW + 1000)


def test_a_start_has_what_the_hook_wrote():
    record = parse(start(1, exe="/usr/bin/panel", forbidden=["PYTHONPATH"], layer=None), TIMES)
    assert isinstance(record, Start)
    assert (record.id, record.python, record.release) == (record_id(1), "3.13.5", "2026.1")
    assert (record.exe, record.forbidden, record.layer) == ("/usr/bin/panel", ("PYTHONPATH",), None)


def test_an_end_has_what_the_hook_wrote():
    used = {"/opt/longrun/cp313/lib/python3.13/site-packages": ["numpy", "yaml", "numpy"]}
    line = end(1, exit="exception", exc="ValueError", code=1, use=used, more=3)
    record = parse(line, TIMES)
    assert isinstance(record, End)
    assert (record.exit, record.exc, record.code, record.more) == ("exception", "ValueError", 1, 3)
    assert list(record.use.values()) == [("numpy", "yaml")]


def test_what_a_record_must_not_have_is_not_kept():
    record = parse(start(1, argv=["--password", "secret"]), TIMES)
    assert "secret" not in repr(record)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage", "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"{}", "not version 1"),
        (b"[1]", "not version 1"),
        (start(1, v=2), "not version 1"),
        (start(1, v=True), "not version 1"),
        (start(1, k="middle"), "unknown kind"),
        (start(1, k=["start"]), "unknown kind"),
        (start(1, name="x" * MAX_LINE), "too long"),
        (start(1, name="x" * 300), "wrong name"),
        (start(1, name=7), "wrong name"),
        (start(1, prefix="/" * 1100), "wrong prefix"),
        (start(1, id="../../etc"), "wrong id"),
        (start(1, id="1-abc\n"), "wrong id"),
        (start(1, id=7), "wrong id"),
        (start(1, t="now"), "wrong t"),
        (start(1, t=True), "wrong t"),
        (start(1, t=float("nan")), "wrong t"),
        (start(1, t=float("inf")), "wrong t"),
        (start(1, t=0), "impossible time"),
        (start(1, t=NOW + 5000), "impossible time"),
        (start(1, pid=-1), "wrong pid"),
        (start(1, pid=1 << 40), "wrong pid"),
        (start(1, how="module; rm"), "wrong how"),
        (start(1, forbidden="PYTHONPATH"), "wrong forbidden"),
        (start(1, forbidden=["PYTHONPATH=/home/me"]), "wrong forbidden"),
        (start(1, flags="I E"), "wrong flags"),
        (end(1, code="0"), "wrong code"),
        (end(1, code=1 << 70), "wrong code"),
        (end(1, s="long"), "wrong s"),
        (end(1, use=["numpy"]), "wrong use"),
        (end(1, use={"/opt": "numpy"}), "wrong use"),
        (end(1, use={"/opt": [1]}), "wrong use"),
        (end(1, use={f"/{n}": [] for n in range(65)}), "wrong use"),
    ],
)
def test_a_bad_line_is_refused_with_a_reason_to_count(line, reason):
    with pytest.raises(BadRecord, match=reason):
        parse(line, TIMES)


def test_names_cannot_move_a_terminals_cursor():
    record = parse(start(1, name="a\x1b[2J\u2028b\ud800"), TIMES)
    assert record.name == "a\ufffd[2J\ufffdb\ufffd"


def test_a_program_whose_name_is_not_utf_8_is_recorded():
    line = json.dumps(json.loads(start(1)) | {"name": "caf"}).encode().replace(b"caf", b"caf\xe9")
    assert parse(line, TIMES).name == "caf\ufffd"


def test_site_directories_that_are_no_paths_are_left_out():
    record = parse(end(1, use={"lib": ["a"], "/opt/\x07": ["b"], "/opt": ["c", "", "\n"]}), TIMES)
    assert record.use == {"/opt": ("c",)}


def test_an_exit_of_another_kind_is_unknown():
    assert parse(end(1, exit="vanished"), TIMES).exit == "unknown"


def test_a_record_behind_a_torn_one_is_found():
    whole = start(2).strip()
    assert rescue(start(1)[:80] + whole) == whole
    assert rescue(start(1)[:80]) is None
