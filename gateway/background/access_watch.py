"""Holds live sessions against every change of users, keys, policy and time. One task of the server's event loop."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from gateway.audit.event import Event
from gateway.background.expiry import Expiry, GrantExpiry
from gateway.background.policy_reload import PolicyReloader
from gateway.background.session_publisher import SessionPublisher
from gateway.gate import Decide, Recorder
from gateway.model import GATEWAY
from gateway.policy import PolicyInForce
from gateway.ssh.transport.log_rate_limiter import LogRateLimiter
from policies.requests import Subject

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5


class Connected(Protocol):
    """Who is in, and how they are held against what is allowed now; see `gateway.ssh.server.SshServer`."""

    def subjects(self) -> Iterable[Subject]:
        """Return who is connected."""

    async def recheck(self, decide: Decide) -> list[str]:
        """End what is no longer allowed and return the ids of connections ended."""


@dataclass(frozen=True, slots=True)
class GrantNotice:
    """Where the ends of grants are written down, by the one process that does what must be done once."""

    recorder: Recorder
    away_since: datetime
    is_due: Callable[[], bool] = lambda: True
    """Whether this is the gateway of the site that writes them down."""

    def write(self, user: str, rule: str, end: datetime) -> None:
        """Journal that a user's last grant is over."""
        if not self.is_due():
            return
        reason = f"the last grant of {user} ended at {end:%Y-%m-%d %H:%M} UTC"
        self.recorder.submit(Event("user.expired", GATEWAY, rule=rule, reason=reason, detail={"user": user}))


class AccessWatch:
    """Looks twice a second. `revision` changes with every change of the store."""

    def __init__(
        self,
        revision: Callable[[], object],
        policy: PolicyInForce,
        reloader: PolicyReloader,
        connected: Connected,
        publisher: SessionPublisher,
        grants: GrantNotice | None = None,
    ) -> None:
        self._read_revision = revision
        self._policy = policy
        self._reloader = reloader
        self._connected = connected
        self._publisher = publisher
        self._grants = grants
        self._grant_expiry = GrantExpiry(grants.away_since) if grants else None
        self._revision = revision()
        self._expiry = Expiry()
        self._troubles = LogRateLimiter(30)
        self._is_due = False  # stays so when a recheck failed

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception as exc:  # noqa: BLE001 - whatever failed, the next look must come
                if (held_back := self._troubles.tell(type(exc).__name__)) is not None:
                    _log.error("access could not be looked at again (%d more before): %s", held_back, exc)

    async def look(self) -> None:
        """Look once, and have live sessions rechecked where anything changed."""
        changed = await asyncio.to_thread(self._has_changed)
        now = datetime.now(UTC)
        struck = self._expiry.has_struck(self._policy.policy, self._connected.subjects(), now)
        self._note_ended_grants(now)
        self._is_due = struck or changed or self._is_due
        if self._is_due:
            await self._publisher.end_killed()
            await self._connected.recheck(self._policy.decide)
            self._is_due = False

    async def reload(self) -> None:
        """Take the policy file as it is now, changed or not (SIGHUP)."""
        await asyncio.to_thread(self._reloader.reload)
        await self._connected.recheck(self._policy.decide)

    def _has_changed(self) -> bool:
        revision = self._read_revision()
        changed, self._revision = revision != self._revision, revision
        return self._reloader.reload_if_changed() or changed

    def _note_ended_grants(self, now: datetime) -> None:
        if self._grants and self._grant_expiry:
            for user, rule, end in self._grant_expiry.ended(self._policy.policy, now):
                self._grants.write(user, rule, end)
