"""One user's connection from accept to close: login, then every channel asked for, then the record of its end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import asyncssh

from gateway.audit import events
from gateway.audit.event import Event, new_reference
from gateway.errors import DevgwError
from gateway.gate import Answer
from gateway.ssh.admission import Admitted
from gateway.ssh.connection_registry import ClientIdentity, LiveChannel, LiveConnection
from gateway.ssh.forwarding.forward import Forwarder
from gateway.ssh.forwarding.notebook_port import is_notebook_port_taken
from gateway.ssh.forwarding.reverse import ReverseForwarder
from gateway.ssh.login import Login
from gateway.ssh.runtime import Runtime
from gateway.ssh.session_channel.user_side import UserSession
from gateway.ssh.transport.guarded_connection import GuardedServerConnection
from gateway.ssh.transport.relay import ChannelEnd
from gateway.ssh.upstream.pool import UpstreamConnection
from policies.requests import AgentForwardingRequest, Request

SCREEN_SECONDS: Final = 0.25
"""How long a client has for giving its user's screen back."""
_log = logging.getLogger(__name__)


class ClientConnection(asyncssh.SSHServer):
    """The owner of a GuardedServerConnection, in asyncssh's words."""

    def __init__(self, runtime: Runtime, admitted: Admitted, login: Login) -> None:
        self.runtime = runtime
        self._admitted = admitted
        self._login = login
        self._connection: GuardedServerConnection | None = None
        self._live: LiveConnection | None = None
        self._id = ""
        self._sessions: list[UserSession] = []
        self._private: UpstreamConnection | None = None
        self._making_private = asyncio.Lock()
        self._agent_allowed = False
        self._agent_refusal = ""
        self._port_was_asked = False
        self._closing = ("", new_reference())
        self._forwarder = Forwarder(self)
        self._reverse = ReverseForwarder(self, self._forwarder)

    @property
    def connection(self) -> GuardedServerConnection:
        assert self._connection is not None  # noqa: S101 - set before anything else happens
        return self._connection

    @property
    def identity(self) -> ClientIdentity:
        assert self._login.identity is not None  # noqa: S101 - nothing asks before login
        return self._login.identity

    @property
    def connection_id(self) -> str:
        return self._id

    # Login

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        assert isinstance(conn, GuardedServerConnection)  # noqa: S101 - the server makes no other
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        self._login.begin(username)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> Coroutine[Any, Any, bool]:
        return self._login.is_known(username, key)

    def auth_completed(self) -> None:
        self._admitted.logged_in()
        self.connection.count_in(self.runtime.budgets.of(self.identity.user.name))
        self._live = LiveConnection(self.identity, self.end, self.notify)
        self._id = self._live.id
        self.runtime.registry.add(self._live)
        self._login.entered()

    # Channels

    def session_requested(self) -> Any:
        self.connection.require_session(self._channels_permitted())
        session = UserSession(self)
        self._sessions = [known for known in self._sessions if known.is_open()]
        self._sessions.append(session)
        return self.connection.create_session_channel(), session

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        self.connection.require_channel(self._channels_permitted())
        return self._safely(self._forwarder.tcp(dest_host, dest_port, (orig_host[:255], orig_port & 0xFFFF)))

    def unix_connection_requested(self, dest_path: str) -> Any:
        self.connection.require_channel(self._channels_permitted())
        return self._safely(self._forwarder.streamlocal(dest_path))

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        return self._reverse.tcp(listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> Any:
        return self._reverse.streamlocal(listen_path)

    def tun_requested(self, unit: int | None) -> bool:
        self.refused("tun", str(unit))
        return False

    def tap_requested(self, unit: int | None) -> bool:
        self.refused("tap", str(unit))
        return False

    def _channels_permitted(self) -> int:
        return self.runtime.services.access.allowance(self.identity.user.name).sessions

    async def _safely(self, opening: Awaitable[ChannelEnd]) -> ChannelEnd:
        """Let a fault of our own cost one channel, not the connection."""
        try:
            return await opening
        except asyncssh.ChannelOpenError:
            raise
        except Exception as error:
            _log.exception("a channel could not be opened")
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "internal error") from error

    # What channels ask (ChannelContext)

    async def ask(self, request: Request) -> Answer:
        return await self.runtime.services.gate.ask_async(request, self.identity.actor, str(self.identity.ref))

    async def ask_all(self, requests: Sequence[Request]) -> list[bool]:
        return await self.runtime.services.gate.ask_all_async(requests, self.identity.actor, str(self.identity.ref))

    async def upstream(self, tell: Callable[[str], None]) -> UpstreamConnection:
        if not self._agent_allowed:
            return await self.runtime.upstreams.acquire(self.identity.ref, self.identity.actor, tell)
        async with self._making_private:  # of several sessions that begin at once, one makes it
            if self._private is None or self._private.is_ending():
                # An agent is asked for by connection, so those of two laptops must not share one.
                ref, actor = self.identity.ref, self.identity.actor
                self._private = await self.runtime.upstreams.connect(ref, actor, tell, self._open_agent)
                if self._live is None:  # the client left meanwhile
                    self._private.close()
            return self._private

    async def allow_agent(self) -> bool:
        if not self.connection.check_certificate_permission("agent-forwarding"):
            self._agent_refused("your certificate does not permit it")
            return False
        request = AgentForwardingRequest(self.identity.subject, datetime.now(UTC))
        try:
            answer = await self.ask(request)
        except DevgwError as error:
            self._agent_refused(error.message)
            return False
        if not answer.allowed:
            self._agent_refused(str(answer))
        elif not self._agent_allowed:
            self._agent_allowed = True
            self.opened(LiveChannel(request, self._end_agent), None)
        return answer.allowed

    def _agent_refused(self, reason: str) -> None:
        """Clients with ForwardAgent ask at every connection: `ssh -v` shows each refusal, a terminal the first."""
        self._agent_refusal = f"agent forwarding refused: {reason}"
        self.connection.send_debug(f"devgw: {self._agent_refusal}")
        self.show_agent_refusal()

    def show_agent_refusal(self) -> None:
        told, user = self.runtime.told_of_agent, self.identity.user.name
        if self._agent_refusal and user not in told and any(session.has_terminal() for session in self._sessions):
            told.add(user)
            self.notify(self._agent_refusal)

    async def warn_of_taken_port(self, tell: Callable[[str], None] | None = None) -> None:
        """Say that a server of the user's has the notebook's port: on a new terminal, or beside a forward of it."""
        if tell is None:
            if self._port_was_asked or any(session.is_open() for session in self._sessions):
                return  # whoever has a terminal has been told on it; a command's stderr may be read by a program
            self._port_was_asked = True
        if not await is_notebook_port_taken(self.runtime, self.identity.ref):
            return
        port = self.runtime.settings.notebook_port
        line = f"a server of yours has port {port} inside, where forwards reach the notebook; start it on another port"
        (tell or self.tell)(line)

    async def _open_agent(self) -> ChannelEnd:
        near = await self.connection.open_agent()
        far = ChannelEnd(lambda _size: None)
        near.other, far.other = far, near
        return far

    def _end_agent(self, reason: str) -> None:
        self._agent_allowed = False
        if reason:
            self.tell(f"agent forwarding ends: {reason}")
        if self._private:
            self._private.close()

    def refused(self, kind: str, asked: str) -> None:
        identity = self.identity
        event = events.channel_refused(identity.actor, str(identity.ref), kind, asked)
        self.runtime.services.recorder.submit(event)

    def tell(self, line: str) -> None:
        for session in self._sessions:
            session.tell(line)
        if not any(session.is_open() for session in self._sessions) and not self.connection.is_ending():
            self.connection.send_debug(f"devgw: {line}", always_display=True)

    def notify(self, line: str) -> None:
        """Write to the terminals only: a command's stderr may be read by a program."""
        for session in self._sessions:
            if session.has_terminal():
                session.tell(line)

    def spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        return self.connection.create_task(work)

    def opened(self, channel: LiveChannel, event: Event | None) -> None:
        if event:
            self._submit(event)
        if self._live:
            self._live.channels.append(channel)
        else:  # the client left while it was being opened: nobody else would ever close its far end
            channel.end("")

    def closed(self, channel: LiveChannel, event: Event | None) -> None:
        if self._live and channel in self._live.channels:
            self._live.closed(channel)
        if event:
            self._submit(event)

    def _submit(self, event: Event) -> None:
        """Journal what happened on a channel, with the id of its connection."""
        self.runtime.services.recorder.submit(replace(event, detail=event.detail | {"connection": self._id}))

    # Ending

    def end(self, reason: str) -> None:
        """Close from the gateway's side, with the reason on every screen of the connection."""
        self._closing = (reason, new_reference())
        text = f"{reason} (reference {self._closing[1]})"
        is_drawn_on = any(session.is_drawn_on() for session in self._sessions)
        for session in self._sessions:
            session.close_with(reason, f"your connection is closed: {text}")
        said = f"closed by the gateway: {text}"
        if is_drawn_on:  # a client that is told DISCONNECT writes nothing further: its user's screen comes first
            asyncio.get_running_loop().call_later(SCREEN_SECONDS, self._disconnect, said)
        else:
            self._disconnect(said)

    def _disconnect(self, said: str) -> None:
        if not self.connection.is_ending():
            self.connection.disconnect(asyncssh.DISC_BY_APPLICATION, said)

    def connection_lost(self, exc: Exception | None) -> None:
        self._admitted.left()
        self._login.closed()
        live, self._live = self._live, None
        if self._private:
            self._private.close()
        if live is None:
            return
        self.runtime.registry.remove(live)
        report = live.report()
        for channel in live.channels:
            channel.end("")
        reason, reference = self._closing
        event = events.connection_closed(
            self.identity.actor,
            str(self.identity.ref),
            live.id,
            report.sent_bytes,
            report.received_bytes,
            (datetime.now(UTC) - live.since).total_seconds(),
            reason or (type(exc).__name__ if exc else "closed by the client"),
            reference,
        )
        self.runtime.services.recorder.submit(event)
