"""The one login to an environment's sshd: a certificate minted for it, the pinned host key, pinned algorithms."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncssh
from asyncssh.connection import SSHClientConnection, SSHClientConnectionOptions

from gateway.config.ssh import KEY_EXCHANGES
from gateway.model import EnvironmentRef
from gateway.ssh.transport import algorithms
from gateway.ssh.upstream.certificates import CertificateAuthority

_COMMAND_SECONDS = 120
"""How long the certificate of a single command is valid: it is needed for the login alone."""
C = TypeVar("C", bound=SSHClientConnection)


@dataclass(frozen=True, slots=True)
class Door:
    """What it takes to log in to one environment: its pinned host key, and the CA that it trusts."""

    ref: EnvironmentRef
    host_key: str
    user_ca_key: Path


def login_options(ref: EnvironmentRef, host_key: str, credentials: object) -> SSHClientConnectionOptions:
    """Return options that trust one host key and offer one certificate. Raises: asyncssh.KeyImportError."""
    pinned = asyncssh.import_public_key(host_key)
    return SSHClientConnectionOptions(
        config=None,
        host=str(ref),  # a name for the peer, which a socket between two processes has none of
        username=ref.user,
        client_keys=[credentials],
        known_hosts=([pinned], [], []),
        agent_path=None,
        gss_host=None,
        preferred_auth="publickey",
        compression_algs=["none"],
        encryption_algs=list(algorithms.QUICK_CIPHERS),
        kex_algs=list(KEY_EXCHANGES),
        rekey_bytes=1 << 40,  # a local Unix socket: a new key for each gigabyte buys nothing
        rekey_seconds=86400,
    )


async def log_in(
    sock: socket.socket,
    options: SSHClientConnectionOptions,
    make: Callable[[asyncio.AbstractEventLoop, SSHClientConnectionOptions], C],
) -> C:
    """Log in over a connected socket with a connection of the caller's class. Raises: asyncssh.Error, OSError."""
    loop = asyncio.get_running_loop()
    options.waiter = loop.create_future()
    _, connection = await loop.create_unix_connection(lambda: make(loop, options), sock=sock)
    try:
        await options.waiter
    except (Exception, asyncio.CancelledError):
        connection.abort()
        raise
    return connection


async def log_in_for_command(sock: socket.socket, door: Door, purpose: str) -> SSHClientConnection:
    """Log in for one command of an administrator; the environment's sshd writes the purpose down."""
    credentials = CertificateAuthority(door.user_ca_key).mint(door.ref.user, purpose, _COMMAND_SECONDS)
    options = login_options(door.ref, door.host_key, credentials)
    return await log_in(sock, options, lambda loop, chosen: SSHClientConnection(loop, chosen, wait="auth"))
