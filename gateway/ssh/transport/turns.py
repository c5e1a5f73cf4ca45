"""Shares the event loop among users: what one of them sends is processed a slice at a time, and the others' between.

Small packets cost their reader more than their sender; without this, a second of one user's is a second of everybody's.
"""

import asyncio
from collections import deque
from time import perf_counter
from typing import Final, Protocol
from weakref import WeakKeyDictionary

SLICE_SECONDS: Final = 0.002
"""For which one connection's input is processed in one go; 256 KiB of bulk data take a fraction of it."""
TURN_SECONDS: Final = 0.008
"""For which all connections' input is, before the loop looks at sockets and timers again."""


class Taker(Protocol):
    """A connection, as the turns know it."""

    @property
    def payer(self) -> str:
        """Whose turn it takes."""

    def take_turn(self) -> None:
        """Process a slice of what waits, and queue again where something remains."""


class Turns:
    """The turns of one event loop: first each user who waits, then each of their connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._spent = 0.0
        self._is_counting = False
        self._waiting: dict[str, deque[Taker]] = {}
        self._order: deque[str] = deque()

    def may_begin(self) -> bool:
        """Say whether there is time left before the loop must look around."""
        return self._spent < TURN_SECONDS

    def spend(self, began: float) -> None:
        """Note the time of a slice that began at a reading of `perf_counter`."""
        self._spent += perf_counter() - began
        self._count()

    def queue(self, taker: Taker) -> None:
        """Let a connection wait for its slice; a user who was not waiting yet comes first."""
        payer = taker.payer
        if payer not in self._waiting:
            self._waiting[payer] = deque()
            self._order.appendleft(payer)
        self._waiting[payer].append(taker)
        self._count()

    def _count(self) -> None:
        if not self._is_counting:
            self._is_counting = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn: give out slices in order until its time is spent."""
        self._is_counting, self._spent = False, 0.0
        for _ in range(len(self._order)):
            if not self.may_begin():
                break
            payer = self._order.popleft()
            line = self._waiting[payer]
            taker = line.popleft()
            if line:
                self._order.append(payer)
            else:
                del self._waiting[payer]
            taker.take_turn()
        if self._order:
            self._count()


_turns: "WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]" = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Return the turns of a loop."""
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = Turns(loop)
    return turns
