"""The gateway's own SSH connections into environments: one shared per environment, private ones for agent forwarding.

A connection logs in with a certificate minted for it and trusts the pinned host key alone. What the environment sends
is as little trusted as what a user sends: it is run by them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncssh
from asyncssh.connection import SSHClientConnection, SSHClientConnectionOptions
from asyncssh.packet import SSHPacket

from gateway.config import SshSettings
from gateway.errors import DevgwError
from gateway.model import Actor, EnvironmentRef
from gateway.ssh.services import EnvironmentAccess, Offload
from gateway.ssh.transport.channels import EnvironmentChannel
from gateway.ssh.transport.guard import ConnectionGuard
from gateway.ssh.transport.relay import ChannelEnd
from gateway.ssh.upstream.certificates import CertificateAuthority
from gateway.ssh.upstream.dialer import Attempt, EnvironmentDialer, Tell, tell_nobody
from gateway.ssh.upstream.environment_login import log_in, login_options

AgentOpener = Callable[[], Awaitable[ChannelEnd]]
LOGIN_SECONDS = 30.0


class UpstreamConnection(ConnectionGuard, SSHClientConnection):
    """A connection to an environment's sshd; closes itself when it has not been used for a while."""

    def __init__(self, *args: Any, idle_seconds: float, agent: AgentOpener | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_seconds = idle_seconds
        self._agent_opener = agent
        self._idle_timer: asyncio.TimerHandle | None = None

    def remove_channel(self, recv_chan: int) -> None:
        """Forget a channel; after the last one the idle time begins."""
        super().remove_channel(recv_chan)
        if not self._channels:
            self.watch_idle()

    def watch_idle(self) -> None:
        """Close after the idle time unless a channel or a listener is there then."""
        if self._idle_timer:
            self._idle_timer.cancel()
        self._idle_timer = self._loop.call_later(self._idle_seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if not self._channels and not self._remote_listeners:
            self.close()

    def _cleanup(self, exc: Exception | None) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
        super()._cleanup(exc)

    async def start_program(
        self,
        factory: Callable[[], asyncssh.SSHClientSession[bytes]],
        *,
        command: bytes | None,
        subsystem: str | None,
        variables: dict[bytes, bytes],
        terminal: "tuple[str, tuple[int, int, int, int], dict[int, int]] | None",
        window: int,
    ) -> EnvironmentChannel:
        """Open a session channel and start its program.

        Raises:
            asyncssh.ChannelOpenError: when the environment refuses.
        """
        self._update_recv_pktlen(32768)
        channel = EnvironmentChannel(self, self._loop, "strict", None, "strict", window, 32768)
        kind, size, modes = terminal or (None, (0, 0, 0, 0), {})
        await channel.create(
            factory,
            cast("str | None", command),
            subsystem,
            variables,
            terminal is not None,
            kind,
            size,
            modes,
            x11_forwarding=False,
            x11_display=None,
            x11_auth_path=None,
            x11_single_connection=False,
            agent_forwarding=self._agent_opener is not None,
        )
        return channel

    def _process_auth_agent_at_openssh_dot_com_open(self, packet: SSHPacket) -> Any:
        """Pass a request of the environment for its user's agent to that user's client, where policy let it."""
        packet.check_end()
        if self._agent_opener is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no agent is forwarded")
        return self.create_unix_channel(), self._agent_opener()


class UpstreamPool:
    """Gives out connections to environments, connecting when there is none."""

    def __init__(
        self,
        environments: EnvironmentAccess,
        dialer: EnvironmentDialer,
        offload: Offload,
        authority: CertificateAuthority,
        settings: SshSettings,
    ) -> None:
        self._environments = environments
        self._dialer = dialer
        self._offload = offload
        self._authority = authority
        self._settings = settings
        self._shared: dict[EnvironmentRef, UpstreamConnection] = {}
        self._attempts: dict[EnvironmentRef, Attempt[UpstreamConnection]] = {}

    async def acquire(self, ref: EnvironmentRef, actor: Actor, tell: Tell = tell_nobody) -> UpstreamConnection:
        """Return the shared connection to an environment.

        Raises:
            DevgwError: when the environment cannot be started or does not let the gateway in.
        """
        shared = self._shared.get(ref)
        if shared is not None and not shared.is_ending():
            return shared
        attempt = self._attempts.get(ref)
        if attempt is None:
            attempt = self._attempts[ref] = Attempt(lambda attempt: self._connect_shared(ref, actor, attempt))
        return await attempt.join(tell)

    async def _connect_shared(
        self, ref: EnvironmentRef, actor: Actor, attempt: Attempt[UpstreamConnection]
    ) -> UpstreamConnection:
        try:
            shared = self._shared[ref] = await self.connect(ref, actor, attempt.say)
        finally:
            del self._attempts[ref]
        return shared

    async def connect(
        self, ref: EnvironmentRef, actor: Actor, tell: Tell = tell_nobody, agent: AgentOpener | None = None
    ) -> UpstreamConnection:
        """Make a connection that nobody else gets. Raises: DevgwError, as `acquire`."""
        sock = await self._dialer.dial(ref, "ssh", actor, tell)
        try:
            options = await self._offload.quick(self._options, ref, agent is not None)
            connection = await asyncio.wait_for(self._log_in(sock, options, agent), LOGIN_SECONDS)
        except (asyncssh.Error, OSError, TimeoutError) as exc:
            sock.close()
            raise DevgwError(
                "environment.unreachable",
                "your environment does not let the gateway in",
                f"'devgw restart {ref}' may help; the gateway's log says more",
            ) from exc
        connection.watch_idle()
        return connection

    def forget(self, ref: EnvironmentRef) -> None:
        """Close the shared connection of an environment that is gone."""
        shared = self._shared.pop(ref, None)
        if shared is not None:
            shared.close()

    def close(self) -> None:
        """Close all shared connections, also those that are being made."""
        for attempt in self._attempts.values():
            attempt.cancel()
        for ref in list(self._shared):
            self.forget(ref)

    def _options(self, ref: EnvironmentRef, agent: bool) -> SSHClientConnectionOptions:
        credentials = self._authority.mint(ref.user, f"devgw {ref}", self._settings.certificate_seconds, agent=agent)
        return login_options(ref, self._environments.host_key(ref), credentials)

    async def _log_in(
        self, sock: Any, options: SSHClientConnectionOptions, agent: AgentOpener | None
    ) -> UpstreamConnection:
        idle_seconds = self._settings.upstream_idle_seconds

        def make(loop: asyncio.AbstractEventLoop, chosen: SSHClientConnectionOptions) -> UpstreamConnection:
            return UpstreamConnection(loop, chosen, wait="auth", idle_seconds=idle_seconds, agent=agent)

        return await log_in(sock, options, make)
