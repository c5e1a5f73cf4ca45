"""The proxy as a whole: a door for each environment whose user may name hosts, held to what is allowed now."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.egress.connection import ProxyConnection, ProxyParts
from gateway.egress.doors import Doors, Place
from gateway.egress.proxy_request import ClientSide
from gateway.gate import Decide
from gateway.model import EnvironmentRef

LOOK_SECONDS = 0.5
STOP_REASON = "the gateway closes its way to hosts outside"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What changes while the proxy runs. `places` blocks: it reads the store, and tells environments what is open."""

    decide: Decide
    revision: Callable[[], object]
    """Changes with every change of the store or the policy."""
    places: Callable[[], Mapping[EnvironmentRef, Place]]


class EgressProxy:
    """Serves until cancelled."""

    def __init__(self, parts: ProxyParts, around: Surroundings) -> None:
        self._parts = parts
        self._around = around
        self._doors = Doors(self._serve)
        self._wanted: Mapping[EnvironmentRef, Place] = {}
        self._revision: object = None

    async def run(self) -> None:
        """Look again and again at what is wanted and what is allowed; one look that fails is followed by the next."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:  # noqa: BLE001 - whatever failed, the next look must come
                    _log.exception("the ways to hosts outside could not be looked after")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._doors.close()
            self._parts.open_tunnels.cut_all(STOP_REASON)

    async def look(self) -> None:
        """Cut what is no longer allowed, which time alone can change, and keep the doors."""
        revision = await asyncio.to_thread(self._around.revision)
        if revision != self._revision:
            self._wanted = await asyncio.to_thread(self._around.places)
            self._revision = revision
        self._parts.open_tunnels.recheck(self._around.decide, self._parts.is_disabled)
        if not await self._doors.keep(self._wanted):
            self._revision = None

    async def _serve(self, ref: EnvironmentRef, near: ClientSide) -> None:
        await ProxyConnection(self._parts, ref, near).serve()
