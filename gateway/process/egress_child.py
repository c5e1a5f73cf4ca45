"""Keeps the process that carries connections to hosts outside, as long as the policy names any.

It is apart because it moves bytes all day: what it does never delays the event loop that serves SSH.
"""

import asyncio
import logging

from gateway.config import Settings
from gateway.policy import LoadedPolicy, PolicyInForce
from gateway.process import own_process
from gateway.process.own_process import OwnProcess
from policies.model import Policy

MODULE = own_process.MODULE
_LOOK_SECONDS = 0.25

_log = logging.getLogger(__name__)


class EgressChild:
    """One process of the gateway that has the duties."""

    def __init__(self, settings: Settings, policy: PolicyInForce) -> None:
        self._process = OwnProcess(settings, "hosts", MODULE)
        self._policy = policy
        self._seen: LoadedPolicy | None = None

    async def run(self) -> None:
        """Start it, tell it of each policy, end it; until cancelled. Raises: RuntimeError, when it ended by itself."""
        try:
            while True:
                await self._look(self._policy.loaded)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await self._end()

    async def _look(self, loaded: LoadedPolicy) -> None:
        if self._process.ended is not None:
            self._seen = None
            raise RuntimeError(f"the process for hosts by name ended with {self._process.forget()}")
        if loaded is self._seen:
            return
        if not names_hosts(loaded.policy):
            await self._end()
        else:
            if not self._process.is_there:
                await self._process.start()
                _log.info("hosts outside are reached through process %d", self._process.pid)
            await self._process.tell(loaded)
        self._seen = loaded

    async def _end(self) -> None:
        self._seen = None
        await self._process.end()


def names_hosts(policy: Policy) -> bool:
    """Say whether any role that somebody holds, or may come to hold, names a host."""
    held = {*policy.default_roles, *(name for grant in policy.grants for name in grant.roles)}
    return any(policy.roles[name].egress_hosts for name in held)
