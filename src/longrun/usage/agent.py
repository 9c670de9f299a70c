"""The agent: rounds of collecting, pairing and storing, until it is told to end.

It can be killed at any point. Each of its steps is a transaction of the state (``state.py``), and
what a step begins with is still there when it is begun again.
"""

from __future__ import annotations

import contextlib
import pwd
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from longrun import fs
from longrun.errors import StoreAway, TelemetryError
from longrun.usage.collect import Reader, collect
from longrun.usage.config import DAY, HOUR, Config
from longrun.usage.distributions import Distributions
from longrun.usage.event import Event, from_json
from longrun.usage.machine import boot_id, boot_time, is_over
from longrun.usage.pair import Pair, make_event, read_pair
from longrun.usage.pseudonym import Pseudonyms, open_pseudonyms
from longrun.usage.record import Bounds
from longrun.usage.spool import Spool
from longrun.usage.state import DONE, ENDED, PAIRED, STARTED, TOLD, Invocation, State
from longrun.usage.status import Status, metrics, read_status
from longrun.usage.stores import Keeper, Store

BATCH = 5000
"""Events that a store is given at once."""

REMEMBER = DAY
"""Seconds for which ids are kept of what is done, so that a record that comes again is known."""

LATE = 7 * DAY
"""Seconds for which an end is awaited of a process that seems gone; a container may hide it."""

FIRST_WAIT, LONGEST_WAIT = 5.0, 900.0
"""Seconds until a store that was away is asked again: doubled each time, up to the longest."""


@dataclass(kw_only=True)
class Patience:
    """When to ask again after failures; waits grow, and differ from agent to agent."""

    failures: int = 0
    until: float = 0.0

    def failed(self) -> float:
        """Note a failure; for how many seconds to leave it alone."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0**self.failures)
        self.failures = min(self.failures + 1, 20)
        wait: float = longest * random.uniform(0.5, 1.0)
        self.until = time.monotonic() + wait
        return wait

    def succeeded(self) -> None:
        """Forget failures."""
        self.failures, self.until = 0, 0.0

    @property
    def asks(self) -> bool:
        """Whether it is time to ask again."""
        return time.monotonic() >= self.until


class Agent:
    """One agent on one state directory, of which the caller holds the lock."""

    def __init__(self, config: Config, state: State, store: Store) -> None:
        self.config, self.state, self.store = config, state, store
        self._distributions = Distributions(state)
        self._patience = Patience()
        self._user = cache(user_name)

    def round(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Collect, pair, store and keep house, once. TelemetryError where something is wrong.

        A store that is away is no reason not to collect; its error comes last.
        """
        with _told_of_the_system(), self.state.guarded():
            self.collect(stop)
            if self._patience.asks:
                self.store_all(stop)

    def collect(self, stop: Callable[[], bool]) -> None:
        """Read the spool, and pair what is read."""
        with Spool(self.config.spool, self.config.claimed) as spool:
            booted = boot_time()
            self.state.see_boot(boot_id(), booted)
            # asked before the spool is read: whatever a process wrote that is gone by now, is there
            over = [found for found in self.state.open_ids() if is_over(found, booted)]
            if self._has_room():
                reader = Reader(bounds=self._bounds(), boots=self.state.boots())
                complete = collect(spool, self.state, reader, stop)
                self.pair(stop, over if complete else [])
        self.state.write_note("round", repr(time.time()))

    def store_all(self, stop: Callable[[], bool]) -> None:
        """Give the store what waits, and have it keep house; StoreAway where it is away."""
        try:
            self.ship(stop)
            self.keep_house()
        except StoreAway as error:
            wait = self._patience.failed()
            self.state.write_note("error", error.message)
            raise StoreAway(
                f"{error.message}; asked again in {wait:.0f} s", remedy=error.remedy
            ) from error
        self._patience.succeeded()
        if self.state.note("error"):
            self.state.write_note("error", "")

    def pair(self, stop: Callable[[], bool], over: Iterable[str]) -> None:
        """Make events of what is whole, and of what will not become whole, or not soon."""
        self._distributions.begin()
        now = time.time()
        while not stop() and (found := self.state.invocations(PAIRED)):
            self._queue(found, DONE)
        while not stop() and (found := self.state.invocations(ENDED, before=now - HOUR)):
            self._queue(found, DONE)
        while not stop() and (
            found := self.state.invocations(STARTED, before=now - self.config.hold)
        ):
            self._queue(found, TOLD)
        if not stop():
            self._queue(self.state.find(list(over)), TOLD)

    def _queue(self, found: list[Invocation], phase: int) -> None:
        pairs = [read_pair(each) for each in found]
        if unknown := [pair.found.id for pair in pairs if not pair.known]:
            self.state.forget_ids(unknown)
            self.state.count({"refused: of another version": len(unknown)})
        self._distributions.look(site for pair in pairs for site in pair.sites())
        events = [(pair.found.id, self._event(pair).to_json()) for pair in pairs if pair.known]
        if events:
            self.state.queue(events, phase)

    def _event(self, pair: Pair) -> Event:
        uid = pair.found.uid
        used = self._distributions.packages(uid, pair.end.use) if pair.end else {}
        return make_event(pair, host=self.config.host, user=self._user(uid), packages=used)

    def ship(self, stop: Callable[[], bool]) -> None:
        """Give the store everything that waits; StoreAway where it does not take it."""
        while not stop() and (lines := self.state.batch(BATCH)):
            events = {event.id: event for event in self._read(lines)}
            self.store.put(self._named(events.values()))
            self.state.stored(len(lines))

    def _read(self, lines: list[str]) -> Iterator[Event]:
        """Events of the outbox; one that another version of this program left is counted."""
        for line in lines:
            try:
                yield from_json(line)
            except TelemetryError:
                self.state.count({"refused: of another version": 1})

    def _named(self, events: Iterable[Event]) -> list[Event]:
        """Events with users' names, or with pseudonyms where it is time for those."""
        latest = time.time() - self.config.pseudonymise_after * DAY
        if not self._keeps_names():
            latest = float("inf")
        name = self._pseudonyms().name
        return [
            replace(event, uid=None, user=name(event.user)) if event.start <= latest else event
            for event in events
        ]

    def _pseudonyms(self) -> Pseudonyms:
        own = self.config.key.parent == self.config.state
        return open_pseudonyms(self.config.key, self.config.retention if own else None)

    def _keeps_names(self) -> bool:
        """Whether the store may have names: it can change them later, or a site wants it so."""
        if self.config.pseudonymise_after == 0:
            return False
        return bool(getattr(self.store, "names", isinstance(self.store, Keeper)))

    def keep_house(self) -> None:
        """Once a day: pseudonyms in place of names, and nothing older than the retention."""
        now = time.time()
        if now - float(self.state.note("kept") or 0.0) < DAY:
            return
        oldest = now - self.config.retention * DAY
        if isinstance(self.store, Keeper):
            pruned = self.store.prune(oldest)
            latest = now - self.config.pseudonymise_after * DAY
            renamed = self.store.pseudonymise(latest, self._pseudonyms().name)
            self.state.count({"pruned": pruned, "pseudonymised": renamed})
        self.state.forget(DONE, now - REMEMBER)
        told = self.state.invocations(TOLD, before=now - LATE, most=1_000_000)
        self.state.forget_ids([each.id for each in told if is_over(each.id, boot_time())])
        self.state.shrink()
        self.state.write_note("kept", repr(now))

    def _has_room(self) -> bool:
        """Whether more may wait for the store; if not, records stay in the spool."""
        _, size = self.state.waiting()
        full = size > self.config.buffer
        if full != bool(self.state.note("full")):
            self.state.write_note("full", "yes" if full else "")
        return not full

    def _bounds(self) -> Bounds:
        now = time.time()
        return Bounds(earliest=now - self.config.retention * DAY, latest=now + DAY)


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def run(
    agent: Agent, stop: Callable[[], bool], wait: Callable[[float], object], file: Path | None
) -> None:
    """Round after round until ``stop`` says so. What goes wrong is told when it changes."""
    told = ""
    patience = Patience()
    while not stop():
        pause = agent.config.interval * random.uniform(0.9, 1.1)
        try:
            agent.round(stop)
            told = _tell(told, "")
            patience.succeeded()
        except StoreAway as error:
            told = _tell(told, f"the store is away: {error.message.partition(';')[0]}")
        except TelemetryError as error:
            told = _tell(told, f"{error.message}\n  remedy: {error.remedy}")
            pause = max(pause, patience.failed())
        with contextlib.suppress(TelemetryError):
            write_metrics(agent, file)
        if not stop():
            wait(pause)


def write_metrics(agent: Agent, file: Path | None) -> None:
    """Write metrics for Prometheus' collector of text files, where a file is named."""
    if file is not None:
        with _told_of_the_system():
            fs.write_atomic(file, metrics(status_of(agent)))


def status_of(agent: Agent) -> Status:
    """The status of a running agent."""
    return read_status(agent.config, agent.state)


@contextlib.contextmanager
def _told_of_the_system() -> Iterator[None]:
    """What the system refuses within is a TelemetryError: the next round may go better."""
    try:
        yield
    except OSError as error:
        raise TelemetryError(
            f"{error.filename or 'the agent'}: {error.strerror}",
            remedy="see that the disk has room, and the limits in systemctl status longrun-usage",
        ) from error


def _tell(before: str, now: str) -> str:
    if now != before:
        print(f"longrun-usage: {now or 'all is well again'}", file=sys.stderr, flush=True)
    return now
