"""Connections that wait, unanswered, until logins before them have ended: a burst from one site is no attack.

Bounded in number and time; whether one of them may go on is decided by `admission`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

WAIT_SECONDS: float = 10.0
"""As long as most clients wait for a server's first line."""
WAITING_MAX = 512
"""Of all sources together."""
WAITING_UNKNOWN_MAX = 128
"""Of those from where no user has proved a key; the other places are for who has."""
WAITING_PER_SOURCE_MAX = 128


@dataclass(eq=False, slots=True)
class Waiting:
    """A connection that waits; it is answered once."""

    address: str
    reason: str
    """What it would have been told at once."""
    answer: Callable[[str], None]
    go_on: Callable[[], None]
    timer: asyncio.TimerHandle | None = field(default=None)


class StartupQueue:
    """Who waits, first come, first served for each source."""

    def __init__(self) -> None:
        self._by_address: dict[str, list[Waiting]] = {}
        self._total = 0

    def has_room(self, address: str, *, is_known: bool) -> bool:
        """Say whether one more from there may wait."""
        limit = WAITING_MAX if is_known else WAITING_UNKNOWN_MAX
        return self._total < limit and len(self._by_address.get(address, ())) < WAITING_PER_SOURCE_MAX

    def enter(self, waiting: Waiting) -> None:
        """Let one wait; after a while it hears its reason."""
        self._by_address.setdefault(waiting.address, []).append(waiting)
        self._total += 1
        waiting.timer = asyncio.get_running_loop().call_later(WAIT_SECONDS, self.refuse, waiting)

    def first(self, address: str) -> Waiting | None:
        """Return who has waited longest from there."""
        return next(iter(self._by_address.get(address, ())), None)

    def addresses(self) -> list[str]:
        """Return where connections wait from."""
        return list(self._by_address)

    def leave(self, waiting: Waiting) -> None:
        """Forget one that is answered or gone."""
        queue = self._by_address.get(waiting.address, [])
        if waiting not in queue:
            return
        queue.remove(waiting)
        self._total -= 1
        if not queue:
            del self._by_address[waiting.address]
        if waiting.timer:
            waiting.timer.cancel()

    def refuse(self, waiting: Waiting, reason: str = "") -> None:
        """Answer one with the reason it has waited for, or another."""
        self.leave(waiting)
        waiting.answer(reason or waiting.reason)
