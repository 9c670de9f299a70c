"""uv's proofs, of which only the facts stay. The texts are uv's own."""

from __future__ import annotations

from longrun.lock.explain import Ask, read_cause

HEAD = "error: No solution found when resolving dependencies\n  cause: "


def asks(text: str) -> list[str]:
    cause = read_cause(HEAD + text)
    assert cause is not None
    return [f"{ask.asker}: {ask.what}" for ask in cause.asks]


def test_facts_stay_and_conclusions_go():
    text = """\
Because all versions of new-tool depend on mid and all versions of mid depend on lib>=2, we can \
conclude that all versions of new-tool depend on lib>=2.
         And because all versions of old-tool depend on lib<1.2, we can conclude that all versions \
of new-tool and all versions of old-tool are incompatible.
         And because you require new-tool and old-tool, we can conclude that your requirements are \
unsatisfiable."""
    assert asks(text) == [
        "new-tool: mid",
        "mid: lib>=2",
        "old-tool: lib<1.2",
        ": new-tool",
        ": old-tool",
    ]


def test_numbered_steps_and_lists():
    text = """\
Because b<=1.0 depends on lib>2 and only the following versions of lib are available:
             lib<=2
             lib>2.5
         we can conclude that b<=1.0 depends on lib>2.5. (1)

         Because b>=2.0 depends on one of:
             lib>=1,<1.5
             lib>1.5
         we can conclude that b is bad.
         And because we know from (1) that b and you require app[x]==1.0 and b>1, we can conclude \
that your requirements are unsatisfiable.

hint: all versions of hint depend on nothing"""
    assert asks(text) == [
        "b<=1.0: lib>2",
        "b>=2.0: lib>=1,<1.5 lib>1.5",
        ": app[x]==1.0",
        ": b>1",
    ]


def test_what_cannot_be_used():
    text = """\
Because high==1.0 has no wheels with a matching platform tag (e.g., `manylinux_2_28_x86_64`) and \
only high==1.0 is available, we can conclude that all versions of high cannot be used.
         And because all versions of wants[a,b] depend on high and you require wants, we can \
conclude that your requirements are unsatisfiable.

hint: Wheels are available for `high` (v1.0) on the following platform: `manylinux_2_34_x86_64`"""
    cause = read_cause(HEAD + text)
    assert cause is not None
    assert cause.unusable == ("high",)
    assert Ask("wants[a,b]", "high") in cause.asks


def test_python_is_no_distribution():
    text = """\
Because the requested Python version (>=3.11.5) does not satisfy Python>=3.12 and all versions of \
lib depend on Python>=3.12, we can conclude that all versions of lib cannot be used."""
    cause = read_cause(HEAD + text)
    assert cause is not None
    assert cause.unusable == ("lib",)
    assert cause.asks == ()


def test_an_unknown_name():
    text = "Because no_Such was not found in the package registry and you require no_Such, we can"
    cause = read_cause(HEAD + text)
    assert cause is not None
    assert cause.unknown == "no-such"


def test_something_else_is_no_cause():
    assert read_cause("error: Request failed after 3 retries") is None


def test_words_that_are_not_understood_stay_as_they_are():
    cause = read_cause(HEAD + "Because of reasons that came with a later uv.")
    assert cause is not None
    assert cause.asks == ()
    assert cause.text == "Because of reasons that came with a later uv."


def test_the_versions_that_are_asked_for():
    assert str(Ask("a", "lib[x]>=1,<2").allowed) == "<2,>=1"
    assert str(Ask("a", "lib>=1,<1.5 lib>1.5").allowed) == ""
    assert str(Ask("a", "lib").allowed) == ""
