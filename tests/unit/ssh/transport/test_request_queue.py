"""Global requests that come faster than they are answered: a bounded number waits, the rest is not read."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_GLOBAL_REQUEST, MSG_REQUEST_FAILURE
from asyncssh.packet import Boolean, String, UInt32

from gateway.ssh.transport.guard import INPUT_MAX_BYTES
from gateway.ssh.transport.request_queue import GLOBAL_REQUESTS_MAX, GLOBAL_REQUESTS_MAX_BYTES
from tests.unit.ssh.transport.peers import OpenDoor, guarded_server, until, upstream

HELD_MAX_BYTES = 1 << 20
"""Unprocessed input, and what one read may add to it."""


class SlowDoor(OpenDoor):
    """Decides about a listener only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.asked = 0

    async def server_requested(self, listen_host: str, listen_port: int) -> bool:  # type: ignore[override]  # an awaitable is taken too
        self.asked += 1
        await self.let.wait()
        return False


async def flood(peer: Any, host: bytes, count: int) -> list[int]:
    """Ask for many listeners; return the list that the answers come into."""
    answers: list[int] = []

    def answered(_self: Any, kind: int, *_rest: Any) -> bool:
        answers.append(kind)
        return True

    peer._packet_handlers = {**type(peer)._packet_handlers, MSG_REQUEST_FAILURE: answered}
    for _ in range(count):
        peer.send_packet(MSG_GLOBAL_REQUEST, String(b"tcpip-forward"), Boolean(True), String(host), UInt32(80))
    return answers


async def settled(number: Callable[[], int]) -> int:
    """Return a number once it has stayed the same for a while."""
    seen = -1
    while seen != number():
        seen = number()
        await asyncio.sleep(0.2)
    return seen


@pytest.mark.attack("E21", "global requests without end, faster than they are answered")
@pytest.mark.parametrize(("host", "count"), [(b"x" * 30_000, 300), (b"x", 4_000)], ids=["long", "many"])
def test_global_requests_wait_in_bounded_number(host: bytes, count: int) -> None:
    """What a user sends beyond it stays in their own socket; every request is answered in the end, in order."""

    async def go() -> None:
        door = SlowDoor()
        async with guarded_server(lambda: door) as (gateway, client):
            answers = await flood(client, host, count)
            await until(lambda: door.asked > 0)
            await settled(lambda: gateway.received_bytes)
            assert len(gateway._global_request_queue) <= GLOBAL_REQUESTS_MAX
            held = sum(len(packet.get_full_payload()) for _, packet, _ in gateway._global_request_queue)
            assert held <= GLOBAL_REQUESTS_MAX_BYTES + len(host) + 100
            assert len(gateway._inpbuf) <= HELD_MAX_BYTES < 4 * INPUT_MAX_BYTES
            assert answers == []
            door.let.set()
            await until(lambda: len(answers) == count)
            assert (gateway._requests_bytes, gateway._requests_room) == (0, None)

    asyncio.run(go())


def test_a_connection_that_waits_with_a_full_queue_ends_like_any_other() -> None:
    """Nothing that came behind is processed afterwards, and no task stays."""

    async def go() -> None:
        door = SlowDoor()
        async with guarded_server(lambda: door) as (gateway, client):
            await flood(client, b"x" * 30_000, 100)
            await until(lambda: gateway._requests_room is not None)
            client.abort()
            gateway.give_up("the test is over")
            await until(lambda: gateway._requests_room is None)
            asked = door.asked
            door.let.set()
            await until(lambda: not gateway._tasks)
            assert door.asked <= asked + GLOBAL_REQUESTS_MAX

    asyncio.run(go())


def test_the_global_requests_of_an_environment_are_bounded_alike() -> None:
    """Its sshd may be its user's own; unknown requests are refused at once, and no answer is left out."""

    async def go() -> None:
        async with upstream(OpenDoor) as (gateway, sshd):
            answers = await flood(sshd, b"x" * 30_000, 300)
            await until(lambda: len(answers) == 300)
            assert gateway._global_request_queue == []
            assert gateway._requests_bytes == 0
            assert isinstance(gateway, asyncssh.SSHClientConnection)

    asyncio.run(go())
