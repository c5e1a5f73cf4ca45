"""What a service says arrives: before it has read everything, and before anybody listens."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from gateway.ssh.transport.relay import SocketEnd
from tests.unit.ssh.transport.peers import until

ANSWER = b"HTTP/1.1 413 Content Too Large\r\n\r\n" + bytes(60_000)
ROUNDS = 40


class Near:
    """The user's end; it takes everything."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_closed = False
        self.has_ended = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.received += data

    def write_eof(self) -> None:
        """The service's direction is over."""
        self.has_ended = True

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


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("ending", ["goes on", "ends", "closes"])
def test_what_a_service_says_first_waits_for_the_other_end(
    loop: Callable[[], asyncio.AbstractEventLoop], ending: str
) -> None:
    """It is connected before the user's channel is open: nothing of it is lost, its end neither."""

    async def once() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        theirs.settimeout(10)
        _, end = await asyncio.get_running_loop().create_unix_connection(
            lambda: SocketEnd(lambda _size: None), sock=ours
        )
        theirs.sendall(b"220 ready\r\n")
        if ending == "ends":
            theirs.shutdown(socket.SHUT_WR)
        if ending == "closes":
            theirs.close()
        await asyncio.sleep(0.02)  # where a pause is forgotten, it is read now
        near = Near()
        end.other = near
        await asyncio.sleep(0.02)
        assert not near.received
        assert not near.is_closed
        end.resume_reading()
        await until(lambda: near.received == b"220 ready\r\n" and near.has_ended == (ending != "goes on"))
        end.write_eof()
        theirs.close()
        async with asyncio.timeout(10):
            await end.closed
        assert near.is_closed

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(once())
