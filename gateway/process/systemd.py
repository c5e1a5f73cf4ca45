"""Tells systemd how `devgw serve` stands: sd_notify(3) over a Unix datagram, nothing where nobody asked for it."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class ServiceManager:
    """Whoever started this process, as far as the variables of the process name them."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        address = variables.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # unix(7): an abstract socket
        is_ours = variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(variables.get("WATCHDOG_USEC", 0)) / 1e6 if is_ours else 0.0

    def ready(self) -> None:
        """The port is open; or, after `reloading`, what was loaded holds."""
        self._send("READY=1")

    def reloading(self) -> None:
        """SIGHUP was heard. Type=notify-reload compares the moment with its own (systemd.service(5))."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """No connection is taken any more; those there are have their time."""
        self._send("STOPPING=1")

    def beat(self) -> None:
        """Whoever says this turns."""
        self._send("WATCHDOG=1")

    async def keep_watchdog(self) -> None:
        """Say twice per interval that the event loop turns, until cancelled; return at once where none is asked for."""
        while self.watchdog_seconds:
            self.beat()
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _send(self, message: str) -> None:
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, suppress(OSError):  # it may be gone or full
                out.setblocking(False)
                out.sendto(message.encode(), self._address)
