"""Writes down who is connected, for `devgw sessions`, and ends whom an administrator wants out (ADR 0006).

Writing is a task of its own: the looks that end sessions must not wait until somebody else has finished writing.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.errors import DevgwError
from gateway.ssh.connection_registry import Activity, ConnectionRegistry, ConnectionReport
from gateway.ssh.transport.log_rate_limiter import LogRateLimiter
from gateway.store.sessions import LiveSession, LiveSessionTable, Owner

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_COUNT_SECONDS = 2.0
_BEAT_SECONDS = 2.0
"""How old byte counts may be; whoever comes, goes, or opens a channel is written down at the next look."""


class SessionPublisher:
    """What one process has published. Its coroutines run on the event loop of the server."""

    def __init__(
        self,
        table: LiveSessionTable,
        registry: ConnectionRegistry,
        owner: Owner,
        beat: Callable[[], bool] | None = None,
    ) -> None:
        """`beat` says to other gateways that this process serves, and returns whether they knew."""
        self._table = table
        self._beat = beat
        self._beaten_at = -_BEAT_SECONDS
        self._registry = registry
        self._owner = owner
        self._published: dict[str, LiveSession] = {}
        self._activity: dict[str, Activity] = {}
        self._heeded: set[str] = set()
        self._written_at = 0.0
        self._troubles = LogRateLimiter(30)

    async def run(self) -> None:
        """Publish twice a second, where there is anything new, until cancelled."""
        is_swept = False
        while True:
            try:
                if not is_swept:
                    await asyncio.to_thread(self._table.sweep)
                    is_swept = True
                await self._say_serving()
                await self.publish()
            except Exception as exc:  # noqa: BLE001 - whatever failed, the next look must come
                if (held_back := self._troubles.tell(type(exc).__name__)) is not None:
                    _log.error("who is connected could not be written down (%d more before): %s", held_back, exc)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _say_serving(self) -> None:
        """Say that this process serves; where nobody knew any more, what it had published is gone too."""
        if self._beat is None or time.monotonic() - self._beaten_at < _BEAT_SECONDS:
            return
        if not await asyncio.to_thread(self._beat):
            self._published.clear()
            self._activity.clear()
        self._beaten_at = time.monotonic()

    async def publish(self) -> bool:
        """Bring the store up to date; say whether there was anything to write."""
        now = self._registry.activity()
        moved = [one for one, activity in now.items() if self._activity.get(one) != activity]
        changed = [_session(report) for report in self._registry.report(moved)]
        gone, heeded = self._published.keys() - now.keys(), set(self._heeded)
        is_news = bool(gone or heeded) or any(self._is_news(session) for session in changed)
        if not is_news and not (changed and time.monotonic() - self._written_at >= _COUNT_SECONDS):
            return False
        await asyncio.to_thread(self._table.publish, self._owner, changed, gone, heeded)
        self._published |= {session.id: session for session in changed}
        for one in gone:
            del self._published[one]
        self._activity, self._written_at = now, time.monotonic()
        self._heeded -= heeded
        return True

    async def end_killed(self) -> None:
        """End what was asked for since the last call, with the reason on the users' screens."""
        for wanted, reason in (await asyncio.to_thread(self._table.to_end, self._owner)).items():
            if wanted not in self._heeded:
                self._heeded.add(wanted)
                self._registry.close([wanted], reason)

    def _is_news(self, session: LiveSession) -> bool:
        known = self._published.get(session.id)
        return known is None or known.channels != session.channels


def forget(table: LiveSessionTable, owner: Owner, no_longer_serves: Callable[[], None] | None) -> None:
    """Nobody is connected to a process any more; what cannot be removed is known as a dead process's later."""
    try:
        table.clear(owner)
        if no_longer_serves:
            no_longer_serves()
    except DevgwError as exc:
        _log.warning("the list of who is connected could not be cleared: %s", exc.message)


def _session(report: ConnectionReport) -> LiveSession:
    return LiveSession(
        id=report.id,
        user=report.user,
        fingerprint=report.fingerprint,
        address=report.address,
        environment=report.environment,
        channels=report.channels,
        sent_bytes=report.sent_bytes,
        received_bytes=report.received_bytes,
        since=report.since,
    )
