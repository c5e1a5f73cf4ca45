"""Keeps what the throttle has counted in the database that several gateways have in common.

A login never waits for the database: what is counted here counts at once, and is exchanged twice a second. What could
not be written while the database was away is written when it is back.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gateway.auth.throttle_store import Entry, Tally
from gateway.errors import StoreError
from gateway.store.login_tallies import LoginTallyTable, TallyChange, TallyRow

ENTRIES_MAX = 50_000
"""Beyond this many the oldest are forgotten (invariant 10)."""
_EXCHANGE_SECONDS = 0.5
_TIDY_SECONDS = 600.0

_log = logging.getLogger(__name__)


class SharedTallies:
    """A `Memory`. A process that serves has `run` exchange; any other, such as a command, exchanges at each use."""

    def __init__(self, table: LoginTallyTable, clock: Callable[[], float], keep_seconds: float) -> None:
        self._table = table
        self._clock = clock
        self._keep_seconds = keep_seconds
        self._lock = threading.Lock()
        self._exchanging = threading.Lock()
        self._is_served = False
        self._seen = 0
        self._tidied_at = 0.0
        self._known: dict[str, TallyRow] = {}
        """What the throttle here holds of each source: what it wrote or was told last."""
        self._pending: dict[str, TallyChange] = {}
        self._news: dict[str, TallyRow] = {}

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def news(self) -> tuple[bool, list[Entry]]:
        if not self._is_served:
            self._try_exchange()
        with self._lock:
            # of what waits to be written the news come again, with that added
            news = {source: row for source, row in self._news.items() if source not in self._pending}
            self._news.clear()
            self._known |= news
            _bound(self._known)
        return False, [(source, _tally(row)) for source, row in news.items()]

    def write(self, entries: Sequence[Entry], all_tallies: Mapping[str, Tally]) -> None:  # noqa: ARG002 - a file's need
        with self._lock:
            for source, tally in entries:
                self._note(
                    source,
                    TallyRow(tally.failures, tally.since, tally.banned_until, tally.bans) if tally else TallyRow(),
                )
            _bound(self._pending)
        if not self._is_served:
            self._try_exchange()

    def _note(self, source: str, row: TallyRow) -> None:
        """Remember what is to be written: how many failures more, or, where a ban or a new span began, all of it."""
        known, waiting = self._known.get(source, TallyRow()), self._pending.get(source)
        more = row.failures - known.failures
        goes_on = row.bans == known.bans and more > 0 and (not known.since or row.since == known.since)
        if goes_on and (waiting is None or waiting.adds):
            before = waiting.row.failures if waiting else 0
            self._pending[source] = TallyChange(
                TallyRow(before + more, row.since, row.banned_until, row.bans), adds=True
            )
        else:
            self._pending[source] = TallyChange(row)
        self._known[source] = row

    async def run(self) -> None:
        """Exchange with the other gateways until cancelled."""
        self._is_served = True
        try:
            while True:
                await asyncio.to_thread(self._try_exchange)
                await asyncio.sleep(_EXCHANGE_SECONDS)
        finally:
            self._is_served = False

    def _try_exchange(self) -> None:
        try:
            self.exchange()
        except StoreError as exc:
            _log.debug("failed logins are counted by this gateway alone for now: %s", exc.message)

    def exchange(self) -> None:
        """Write what was counted here, and learn what was elsewhere. Raises: StoreError; then nothing is lost."""
        with self._exchanging:
            self._send()
            seen, rows = self._table.since(self._seen)
            with self._lock:
                self._seen = seen
                self._news.update(rows)
                _bound(self._news)
            self._tidy()

    def _send(self) -> None:
        with self._lock:
            sent, self._pending = self._pending, {}
        if not sent:
            return
        try:
            self._table.add(sent, self._clock())
        except StoreError:
            with self._lock:
                for source, change in sent.items():
                    self._pending[source] = _before(change, self._pending.get(source))
            raise

    def _tidy(self) -> None:
        now = self._clock()
        if self._is_served and abs(now - self._tidied_at) > _TIDY_SECONDS:
            self._table.forget(now - self._keep_seconds, ENTRIES_MAX)
            self._tidied_at = now


def _before(first: TallyChange, then: TallyChange | None) -> TallyChange:
    """Join a change that could not be written with one that came after it."""
    if then is None or not then.adds:
        return then or first
    failures = first.row.failures + then.row.failures
    return TallyChange(TallyRow(failures, first.row.since, first.row.banned_until, first.row.bans), adds=first.adds)


def _tally(row: TallyRow) -> Tally | None:
    return None if row == TallyRow() else Tally(row.failures, row.since, row.banned_until, row.bans)


def _bound(sources: dict[str, Any]) -> None:
    while len(sources) > ENTRIES_MAX:
        del sources[next(iter(sources))]
