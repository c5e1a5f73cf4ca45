"""Keeps the gateway's page: listens on its Unix socket, and starts its process when somebody comes, or at once.

Who comes while it starts waits in the socket. While one that ended by an error is not yet begun again, who comes reads
that.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from gateway.config import Settings
from gateway.policy import PolicyInForce
from gateway.process.own_process import OwnProcess

_LOOK_SECONDS = 0.25
_BACKLOG = 128
_APOLOGIES_MAX = 64
_HEARD_SECONDS = 5.0
_APOLOGY_TEXT = (
    "<!doctype html><html lang=en><title>devgw</title><meta http-equiv=refresh content=3>"
    "<h1>The page is being started again</h1><p>Nothing of yours is lost. This asks again by itself.</p>"
)
_APOLOGY = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html; charset=utf-8\r\nRetry-After: 3\r\n"
    "Content-Security-Policy: default-src 'none'\r\nCache-Control: no-store\r\nConnection: close\r\n"
    f"Content-Length: {len(_APOLOGY_TEXT)}\r\n\r\n{_APOLOGY_TEXT}"
).encode()
_log = logging.getLogger(__name__)


class PageChild:
    """One process of the gateway that has the duties."""

    def __init__(self, settings: Settings, policy: PolicyInForce) -> None:
        self._path = settings.page_socket
        self._page = settings.page
        self._process = OwnProcess(settings, "page")
        self._policy = policy
        self._listening: socket.socket | None = None
        self._apologies: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve whoever comes, until cancelled. Raises: RuntimeError, when the process ended by an error; OSError."""
        loop = asyncio.get_running_loop()
        listening = self._listening = self._listening or _listen(self._path)
        loop.remove_reader(listening)
        try:
            while True:
                if not self._page.keep_running:
                    await _somebody(listening)
                await self._serve(listening)
        except asyncio.CancelledError:
            await self._process.end()
            self._close()
            raise
        except Exception:
            await self._process.end()
            loop.add_reader(listening, _apologize, listening, self._apologies)
            raise

    async def _serve(self, listening: socket.socket) -> None:
        """Keep the process as long as it wants to serve: it ends by itself when nobody has come for long."""
        idle_seconds = 0 if self._page.keep_running else self._page.idle_stop
        told = (listening.fileno(), self._page.uid, idle_seconds)
        await self._process.start(*map(str, told), pass_fds=(listening.fileno(),))
        _log.info("the page is served by process %d", self._process.pid)
        while self._process.ended is None:
            await self._process.tell(self._policy.loaded)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _LOOK_SECONDS)
        code = self._process.forget()
        if code != 0:
            raise RuntimeError(f"the page's process ended with {code}")

    def _close(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
            self._path.unlink(missing_ok=True)


async def _somebody(listening: socket.socket) -> None:
    """Wait until a connection waits to be accepted."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listening, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(listening)


def _apologize(listening: socket.socket, busy: set[asyncio.Task[None]]) -> None:
    """Answer whoever comes while there is no process to answer."""
    with suppress(OSError):
        client = listening.accept()[0]
        if len(busy) >= _APOLOGIES_MAX:
            client.close()
            return
        task = asyncio.ensure_future(_say_so(client))
        busy.add(task)
        task.add_done_callback(busy.discard)


async def _say_so(client: socket.socket) -> None:
    """Hear the question to its end before the answer: a stream that is closed unread takes its answer along."""
    reader, writer = await asyncio.open_unix_connection(sock=client)
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_HEARD_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_APOLOGY)
            await writer.drain()
    writer.close()


def _listen(path: Path) -> socket.socket:
    """Listen in the place of whoever listened there before, for the gateway's own account alone. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listening.bind(f"/proc/self/fd/{directory}/{fresh.name}")  # the path may be longer than a socket's may be
        fresh.chmod(0o600)
        listening.listen(_BACKLOG)
        fresh.replace(path)
    except OSError:
        listening.close()
        raise
    finally:
        os.close(directory)
    return listening
