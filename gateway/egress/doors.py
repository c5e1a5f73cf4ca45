"""The Unix sockets through which environments reach the proxy: one each, in the directory that it may only read.

So the socket itself says which environment asks: nobody inside can put another in its place, or reach another's.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.egress.proxy_request import ClientSide
from gateway.egress.resolver import STREAM_BYTES
from gateway.model import EnvironmentRef

SOCKET = "egress.sock"
BACKLOG = 128

Serve = Callable[[EnvironmentRef, ClientSide], Awaitable[None]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an environment's door belongs, and who may open it."""

    directory: Path
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Door:
    place: Place
    server: asyncio.Server
    identity: tuple[int, int] | None


class Doors:
    """Keeps a listening socket in each place where one is wanted."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._open: dict[EnvironmentRef, _Door] = {}

    async def keep(self, wanted: Mapping[EnvironmentRef, Place]) -> bool:
        """Open what is missing, close what is not wanted any more. One that fails is tried again.

        Returns False where a socket has gone: its environment may be going too, so `wanted` is to be read anew first.
        """
        for ref, door in list(self._open.items()):
            if wanted.get(ref) != door.place:
                self._close(ref)
        gone = [ref for ref, door in self._open.items() if _identity(door.place.directory) != door.identity]
        for ref in gone:
            self._close(ref)
        if gone:
            return False
        for ref, place in wanted.items():
            if ref not in self._open and place.directory.is_dir():
                try:
                    self._open[ref] = await self._listen(ref, place)
                except OSError as exc:
                    _log.error("%s has no way to hosts outside: %s", ref, exc)
        return True

    def close(self) -> None:
        """Close all; what was accepted goes on until it is cut."""
        for ref in list(self._open):
            self._close(ref)

    async def _listen(self, ref: EnvironmentRef, place: Place) -> _Door:
        listener = open_listener(place)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(ref, ClientSide(reader, writer))

        server = await asyncio.start_unix_server(accept, sock=listener, limit=STREAM_BYTES, backlog=BACKLOG)
        return _Door(place, server, _identity(place.directory))

    def _close(self, ref: EnvironmentRef) -> None:
        door = self._open.pop(ref)
        door.server.close()
        if _identity(door.place.directory) == door.identity:
            with suppress(OSError):
                (door.place.directory / SOCKET).unlink()


def open_listener(place: Place) -> socket.socket:
    """Listen for one user alone, in place of what stands there. Raises: OSError."""
    directory = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    draft = f".{SOCKET}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)
        listener.bind(f"/proc/self/fd/{directory}/{draft}")  # a path of its own may be too long for unix(7)
        os.chmod(draft, 0o600, dir_fd=directory)
        if os.geteuid() == 0:
            os.chown(draft, place.uid, place.gid, dir_fd=directory)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        os.rename(draft, SOCKET, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = (directory / SOCKET).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
