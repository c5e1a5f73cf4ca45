"""The one budget of bytes that a user has: who gets which window, and what their sockets are read for."""

import asyncio
import socket
from typing import Any

import asyncssh
import pytest
import uvloop

from gateway.ssh.transport.byte_budget import (
    COPIES,
    GROWTH,
    WINDOW_FIRST_BYTES,
    WINDOW_MIN_BYTES,
    ByteBudget,
    UserBudgets,
)
from gateway.ssh.transport.relay import READ_MIN_BYTES, ChannelEnd, SocketEnd, join
from tests.unit.ssh.transport.peers import OpenDoor, guarded_server, until

MOST = 2 << 20


def test_all_channels_of_a_user_stay_within_their_budget() -> None:
    """Thousands of channels have a window each before there is room for no more."""
    budget, windows = ByteBudget(), []
    while budget.has_room():
        windows.append(budget.first_window(MOST))
        budget.take(COPIES * windows[-1])
    assert len(windows) > 1500
    assert windows[0] >= 16 << 10
    assert windows[-1] == WINDOW_MIN_BYTES
    assert budget.taken_bytes <= budget.limit_bytes


def test_channels_that_are_used_grow_until_the_budget_is_taken() -> None:
    """The first ones to the full window, all together not beyond the budget, whatever is moved."""
    budget = ByteBudget()
    windows = [budget.first_window(MOST) for _ in range(400)]
    budget.take(COPIES * sum(windows))
    for _ in range(8):
        for number, window in enumerate(windows):
            windows[number] = budget.next_window(window, MOST)
            budget.take(COPIES * (windows[number] - window))
            assert budget.taken_bytes <= budget.limit_bytes
    alone = ByteBudget()
    assert alone.next_window(32 << 10, MOST) == GROWTH * (32 << 10)
    assert alone.next_window(1 << 20, MOST) == MOST


def test_a_large_window_gives_back_when_nearly_all_is_taken() -> None:
    """To where new channels are, and no further."""
    budget = ByteBudget()
    budget.take(budget.limit_bytes - (64 << 10))
    assert budget.next_window(MOST, MOST) == MOST // 2
    assert budget.next_window(WINDOW_FIRST_BYTES, MOST) == WINDOW_FIRST_BYTES


def test_a_user_has_one_budget_and_another_has_their_own() -> None:
    """As long as one connection of theirs is there."""
    budgets = UserBudgets(8 << 20)
    alice = budgets.of("alice")
    assert budgets.of("alice") is alice
    assert budgets.of("bob") is not alice
    assert alice.limit_bytes == 8 << 20


class Full:
    """An end that takes `space` bytes, counts what it was given, and stops its source as a channel does."""

    def __init__(self, space: int, source: SocketEnd) -> None:
        self.space, self.got, self.source = space, 0, source

    def room(self) -> int:
        return max(0, self.space - self.got)

    def write(self, data: bytes) -> None:
        self.got += len(data)
        if self.got >= self.space:
            self.source.pause_reading()


@pytest.mark.attack("E31", "forwards whose client reads nothing: their bytes stay in the environment's kernel")
@pytest.mark.parametrize("space", [0, 1, 5000, 1 << 20])
def test_a_socket_is_read_for_what_the_other_end_can_send_on(space: int) -> None:
    """Whatever the sender has ready; the first look at a closed window costs two KiB at most."""

    async def go() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with far:
            assert far.send(bytes(100_000)) == 100_000
            _, end = await asyncio.get_running_loop().create_unix_connection(
                lambda: SocketEnd(lambda _n: None), sock=near
            )
            full: Any = Full(space, end)
            end.other = full
            assert len(end.get_buffer(-1)) == READ_MIN_BYTES  # until the other end has started
            end.resume_reading()
            sizes = [len(end.get_buffer(-1)) for _ in range(2)]
            assert sizes[0] == sizes[1] == max(READ_MIN_BYTES, min(full.room(), 256 << 10))
            await until(lambda: full.got >= min(space, 100_000) > 0 or full.got == READ_MIN_BYTES)
            assert full.got <= max(READ_MIN_BYTES, space)
            end.close()

    asyncio.run(go())


class Still(asyncssh.SSHTCPSession[bytes]):
    """A client's channel that takes nothing until it is let."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def connection_made(self, chan: Any) -> None:
        self.channel = chan
        chan.pause_reading()

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self.taken += data


@pytest.mark.attack("E31", "forwards whose client reads nothing: their bytes stay in the environment's kernel")
def test_a_forward_whose_client_does_not_read_keeps_what_is_counted_and_loses_nothing() -> None:
    """A megabyte is ready inside; it goes on, whole and in order, when the client reads."""
    content = bytes(range(256)) * 4096

    async def go() -> None:
        inside, near_socket = socket.socketpair()
        near_socket.setblocking(False)
        loop = asyncio.get_running_loop()
        _, far = await loop.create_unix_connection(lambda: SocketEnd(lambda _n: None), sock=near_socket)
        near = ChannelEnd(lambda _n: None)
        join(near, far)

        class Door(OpenDoor):
            def connection_requested(self, *_where: Any) -> ChannelEnd:
                return near

        with inside:
            sending = asyncio.create_task(asyncio.to_thread(inside.sendall, content))
            async with guarded_server(Door) as (gateway, client):
                session = Still()
                channel, _ = await client.create_connection(lambda: session, "localhost", 80, window=1, encoding=None)
                (kept,) = gateway._channels.values()
                await until(lambda: kept._send_buf_len > 0)
                for _ in range(50):
                    await asyncio.sleep(0)
                    assert kept._send_buf_len <= kept.get_recv_window() * 2 + READ_MIN_BYTES < 96 << 10
                channel._init_recv_window = 1 << 18
                channel.resume_reading()
                await until(lambda: len(session.taken) == len(content))
                assert session.taken == content
                await sending

    uvloop.run(go())  # as the gateway does
