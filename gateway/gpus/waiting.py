"""Waiting for a GPU: joins the line, says where one stands and how long about, and tries again and again.

See `store.queue` for the order, and `queue` for what is kept for whom; this is the loop of one who waits.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from gateway.errors import QueuedError
from gateway.gpus.leases import Leases
from gateway.gpus.queue import parsed, turn_comes_at
from gateway.model import EnvironmentRef
from gateway.store.leases import LeaseTable
from gateway.store.queue import QueueTable, Waiter

T = TypeVar("T")
Progress = Callable[[str], None]
_COUNT_EVERY = timedelta(minutes=1)
_POLL_SECONDS = 1.0
_LONGEST_POLL_SECONDS = 10.0  # well below the queue's ALIVE_SECONDS
_MOST_LOOKED_AT = 1000
_MOST_ESTIMATED = 50
_TWO_HOURS = 120


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stands: the first has position 1. `turn_at` is None where no lease that ends can tell."""

    waiter: Waiter
    position: int
    length: int
    turn_at: datetime | None


class WaitingLine:
    """The line as leases look at it: who is served before whom."""

    def __init__(self, queue: QueueTable, ledger: LeaseTable) -> None:
        self._queue = queue
        self._ledger = ledger
        self._counted_at: datetime | None = None

    def requests_before(self, ref: EnvironmentRef, at: datetime, first: int, count: int) -> Sequence[str]:
        """Return a piece of what those ask for who are served before `ref`, who need not stand in the line."""
        self._count_shares(at)
        piece = self._queue.waiting(at, first, count)
        share = self._queue.share(ref.user)
        requests = []
        for waiter in piece:
            if waiter.ref == ref or waiter.share > share:
                break
            requests.append(waiter.gpu_request)
        return requests

    def _count_shares(self, at: datetime) -> None:
        if self._counted_at is None or at - self._counted_at >= _COUNT_EVERY:
            self._ledger.count_shares(at)
            self._counted_at = at


class Waiting:
    """One who waits, and the view of all who do."""

    def __init__(
        self,
        queue: QueueTable,
        ledger: LeaseTable,
        leases: Leases,
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._leases = leases
        self._pause = pause
        self._now = now

    def until_served(self, ref: EnvironmentRef, gpu_request: str, attempt: Callable[[], T], progress: Progress) -> T:
        """Call `attempt` until it is not refused for want of a GPU, and stand in the line meanwhile.

        Raises:
            Whatever else the attempt raises, and KeyboardInterrupt; the line is left in every case.
        """
        try:
            while True:
                self._queue.beat(ref, gpu_request, self._now())
                try:
                    return attempt()
                except QueuedError as exc:
                    place = self.place(ref)
                    progress(describe(place, exc.message, self._now()))
                position = place.position if place else 1
                self._pause(min(_LONGEST_POLL_SECONDS, _POLL_SECONDS * (1 + position / 20)))
        finally:
            self._queue.leave(ref)

    def place(self, ref: EnvironmentRef) -> Place | None:
        """Say where an environment stands, or None where it does not wait."""
        return next((place for place in self.places() if place.waiter.ref == ref), None)

    def places(self) -> list[Place]:
        """Return the line, first to last; the first few with an estimate."""
        waiters = self._queue.waiting(self._now(), 0, _MOST_LOOKED_AT)
        if not waiters:
            return []
        reading, now = self._leases.situation()
        ends = {lease.gpu: lease.ends_at for lease in self._ledger.held()}
        free = frozenset(gpu.uuid for gpu in reading.gpus if now.is_free(gpu.uuid))
        asked = [waiter.gpu_request for waiter in waiters]
        estimates = [
            turn_comes_at(parsed(asked[index]), asked[:index], reading.gpus, free, ends)
            for index in range(min(len(waiters), _MOST_ESTIMATED))
        ]
        return [
            Place(waiter, index + 1, len(waiters), estimates[index] if index < len(estimates) else None)
            for index, waiter in enumerate(waiters)
        ]


def describe(place: Place | None, reason: str, now: datetime) -> str:
    """Say in a line where one stands, why, and until when about."""
    if place is None:
        return f"waiting: {reason}"
    return f"waiting, position {place.position} of {place.length}: {reason}; {estimate_text(place.turn_at, now)}"


def estimate_text(turn_at: datetime | None, now: datetime) -> str:
    """Say when a turn may come."""
    if turn_at is None:
        return "nobody can tell how long"
    minutes = max(1, round((turn_at - now).total_seconds() / 60))
    return f"about {minutes} min" if minutes < _TWO_HOURS else f"about {round(minutes / 60)} h"
