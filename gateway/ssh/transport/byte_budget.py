"""One budget of bytes for each user: what the gateway may keep for them, over all their connections and channels.

It is spent before a peer can send, as receive windows (RFC 4254 §5.2), and never on what has arrived: whoever has been
given no window cannot fill one, so nothing needs to be dropped and no channel waits for another (ADR 0023).
"""

from typing import Final
from weakref import WeakValueDictionary

USER_BYTES: Final = 64 << 20
CONNECTION_BYTES: Final = 512 << 10
"""Counted for each connection: its input, its output that TCP has not taken, and one read behind that."""
WINDOW_MIN_BYTES: Final = 2 << 10
"""The window of a channel that opens when little is left."""
WINDOW_FIRST_BYTES: Final = 64 << 10
"""That of a channel which has moved nothing yet, at most."""
COPIES: Final = 4
"""A window is counted for what waits where it came in, in the socket it goes to, and twice for what comes back."""
FIRST_SHARE: Final = 512
"""A new channel may fill this part of what is left, so that thousands have a window each."""
GROWN_SHARE: Final = 4
"""One that is used may fill this part of it."""
NO_ROOM: Final = "your connections keep all that the gateway may keep for you; close some"
GROWTH: Final = 4
"""By which a window grows each time that half of it has been taken on."""


class ByteBudget:
    """The budget of one user, in one process. Lives on the event loop."""

    def __init__(self, limit_bytes: int = USER_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0

    @property
    def left_bytes(self) -> int:
        """Return what nobody has; never less than nothing."""
        return max(0, self.limit_bytes - self.taken_bytes)

    def has_room(self) -> bool:
        """Say whether one channel more can have the smallest window."""
        return self.left_bytes >= COPIES * WINDOW_MIN_BYTES

    def first_window(self, most: int) -> int:
        """Return the window of a new channel; nothing is taken yet."""
        share = self.left_bytes // (FIRST_SHARE * COPIES)
        return max(min(share, WINDOW_FIRST_BYTES, most), WINDOW_MIN_BYTES)

    def next_window(self, window: int, most: int) -> int:
        """Return what a window that was used becomes: more while there is enough, less when nearly all is taken."""
        share = self.left_bytes // (GROWN_SHARE * COPIES)
        if share > window:
            return min(window * GROWTH, share, max(most, window))
        return max(window // 2, WINDOW_FIRST_BYTES) if window > 8 * share and window > WINDOW_FIRST_BYTES else window

    def take(self, size: int) -> None:
        """Count bytes that may be kept from now on."""
        self.taken_bytes += size

    def give(self, size: int) -> None:
        """Count them no longer."""
        self.taken_bytes -= size


class UserBudgets:
    """The budgets of those who are there: one that nobody holds any more is forgotten."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._by_user: WeakValueDictionary[str, ByteBudget] = WeakValueDictionary()

    def of(self, user: str) -> ByteBudget:
        """Return the budget of a user."""
        budget = self._by_user.get(user)
        if budget is None:
            budget = self._by_user[user] = ByteBudget(self._limit_bytes)
        return budget
