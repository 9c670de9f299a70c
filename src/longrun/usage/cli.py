"""The command line of ``longrun-usage``: verbs and options, and how errors end the process."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from longrun import __version__
from longrun.errors import LongrunError
from longrun.usage import report_verb

DESCRIPTION = "Tells which Python, of which packages, is used where, without asking anybody."


def make_parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    parser = argparse.ArgumentParser(prog="longrun-usage", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"longrun {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")

    def verb(name: str, summary: str, function: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        sub.set_defaults(function=function)
        return sub

    sub = verb("show", "run a command and print what would be recorded of it", "show:show")
    sub.add_argument("--json", action="store_true", help="print JSON for a script")
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="with arguments")

    sub = verb("agent", "collect the records of this machine and store them", "agent_verb:agent")
    sub.add_argument("--once", action="store_true", help="one round, then end")
    sub.add_argument("--metrics", type=Path, metavar="FILE", help="write metrics for Prometheus")
    _config(sub)

    sub = verb(
        "status", "tell what waits, what was refused, and when all went well", "status:status"
    )
    _config(sub)

    report_verb.add(verbs)
    return parser


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="/etc/longrun/usage.toml without"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for a script")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status is 0, the error's, or with ``show`` the command's."""
    arguments = make_parser().parse_args(argv)
    try:
        function = arguments.function
        if isinstance(function, str):
            module, _, name = function.partition(":")
            function = getattr(importlib.import_module(f"longrun.usage.{module}"), name)
        return int(function(arguments))
    except LongrunError as error:
        print(f"longrun-usage: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
