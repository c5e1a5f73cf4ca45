"""One worker's side of the connection to the parent that started it: it reports there, and hears lines for terminals.

The words are sd_notify's, because the parent is to its workers what systemd is to it; `LINE=` is our own.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from gateway.model import EnvironmentRef
from gateway.process.systemd import ServiceManager

MESSAGE_BYTES = 4096

Notify = Callable[[EnvironmentRef, str], None]


class WorkerLink(ServiceManager):
    """A worker's place among the others. The first one does what must be done once (ADR 0011)."""

    def __init__(self, index: int, link: socket.socket, port: int, watchdog_seconds: float, *, joins: bool) -> None:
        super().__init__({})
        self.index = index
        self.joins = joins  # others serve already, or have served
        self.port = port
        self.watchdog_seconds = watchdog_seconds
        self.link = link

    def tell(self, ref: EnvironmentRef, line: str) -> None:
        """Have a line written to every terminal of an environment that another worker serves."""
        self._send(f"LINE={ref} {line}")

    def everywhere(self, notify: Notify) -> Notify:
        """Return what writes a line to every terminal of an environment, whichever worker serves it."""

        def notify_all(ref: EnvironmentRef, line: str) -> None:
            notify(ref, line)
            self.tell(ref, line)

        return notify_all

    def listen(self, notify: Notify) -> None:
        """From now on write lines of others to terminals here, and drain when the parent is gone."""
        asyncio.get_running_loop().add_reader(self.link, self._hear, notify)

    def _hear(self, notify: Notify) -> None:
        try:
            message = self.link.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(self.link)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        ref, _, line = message.decode(errors="replace").removeprefix("LINE=").partition(" ")
        notify(EnvironmentRef.parse(ref), line)

    def _send(self, message: str) -> None:
        with suppress(OSError):  # full, or the parent is gone
            self.link.send(message.encode()[:MESSAGE_BYTES])
