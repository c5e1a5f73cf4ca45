"""Listeners inside an environment for `-R` and streamlocal-forward (RFC 4254 §7.1), where the gate allows them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import asyncssh

from gateway.errors import DevgwError
from gateway.ssh.channel_context import ChannelContext
from gateway.ssh.connection_registry import LiveChannel
from gateway.ssh.forwarding.forward import HOST_MAX, PATH_MAX, Forwarder, counter
from gateway.ssh.transport.relay import ChannelEnd, Traffic, join
from gateway.ssh.upstream.dialer import tell_nobody
from policies.requests import Request, ReverseForwardRequest, StreamlocalRequest

_log = logging.getLogger(__name__)


class KeptListener(asyncssh.SSHListener):
    """A listener inside, which says when it is closed: by a cancel, by a revocation, with the connection."""

    def __init__(self, inside: asyncssh.SSHListener) -> None:
        super().__init__()
        self._inside = inside
        self.on_close: Callable[[], None] | None = None

    def get_port(self) -> int:
        return self._inside.get_port()

    def close(self) -> None:
        on_close, self.on_close = self.on_close, None
        if on_close:
            on_close()
        self._inside.close()

    async def wait_closed(self) -> None:
        await self._inside.wait_closed()


class ReverseForwarder:
    """Makes the listeners that one connection asks for; a refusal is told on its sessions' stderr."""

    def __init__(self, context: ChannelContext, forwarder: Forwarder) -> None:
        self._context = context
        self._forwarder = forwarder

    async def tcp(self, listen_host: str, listen_port: int) -> asyncssh.SSHListener | None:
        """Listen on a port of the environment's; None refuses."""
        if len(listen_host) > HOST_MAX or "\0" in listen_host or not 0 <= listen_port < 65536:
            self._context.refused("reverse-forward", f"{listen_host[:HOST_MAX]}:{listen_port}")
            return None
        request = ReverseForwardRequest(self._context.identity.subject, datetime.now(UTC), listen_host, listen_port)
        listener: asyncssh.SSHListener | None = None

        async def accepted(origin_host: str, origin_port: int) -> ChannelEnd:
            port = listener.get_port() if listener else listen_port

            async def open_near(near: ChannelEnd) -> None:
                await self._context.connection.create_connection(
                    lambda: near, listen_host, port, origin_host, origin_port
                )

            return await self._accepted(request, f"{listen_host}:{port}", open_near)

        async def listen() -> asyncssh.SSHListener:
            upstream = await self._context.upstream(tell_nobody)
            upstream.require_answers()
            return await upstream.create_server(accepted, listen_host, listen_port)

        listener = await self._listen(request, f"{listen_host}:{listen_port}", listen)
        return listener

    async def streamlocal(self, path: str) -> asyncssh.SSHListener | None:
        """Listen on a Unix socket in the environment; None refuses."""
        if len(path.encode()) > PATH_MAX or "\0" in path:
            self._context.refused("streamlocal", path)
            return None
        request = StreamlocalRequest(self._context.identity.subject, datetime.now(UTC), path, listen=True)

        async def accepted() -> ChannelEnd:
            async def open_near(near: ChannelEnd) -> None:
                await self._context.connection.create_unix_connection(lambda: near, path)

            return await self._accepted(request, path, open_near)

        async def listen() -> asyncssh.SSHListener:
            upstream = await self._context.upstream(tell_nobody)
            upstream.require_answers()
            return await upstream.create_unix_server(accepted, path)

        return await self._listen(request, path, listen)

    async def _listen(
        self, request: Request, shown: str, listen: Callable[[], Awaitable[asyncssh.SSHListener]]
    ) -> asyncssh.SSHListener | None:
        if self._context.connection.listeners() >= self._context.runtime.settings.max_listeners:
            self._context.tell("too many reverse forwards on one connection")
            return None
        try:
            answer = await self._context.ask(request)
            if not answer.allowed:
                self._context.tell(f"reverse forward refused: {answer}")
                return None
            listener = await self._made(listen())
        except DevgwError as error:
            self._context.tell(error.message)
            return None
        except (asyncssh.Error, OSError):
            self._context.tell(f"your environment cannot listen on {shown}")
            return None
        kept = KeptListener(listener)
        live = LiveChannel(request, lambda _reason: kept.close(), detail=f"listen {shown}")
        self._context.opened(live, None)
        kept.on_close = lambda: self._context.closed(live, None)
        return kept

    async def _made(self, making: Awaitable[asyncssh.SSHListener]) -> asyncssh.SSHListener:
        """Wait for a listener; one that comes after nobody waits any more is closed. Raises: TimeoutError."""
        made = asyncio.ensure_future(making)
        try:
            return await asyncio.wait_for(asyncio.shield(made), self._context.runtime.settings.open_timeout_seconds)
        except (TimeoutError, asyncio.CancelledError):
            made.add_done_callback(_close_late)
            raise

    async def _accepted(
        self, request: Request, shown: str, open_near: Callable[[ChannelEnd], Awaitable[None]]
    ) -> ChannelEnd:
        """Someone in the environment has connected: open the channel to the user's client."""
        traffic = Traffic()
        near = ChannelEnd(counter(traffic, "received_bytes"), wait=True)
        far = ChannelEnd(counter(traffic, "sent_bytes"))
        join(near, far)
        try:
            await open_near(near)
        except asyncssh.ChannelOpenError:
            raise
        except Exception as error:  # on the shared connection an exception would end other people's channels
            _log.warning("a reverse forward failed: %s", type(error).__name__)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the client is gone") from error
        self._forwarder.record(request, shown, traffic, near, far)
        return far


def _close_late(made: "asyncio.Future[asyncssh.SSHListener]") -> None:
    if not made.cancelled() and not made.exception():
        made.result().close()
