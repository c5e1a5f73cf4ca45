"""When the other end of a connection is out of reach. Packets that are lost for real: tests/cluster/test_streams.py."""

import socket
import struct
import time
from contextlib import suppress

import pytest

from gateway.engines.kubernetes.streams.silence import is_silent, watch


class Told:
    """A connection of which the kernel says what a test says: linux/tcp.h, behind eight bytes."""

    def __init__(self, unacked: int, unsent: int, data_milliseconds: int, ack_milliseconds: int) -> None:
        self._fields = [0] * 35
        self._fields[4], self._fields[11], self._fields[12] = unacked, data_milliseconds, ack_milliseconds
        self._fields[34] = unsent

    def getsockopt(self, level: int, name: int, length: int) -> bytes:
        assert (level, name) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return struct.pack("=8x35I", *self._fields)[:length]

    def setsockopt(self, level: int, name: int, value: int) -> None:
        """Nothing is set."""


@pytest.mark.parametrize(
    ("unacked", "unsent", "data", "ack", "alone", "doubted"),
    [
        (0, 0, 900_000, 5_100, False, False),  # idle: it answers what the kernel asks each five seconds
        (0, 0, 100, 900_000, False, False),  # it sends alone, and acknowledges nothing for there is nothing
        (3, 0, 900_000, 200, False, False),
        (0, 70_000, 900_000, 119_000, False, True),  # a reader without room, whom the kernel asks seldom
        (0, 70_000, 900_000, 150_000, True, True),  # nothing leaves this host
        (0, 0, 900_000, 10_999, False, False),
        (0, 0, 900_000, 11_000, False, True),
        (3, 0, 29_999, 29_999, False, True),
        (3, 0, 30_000, 900_000, True, True),
    ],
)
def test_who_is_silent(*, unacked: int, unsent: int, data: int, ack: int, alone: bool, doubted: bool) -> None:
    """By what came last; sooner where the API does not know the node either."""
    connection = Told(unacked, unsent, data, ack)
    assert [is_silent(connection, is_doubted=one) for one in (False, True)] == [alone, doubted]


def test_a_reader_that_takes_its_time_is_not_silent() -> None:
    """The kernel's own account of a full connection: nothing that the other end has room for is unanswered."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        watch(ours)
        ours.setblocking(False)
        with listener.accept()[0]:
            with suppress(BlockingIOError):
                while True:
                    ours.send(b"x" * 65536)
            deadline = time.monotonic() + 10
            while struct.unpack_from("=I", ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]:
                assert time.monotonic() < deadline, "something is on its way although nobody reads"
                time.sleep(0.05)
            assert not is_silent(ours, is_doubted=True)


def test_the_kernel_asks_who_is_silent() -> None:
    """And breaks the connection half a minute after the last word: five questions, five seconds each."""
    with socket.socket() as connection:
        watch(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [connection.getsockopt(socket.IPPROTO_TCP, one) for one in options] == [5, 5, 5]


def test_a_closed_connection_is_told_to_whoever_reads() -> None:
    connection = socket.socket()
    connection.close()
    assert not is_silent(connection, is_doubted=True)
