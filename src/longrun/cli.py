"""The command line: verbs and options, and how errors end the process."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from longrun import __version__
from longrun.errors import LongrunError

DESCRIPTION = """\
Longrun builds and keeps a curated Python for control rooms: spec files in, sealed and relocatable
prefixes out."""

EPILOG = """\
exit status: 0 done; 1 other failure; 2 usage; 3 spec file; 4 source; 5 build; 6 audit; 7 store;
8 machine lacks something; 9 a check of the matrix failed; 10 telemetry; 130 interrupted (what was
finished is kept)"""


AddVerb = Callable[[str, str, str], argparse.ArgumentParser]
"""Adds a verb: its name, what it does, and ``module:function`` below ``longrun.verbs``."""


def make_parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    parser = argparse.ArgumentParser(
        prog="build.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longrun {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")

    def verb(name: str, summary: str, function: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        sub.set_defaults(function=function)
        return sub

    _verbs_that_build(verb)
    _verbs_of_the_stack(verb)
    _verbs_that_tell(verb)
    _verbs_that_share(verb)
    _verbs_of_usage(verb)
    _verbs_that_keep(verb)
    _verbs_that_test(verb)
    return parser


def _verbs_that_build(verb: AddVerb) -> None:
    sub = verb("build", "build a release's prefixes and archives into dist/", "build:build")
    _release(sub)
    _running(sub)
    sub.add_argument(
        "--step",
        action="append",
        default=[],
        metavar="STEP",
        help="build only this step and what it needs; may be repeated",
    )
    sub.add_argument("--keep-failed", action="store_true", help="keep the files of a failed step")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be built")

    sub = verb("fetch", "get every source of a release, for a later build --offline", "build:fetch")
    _release(sub, every=True)
    _running(sub)

    sub = verb("image", "build container images of a release into dist/", "image:image")
    sub.add_argument("name", nargs="*", metavar="IMAGE", help="such as ci; all without")
    _release(sub, option=True, layers=False)
    sub.add_argument("--base", metavar="NAME", help="another base than the specs say")
    sub.add_argument("--push", metavar="REGISTRY", help="push them, such as registry.example.org")
    sub.add_argument(
        "--overwrite", action="store_true", help="push though a tag stands for other content"
    )
    sub.add_argument(
        "--sign", type=Path, metavar="KEY", help="sign them with an SSH key; signing_key without"
    )
    _running(sub)

    sub = verb(
        "image-verify", "check who signed an image, and every layer of it", "image_verify:run"
    )
    sub.add_argument(
        "image", metavar="IMAGE", help="registry.example.org/longrun/ci:2026.1, or an archive"
    )
    sub.add_argument(
        "--allowed-signers",
        type=Path,
        required=True,
        metavar="FILE",
        help="whose signatures count, as ssh-keygen(1) has it",
    )
    sub.add_argument(
        "--identity", default="", metavar="NAME", help="who must have signed; any of FILE without"
    )
    _json(sub)

    sub = verb("base", "make a base of images anew, and lock it", "image:base")
    sub.add_argument("name", metavar="NAME", help="such as debian-12-ci")
    sub.add_argument(
        "--render", action="store_true", help="only print the Containerfile of an AlmaLinux base"
    )
    sub.add_argument(
        "--from",
        dest="origin",
        default="",
        metavar="IMAGE",
        help="the image that a Containerfile begins from, with its digest",
    )
    _running(sub)


def _verbs_of_the_stack(verb: AddVerb) -> None:
    sub = verb("add", "take a package into the stack: spec, locks, what comes along", "add:add")
    sub.add_argument(
        "requirement", metavar="NAME", help="with extras and versions, if any: 'psycopg[binary]>=3'"
    )
    sub.add_argument("--layer", required=True, metavar="L", help="layer of the stack it goes to")
    sub.add_argument("--why", default="", metavar="TEXT", help="what a control room does with it")
    sub.add_argument("--owner", default="unassigned", metavar="TEXT", help="who answers for it")
    sub.add_argument("--sdist", action="store_true", help="build it where there is no wheel")
    _release(sub, option=True, every=True, layers=False)
    sub.add_argument("--dry-run", action="store_true", help="only say what would change")
    _json(sub)

    sub = verb("lock", "make the locks what the specs say; show what changes", "lock:lock")
    sub.add_argument("release", nargs="?", metavar="RELEASE", help="such as 2026.1")
    sub.add_argument(
        "--upgrade", action="append", default=[], metavar="NAME", help="take the newest of NAME"
    )
    sub.add_argument("--upgrade-all", action="store_true", help="take the newest of everything")
    sub.add_argument(
        "--accept", action="append", default=[], metavar="NAME", help="let in what comes along"
    )
    sub.add_argument("--accept-all", action="store_true", help="let in all that comes along")
    sub.add_argument("--check", action="store_true", help="only say whether they are (status 3)")
    sub.add_argument("--dry-run", action="store_true", help="only say what would change")
    _json(sub)

    sub = verb("outdated", "tell what is newer, and what holds it back", "outdated:outdated")
    _release(sub, every=True, layers=False)
    _json(sub)


def _verbs_that_tell(verb: AddVerb) -> None:
    sub = verb("plan", "list the steps of a release: cached, or to build and why", "plan:plan")
    _release(sub)
    sub.add_argument("--all", action="store_true", help="a line for every step, on a terminal too")
    _json(sub)

    sub = verb("list", "list what a release ships, layer by layer", "list:list_")
    _release(sub, every=True, without="all of them without")
    _json(sub)

    sub = verb("show", "tell all about a distribution of the stack", "show:show")
    sub.add_argument("name", metavar="NAME", help="such as numpy")
    _release(sub, option=True, every=True, layers=False)
    _json(sub)

    sub = verb("why", "explain a step or a distribution: origin, who needs it, state", "why:why")
    sub.add_argument("step", metavar="NAME", help="such as openssl, library/openssl or numpy")
    _release(sub, option=True, every=True)
    _json(sub)

    sub = verb("log", "print the log of a step's last build", "why:log")
    sub.add_argument("step", metavar="STEP", help="such as openssl, library/openssl or numpy")
    _release(sub, option=True, every=True)
    sub.add_argument("--path", action="store_true", help="print only where the log is")

    sub = verb("audit", "inspect a prefix without running anything in it", "audit:run")
    sub.add_argument("path", metavar="PATH", type=Path, help="the directory of any prefix")
    sub.add_argument(
        "--floor",
        metavar="TAG",
        help="the oldest platform to hold it against, such as manylinux_2_28_x86_64; "
        "a prefix of Longrun's says its own",
    )
    _json(sub)


def _verbs_that_share(verb: AddVerb) -> None:
    sub = verb(
        "export", "write layers as pylock.toml, requirements and a metapackage", "export:export"
    )
    _release(sub, every=True, without="all of them without")
    sub.add_argument(
        "--index",
        metavar="ADDRESS",
        help="the package index that the files are to come from; this machine's without",
    )
    sub.add_argument(
        "--output", type=Path, metavar="DIR", help="write below DIR; dist/export/RELEASE without"
    )
    _json(sub)

    sub = verb("mirror", "write a static package index of everything in the locks", "mirror:mirror")
    sub.add_argument("directory", metavar="DIR", type=Path, help="made, or added to")
    _release(sub, every=True, without="all of them without")
    _running(sub)
    sub.add_argument("--dry-run", action="store_true", help="only say what would be added")
    _json(sub)


def _verbs_of_usage(verb: AddVerb) -> None:
    sub = verb("usage", "what longrun-usage does: show, agent, status, report", "usage:usage")
    sub.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="VERB",
        help="with its arguments; usage VERB --help tells of them",
    )

    sub = verb("usage-program", "write longrun-usage as a file to install", "usage:make_program")
    sub.add_argument(
        "--out", type=Path, metavar="FILE", help="where to; dist/longrun-usage without"
    )


def _verbs_that_keep(verb: AddVerb) -> None:
    sub = verb("verify", "hash the store's entries again, compare with records", "keep:verify")
    sub.add_argument("--repair", action="store_true", help="remove what is damaged")
    _json(sub)

    sub = verb("gc", "remove what no checkout's builds use any more", "keep:gc")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    _json(sub)

    sub = verb("doctor", "tell what this machine has and lacks", "doctor:doctor")
    _json(sub)


def _verbs_that_test(verb: AddVerb) -> None:
    sub = verb("test", "run Longrun's tests; the slow ones on really built prefixes", "test:test")
    sub.add_argument("--unit", action="store_true", help="only the tests that need no build")
    _running(sub)
    sub.add_argument("pytest", nargs="*", metavar="-- ARG", help="arguments for pytest")

    sub = verb("selftest", "run CPython's own test suite on a built prefix", "test:selftest")
    sub.add_argument("python", metavar="VERSION", help="such as 3.13")
    sub.add_argument("tests", nargs="*", metavar="TEST", help="such as test_ssl; all without")
    _running(sub)
    _json(sub)

    sub = verb("matrix", "run every check with every interpreter in every system", "matrix:matrix")
    _release(sub, every=True, layers=False)
    sub.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="NAME",
        help="such as pytango, or a group such as EPICS; may be repeated; all without",
    )
    sub.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="SYSTEM",
        help="host, bullseye, bookworm or trixie; may be repeated; all without",
    )
    _running(sub)
    sub.add_argument("--fresh", action="store_true", help="run again what is in the store, too")
    sub.add_argument(
        "--output", type=Path, metavar="DIR", help="write the report to DIR; dist/ without"
    )
    sub.add_argument("--compare", type=Path, metavar="FILE", help="an earlier matrix (its JSON)")
    sub.add_argument("--dry-run", action="store_true", help="only say which cells would be run")
    _json(sub)

    sub = verb("check", "run one check, and show its log as it comes", "check:check")
    sub.add_argument("name", metavar="NAME", help="such as pytango")
    _release(sub, option=True, layers=False)
    sub.add_argument("--where", default="host", metavar="SYSTEM", help="host without")
    _running(sub)
    sub.add_argument("--shell", action="store_true", help="open a shell where it would run")

    sub = verb(
        "generate", "write the schemas of spec files and the reference pages", "generate:generate"
    )
    sub.add_argument("--check", action="store_true", help="only say whether they are up to date")


def _release(
    parser: argparse.ArgumentParser,
    *,
    option: bool = False,
    every: bool = False,
    layers: bool = True,
    without: str = "the bare interpreter without",
) -> None:
    text = "such as 2026.1; the latest without"
    if option:
        parser.add_argument("--release", metavar="RELEASE", help=text)
    else:
        parser.add_argument("release", nargs="?", metavar="RELEASE", help=text)
    default = "all of the release without" if every else "the release's default without"
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="V",
        help=f"interpreter, such as 3.13; may be repeated; {default}",
    )
    if layers:
        parser.add_argument(
            "--layer",
            action="append",
            default=[],
            metavar="L",
            help=f"layer of the stack, such as controls, or all; may be repeated; {without}",
        )


def _running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="compile N at once; all cores without",
    )
    parser.add_argument("--offline", action="store_true", help="use no network")
    parser.add_argument("--setup", action="store_true", help="install missing system packages")
    parser.add_argument(
        "--sources", type=Path, metavar="DIR", help="look for source files in DIR first"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for a script")


def main(root: Path, argv: list[str]) -> int:
    """Run one verb; the exit status is 0 or the error's."""
    arguments = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    module, _, function = arguments.function.partition(":")
    try:
        run = getattr(importlib.import_module(f"longrun.verbs.{module}"), function)
        return int(run(root, arguments))
    except LongrunError as error:
        print(f"build.py: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\nbuild.py: interrupted; finished steps are kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # the reader of a pipe has seen enough, as in `build.py plan | head`
        sys.stderr.close()
        return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
