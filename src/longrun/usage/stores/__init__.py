"""Where events go: what a store does, and which one a site has chosen.

A store is a module of this room with ``open_store(options) -> Store``: it reads its own table of
the configuration from ``options``, which answers wrong values with file, key and remedy. It is
imported late, since a store may need what a console lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, cast, runtime_checkable

from longrun.usage.config import Config, Options
from longrun.usage.event import Event

STORES = ("parquet", "opensearch", "lines")


class Store(Protocol):
    """Takes events. Each is known by its id; who calls is alone.

    ``put`` returns when the events will survive a loss of power, and raises ``StoreAway`` where
    it could not take all of them: then the very same events come again, in the same order, before
    any others. Putting the same events again changes nothing. An event that comes again under
    its id and is not the same **replaces** the one before: the agent tells of a program that runs
    for days with ``exit`` ``none``, and once more, whole, when it has ended. It never puts an
    event that knows less after one that knows more.
    """

    def put(self, events: Sequence[Event]) -> None:
        """Keep these events, or raise ``longrun.errors.StoreAway``."""


@runtime_checkable
class Keeper(Protocol):
    """A store that can also change what it keeps. The agent calls this once a day.

    A store that cannot is given pseudonyms in place of users from the first.
    """

    def prune(self, before: float) -> int:
        """Delete what started before a time (Unix seconds); how many events or files that was."""

    def pseudonymise(self, before: float, name: Callable[[str], str]) -> int:
        """Rename users of what started before a time, drop their uids; how many were renamed.

        ``name`` gives the pseudonym of a user, and a pseudonym as it is.
        """


def open_store(config: Config) -> Store:
    """The store that a configuration names; TelemetryError where it cannot be used."""
    module = importlib.import_module(f"longrun.usage.stores.{config.store}")
    options = Options(config, config.store)
    store = cast(Store, module.open_store(options))
    options.finish()
    return store
