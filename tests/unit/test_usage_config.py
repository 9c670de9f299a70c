"""The agent's configuration: what a site can say, and how it is told that it said it wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from longrun.errors import SpecError
from longrun.usage.config import Options, load_config
from longrun.usage.stores import open_store


@pytest.fixture
def config(tmp_path):
    """Load a configuration from a text."""

    def load(text: str, **environ: str):
        file = tmp_path / "usage.toml"
        file.write_text(text)
        return load_config(file, environ)

    return load


def test_nothing_said_is_the_defaults(config):
    found = config("")
    assert found.spool == Path("/var/spool/longrun/usage")
    assert found.claimed == Path("/var/spool/longrun/usage.claimed")
    assert found.state == Path("/var/lib/longrun/usage")
    assert (found.store, found.interval, found.hold) == ("parquet", 60, 86400)
    assert (found.retention, found.pseudonymise_after) == (400, 30)
    assert found.host
    assert "." not in found.host


def test_what_the_how_to_says_is_what_nothing_said_means(config):
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "usage-telemetry.md"
    (text,) = re.findall(r"(?ms)^```toml\n(.*?)^```", page.read_text())
    told = config(text)
    assert replace(told, host=config("").host, tables={}) == config("")
    lines = open_store(replace(told, store="lines"))
    assert lines == open_store(config('store = "lines"'))


def test_a_site_says_otherwise(config):
    found = config(
        'spool = "/srv/spool"\nstore = "lines"\nhold_hours = 2\nhost = "c7"\n'
        "pseudonymise_after_days = 0\nbuffer_mb = 5\n[lines]\ndirectory = '/srv/lines'\n"
    )
    assert found.claimed == Path("/srv/spool.claimed")
    assert (found.hold, found.host, found.buffer) == (7200, "c7", 5_000_000)
    assert found.pseudonymise_after == 0
    assert open_store(found).directory == Path("/srv/lines")


def test_the_environment_stands_before_the_file(config):
    found = config('spool = "/srv/spool"', LONGRUN_USAGE_SPOOL="/tmp/s", LONGRUN_USAGE_STATE="/t")
    assert (found.spool, found.state) == (Path("/tmp/s"), Path("/t"))
    assert found.claimed == Path("/tmp/s.claimed")


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        ("spool = 'here'", "spool: expected a path that begins with /, found 'here'", "mend spool"),
        ("store = 'mongo'", "store: expected 'parquet' or 'opensearch' or 'lines'", "mend store"),
        ("interval_seconds = 0", "expected a number, between 0.01 and 86400", ""),
        ("interval_seconds = true", "expected a number, found True", ""),
        ("retention_days = 0", "expected a number, 1 or more", ""),
        ("hold_hours = nan", "hold_hours: expected a number", ""),
        ("host = ''", "host: expected a text", ""),
        ("intervall_seconds = 5", "unknown key 'intervall_seconds'", "'interval_seconds'?"),
        ("[open_search]\nurl = 'x'", r"unknown table \[open_search\]", r"\[opensearch\]\?"),
        ("spool = ", "not TOML", "mend"),
        ("spool = '\xff'", "not TOML", "mend"),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_remedy(config, tmp_path, text, words, remedy):
    (tmp_path / "usage.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError, match=words) as caught:
        load_config(tmp_path / "usage.toml", {})
    assert str(tmp_path / "usage.toml") in caught.value.message
    assert remedy.replace("\\", "") in caught.value.remedy


def test_a_named_file_must_be_there_and_the_systems_need_not(tmp_path, monkeypatch):
    with pytest.raises(SpecError, match="not found"):
        load_config(tmp_path / "none.toml", {})
    monkeypatch.setattr("longrun.usage.config.SYSTEM_FILE", tmp_path / "none.toml")
    assert load_config(None, {}).store == "parquet"


def test_a_store_reads_its_own_table_and_refuses_what_it_does_not_know(config):
    found = config("store = 'lines'\n[lines]\ndirektory = '/srv'\n")
    with pytest.raises(SpecError, match=r"unknown key 'direktory' in \[lines\]") as caught:
        open_store(found)
    assert "'directory'" in caught.value.remedy
    with pytest.raises(SpecError, match=r"lines\.mode: expected a mode such as 0640"):
        open_store(config("store = 'lines'\n[lines]\nmode = 'rw'\n"))


def test_options_know_their_types(config):
    options = Options(config("[opensearch]\nurls = 'https://a'\nretries = 2.5\n"), "opensearch")
    assert options.texts("urls") == ("https://a",)
    assert options.texts("others", ("x", "y")) == ("x", "y")
    with pytest.raises(SpecError, match=r"opensearch\.retries: expected a whole number"):
        options.whole("retries")
    with pytest.raises(SpecError, match=r"opensearch\.user: expected a text, found nothing"):
        options.text("user")
