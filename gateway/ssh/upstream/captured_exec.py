"""Runs one command inside an environment for the gateway itself, as its user: what `devgw doctor ENV` needs."""

import asyncio
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import asyncssh

from gateway.errors import EngineError
from gateway.ssh.upstream.environment_login import Door, log_in_for_command

_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Completed:
    """What the command left. Output beyond 1 MiB is cut: it is a user's environment that writes it."""

    exit_code: int
    stdout: str
    stderr: str


def run_captured(dialled: socket.socket, door: Door, arguments: Sequence[str], timeout_seconds: float) -> Completed:
    """Run a command over a connected `ssh.sock`, with a certificate minted for it and the pinned host key.

    Raises:
        EngineError: `environment.unreachable`, when it does not let us in or does not finish in time.
    """
    try:
        running = _run(dialled, door, shlex.join(arguments))
        return asyncio.run(asyncio.wait_for(running, timeout_seconds))
    except (asyncssh.Error, OSError, TimeoutError) as exc:
        why = str(exc) or f"no answer within {timeout_seconds:.0f} s"
        raise EngineError("environment.unreachable", f"{door.ref} does not let the gateway in: {why}") from exc
    finally:
        dialled.close()


async def _run(dialled: socket.socket, door: Door, command: str) -> Completed:
    connection = await log_in_for_command(dialled, door, f"devgw doctor {door.ref}")
    try:
        process = await connection.create_process(command, encoding=None)
        stdout, stderr = await asyncio.gather(_read(process.stdout, connection), _read(process.stderr, connection))
        if len(stdout) < _MOST_BYTES and len(stderr) < _MOST_BYTES:
            await process.wait_closed()
        code = process.exit_status
    finally:
        connection.abort()  # a channel's close is answered only when the program has ended, which it need not do
    return Completed(-1 if code is None else code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _read(reader: "asyncssh.SSHReader[bytes]", connection: asyncssh.SSHClientConnection) -> bytes:
    """Read to the end, or to the limit: then nothing more is wanted of the other stream either."""
    try:
        read = await reader.readexactly(_MOST_BYTES)
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncssh.ConnectionLost:  # the other stream has reached its limit
        return b""
    connection.abort()
    return read
