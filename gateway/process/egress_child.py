"""Keeps the process that carries connections to hosts outside, as long as the policy names any.

It is apart because it moves bytes all day: what it does never delays the event loop that serves SSH.
"""

import asyncio
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from gateway.config import Settings
from gateway.policy import LoadedPolicy, PolicyInForce
from policies.model import Policy

MODULE = "gateway.app.egress_process"
_LOOK_SECONDS = 0.25
_END_SECONDS = 5.0

_log = logging.getLogger(__name__)


class EgressChild:
    """One process of the gateway that has the duties."""

    def __init__(self, settings: Settings, policy: PolicyInForce) -> None:
        self._settings = settings
        self._policy = policy
        self._process: Process | None = None
        self._told: LoadedPolicy | None = None

    async def run(self) -> None:
        """Start it, tell it of each policy, end it; until cancelled. Raises: RuntimeError, when it ended by itself."""
        try:
            while True:
                await self._look(self._policy.loaded)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await self._end()

    async def _look(self, loaded: LoadedPolicy) -> None:
        if self._process is not None and self._process.returncode is not None:
            code, self._process = self._process.returncode, None
            raise RuntimeError(f"the process for hosts by name ended with {code}")
        if loaded is self._told:
            return
        if not names_hosts(loaded.policy):
            await self._end()
        else:
            if self._process is None:
                await self._start()
            await self._say({"text": loaded.text})
        self._told = loaded

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", MODULE, stdin=PIPE, start_new_session=True
        )
        _log.info("hosts outside are reached through process %d", self._process.pid)
        await self._say(self._settings.model_dump(mode="json"))

    async def _say(self, order: object) -> None:
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - it was just started
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        with suppress(ConnectionError):  # it has ended, which the next look sees
            await self._process.stdin.drain()

    async def _end(self) -> None:
        process, self._process, self._told = self._process, None, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None  # noqa: S101 - it was started with one
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def names_hosts(policy: Policy) -> bool:
    """Say whether any role that somebody holds, or may come to hold, names a host."""
    held = {*policy.default_roles, *(name for grant in policy.grants for name in grant.roles)}
    return any(policy.roles[name].egress_hosts for name in held)
