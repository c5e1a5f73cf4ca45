"""The half of the page that has no rights, begun by the one that has them before that has loaded what it stands on.

So the two load beside each other, and whoever came first waits for one of them alone.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys

MODULE = "gateway.page.web"


class WebProcess:
    """One process, which ends when `line` is closed."""

    def __init__(self, listening: int, uid: int, idle_seconds: float) -> None:
        """Begin to serve a listening socket, as another account where this one is root. Raises: OSError."""
        self.line, there = socket.socketpair()
        with there:
            desk = there.fileno()
            told = {"listening": listening, "desk": desk, "uid": uid if os.geteuid() == 0 else -1, "idle": idle_seconds}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, json.dumps(told)],
                stdin=subprocess.DEVNULL, pass_fds=(listening, desk),
            )  # fmt: skip

    async def wait(self) -> int:
        """Return its exit code once it has ended."""
        return await asyncio.to_thread(self._process.wait)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
