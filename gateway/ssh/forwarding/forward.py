"""Channels into an environment's loopback and Unix sockets (RFC 4254 §7.2, direct-streamlocal): open, join, record.

The gate decides on each. Nothing here ever connects from the gateway's own network: the notebook is reached through
its Unix socket, everything else from within the environment.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

import asyncssh

from gateway.audit import events
from gateway.engines.interface import Service
from gateway.errors import DevgwError
from gateway.ssh.channel_context import ChannelContext
from gateway.ssh.connection_registry import LiveChannel
from gateway.ssh.forwarding.environment_port import connect_port
from gateway.ssh.services import Caller
from gateway.ssh.transport.relay import ChannelEnd, SocketEnd, Traffic, join
from gateway.ssh.upstream.dialer import tell_nobody
from policies.ports import GATEWAY_HOST
from policies.requests import ForwardRequest, Request, StreamlocalRequest

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HOST_MAX = 255
PATH_MAX = 107
"""Of a Unix socket (sun_path)."""
SSH_PORT = 22
NO_PORTS_LISTENER = frozenset({"socket.absent", "socket.refused"})
"""What the dial says where an image has no ports.sock, or where its listener is just being started again."""

_log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Say whether a destination is the environment itself; other spellings of the address are not."""
    return host.lower() in LOOPBACK


class Forwarder:
    """Opens the channels that one connection asks for."""

    def __init__(self, context: ChannelContext) -> None:
        self._context = context

    async def tcp(self, host: str, port: int, origin: tuple[str, int]) -> ChannelEnd:
        """Open direct-tcpip. Raises: asyncssh.ChannelOpenError, with the reason for the user's screen."""
        shown = f"{host[:HOST_MAX]}:{port}"
        if len(host) > HOST_MAX or "\0" in host or not 0 < port < 65536:
            self._refuse(shown, "there is no such host or port")
        request = ForwardRequest(self._context.identity.subject, datetime.now(UTC), host, port)
        await self._require(request)
        if host.lower() == GATEWAY_HOST:
            return await self._own(request, shown)
        if is_loopback(host) and port == self._context.runtime.settings.notebook_port:
            return await self._opened(request, shown, self._notebook)
        if is_loopback(host) and port == SSH_PORT:
            self._refuse(shown, "this gateway lands in your environment directly; leave out -J")

        async def open_far(far: ChannelEnd) -> ChannelEnd:
            upstream = await self._context.upstream(tell_nobody)
            await upstream.create_connection(lambda: far, host, port, *origin)
            return far

        through_sshd = self._through(open_far)
        if not is_loopback(host):
            return await self._opened(request, shown, through_sshd)

        async def connect(traffic: Traffic) -> ChannelEnd | SocketEnd:
            try:
                sock = await self._dial("ports")
            except DevgwError as error:
                if error.code not in NO_PORTS_LISTENER:
                    raise
                return await through_sshd(traffic)
            return await connect_port(sock, host, port, counter(traffic, "sent_bytes"))

        return await self._opened(request, shown, connect)

    async def _own(self, request: ForwardRequest, shown: str) -> ChannelEnd:
        """Open a service of the gateway itself: a Unix socket, for it listens on no network but with SSH."""
        connect = self._context.runtime.services.own_ports.get(request.port)
        if connect is None:
            self._refuse(shown, "the gateway has nothing at this port")

        identity = self._context.identity
        caller = Caller(identity.subject, identity.ref, self._context.connection_id)

        async def join_socket(traffic: Traffic) -> SocketEnd:
            runtime = self._context.runtime
            sock = await runtime.dialer.own(partial(connect, caller), identity.user.name)
            return await self._socket_end(sock, traffic)

        return await self._opened(request, shown, join_socket)

    async def streamlocal(self, path: str) -> ChannelEnd:
        """Open direct-streamlocal@openssh.com. Raises: asyncssh.ChannelOpenError."""
        if len(path.encode()) > PATH_MAX or "\0" in path:
            self._refuse(path[:PATH_MAX], "there is no such path")
        request = StreamlocalRequest(self._context.identity.subject, datetime.now(UTC), path)
        await self._require(request)

        async def open_far(far: ChannelEnd) -> ChannelEnd:
            upstream = await self._context.upstream(tell_nobody)
            await upstream.create_unix_connection(lambda: far, path)
            return far

        return await self._opened(request, path, self._through(open_far))

    async def _require(self, request: Request) -> None:
        try:
            answer = await self._context.ask(request)
        except DevgwError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.message) from error
        if not answer.allowed:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, str(answer))

    def _refuse(self, shown: str, reason: str) -> NoReturn:
        """Refuse what no policy could allow, and write that down too."""
        identity = self._context.identity
        event = events.forward_refused(identity.actor, str(identity.ref), shown, reason)
        self._context.runtime.services.recorder.submit(event)
        message = f"{reason} (reference {event.reference})"
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, message)

    def _through(
        self, open_far: Callable[[ChannelEnd], Awaitable[ChannelEnd]]
    ) -> Callable[[Traffic], Awaitable[ChannelEnd]]:
        """Make the far end a channel of the connection to the environment."""

        async def connect(traffic: Traffic) -> ChannelEnd:
            return await open_far(ChannelEnd(counter(traffic, "sent_bytes"), wait=True))

        return connect

    async def _notebook(self, traffic: Traffic) -> SocketEnd:
        """Make the far end the notebook's own socket: one decryption, no second handshake."""
        sock = await self._dial("notebook")
        self._context.spawn(self._context.warn_of_taken_port())
        return await self._socket_end(sock, traffic)

    async def _socket_end(self, sock: socket.socket, traffic: Traffic) -> SocketEnd:
        loop = asyncio.get_running_loop()
        _, far = await loop.create_unix_connection(lambda: SocketEnd(counter(traffic, "sent_bytes")), sock=sock)
        return far

    async def _dial(self, service: Service) -> socket.socket:
        """Return a socket of the environment's. Raises: DevgwError."""
        identity, runtime = self._context.identity, self._context.runtime
        return await runtime.dialer.dial(identity.ref, service, identity.actor)

    async def _opened(
        self, request: Request, shown: str, connect: Callable[[Traffic], Awaitable[ChannelEnd | SocketEnd]]
    ) -> ChannelEnd:
        traffic = Traffic()
        try:
            timeout = (
                self._context.runtime.settings.open_timeout_seconds
                + self._context.runtime.settings.start_timeout_seconds
            )
            with self._context.runtime.registry.opening(self._context.identity.user.name):
                far = await asyncio.wait_for(connect(traffic), timeout)
        except asyncssh.ChannelOpenError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, _plain(error.reason)) from error
        except DevgwError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.message) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            _log.warning("a forward of %s failed: %s", self._context.identity.ref, type(error).__name__)
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED, "your environment does not answer there"
            ) from error
        near = ChannelEnd(counter(traffic, "received_bytes"))
        join(near, far)
        self.record(request, shown, traffic, near, far)
        return near

    def record(
        self, request: Request, shown: str, traffic: Traffic, near: ChannelEnd, far: ChannelEnd | SocketEnd
    ) -> None:
        """Keep a joined pair in the register until both its ends are closed, then journal what it moved."""
        reasons: list[str] = []

        def end(reason: str) -> None:
            reasons.append(reason)
            far.close()
            near.close()

        is_own = isinstance(request, ForwardRequest) and request.host.lower() == GATEWAY_HOST
        live = LiveChannel(request, end, traffic, detail=shown, uses_environment=not is_own)
        identity = self._context.identity
        who, where, kind = identity.actor, str(identity.ref), request.action
        self._context.opened(live, events.forward_opened(who, where, kind, shown))

        def closed(_far: "asyncio.Future[None]") -> None:
            sent, received = traffic.sent_bytes, traffic.received_bytes
            reason = "".join(reasons[:1]) or far.ended_by
            self._context.closed(live, events.forward_closed(who, where, kind, shown, sent, received, reason))

        far.closed.add_done_callback(closed)


def counter(traffic: Traffic, name: str) -> Callable[[int], None]:
    if name == "sent_bytes":

        def count(size: int) -> None:
            traffic.sent_bytes += size
    else:

        def count(size: int) -> None:
            traffic.received_bytes += size

    return count


def _plain(text: str) -> str:
    """Make an environment's own words harmless on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
