"""The gateway's own SSH connections into environments: one shared per environment, private ones for agent forwarding.

A connection logs in with a certificate minted for it and trusts the pinned host key alone. What the environment sends
is as little trusted as what a user sends: it is run by them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, AnyStr, Final, cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.connection import SSHClientConnection, SSHClientConnectionOptions
from asyncssh.packet import SSHPacket

from gateway.audit import events
from gateway.config import SshSettings
from gateway.errors import DevgwError
from gateway.gate import Recorder
from gateway.model import Actor, EnvironmentRef
from gateway.ssh.services import EnvironmentAccess, Offload
from gateway.ssh.transport.byte_budget import NO_ROOM, ByteBudget, UserBudgets
from gateway.ssh.transport.channels import EnvironmentChannel
from gateway.ssh.transport.guard import ConnectionGuard
from gateway.ssh.transport.relay import ChannelEnd
from gateway.ssh.transport.request_queue import GLOBAL_REQUESTS_MAX
from gateway.ssh.upstream.certificates import CertificateAuthority
from gateway.ssh.upstream.dialer import Attempt, EnvironmentDialer, Tell, tell_nobody
from gateway.ssh.upstream.environment_login import log_in, login_options
from gateway.ssh.upstream.unanswered import UnansweredCloses

AgentOpener = Callable[[], Awaitable[ChannelEnd]]
LOGIN_SECONDS = 30.0
CHANNELS_MAX: Final = 4096
"""Channels of one upstream: those of 32 connections with 128 each."""
UNREAD_MAX_BYTES: Final = 8 << 20
"""What an environment may leave unread before it is cut; data stops at 256 KiB, requests and opens remain."""
UNSTARTED = "your environment did not start the program in time"
UNREAD = "the environment's sshd does not read"
UNANSWERED = "the environment's sshd does not answer that channels are closed"
UNANSWERED_REQUESTS = "the environment's sshd does not answer requests for listeners"


class UpstreamConnection(ConnectionGuard, SSHClientConnection):
    """A connection to an environment's sshd; closes itself when it has not been used for a while."""

    def __init__(
        self,
        *args: Any,
        idle_seconds: float,
        agent: AgentOpener | None = None,
        note_cut: Callable[[str], None] | None = None,
        window_bytes: int = 32 << 20,
        budget: ByteBudget | None = None,
        **kwargs: Any,
    ) -> None:
        """`note_cut` is told why the gateway itself ends the connection; `window_bytes` is shared by the channels.

        `budget` is that of the user whose environment it is.
        """
        super().__init__(*args, **kwargs)
        self._note_cut = note_cut
        self.connection_window_bytes = window_bytes
        if budget:
            self.count_in(budget)
        self._unanswered = UnansweredCloses()
        self._idle_seconds = idle_seconds
        self._agent_opener = agent
        self._idle_timer: asyncio.TimerHandle | None = None

    def remove_channel(self, recv_chan: int) -> None:
        """Forget a channel; after the last one the idle time begins."""
        self._unanswered.discard(self._channels.get(recv_chan))
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

    # Limits: what runs inside is its user's, and may stop reading or answering

    def give_up(self, why: str) -> None:
        """Cut the connection at once and say why."""
        if not self.is_ending() and self._note_cut:
            self._note_cut(why)
        super().give_up(why)

    def _force_close(self, exc: Exception | None) -> None:
        if isinstance(exc, asyncssh.ProtocolError) and not self.is_ending() and self._note_cut:
            self._note_cut(exc.reason[:200])
        super()._force_close(exc)

    def _heed_congestion(self) -> None:
        super()._heed_congestion()
        if self._congested and self._transport and self._transport.get_write_buffer_size() > UNREAD_MAX_BYTES:
            self.give_up(UNREAD)

    def channel_ends(self, channel: SSHChannel[bytes]) -> None:
        """Count the closes that the environment owes; with too many for too long it is cut."""
        self._unanswered.add(channel)
        self._cut_if_overdue()

    def _cut_if_overdue(self) -> None:
        if self._unanswered.are_overdue():
            self.give_up(UNANSWERED)

    def require_answers(self) -> None:
        """Before a global request of the gateway's own: cut an environment that has left too many unanswered."""
        if len(self._global_request_waiters) >= GLOBAL_REQUESTS_MAX:
            self.give_up(UNANSWERED_REQUESTS)

    def add_channel(self, chan: SSHChannel[AnyStr]) -> int:
        """Take one channel more, opened by either side. Raises: asyncssh.ChannelOpenError."""
        self._cut_if_overdue()
        if not self.budget.has_room():
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, NO_ROOM)
        if self._unanswered.are_too_many() or len(self._channels) >= CHANNELS_MAX:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, "too many channels into your environment are open or not closed by it"
            )
        return super().add_channel(chan)

    async def start_program(
        self,
        factory: Callable[[], asyncssh.SSHClientSession[bytes]],
        *,
        command: bytes | None,
        subsystem: str | None,
        variables: dict[bytes, bytes],
        terminal: "tuple[str, tuple[int, int, int, int], dict[int, int]] | None",
        window: int,
        timeout_seconds: float,
    ) -> EnvironmentChannel:
        """Open a session channel and start its program.

        Raises:
            asyncssh.ChannelOpenError: when the environment refuses, or does not answer in time.
        """
        self._update_recv_pktlen(32768)
        channel = EnvironmentChannel(self, self._loop, "strict", None, "strict", self.window_for(window), 32768)
        kind, size, modes = terminal or (None, (0, 0, 0, 0), {})
        started = channel.create(
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
        try:
            await asyncio.wait_for(started, timeout_seconds)
        except TimeoutError:
            channel.abort()  # where it is open: its program was not confirmed
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, UNSTARTED) from None
        except asyncio.CancelledError:
            channel.abort()  # the user has left meanwhile
            raise
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
        recorder: Recorder,
        budgets: UserBudgets,
    ) -> None:
        self._recorder = recorder
        self._budgets = budgets
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
            connection = await asyncio.wait_for(
                self._log_in(sock, options, agent, self._cut_noter(ref, actor), self._budgets.of(ref.user)),
                LOGIN_SECONDS,
            )
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

    def _cut_noter(self, ref: EnvironmentRef, actor: Actor) -> Callable[[str], None]:
        def note(why: str) -> None:
            self._recorder.submit(events.upstream_cut(actor, str(ref), why))

        return note

    async def _log_in(
        self,
        sock: Any,
        options: SSHClientConnectionOptions,
        agent: AgentOpener | None,
        note_cut: Callable[[str], None],
        budget: ByteBudget,
    ) -> UpstreamConnection:
        def make(loop: asyncio.AbstractEventLoop, chosen: SSHClientConnectionOptions) -> UpstreamConnection:
            return UpstreamConnection(
                loop,
                chosen,
                wait="auth",
                idle_seconds=self._settings.upstream_idle_seconds,
                agent=agent,
                note_cut=note_cut,
                window_bytes=self._settings.connection_window_bytes,
                budget=budget,
            )

        return await log_in(sock, options, make)
