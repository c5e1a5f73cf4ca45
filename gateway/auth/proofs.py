"""Remembers from which addresses users have proved a key, so that a ban need not shut out who shares one.

Kept like failures, in a file in common with the other processes; who gets in is decided by `gateway.ssh.login`.
"""

import threading
from collections.abc import Callable

from gateway.auth.throttle_store import Memory, NoMemory, Tally

KEEP_SECONDS = 30 * 86400.0
GRAIN_SECONDS = 3600.0
"""How exactly the moment of a proof is kept: to write each login down would cost more than it tells."""
ENTRIES_MAX = 50_000
"""Beyond this many the oldest are forgotten (invariant 10); only who has a key can add one."""


class Proofs:
    """Sources, each with the time of its last proof. Thread-safe."""

    def __init__(self, clock: Callable[[], float], memory: Memory | None = None) -> None:
        self._clock = clock
        self._memory = memory or NoMemory()
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        """`since` is the time of the last proof."""

    def has(self, source: str) -> bool:
        """Say whether there was a proof of late."""
        with self._lock:
            self._catch_up()
            return self._age(source) < KEEP_SECONDS

    def note(self, *sources: str) -> None:
        """Note a proof of these sources now."""
        with self._lock:
            self._catch_up()
            if all(self._age(source) < GRAIN_SECONDS for source in sources):
                return
            with self._memory.writing():
                self._catch_up()
                for source in sources:
                    self._tallies.pop(source, None)  # to the end: the first is the oldest
                    self._tallies[source] = Tally(since=self._clock())
                self._forget_oldest()
                self._memory.write([(source, self._tallies.get(source)) for source in sources], self._tallies)

    def _age(self, source: str) -> float:
        tally = self._tallies.get(source)
        return self._clock() - tally.since if tally else KEEP_SECONDS

    def _catch_up(self) -> None:
        is_whole, news = self._memory.news()
        if is_whole:
            self._tallies.clear()
        for source, tally in news:
            self._tallies.pop(source, None)
            if tally:
                self._tallies[source] = tally
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        while self._tallies:
            oldest = next(iter(self._tallies))
            if self._age(oldest) < KEEP_SECONDS and len(self._tallies) <= ENTRIES_MAX:
                return
            del self._tallies[oldest]
