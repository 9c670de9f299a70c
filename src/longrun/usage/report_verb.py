"""The verbs ``report`` and ``setup-store``: their options, and what they print."""

from __future__ import annotations

import argparse
import contextlib
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrun.errors import UsageError
from longrun.usage.config import Config, Options, load_config

if TYPE_CHECKING:
    from longrun.usage.report import Named, Nest, Source, Span

VIEWS = ("package", "interpreter", "host", "layer", "ci")


def add(verbs: Any) -> None:
    """Add the verbs to the command line of ``longrun-usage``."""
    summary = "tell what is used: interpreters, packages, environments, failures"
    sub = verbs.add_parser("report", help=summary, description=f"T{summary[1:]}.")
    sub.set_defaults(function="report_verb:report")
    sub.add_argument(
        "--since", default="90d", metavar="SPAN", help="90d, 12w or 2026-09-01; 90d without"
    )
    sub.add_argument("--by", choices=VIEWS, help="only this, all of it")
    sub.add_argument(
        "--retire", default="", metavar="SERIES", help="what is to go, such as 3.11; the oldest"
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON for a script")
    form.add_argument("--html", type=Path, metavar="FILE", help="write one page with plots")
    where = sub.add_mutually_exclusive_group()
    where.add_argument(
        "--data", type=Path, metavar="DIR", help="a Parquet store; the configured one without"
    )
    where.add_argument("--opensearch", metavar="URL", help="a cluster; see [opensearch]")
    _config(sub)

    summary = "give OpenSearch the template, pipeline and retention policy"
    sub = verbs.add_parser("setup-store", help=summary, description=f"G{summary[1:]}.")
    sub.set_defaults(function="report_verb:setup_store")
    sub.add_argument("--shards", type=int, default=1, metavar="N", help="of each day's index")
    sub.add_argument("--replicas", type=int, default=1, metavar="N", help="of each shard")
    sub.add_argument("--opensearch", metavar="URL", help="another cluster than the configured")
    sub.add_argument("--json", action="store_true", help="print JSON for a script")
    _config(sub)


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="/etc/longrun/usage.toml without"
    )


def report(arguments: argparse.Namespace) -> int:
    """Print a report, or write its page."""
    from longrun.usage.report import make_report, make_view, span_of

    if arguments.html and arguments.by:
        raise UsageError("--by and --html do not go together", remedy="the page has all of it")
    now = datetime.now(UTC)
    span = span_of(arguments.since, now)
    with contextlib.ExitStack() as stack:
        source = _source(arguments, span, stack)
        if arguments.by:
            return _print_view(arguments, make_view(source, arguments.by))
        found = make_report(source, span, retire=arguments.retire, now=now)
    if arguments.html:
        from longrun.fs import write_atomic
        from longrun.usage.report_html import render

        write_atomic(arguments.html, render(found))
        print(arguments.html)
    elif arguments.json:
        print(json.dumps(found.document(), indent=1))
    else:
        from longrun.usage.report_text import lines_of, print_lines

        print_lines(lines_of(found))
    return 0


def _print_view(arguments: argparse.Namespace, rows: tuple[Named | Nest, ...]) -> int:
    from longrun.usage.report import SCHEMA
    from longrun.usage.report_text import print_lines, view_lines

    if arguments.json:
        document = {"schema": SCHEMA, "by": arguments.by, "rows": [asdict(row) for row in rows]}
        print(json.dumps(document, indent=1))
    else:
        print_lines(view_lines(arguments.by, rows)[1:])
    return 0


def _source(arguments: argparse.Namespace, span: Span, stack: contextlib.ExitStack) -> Source:
    """The store that is asked: the one that is named, or the one that the agent is told to use."""
    if arguments.data:
        return _parquet(arguments.data, span, stack)
    config = load_config(arguments.config)
    if arguments.opensearch or config.store == "opensearch":
        from longrun.usage.report_opensearch import OpenSearchSource
        from longrun.usage.stores.opensearch import index_name, make_search

        options = _opensearch(config, arguments.opensearch)
        found = OpenSearchSource(make_search(options), index_name(options), span)
        return stack.enter_context(found)
    if config.store == "lines":
        raise UsageError(
            f"{config.file}: events go out as lines, which no report reads",
            remedy="give --opensearch URL of where they arrive, or --data of a Parquet store",
        )
    options = Options(config, "parquet")
    return _parquet(options.path("directory", config.state / "parquet"), span, stack)


def _parquet(directory: Path, span: Span, stack: contextlib.ExitStack) -> Source:
    from longrun.usage.report_duckdb import ParquetSource

    return stack.enter_context(ParquetSource(directory, span))


def _opensearch(config: Config, url: str | None) -> Options:
    """The table ``[opensearch]``, with another URL where one is named."""
    if url:
        table = {**config.tables.get("opensearch", {}), "url": url}
        config = replace(config, tables={**config.tables, "opensearch": table})
    return Options(config, "opensearch")


def setup_store(arguments: argparse.Namespace) -> int:
    """Print what was done in the cluster."""
    from longrun.term import print_rows
    from longrun.usage.stores.opensearch import index_name, make_search, setup

    config = load_config(arguments.config)
    options = _opensearch(config, arguments.opensearch)
    search = make_search(options)
    days = int(config.retention)
    with contextlib.closing(search):
        done = setup(
            search,
            index_name(options),
            days=days,
            shards=arguments.shards,
            replicas=arguments.replicas,
        )
    if arguments.json:
        print(json.dumps({"schema": 1, "cluster": search.url, **done}, indent=1))
        return 0
    print_rows([(name, state) for name, state in done.items()])
    if done["policy"] == "missing":
        print(
            "This cluster has no index state management: let one agent delete old indices\n"
            f"([opensearch] delete_old = true), or whatever else deletes them after {days} days."
        )
    return 0
