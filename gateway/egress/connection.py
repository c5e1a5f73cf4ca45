"""What happens with one connection to the proxy, from its first byte to its record: ask, decide, connect, carry."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.audit import events
from gateway.audit.event import Event
from gateway.egress.limits import ConnectionLimits, LimitedError
from gateway.egress.open_tunnels import OpenTunnels
from gateway.egress.proxy_request import CHUNK_BYTES, ClientSide, ProxyRequest, RequestError
from gateway.egress.resolver import Dialer, Streams, UnreachableError
from gateway.egress.tunnel import CutError, Tunnel
from gateway.errors import JournalError
from gateway.gate import Answer, Gate, Recorder
from gateway.model import Actor, EnvironmentRef
from policies.requests import EgressHostRequest, Subject

HEAD_SECONDS = 10.0
_FAREWELL_SECONDS = 1.0
_FORBIDDEN, _TOO_MANY, _BAD_GATEWAY, _UNAVAILABLE, _TIMEOUT = 403, 429, 502, 503, 408

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProxyParts:
    """What a connection needs of the gateway."""

    gate: Gate
    recorder: Recorder
    dialer: Dialer
    limits: ConnectionLimits
    open_tunnels: OpenTunnels
    is_disabled: Callable[[str], bool]
    """Whether a user is shut out, whatever the policy says."""
    idle_seconds: float
    contact: str
    """Whom a refused user is told to ask."""


class ProxyConnection:
    """One connection of one environment, which its socket names: nothing that it says changes whose it is."""

    def __init__(self, parts: ProxyParts, ref: EnvironmentRef, near: ClientSide) -> None:
        self._parts = parts
        self._ref = ref
        self._near = near
        self._actor = Actor("user", ref.user)

    async def serve(self) -> None:
        """Serve it to its end; what goes wrong is this connection's alone."""
        try:
            with self._parts.limits.place(self._ref.user):
                await self._serve_request()
        except LimitedError as exc:
            if exc.counted:
                self._record(events.egress_host_refused(self._actor, str(self._ref), "", 0, exc.reason, exc.counted))
            await self._refuse(_TOO_MANY, f"{exc.reason}; try again in a moment")
        except RequestError as exc:
            await self._refuse(exc.status, exc.reason)
        except JournalError as exc:
            _log.error("nothing outside is reached: %s", exc.message)
            await self._refuse(_UNAVAILABLE, f"the gateway cannot write its journal; tell {self._parts.contact}")
        except (OSError, EOFError):
            """The environment has hung up."""
        finally:
            self._near.writer.transport.abort()

    async def _serve_request(self) -> None:
        try:
            request = await asyncio.wait_for(self._near.read_request(), HEAD_SECONDS)
        except TimeoutError:
            raise RequestError(_TIMEOUT, f"no request came within {HEAD_SECONDS:.0f} s") from None
        answer = await self._ask(request)
        if answer is None:
            return
        far = await self._connect(request)
        if far is not None:
            await self._carry(request, answer, far)

    async def _ask(self, request: ProxyRequest) -> Answer | None:
        """Have the policy decide; return None once the refusal has been said. Raises: JournalError."""
        question = EgressHostRequest(Subject(self._ref.user), datetime.now(UTC), request.host, request.port)
        answer = await self._parts.gate.ask_async(question, self._actor, str(self._ref))
        if answer.allowed and not self._parts.is_disabled(self._ref.user):
            return answer
        if answer.allowed:
            await self._refuse_by_gateway(request, _FORBIDDEN, f"the user {self._ref.user} is disabled")
        else:
            reason = f"{answer.decision.reason}; ask {self._parts.contact} (reference {answer.reference})"
            await self._refuse(_FORBIDDEN, reason)
        return None

    async def _connect(self, request: ProxyRequest) -> Streams | None:
        try:
            return await self._parts.dialer.connect(request.host, request.port)
        except UnreachableError as exc:
            status = _FORBIDDEN if exc.forbidden else _BAD_GATEWAY
            await self._refuse_by_gateway(request, status, exc.reason, exc.forbidden)
            return None

    async def _carry(self, request: ProxyRequest, answer: Answer, far: Streams) -> None:
        tunnel, begun, reason = Tunnel(request, self._near, far, self._parts.idle_seconds), time.monotonic(), ""
        try:
            with self._parts.open_tunnels.hold(tunnel, self._ref):
                await tunnel.carry()
        except CutError as exc:
            reason = exc.reason
            if exc.is_refusal:
                refused = events.egress_host_refused(
                    self._actor, str(self._ref), request.host, request.port, exc.reason
                )
                self._record(refused)
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._near.writer.drain(), _FAREWELL_SECONDS)
        except (OSError, RequestError) as exc:
            reason = str(exc) or "one side hung up"
        finally:
            closed = events.egress_host_closed(
                self._actor,
                str(self._ref),
                request.host,
                request.port,
                sent_bytes=tunnel.sent_bytes,
                received_bytes=tunnel.received_bytes,
                seconds=time.monotonic() - begun,
                rule=answer.decision.rule,
                reason=reason,
            )
            self._record(closed)

    async def _refuse_by_gateway(self, request: ProxyRequest, status: int, reason: str, detail: str = "") -> None:
        written = f"{reason}: {detail}" if detail else reason
        self._record(events.egress_host_refused(self._actor, str(self._ref), request.host, request.port, written))
        await self._refuse(status, f"{reason}; ask {self._parts.contact}" if status == _FORBIDDEN else reason)

    async def _refuse(self, status: int, reason: str) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._near.refuse(status, reason)
                self._near.writer.write_eof()
                while await self._near.reader.read(CHUNK_BYTES):
                    """A close with bytes unread would take the words back."""

    def _record(self, event: Event) -> None:
        try:
            self._parts.recorder.submit(event)
        except JournalError as exc:
            _log.error("%s could not be journaled: %s", event.code, exc.message)
