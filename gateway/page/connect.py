"""Reaches the page from the process that serves SSH: its Unix socket, with the sealed line that says who it is for."""

import os
import socket
from pathlib import Path

from gateway.errors import EngineError
from gateway.page.claim import Claim, Seal
from gateway.ssh.services import Caller

_CONNECT_SECONDS = 2.0


class PageDoor:
    """Opens one stream for each TCP connection that comes through a forward to the page."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self._path = path
        self._seal = seal

    def connect(self, caller: Caller) -> socket.socket:
        """Return a connected, non-blocking stream on which HTTP may follow. Raises: EngineError."""
        claim = Claim(caller.subject, str(caller.ref), caller.connection)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(_CONNECT_SECONDS)
        try:
            line = self._seal.line(claim)
            descriptor = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
            connection.sendall(line)
            connection.setblocking(False)
        except OSError as exc:
            connection.close()
            raise EngineError(
                "page.unanswered",
                f"the gateway's page does not answer just now: {exc.strerror or exc}",
                "try again in a moment",
            ) from exc
        return connection
