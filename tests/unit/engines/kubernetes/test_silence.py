"""When the other end of a connection is out of reach. Packets that are lost for real: tests/cluster/test_streams.py."""

import socket
import struct
import time

import pytest

from gateway.engines.kubernetes.streams.silence import is_silent, watch


class Told:
    """A connection of which the kernel says what a test says."""

    def __init__(self, unacked: int, heard_milliseconds: int) -> None:
        self._fields = [0] * 24
        self._fields[4], self._fields[12] = unacked, heard_milliseconds  # linux/tcp.h, behind eight bytes

    def getsockopt(self, level: int, name: int, length: int) -> bytes:
        assert (level, name) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return struct.pack("=8x24I", *self._fields)[:length]

    def setsockopt(self, level: int, name: int, value: int) -> None:
        """Nothing is set."""


@pytest.mark.parametrize(
    ("unacked", "heard", "expected"),
    [
        (0, 3_600_000, False),  # idle, or a reader without room: nothing is on its way
        (3, 200, False),
        (3, 29_000, False),
        (3, 30_000, True),
    ],
)
def test_what_is_on_its_way_for_long_and_unanswered_is_lost(unacked: int, heard: int, *, expected: bool) -> None:
    assert is_silent(Told(unacked, heard)) is expected


def test_a_reader_that_takes_its_time_is_not_silent() -> None:
    """The kernel's own account of a full connection: nothing that the other end has room for is unanswered."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        watch(ours)
        ours.setblocking(False)
        with theirs, pytest.raises(BlockingIOError):
            while True:
                ours.send(b"x" * 65536)
        deadline = time.monotonic() + 10
        while struct.unpack_from("=I", ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]:
            assert time.monotonic() < deadline, "something is on its way although nobody reads"
            time.sleep(0.05)
        assert not is_silent(ours)


def test_the_kernel_asks_who_is_silent() -> None:
    """Within half a minute of the last word: 15 seconds, and three questions of five."""
    with socket.socket() as connection:
        watch(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [connection.getsockopt(socket.IPPROTO_TCP, one) for one in options] == [15, 5, 3]


def test_a_closed_connection_is_told_to_whoever_reads() -> None:
    connection = socket.socket()
    connection.close()
    assert not is_silent(connection)
