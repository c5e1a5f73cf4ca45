"""Both ends of an SSH connection in one process: the gateway's guarded classes, and a peer that does as it likes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
from asyncssh.connection import SSHServerConnection, SSHServerConnectionOptions

from gateway.ssh.transport.guard import ConnectionGuard
from gateway.ssh.upstream.pool import UpstreamConnection


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what nobody tells. Raises: TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection; asyncssh wants an address, which a pair of Unix sockets has not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        return listener.accept()[0], far


class OpenDoor(asyncssh.SSHServer):
    """Lets everybody in."""

    def __init__(self) -> None:
        self.connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def begin_auth(self, username: str) -> bool:
        return False


class GuardedServer(ConnectionGuard, SSHServerConnection):
    """The guard towards a user, without what a login needs."""


@asynccontextmanager
async def guarded_server(
    make: Callable[[], asyncssh.SSHServer],
) -> AsyncIterator[tuple[GuardedServer, asyncssh.SSHClientConnection]]:
    """Yield the gateway's end of a user's connection, and the user's."""
    near, far = connected()
    made: list[GuardedServer] = []
    options = SSHServerConnectionOptions(
        server_factory=make, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")], encoding=None, config=None
    )

    loop = asyncio.get_running_loop()

    def accept() -> GuardedServer:
        made.append(GuardedServer(loop, options))
        return made[0]

    await loop.connect_accepted_socket(accept, near)
    client = await asyncssh.connect(
        sock=far, known_hosts=None, username="alice", config=None, agent_path=None, client_keys=None
    )
    try:
        yield made[0], client
    finally:
        client.abort()
        made[0].abort()


@asynccontextmanager
async def upstream(
    make: Callable[[], asyncssh.SSHServer], **server: Any
) -> AsyncIterator[tuple[UpstreamConnection, asyncssh.SSHServerConnection]]:
    """Yield the gateway's end of a connection to an environment's sshd, and the sshd's, which is its user's."""
    near, far = connected()
    loop = asyncio.get_running_loop()
    doors: list[Any] = []

    def door() -> asyncssh.SSHServer:
        doors.append(make())
        return doors[0]

    options = SSHServerConnectionOptions(
        server_factory=door, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")], encoding=None, config=None
    )
    await loop.connect_accepted_socket(lambda: SSHServerConnection(loop, options), far)
    client_options = asyncssh.SSHClientConnectionOptions(
        known_hosts=None, username="alice", config=None, agent_path=None, client_keys=None
    )
    client_options.waiter = loop.create_future()
    _, connection = await loop.connect_accepted_socket(
        lambda: UpstreamConnection(loop, client_options, wait="auth", idle_seconds=60, **server), near
    )
    await client_options.waiter
    try:
        yield connection, doors[0].connection
    finally:
        connection.abort()
        doors[0].connection.abort()
