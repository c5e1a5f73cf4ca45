"""A service that answers and closes before it has read everything: its answer arrives."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from gateway.ssh.transport.relay import SocketEnd

ANSWER = b"HTTP/1.1 413 Content Too Large\r\n\r\n" + bytes(60_000)
ROUNDS = 40


class Near:
    """The user's end; it takes everything."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.received += data

    def write_eof(self) -> None:
        """Its direction is over."""

    def pause_reading(self) -> None:
        """It has nothing to say but what the test writes."""

    def resume_reading(self) -> None:
        """Likewise."""

    def room(self) -> int:
        return 4096

    def expect(self, size: int) -> None:
        """It takes everything."""

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("is_paused", [False, True], ids=["taken", "held back"])
def test_an_answer_that_is_given_before_the_request_was_read_arrives(
    loop: Callable[[], asyncio.AbstractEventLoop], is_paused: bool
) -> None:
    """Writing to it fails then, which must not lose what it said: OpenSSH delivers it."""

    async def once() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        theirs.settimeout(10)
        near = Near()
        _, end = await asyncio.get_running_loop().create_unix_connection(
            lambda: SocketEnd(lambda _size: None), sock=ours
        )
        end.other = near
        if not is_paused:
            end.resume_reading()
        end.write(bytes(20_000))
        await asyncio.sleep(0)
        theirs.recv(100)
        theirs.sendall(ANSWER)
        theirs.close()
        end.write(bytes(20_000))
        if is_paused:
            await asyncio.sleep(0.01)
            end.resume_reading()
        async with asyncio.timeout(10):
            await end.closed
        assert near.received == ANSWER
        assert near.is_closed

    async def again_and_again() -> None:
        for _ in range(ROUNDS):
            await once()

    running = loop()
    try:
        running.run_until_complete(again_and_again())
    finally:
        running.close()
