"""How much of the journal one user, and everybody who is nobody yet, may fill: a rate, and then waiting or counting.

What can wait is held back by whoever asks `debt_seconds`; refusals that cannot wait are counted, many in one record.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gateway.audit.event import Event, new_reference
from gateway.audit.journal import Journal
from gateway.audit.record import encode
from gateway.errors import JournalError
from gateway.model import Actor

USER_BYTES_PER_SECOND = 128 << 10
USER_BURST_SECONDS = 32
STRANGER_BYTES_PER_SECOND = 4 << 10
"""Everybody together who has not logged in; a minute of any flood stays under 1 MB with its burst and its counts."""
STRANGER_BURST_BYTES = 128 << 10
SOURCE_BYTES_PER_SECOND = 128
SOURCE_BURST_BYTES = 16 << 10
"""One address of these: some twenty refusals at once, then one in four seconds."""
COUNT_SECONDS = 15.0
ROWS_MAX = 32
SOURCES_MAX = 4096
_OVERHEAD_BYTES = 100  # number, hash and frame of a record
_FULL_SECONDS = 5.0
_BAN = "source.banned"
_REFUSALS = frozenset({"login.refused", "channel.refused", _BAN})
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Bucket:
    """Bytes that may be written now; below zero it is in debt."""

    bytes_per_second: float
    burst_bytes: float
    at: float
    level: float

    def refill(self, now: float) -> None:
        self.level = min(self.burst_bytes, self.level + (now - self.at) * self.bytes_per_second)
        self.at = now


@dataclass(slots=True)
class _Counted:
    """Refusals of one kind that were counted instead of written."""

    last: Event
    first_at: datetime
    count: int = 1


@dataclass(slots=True)
class _Others:
    """The same for more sources than have a row."""

    last: Event
    first_at: datetime
    count: int = 0
    sources: set[tuple[str, str]] = field(default_factory=set)


_Key = tuple[str, str, str, str]


class EventBudget:
    """A recorder in front of the journal. Nothing is dropped: what is not written by itself is counted and said."""

    def __init__(
        self,
        journal: Journal,
        user_bytes_per_second: int = USER_BYTES_PER_SECOND,
        *,
        count_seconds: float = COUNT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._user_rate = user_bytes_per_second
        self._count_seconds = count_seconds
        self._clock = clock
        self._guard = threading.Lock()
        self._users: dict[str, _Bucket] = {}
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        self._strangers = self._bucket(STRANGER_BYTES_PER_SECOND, STRANGER_BURST_BYTES)
        self._counted: dict[_Key, _Counted] = {}
        self._others: dict[str, _Others] = {}
        self._timer: threading.Timer | None = None

    def submit(self, event: Event) -> "Future[None]":
        """Write an event and charge for it, or count it. The future is as `Journal.submit`'s."""
        body = encode(event)
        with self._guard:
            if self._is_over(event, len(body) + _OVERHEAD_BYTES):
                self._count(event)
                return _done()
        return self._journal.submit_encoded(event, body)

    def debt_seconds(self, actor: Actor) -> float:
        """Return how long a user's next event should wait; what causes it is not read until then."""
        if not _is_user(actor):
            return 0.0
        with self._guard:
            bucket = self._user(actor.name)
            return max(0.0, -bucket.level / bucket.bytes_per_second)

    def hold_seconds(self, actor: Actor) -> float:
        """Return how long what a user sends should not be read: their debt, or a while where the disk is full."""
        return _FULL_SECONDS if self._journal.is_short else self.debt_seconds(actor)

    def charge(self, actor: Actor, size_bytes: int) -> None:
        """Take from a user's budget ahead of an event that will come, or give back what was taken ahead."""
        if _is_user(actor):
            with self._guard:
                self._user(actor.name).level -= size_bytes

    def flush(self) -> None:
        """Write what was counted so far, as one record for each kind and source."""
        with self._guard:
            counted, self._counted = self._counted, {}
            others, self._others = self._others, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        try:
            for event in [*map(_told, counted.values()), *map(_told_of_others, others.values())]:
                self._journal.submit(event)
        except JournalError as exc:  # it is closed: whoever closed it has flushed before
            _log.error("counted refusals could not be journaled: %s", exc.message)

    def _is_over(self, event: Event, size_bytes: int) -> bool:
        """Charge for an event; True where it is a refusal that must be counted instead."""
        actor = event.actor
        if self._journal.is_short and event.code in _REFUSALS:
            return True
        if _is_user(actor):
            bucket = self._user(actor.name)
            if event.code in _REFUSALS and bucket.level < 0:
                return True
            bucket.level -= size_bytes
            return False
        if actor.kind != "user" and event.code != _BAN:
            return False
        now = self._clock()
        source = self._source(_source_of(event), now)
        self._strangers.refill(now)
        if min(source.level, self._strangers.level) < size_bytes:
            return True
        source.level -= size_bytes
        self._strangers.level -= size_bytes
        return False

    def _count(self, event: Event) -> None:
        user, source = event.actor.name if _is_user(event.actor) else "", _source_of(event)
        key = (event.code, user, source, event.reason)
        known = self._counted.get(key)
        if known is not None:
            known.last, known.count = event, known.count + 1
        elif len(self._counted) < ROWS_MAX:
            self._counted[key] = _Counted(event, event.at)
        else:
            others = self._others.setdefault(event.code, _Others(event, event.at))
            others.last, others.count = event, others.count + 1
            if len(others.sources) < SOURCES_MAX:
                others.sources.add((user, source))
        if self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(self._count_seconds, self._flush_in_time)
        self._timer.daemon = True
        self._timer.start()

    def _flush_in_time(self) -> None:
        """Write what was counted; on a full disk count on, for that room is needed for what ends."""
        if not self._journal.is_short:
            self.flush()
            return
        with self._guard:
            self._start_timer()

    def _user(self, name: str) -> _Bucket:
        bucket = self._users.get(name)
        if bucket is None:
            bucket = self._users[name] = self._bucket(self._user_rate, self._user_rate * USER_BURST_SECONDS)
        bucket.refill(self._clock())
        return bucket

    def _source(self, address: str, now: float) -> _Bucket:
        bucket = self._sources.get(address)
        if bucket is None:
            bucket = self._sources[address] = self._bucket(SOURCE_BYTES_PER_SECOND, SOURCE_BURST_BYTES)
        self._sources.move_to_end(address)
        while len(self._sources) > SOURCES_MAX:
            self._sources.popitem(last=False)
        bucket.refill(now)
        return bucket

    def _bucket(self, bytes_per_second: float, burst_bytes: float) -> _Bucket:
        return _Bucket(bytes_per_second, burst_bytes, self._clock(), burst_bytes)


def _is_user(actor: Actor) -> bool:
    """Say whether an actor is a user who proved a key; a name alone can be anybody's."""
    return actor.kind == "user" and bool(actor.key_fingerprint)


def _source_of(event: Event) -> str:
    """Return whom a refusal came from. A ban is the gateway's word on an address, and has a budget beside it."""
    return f"{_BAN} {event.detail.get('address')}" if event.code == _BAN else event.actor.address


def _told(counted: _Counted) -> Event:
    detail = counted.last.detail | {"count": counted.count, "first_at": counted.first_at.isoformat()}
    return replace(counted.last, detail=detail)


def _told_of_others(others: _Others) -> Event:
    last = others.last
    names = {name for name, _address in others.sources if name}
    detail = last.detail | {
        "count": others.count,
        "first_at": others.first_at.isoformat(),
        "addresses": len({address for _name, address in others.sources}),
        "users": len(names),
    }
    return replace(last, detail=detail, reference=new_reference(), at=datetime.now(UTC))


def _done() -> "Future[None]":
    done: Future[None] = Future()
    done.set_result(None)
    return done
