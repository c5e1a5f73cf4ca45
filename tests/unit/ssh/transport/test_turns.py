"""One user's input is processed a slice at a time, and everybody else's between."""

import asyncio
from time import perf_counter
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import String

from gateway.ssh.transport.turns import SLICE_SECONDS, TURN_SECONDS, Turns, turns_of
from tests.unit.ssh.transport.peers import GuardedServer, OpenDoor, guarded_server, until

ECHO_SECONDS_MAX = 0.05


class Busy:
    """A connection with so many slices to do, each a millisecond or more of the turn's time."""

    def __init__(self, turns: Turns, payer: str, slices: int, order: list[str]) -> None:
        self.payer = payer
        self._turns, self._left, self._order = turns, slices, order

    def take_turn(self) -> None:
        began = perf_counter()
        while perf_counter() - began < SLICE_SECONDS:
            pass
        self._order.append(self.payer)
        self._left -= 1
        self._turns.spend(began)
        if self._left:
            self._turns.queue(self)


def test_a_user_with_many_connections_gets_as_many_slices_as_one_with_one() -> None:
    """And the loop looks around between turns."""

    async def go() -> None:
        loop = asyncio.get_running_loop()
        turns, order = Turns(loop), list[str]()
        for _ in range(30):
            turns.queue(Busy(turns, "alice", 3, order))
        turns.queue(Busy(turns, "bob", 10, order))
        breaks, previous = [], loop.time()
        while order.count("bob") < 10:
            await asyncio.sleep(0)
            breaks.append(loop.time() - previous)
            previous = loop.time()
        assert order.count("alice") <= 11
        assert len(breaks) > 4
        assert not turns.may_begin() or turns._spent < TURN_SECONDS

    asyncio.run(go())


def test_a_turn_ends_in_time_however_many_users_wait() -> None:
    """Each slice takes its whole time, so a turn has only so many; every user gets theirs in the end."""

    async def go() -> None:
        turns, order = Turns(asyncio.get_running_loop()), list[str]()
        for number in range(60):
            turns.queue(Busy(turns, f"user{number}", 1, order))
        while len(order) < 60:
            before = len(order)
            await asyncio.sleep(0)
            assert len(order) - before <= TURN_SECONDS / SLICE_SECONDS + 1
        assert len(set(order)) == 60

    asyncio.run(go())


def test_a_turn_is_short_beside_what_others_may_feel() -> None:
    """An echo has 50 ms while another floods: at worst it waits for one turn on its way in, and one on its way out."""
    assert 2 * (TURN_SECONDS + SLICE_SECONDS) < ECHO_SECONDS_MAX / 2


class Echo(asyncssh.SSHTCPSession[bytes]):
    """A port that says what it is told."""

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self._channel.write(bytes(data))


class Ports(OpenDoor):
    """Every port echoes."""

    def connection_requested(self, *_where: Any) -> Echo:
        return Echo()


class Back(asyncssh.SSHTCPSession[bytes]):
    """Collects what comes back."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self.received += data

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended = True


def test_tiny_packets_arrive_whole_and_in_order_over_many_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed with other packets, with slices so short that each ends them."""
    monkeypatch.setattr("gateway.ssh.transport.guard.SLICE_SECONDS", 0.0001)

    async def go() -> None:
        async with guarded_server(Ports) as (gateway, client):
            back = Back()
            channel, _ = await client.create_connection(lambda: back, "localhost", 80, encoding=None)
            sent = bytearray()
            for number in range(3000):
                part = number.to_bytes(4, "big")
                channel.write(part)
                sent += part
                if number % 7 == 0:
                    client.send_packet(MSG_IGNORE, String(b"x" * 50))
            await until(lambda: len(back.received) == len(sent))
            assert back.received == sent
            channel.write(b"last")
            await until(lambda: back.received.endswith(b"last"))
            assert gateway._inpbuf == b""
            assert not gateway._is_queued
            assert gateway._holds == set()

    asyncio.run(go())


def test_what_was_sent_before_the_end_of_a_connection_is_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that writes and leaves loses nothing to the slices."""
    monkeypatch.setattr("gateway.ssh.transport.guard.SLICE_SECONDS", 0.0001)
    taken = bytearray()

    class Sink(asyncssh.SSHTCPSession[bytes]):
        def data_received(self, data: bytes, _datatype: int | None) -> None:
            taken.extend(data)

    class Sinks(OpenDoor):
        def connection_requested(self, *_where: Any) -> Sink:
            return Sink()

    async def go() -> None:
        async with guarded_server(Sinks) as (_gateway, client):
            channel, _ = await client.create_connection(Back, "localhost", 80, encoding=None)
            for _ in range(5000):
                channel.write(b"abcd")
            client.close()
            await until(lambda: len(taken) == 20_000)

    asyncio.run(go())


@pytest.mark.attack("E26", "a flood of tiny packets on several connections at once")
def test_a_flood_of_tiny_packets_leaves_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed from memory, so that only the gateway's own work counts: the loop looks around many times meanwhile."""

    async def go() -> None:
        loop = asyncio.get_running_loop()
        async with guarded_server(Sinks) as (gateway, client):
            channel, _ = await client.create_connection(Back, "localhost", 80, encoding=None)
            wire = bytearray()
            monkeypatch.setattr(client, "_send", wire.extend)
            for _ in range(20_000):
                channel.write(b"x")
            loop.call_soon(gateway.data_received, bytes(wire))
            turns = 0
            while turns < 3 or gateway._is_queued:
                await asyncio.sleep(0)
                turns += 1
            assert gateway._inpbuf == b""
            assert turns > 10, "the flood was worked off in one go"
            assert turns_of(loop).may_begin()
            assert isinstance(gateway, GuardedServer)

    class Sinks(OpenDoor):
        def connection_requested(self, *_where: Any) -> asyncssh.SSHTCPSession[bytes]:
            return asyncssh.SSHTCPSession()

    asyncio.run(go())
