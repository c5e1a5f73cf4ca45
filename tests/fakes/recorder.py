"""A journal in memory, for parts that only write."""

import time
from collections import deque
from concurrent.futures import Future
from datetime import datetime

from gateway.audit.event import Event

SEEN: deque[tuple[str, datetime]] = deque(maxlen=20_000)
"""Codes of all journals in memory, with their times, for tests that say what they make happen."""


class MemoryRecorder:
    """A journal in a list; each event is durable at once."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def submit(self, event: Event) -> "Future[None]":
        self.events.append(event)
        SEEN.append((event.code, event.at))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def codes(self) -> list[str]:
        return [event.code for event in self.events]

    def mark(self) -> int:
        """Return a point in time for `find`."""
        return len(self.events)

    def find(self, code: str, since: int = 0, timeout_seconds: float = 5, *, saying: str = "") -> Event:
        """Return the first event of a code after a mark whose reason holds `saying`, waiting for it."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            for event in self.events[since:]:
                if event.code == code and saying in event.reason:
                    return event
            assert time.monotonic() < deadline, f"no event {code} {saying!r} in {self.events[since:]}"
            time.sleep(0.01)
