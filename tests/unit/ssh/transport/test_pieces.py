"""Data that waits in tiny pieces takes about as much memory as it is long, and stays in order."""

import asyncio
import random
from typing import Any

import asyncssh
import pytest

from gateway.ssh.transport.byte_budget import COPIES, WINDOW_MIN_BYTES, ByteBudget
from gateway.ssh.transport.channels import PIECE_BYTES, PIECES_MANY
from gateway.ssh.transport.relay import ChannelEnd
from tests.unit.ssh.transport.peers import OpenDoor, guarded_server, until, upstream

COUNT = 40_000


class Paused(asyncssh.SSHTCPSession[bytes]):
    """A port that takes nothing until it is let."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def connection_made(self, chan: Any) -> None:
        self.channel = chan
        chan.pause_reading()

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self.taken += data


class Ports(OpenDoor):
    """One port."""

    def __init__(self) -> None:
        super().__init__()
        self.port = Paused()

    def connection_requested(self, *_where: Any) -> Paused:
        return self.port


@pytest.mark.attack("E27", "windows filled with data of one byte a packet, towards one who does not read")
def test_tiny_pieces_that_wait_are_kept_together_in_order() -> None:
    """What is received and what is to be sent; other numbers of pieces of other sizes between."""

    async def go() -> None:
        door = Ports()
        async with guarded_server(lambda: door) as (_gateway, client):
            await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, encoding=None)
            channel = door.port.channel
            channel._recv_window = channel._init_recv_window = 2 << 20
            channel.pause_reading()
            expected = bytearray()
            for number in range(COUNT):
                part = bytes([number % 251]) * (5000 if number % 4000 == 1 else 1)
                channel.take_data(memoryview(part) if len(part) > 4096 else part)
                expected += part
            assert len(channel._recv_buf) <= len(expected) // (PIECE_BYTES // 4)
            assert channel._init_recv_window - channel._recv_window == len(expected)
            channel.resume_reading()
            assert door.port.taken == expected
            channel._send_window = 0
            for number in range(COUNT):
                channel.write(bytes([number % 251]))
            assert len(channel._send_buf) <= COUNT // (PIECE_BYTES // 4)
            assert channel._send_buf_len == COUNT
            assert b"".join(data for data, _ in channel._send_buf) == bytes(number % 251 for number in range(COUNT))

    asyncio.run(go())


def test_output_and_errors_in_turn_are_kept_together_too() -> None:
    """Each in its own order."""

    async def go() -> None:
        door = Ports()
        async with guarded_server(lambda: door) as (_gateway, client):
            await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, encoding=None)
            channel = door.port.channel
            channel._recv_window = channel._init_recv_window = 2 << 20
            channel.pause_reading()
            for number in range(COUNT):
                channel._accept_data(bytes([number % 251]), number % 2 or None)
            assert len(channel._recv_buf) <= PIECES_MANY + 2 + COUNT // (PIECE_BYTES // 4)
            for first, kind in ((0, None), (1, 1)):
                held = b"".join(data for data, datatype in channel._recv_buf if datatype == kind)
                assert held == bytes(number % 251 for number in range(first, COUNT, 2))

    asyncio.run(go())


def test_pieces_of_any_size_stay_in_order_however_many_wait() -> None:
    """A message cut by the window stood before the one it follows: 100 of 4125 bytes, then 1509, then its 2616."""

    async def go() -> None:
        door = Ports()
        async with guarded_server(lambda: door) as (_gateway, client):
            await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, encoding=None)
            channel = door.port.channel
            channel._recv_window = channel._init_recv_window = 2 << 20
            for seed in range(-1, 40):
                chance = random.Random(seed)
                sizes = [chance.choice((1, 700, 1509, 2616, 4096, 4125, 8192)) for _ in range(chance.randrange(300))]
                channel.pause_reading()
                door.port.taken.clear()
                expected = bytearray()
                for size in [4125] * 100 + [1509, 2616] if seed < 0 else sizes:
                    data = chance.randbytes(size)
                    channel._accept_data(data, None)
                    expected += data
                channel.resume_reading()
                assert door.port.taken == expected, f"seed {seed}"

    asyncio.run(go())


@pytest.mark.attack("E28", "many channels into an environment whose data the user does not read")
def test_the_windows_of_all_channels_into_an_environment_are_one_budget() -> None:
    """Each has a small one until it is used; together they stay in the budget, and what is closed is free again."""

    async def go() -> None:
        budget = ByteBudget(4 << 20)
        async with upstream(Ports, budget=budget) as (gateway, _sshd):
            empty, windows = budget.taken_bytes, []
            for _ in range(300):
                end = ChannelEnd(lambda _size: None)
                channel, _ = await gateway.create_connection(lambda end=end: end, "localhost", 80, "", 0)  # type: ignore[misc]  # a default binds it now
                windows.append(channel.get_recv_window())
            assert min(windows) == WINDOW_MIN_BYTES
            assert budget.taken_bytes == empty + COPIES * sum(windows) <= budget.limit_bytes
            for channel in list(gateway._channels.values()):
                channel.abort()
            await until(lambda: not gateway._channels)
            assert budget.taken_bytes == empty
        await until(lambda: not budget.taken_bytes)

    asyncio.run(go())


class OneAtATime(asyncssh.SSHTCPSession[bytes]):
    """A port that takes a piece, and then none until it is let again."""

    def __init__(self) -> None:
        self.taken_bytes = 0

    def connection_made(self, chan: Any) -> None:
        self.channel = chan
        chan.pause_reading()

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self.taken_bytes += len(data)
        self.channel.pause_reading()


class SlowPort(OpenDoor):
    """One such port."""

    def __init__(self) -> None:
        super().__init__()
        self.port = OneAtATime()

    def connection_requested(self, *_where: Any) -> OneAtATime:
        return self.port


@pytest.mark.attack("E35", "data for one who takes a piece at a time, on a session, a forward or from an environment")
@pytest.mark.parametrize("towards", ["user", "environment"])
def test_whoever_takes_one_piece_at_a_time_is_sent_no_window_for_what_waits(towards: str) -> None:
    """The whole window was renewed with each first piece, so a slow taker's data waited without bound."""

    async def go() -> None:
        door, port = SlowPort(), OneAtATime()
        if towards == "user":
            async with guarded_server(lambda: door) as (_gateway, client):
                sender, _ = await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, encoding=None)
                await take_it_all(sender, door.port)
        else:
            async with upstream(Ports) as (gateway, sshd):
                await gateway.create_connection(lambda: port, "localhost", 80, "", 0)
                await take_it_all(next(iter(sshd._channels.values())), port)

    asyncio.run(go())


async def take_it_all(sender: Any, port: OneAtATime, total: int = 8 << 20) -> None:
    """Send much, and take it a piece at a time: all of it comes, and never more waits than the window."""
    sender.write(bytes(total))
    channel, most = port.channel, 0
    while port.taken_bytes < total:
        await until(lambda: bool(channel._recv_buf))
        await asyncio.sleep(0.001)  # for whatever else the peer may send by now
        waits = sum(len(data) for data, _ in channel._recv_buf)
        assert waits <= channel._init_recv_window
        most = max(most, waits)
        channel.resume_reading()
    assert port.taken_bytes == total
    assert most > channel._init_recv_window // 4, "nothing ever waited"
