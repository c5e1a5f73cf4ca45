"""What a channel asks of the connection it is on; `client_connection` answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway.audit.event import Event
from gateway.gate import Answer
from gateway.ssh.connection_registry import ClientIdentity, LiveChannel
from gateway.ssh.runtime import Runtime
from gateway.ssh.transport.guarded_connection import GuardedServerConnection
from gateway.ssh.upstream.pool import UpstreamConnection
from policies.requests import Request


class ChannelContext(Protocol):
    """What a session asks of the connection it is on."""

    runtime: Runtime

    @property
    def connection(self) -> GuardedServerConnection:
        """The SSH connection to the user."""

    @property
    def identity(self) -> ClientIdentity:
        """Who logged in."""

    @property
    def connection_id(self) -> str:
        """What names the connection in lists of who is connected."""

    async def ask(self, request: Request) -> Answer:
        """Decide and journal. Raises: DevgwError."""

    async def ask_all(self, requests: Sequence[Request]) -> list[bool]:
        """Decide several requests of one kind, and journal them together. Raises: DevgwError."""

    async def upstream(self, tell: Callable[[str], None]) -> UpstreamConnection:
        """Return the connection to the environment, waking it. Raises: DevgwError."""

    async def allow_agent(self) -> bool:
        """Decide whether the agent is forwarded."""

    def show_agent_refusal(self) -> None:
        """Tell a user with a terminal, once, that their agent is not forwarded."""

    async def warn_of_taken_port(self, tell: Callable[[str], None] | None = None) -> None:
        """Say on a new terminal, or beside a forward without one, that a server inside has the notebook's port."""

    def refused(self, kind: str, asked: str) -> None:
        """Journal that something was asked for which no policy could allow."""

    def tell(self, line: str) -> None:
        """Show a line on the user's screen if there is a session to show it in."""

    def opened(self, channel: LiveChannel, event: Event | None) -> None:
        """Note a channel as live and journal its opening."""

    def closed(self, channel: LiveChannel, event: Event | None) -> None:
        """Note its end and journal it."""

    def spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        """Run work that ends with the connection."""
