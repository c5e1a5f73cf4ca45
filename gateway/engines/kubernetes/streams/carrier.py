"""Carries a service's bytes between a link into its pod and one end of a pair of sockets.

The gateway gets the other end, a plain socket. Where the link ends before the service did, that end is closed as a
broken connection is, and whoever reads an exit status there gets none.
"""

import asyncio
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from gateway.engines.kubernetes.errors import ApiSilenceError
from gateway.engines.kubernetes.streams.frames import END, LENGTH, MOST_CONTENT, FrameReader

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_LOST_SECONDS = 1.0
_BROKEN = (ApiSilenceError, OSError, ValueError)  # of OSError are TLS errors too


class Link(Protocol):
    """A stream of bytes into a pod."""

    async def send(self, *parts: bytes) -> None:
        """Send all, as one. Raises: OSError, ApiSilenceError."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield what comes, until the link ends."""

    async def finish(self) -> None:
        """End it when all that was sent has arrived, however long that takes. Raises: OSError, ApiSilenceError."""

    async def close(self) -> None:
        """End it now, both directions. Raises nothing."""


def carry(link: Link, rest: bytes, is_lost: Callable[[], bool]) -> socket.socket:
    """Return the gateway's end, non-blocking, and carry on the running loop; `rest` came after the answer."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    task = asyncio.get_running_loop().create_task(_Carrier(link, rest, ours, is_lost).run())
    _carriers.add(task)
    task.add_done_callback(_carriers.discard)
    return theirs


_carriers: set[asyncio.Task[None]] = set()  # a loop holds its tasks only weakly


class _Carrier:
    """Moves bytes between a link and our end of a pair until both directions have ended, or one was lost."""

    def __init__(self, link: Link, rest: bytes, ours: socket.socket, is_lost: Callable[[], bool]) -> None:
        self._link = link
        self._is_lost = is_lost
        self._rest = rest
        self._socket = ours

    async def run(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._socket, limit=4 * MOST_CONTENT)
        inward, outward = asyncio.create_task(self._inward(reader)), asyncio.create_task(self._outward(writer))
        try:
            await self._until_over(inward, outward)
            for task in (inward, outward):
                if task.done():
                    task.result()
            if outward.done():  # what was read is handed on before the end is
                writer.close()
                await writer.wait_closed()
            if inward.done() and outward.done():
                await self._finish()
        except _BROKEN as exc:
            _log.debug("a stream into a pod was lost: %s", exc)
        finally:
            inward.cancel()
            outward.cancel()
            writer.transport.abort()
            await self._link.close()

    async def _finish(self) -> None:
        """Wait until what was sent has arrived: a service may read it late. Raises: as `Link.finish`."""
        finishing = asyncio.create_task(self._link.finish())
        try:
            await self._while_led({finishing})
            finishing.result()
        finally:
            finishing.cancel()

    async def _until_over(self, inward: "asyncio.Task[None]", outward: "asyncio.Task[None]") -> None:
        """Wait for the end of both directions, of one that failed, or of whoever reads at our end."""
        await self._while_led({inward, outward})
        if outward.done() and outward.exception() is None:
            await self._while_led({inward})
        elif inward.done() and inward.exception() is None:
            await self._until_hung_up(outward)

    async def _while_led(self, tasks: "set[asyncio.Task[None]]") -> None:
        """Wait for the first of these to end. Raises: ApiSilenceError, when the stream leads nowhere any more."""
        while not (await asyncio.wait(tasks, timeout=_LOST_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
            self._require_led()

    def _require_led(self) -> None:
        if self._is_lost():
            raise ApiSilenceError("the pod is gone, or its node does not answer")

    async def _inward(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(MOST_CONTENT):
            await self._link.send(LENGTH.pack(len(data)), data)
        await self._link.send(END)

    async def _outward(self, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        if self._hand_on(frames, self._rest, writer):
            return
        async for piece in self._link.pieces():
            if self._hand_on(frames, piece, writer):
                return
            await writer.drain()
        raise ApiSilenceError("the stream ended before the service did")

    @staticmethod
    def _hand_on(frames: FrameReader, piece: bytes, writer: asyncio.StreamWriter) -> bool:
        """Write what is whole; say whether the service has ended."""
        for content in frames.feed(piece):
            if not content:
                writer.write_eof()
                return True
            writer.write(content)
        return False

    async def _until_hung_up(self, outward: "asyncio.Task[None]") -> None:
        """Wait for the service's end, but not for one whose reader has gone: only poll(2) tells half from whole."""
        poll = select.poll()
        poll.register(self._socket, 0)
        while not outward.done():
            if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
                return
            await asyncio.wait({outward}, timeout=_LOOK_SECONDS)
            self._require_led()
