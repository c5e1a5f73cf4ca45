"""Joins two byte streams, each an SSH channel or a socket, with back-pressure and half-close in both directions.

What may be joined is decided before; a relay only moves bytes and counts them.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, cast

import asyncssh

from gateway.ssh.transport.channels import ChannelGuard

SOCKET_HIGH_BYTES: Final = 256 << 10
"""Of unsent data at most; see `expect`."""
READ_MAX_BYTES: Final = 256 << 10
READ_MIN_BYTES: Final = 2 << 10
"""Read from a socket whose other end cannot take anything; then it is read no further."""
_read = bytearray(READ_MAX_BYTES)
"""Where every socket is read: the bytes are taken out before anything else is read."""
_readable = memoryview(_read)


@dataclass(slots=True)
class Traffic:
    """Bytes moved so far, seen from the user: `sent_bytes` went to the user, `received_bytes` came from them."""

    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def total(self) -> int:
        return self.sent_bytes + self.received_bytes


class End(Protocol):
    """What one end of a relay lets the other do."""

    def write(self, data: bytes) -> None:
        """Send on; dropped when this end is gone already."""

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""

    def pause_reading(self) -> None:
        """Stop delivering to the other end."""

    def resume_reading(self) -> None:
        """Go on."""

    def room(self) -> int:
        """Return how much can be written now without waiting here."""

    def expect(self, size: int) -> None:
        """Be told how much the other end may be sent before it waits."""

    def close(self) -> None:
        """Close after what was written."""


class _Half:
    """What both kinds of end share: the other end, and which directions are finished."""

    def __init__(self) -> None:
        self.other: End | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended_by = ""
        """Why it ended, where that is more than an end."""
        self._eof_received = False
        self._eof_sent = False

    def close(self) -> None:
        raise NotImplementedError

    def _close_when_finished(self) -> None:
        if self._eof_received and self._eof_sent:
            self.close()

    def _pass_eof(self) -> None:
        self._eof_received = True
        if self.other:
            self.other.write_eof()
        self._close_when_finished()

    def _lost(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self.other:
            self.other.close()


class ChannelEnd(_Half, asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """A direct-tcpip, forwarded-tcpip, streamlocal or agent channel as one end."""

    def __init__(self, count: Callable[[int], None], *, wait: bool = False) -> None:
        """`wait` holds back what arrives until `resume_reading`, for the end that is open before the other."""
        super().__init__()
        self._count = count
        self._wait = wait
        self._channel: ChannelGuard | None = None

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:  # type: ignore[override]  # both kinds of channel arrive here
        self._channel = cast("ChannelGuard", chan)
        if self._wait:
            chan.pause_reading()

    def session_started(self) -> None:
        if self._channel:
            self.window_changed(self._channel.get_recv_window())
        if not self._wait and self.other:
            self.other.resume_reading()

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self._count(len(data))
        if self.other:
            self.other.write(data)

    def eof_received(self) -> bool:
        self._pass_eof()
        return True

    def pause_writing(self) -> None:
        if self.other:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other:
            self.other.resume_reading()

    def window_changed(self, size: int) -> None:
        """Pass on what the peer may send."""
        if self.other:
            self.other.expect(size)

    def room(self) -> int:
        return self._channel.room() if self._channel else READ_MAX_BYTES

    def expect(self, size: int) -> None:
        """A channel has its own measure."""

    def connection_lost(self, _exc: Exception | None) -> None:
        self._channel = None
        self._lost()

    def write(self, data: bytes) -> None:
        if self._channel and not self._channel.is_closing():
            self._channel.write(data)

    def write_eof(self) -> None:
        self._eof_sent = True
        if self._channel and not self._channel.is_closing():
            self._channel.write_eof()
        self._close_when_finished()

    def pause_reading(self) -> None:
        if self._channel:
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        if self._channel:
            self._channel.resume_reading()

    def close(self) -> None:
        if self._channel:
            self._channel.close()


class SocketEnd(_Half, asyncio.BufferedProtocol):
    """A Unix stream socket as one end. It delivers nothing until the other end has started.

    No more is read than the other end can send on: what it cannot take stays in the kernel, on its sender's account.
    What comes before the other end has started is kept: uvloop, and asyncio of Python 3.11.2, forget a pause that is
    asked for in `connection_made`, so that one read can be there already.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        super().__init__()
        self._count = count
        self._transport: asyncio.Transport | None = None
        self._delivers = False
        self._early = b""
        self._early_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.expect(READ_MIN_BYTES)
        self._transport.pause_reading()

    def get_buffer(self, _sizehint: int) -> memoryview:
        room = self.other.room() if self.other and self._delivers else 0
        return _readable[: min(max(room, READ_MIN_BYTES), READ_MAX_BYTES)]

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_readable[:nbytes]))

    def room(self) -> int:
        return READ_MAX_BYTES

    def expect(self, size: int) -> None:
        if self._transport:
            self._transport.set_write_buffer_limits(high=min(size, SOCKET_HIGH_BYTES))

    def data_received(self, data: bytes) -> None:
        if not self._delivers:
            self._early += data
            self.pause_reading()
            return
        self._count(len(data))
        if self.other:
            self.other.write(data)

    def eof_received(self) -> bool:
        if self._delivers:
            self._pass_eof()
        else:
            self._early_eof = True
        return True

    def pause_writing(self) -> None:
        if self.other:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other:
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._eof_received:
            self._deliver_rest()
        self._transport = None
        self._lost()

    def _lost(self) -> None:
        if self._delivers:
            super()._lost()
        elif not self.closed.done():
            self.closed.set_result(None)  # the other end hears of it when it starts, after what came

    def _deliver_rest(self) -> None:
        """Hand on what the service said before it closed, where writing to it has failed: its last answer.

        A server may answer and close before it has read everything; the event loop then gives up both directions. The
        socket is still open here, and what it holds is at most the kernel's buffer.
        """
        socket = self._transport.get_extra_info("socket") if self._transport else None
        with suppress(OSError):
            while socket and (data := os.read(socket.fileno(), READ_MAX_BYTES)):
                self.data_received(data)

    def write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        self._eof_sent = True
        if self._transport and not self._transport.is_closing():
            self._transport.write_eof()
        self._close_when_finished()

    def pause_reading(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._read_on()
        self._delivers = True
        early, self._early = self._early, b""
        if early:
            self.data_received(early)  # this may pause again
        if self._early_eof:
            self._early_eof = False
            self._pass_eof()
        if self.closed.done():
            self._lost()

    def _read_on(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport:
            self._transport.close()


def join(near: ChannelEnd, far: ChannelEnd | SocketEnd) -> None:
    """Make two ends each other's; the far one begins to deliver when the near one has started."""
    near.other, far.other = far, near
