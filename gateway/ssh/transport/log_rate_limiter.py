"""Log lines that clients can cause: one of a kind in a while, so that nobody fills the disk with them."""

import time
from collections.abc import Callable


class LogRateLimiter:
    """Says when a line may be written. Kinds are the caller's own, never text from outside, so they stay few."""

    def __init__(self, interval_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval_seconds
        self._now = now
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, kind: str) -> int | None:
        """Return how many of a kind were held back since the last line, or None where this one is held back too."""
        at, held_back = self._told.get(kind, (-self._interval, 0))
        now = self._now()
        if now - at < self._interval:
            self._told[kind] = at, held_back + 1
            return None
        self._told[kind] = now, 0
        return held_back
