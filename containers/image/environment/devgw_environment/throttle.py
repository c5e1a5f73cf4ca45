"""Slows password guessing down without slowing the server down.

One guess is checked at a time and a wrong one makes the next wait longer, so guessing in parallel gains nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

FREE_FAILURES = 2
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0
FORGET_AFTER_SECONDS = 900.0
MOST_WAITING = 8


class TooManyGuesses(Exception):  # noqa: N818 - named for what happened, as the login page tells it
    """So many guesses wait already that this one is turned away unchecked."""


class GuessThrottle:
    """Serialises guesses and counts failures; state is in memory, one server has one throttle."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = asyncio.sleep
    ) -> None:
        self.clock = clock
        self.sleep = sleep
        self.failures = 0
        self.last_failure_at = 0.0
        self.waiting = 0
        self.turn = asyncio.Lock()

    def delay_seconds(self) -> float:
        """How long the next guess waits: nothing for the first slips, then doubling up to a bound."""
        if self.clock() - self.last_failure_at > FORGET_AFTER_SECONDS:
            self.failures = 0
        if self.failures < FREE_FAILURES:
            return 0.0
        return min(FIRST_DELAY_SECONDS * 2 ** min(self.failures - FREE_FAILURES, 16), LONGEST_DELAY_SECONDS)

    @asynccontextmanager
    async def guess(self) -> AsyncIterator[None]:
        """Wait for this guess's turn and its delay.

        Raises:
            TooManyGuesses: the queue is full.
        """
        if self.waiting >= MOST_WAITING:
            raise TooManyGuesses
        self.waiting += 1
        try:
            async with self.turn:
                if delay := self.delay_seconds():
                    await self.sleep(delay)
                yield
        finally:
            self.waiting -= 1

    def note(self, correct: bool) -> None:
        """Count the outcome of the guess whose turn it is."""
        self.failures = 0 if correct else self.failures + 1
        self.last_failure_at = self.clock()
