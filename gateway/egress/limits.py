"""How many connections to hosts outside one user may have, and how fast new ones may come, over all environments."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BURST_SECONDS = 10
"""A user may begin as many at once as in so many seconds for long: an installer opens many, and then none."""
USERS_MAX = 4096
SAID_AGAIN_SECONDS = 15.0


@dataclass(slots=True)
class _Use:
    """What one user has now."""

    level: float
    at: float
    open: int = 0
    refused: int = 0
    said_at: float | None = None


class LimitedError(Exception):
    """Too many. `counted` is how many were refused since it was last worth a record; 0: this one is worth none."""

    def __init__(self, reason: str, counted: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.counted = counted


class ConnectionLimits:
    """Counts for each user. `rate` is new connections a second for long."""

    def __init__(self, most_open: int, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_open = most_open
        self._rate = rate
        self._clock = clock
        self._users: dict[str, _Use] = {}

    @contextmanager
    def place(self, user: str) -> Iterator[None]:
        """Hold one place of a user's. Raises: LimitedError."""
        use = self._use(user)
        if use.open >= self._most_open:
            raise self._refusal(use, f"{self._most_open} connections to hosts outside are open, which is the most")
        if use.level < 1:
            raise self._refusal(use, f"more than {self._rate:g} new connections a second for long")
        use.level -= 1
        use.open += 1
        try:
            yield
        finally:
            use.open -= 1

    def _use(self, user: str) -> _Use:
        now, burst = self._clock(), self._rate * BURST_SECONDS
        use = self._users.get(user)
        if use is None:
            if len(self._users) >= USERS_MAX:
                self._users = {name: known for name, known in self._users.items() if known.open}
            use = self._users[user] = _Use(burst, now)
        use.level, use.at = min(burst, use.level + (now - use.at) * self._rate), now
        return use

    def _refusal(self, use: _Use, reason: str) -> LimitedError:
        use.refused += 1
        if use.said_at is not None and use.at - use.said_at < SAID_AGAIN_SECONDS:
            return LimitedError(reason, 0)
        counted, use.refused, use.said_at = use.refused, 0, use.at
        return LimitedError(reason, counted)
