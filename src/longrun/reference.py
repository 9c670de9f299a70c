"""Reference pages in Markdown, made from the model and from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from longrun.cli import make_parser
from longrun.errors import LongrunError
from longrun.schema import SINGULAR
from longrun.specs import KINDS, describe
from longrun.usage import cli

NOTE = "<!-- made by ./build.py generate; edit the docstrings and help texts instead -->\n"


def pages() -> dict[str, str]:
    """File name below ``docs/reference/`` to text."""
    return {"commands.md": commands_page(), "specs.md": specs_page(), "usage.md": usage_page()}


def commands_page() -> str:
    """Every verb with its options, and the exit codes."""
    return "\n".join(_commands())


def _commands() -> Iterator[str]:
    yield NOTE
    yield "# Commands\n"
    yield from _tables("./build.py", make_parser())
    yield "## Exit codes\n\n| code | meaning |\n| --- | --- |\n| 0 | Done. |"
    classes: list[type[LongrunError]] = [LongrunError, *LongrunError.__subclasses__()]
    for error in classes:
        yield f"| {error.exit_code} | {' '.join((error.__doc__ or '').split())} |"
    yield "| 130 | Interrupted; finished steps are kept. |\n"


def usage_page() -> str:
    """Every verb of the usage agent's program, with its options."""
    parts = [NOTE, "# `longrun-usage`\n", *_tables("longrun-usage", cli.make_parser())]
    codes = (
        "Exit codes are those of [`build.py`](commands.md#exit-codes); `show` ends as its command."
    )
    return "\n".join([*parts, codes, ""])


def _tables(program: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for name, verb in verbs(parser).items():
        yield f"## `{program} {name}`\n\n{(verb.description or '').rstrip('.')}.\n"
        yield "| argument | meaning |\n| --- | --- |"
        # not format_help, whose form differs from one Python to the next
        for action in verb._actions:
            yield f"| `{_names(action)}` | {action.help} |"
        yield ""


def verbs(parser: argparse.ArgumentParser | None = None) -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb; those of ``build.py`` if no other parser is given."""
    for action in (parser or make_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _names(action: argparse.Action) -> str:
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""
    value = action.metavar if isinstance(action.metavar, str) else choices
    if not action.option_strings:
        return f"[{value}]" if action.nargs in ("?", "*") else value
    takes_value = action.nargs != 0
    return ", ".join(action.option_strings) + (f" {value}" if takes_value else "")


def specs_page() -> str:
    """Every key of every kind of spec file."""
    return "\n".join(_specs())


def _specs() -> Iterator[str]:
    yield NOTE
    yield (
        "# Spec files\n\nTOML files below `specs/`. An unknown key is an error. *Key* says whether "
        "a change of it makes a new key, so that the step and all that stands on it is built anew; "
        "what has no mark documents or locates something and rebuilds nothing.\n"
    )
    seen: list[type[Any]] = []
    for kind, type_ in KINDS.items():
        yield f"## `specs/{kind}/NAME.toml`: {SINGULAR[kind]}\n"
        yield from _table(type_)
        seen += [t for t in _nested(type_) if t not in seen]
    for type_ in seen:
        yield f"## Table: {type_.__name__}\n"
        yield from _table(type_)


def _table(type_: type[Any]) -> Iterator[str]:
    paragraphs = (type_.__doc__ or "").strip().split("\n\n")
    for paragraph in paragraphs:
        yield " ".join(line.strip() for line in paragraph.splitlines()).replace("``", "`") + "\n"
    yield "| key | value | needed | key | meaning |\n| --- | --- | --- | --- | --- |"
    hints = typing.get_type_hints(type_)
    for field in dataclasses.fields(type_):
        needed = field.default is field.default_factory is dataclasses.MISSING
        yield (
            f"| `{field.name}` | {describe(hints[field.name])} | {'yes' if needed else ''} "
            f"| {'•' if field.metadata['key'] else ''} | {field.metadata['doc']} |"
        )
    yield ""


def _nested(type_: type[Any]) -> Iterator[type[Any]]:
    for hint in typing.get_type_hints(type_).values():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                yield part
                yield from _nested(part)
