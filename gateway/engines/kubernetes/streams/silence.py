"""Notices that the other end of a TCP connection is out of reach; left alone the kernel takes a quarter of an hour.

TCP_USER_TIMEOUT would do for one part, and end streams whose reader takes its time for another (tcp(7): a zero window).
"""

import socket
import struct
from math import inf
from typing import Protocol, cast

_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 5, 5, 5
_SILENT_MILLISECONDS = 30_000
"""As long as the kernel asks an idle connection before it is broken."""
_DOUBTED_MILLISECONDS = 11_000
"""Two of its questions had no answer."""
_STUCK_MILLISECONDS = 150_000
"""Whoever has no room for more is asked at least every two minutes (TCP_RTO_MAX), and answers."""
_TCP_INFO = struct.Struct("=24xI24xII84xI")
"""Of linux/tcp.h: tcpi_unacked, tcpi_last_data_recv, tcpi_last_ack_recv (milliseconds), tcpi_notsent_bytes."""


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


def is_silent(connection: Connection, *, is_doubted: bool) -> bool:
    """Say whether nothing has come on a watched connection for too long: a shorter time where others doubt it too.

    A reader that takes its time is not silent: what it has no room for was not sent. Nor is one that was idle before:
    it answered a question a moment ago. While something is on its way, or cannot leave, the kernel asks nothing.
    """
    try:
        said = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # it is closed: whoever reads or writes is told
        return False
    unacked, data, acknowledgement, unsent = cast("tuple[int, int, int, int]", _TCP_INFO.unpack(said))
    most = _SILENT_MILLISECONDS if unacked else _STUCK_MILLISECONDS if unsent else inf
    return min(data, acknowledgement) >= (min(most, _DOUBTED_MILLISECONDS) if is_doubted else most)
