"""Begins a loop again that ended by an error, after growing waits, and says so: none dies in silence."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable

from gateway.duties import DutyBoard

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_log = logging.getLogger(__name__)


class Watchdog:
    """Keeps loops of one process. Only the process that has the duties gives a board."""

    def __init__(self, board: DutyBoard | None = None, *, first_wait_seconds: float = _FIRST_WAIT_SECONDS) -> None:
        self._board = board
        self._first_wait_seconds = first_wait_seconds

    async def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine until it returns or this is cancelled; an error only begins it again."""
        wait = self._first_wait_seconds
        while True:
            begun = time.monotonic()
            try:
                await work()
            except Exception as exc:  # noqa: BLE001 - whatever it was, the loop must go on
                wait = self._next_wait(wait, begun)
                await asyncio.to_thread(self._note, name, exc, wait)
            else:
                return
            await asyncio.sleep(wait)

    def keep_thread(self, name: str, work: Callable[[], None], stop: threading.Event) -> None:
        """The same for a thread; it ends with `work`, or when told to stop."""
        threading.Thread(target=self._run, args=(name, work, stop), name=name, daemon=True).start()

    def _run(self, name: str, work: Callable[[], None], stop: threading.Event) -> None:
        wait = self._first_wait_seconds
        while not stop.is_set():
            begun = time.monotonic()
            try:
                work()
            except Exception as exc:  # noqa: BLE001 - whatever it was, the loop must go on
                wait = self._next_wait(wait, begun)
                self._note(name, exc, wait)
            else:
                return
            stop.wait(wait)

    def beat(self, name: str) -> None:
        """Note that a loop went round."""
        if self._board:
            self._board.beat(name)

    def _next_wait(self, wait: float, begun: float) -> float:
        """Double the wait of a loop that dies again and again; one that ran for long begins anew."""
        if time.monotonic() - begun > _LONGEST_WAIT_SECONDS:
            return self._first_wait_seconds
        return min(wait * 2, _LONGEST_WAIT_SECONDS)

    def _note(self, name: str, exc: Exception, wait: float) -> None:
        _log.error("'%s' died and is begun again in %.0f s", name, wait, exc_info=exc)
        if self._board:
            self._board.died(name, exc)
