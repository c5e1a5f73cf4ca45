"""Has one gateway of a site do what must be done once: whoever holds the site's lock, until it is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from gateway.errors import DevgwError

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""How long a gateway that has ended goes without a successor, and one that lost the lock without knowing it."""


class SiteLock(Protocol):
    """A lock that one process of a site holds; see `gateway.store.locks`."""

    def take(self, *, wait: bool) -> bool: ...
    def is_held(self) -> bool: ...
    def release(self) -> None: ...


class Leadership:
    """One per serving gateway. Without a lock there is no other gateway, and this one always leads."""

    def __init__(self, lock: SiteLock | None, *, look_seconds: float = _LOOK_SECONDS) -> None:
        self._lock = lock
        self._look_seconds = look_seconds
        self.leads = lock is None

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` while this gateway leads, each time it does, until cancelled; an error of it ends this too."""
        if self._lock is None:
            await work()
            return
        try:
            while True:
                if await self._has_taken(self._lock):
                    await self._lead_once(self._lock, work)
                await asyncio.sleep(self._look_seconds)
        finally:
            self.leads = False
            self._lock.release()

    async def _has_taken(self, lock: SiteLock) -> bool:
        try:
            return await asyncio.to_thread(lock.take, wait=False)
        except DevgwError as exc:
            _log.warning("no gateway can be chosen to lead: %s", exc.message)
            return False

    async def _lead_once(self, lock: SiteLock, work: Callable[[], Awaitable[None]]) -> None:
        _log.info("this gateway leads: it looks after environments, queue and samples")
        self.leads = True
        working = asyncio.ensure_future(work())
        try:
            while not working.done() and await asyncio.to_thread(lock.is_held):
                await asyncio.wait({working}, timeout=self._look_seconds)
            if working.done():
                working.result()
            else:
                _log.warning("this gateway leads no longer: its connection to the database was lost")
        finally:
            self.leads = False
            working.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({working})
            lock.release()
