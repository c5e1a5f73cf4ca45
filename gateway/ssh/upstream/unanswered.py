"""The channels of an upstream that the gateway has closed and the environment's sshd has not: it may be its user's own.

An honest sshd answers at once, or when a program inside has taken its input. Many that wait mean one that never will.
"""

import asyncio
from typing import Any, Final

UNANSWERED_MAX: Final = 256
"""Closed channels without an answer beyond which no new one is opened."""
DRAINING_MAX: Final = 64
"""Closed channels that may still hold data for a program that has not read it; of the oldest beyond, it is dropped."""
DRAIN_SECONDS: Final = 2.0
"""How long each may hold its data in any case: many forwards of an honest program may end at once."""
ANSWER_SECONDS: Final = 10.0
"""How long the oldest of too many may wait before the connection is cut."""


class UnansweredCloses:
    """Counts them and keeps what they hold small."""

    def __init__(self) -> None:
        self._since: dict[Any, float] = {}
        self._draining: dict[Any, None] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, channel: Any) -> None:
        """Note a channel that this side has closed."""
        if channel in self._since:
            return
        self._since[channel] = asyncio.get_running_loop().time()
        self._draining[channel] = None
        while len(self._draining) > DRAINING_MAX:
            oldest = next(iter(self._draining))
            if self._waited(oldest) < DRAIN_SECONDS:
                break
            del self._draining[oldest]
            oldest.drop_unsent()

    def discard(self, channel: Any) -> None:
        """Forget a channel that is closed on both sides."""
        self._since.pop(channel, None)
        self._draining.pop(channel, None)

    def are_too_many(self) -> bool:
        """Say whether no further channel may be opened."""
        return len(self._since) >= UNANSWERED_MAX

    def are_overdue(self) -> bool:
        """Say whether there are too many for too long."""
        if not self.are_too_many():
            return False
        return self._waited(next(iter(self._since))) > ANSWER_SECONDS

    def _waited(self, channel: Any) -> float:
        return asyncio.get_running_loop().time() - self._since[channel]
