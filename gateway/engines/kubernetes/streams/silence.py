"""Notices that the other end of a TCP connection is out of reach; left alone the kernel takes a quarter of an hour.

TCP_USER_TIMEOUT would do for one part, and end streams whose reader takes its time for another (tcp(7): a zero window).
"""

import socket
import struct
from typing import Protocol

_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 15, 5, 3
_SILENT_MILLISECONDS = 30_000
"""As long as the probes of an idle connection take."""
_TCP_INFO = struct.Struct("=24xI28xI")  # linux/tcp.h: tcpi_unacked, tcpi_last_ack_recv (milliseconds)


class Connection(Protocol):
    """What is needed of a socket; an event loop's own stands in for one."""

    def getsockopt(self, level: int, name: int, length: int, /) -> bytes:
        """Read an option."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """Set an option."""


def watch(connection: Connection) -> None:
    """Have the kernel ask a silent other end whether it is there, and break the connection when nothing answers."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def is_silent(connection: Connection) -> bool:
    """Say whether what was sent on a watched connection has had no acknowledgement for long; probes rest meanwhile.

    A reader that takes its time is not silent: what it has no room for was not sent. Nor is one that was idle before:
    it answered a probe a moment ago.
    """
    try:
        unacked, heard = _TCP_INFO.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except OSError:  # it is closed: whoever reads or writes is told
        return False
    return bool(unacked) and heard >= _SILENT_MILLISECONDS
