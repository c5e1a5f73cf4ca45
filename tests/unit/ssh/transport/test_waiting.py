"""What a peer can make wait that is no data: requests behind one that is not decided, answers during a key exchange."""

import asyncio
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_KEXINIT
from asyncssh.packet import Boolean, String

from gateway.ssh.transport.channels import REQUESTS_MAX, REQUESTS_MAX_BYTES
from gateway.ssh.transport.guard import DEFERRED_MAX_PACKETS, KEY_EXCHANGE_BURST
from tests.unit.ssh.transport.peers import OpenDoor, guarded_server, until

PACKET_BYTES = 256 << 10
"""Of the one packet that comes after the bound was passed."""
_LONG = b"x" * 30_000


class Door(OpenDoor):
    """Lets forwards in."""

    def connection_requested(self, *_where: Any) -> "asyncssh.SSHTCPSession[bytes]":
        return asyncssh.SSHTCPSession()


@pytest.mark.attack("E36", "channel requests behind one that is not decided yet, many and long")
@pytest.mark.parametrize(("name", "count"), [(_LONG, 300), (b"x", 5000)], ids=["long", "many"])
def test_channel_requests_behind_an_undecided_one_are_bounded_in_bytes(name: bytes, count: int) -> None:
    """Each could be 256 KiB, 64 of them for each channel; the connection is cut."""

    async def go() -> None:
        async with guarded_server(Door) as (gateway, client):
            sender, _ = await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, encoding=None)
            (channel,) = gateway._channels.values()
            most = 0

            def undecided(_packet: Any) -> None:
                """No answer, as while a policy is asked."""

            def note(self: Any, *request: Any) -> Any:
                nonlocal most
                done = handler(self, *request)
                held = [len(packet.get_full_payload()) for _, packet, _ in channel._request_queue]
                most = max(most, sum(held))
                assert len(held) <= REQUESTS_MAX
                return done

            handler = type(channel)._packet_handlers[MSG_CHANNEL_REQUEST]
            channel._packet_handlers = {**type(channel)._packet_handlers, MSG_CHANNEL_REQUEST: note}
            channel._process_slow_request = undecided  # type: ignore[attr-defined]  # a request that takes its time
            for text in (b"slow", *[name] * count):
                sender.send_packet(MSG_CHANNEL_REQUEST, String(text), Boolean(True))
            await until(gateway.is_closed)
            assert 0 < most <= REQUESTS_MAX_BYTES + PACKET_BYTES

    asyncio.run(go())


@pytest.mark.attack("E37", "a key exchange that is never answered, and requests whose answers wait for it")
def test_answers_that_wait_for_a_key_exchange_are_bounded() -> None:
    """A thousand of a few bytes; then the connection is cut."""

    async def go() -> None:
        async with guarded_server(Door) as (gateway, client):
            sender, _ = await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, encoding=None)
            deaf: Any = client
            deaf._packet_handlers = {**type(client)._packet_handlers, MSG_KEXINIT: lambda *_packet: True}
            gateway._send_kexinit()
            gateway._kexinit_sent = True
            waited = [0]
            give_up = gateway.give_up

            def noted(reason: str) -> None:
                waited.append(sum(map(len, map(repr, gateway._deferred_packets))))
                give_up(reason)

            gateway.give_up = noted  # type: ignore[method-assign]
            for _ in range(4 * DEFERRED_MAX_PACKETS):
                sender.send_packet(MSG_CHANNEL_REQUEST, String(b"unknown"), Boolean(True))
            await until(gateway.is_closed)
            assert 0 < max(waited) < DEFERRED_MAX_PACKETS * 100

    asyncio.run(go())


@pytest.mark.attack("E38", "key exchanges without end")
def test_a_client_that_exchanges_keys_again_and_again_is_cut() -> None:
    """Each costs the gateway a signature; thirty at once are many."""

    async def go() -> None:
        async with guarded_server(Door) as (gateway, client):
            peer: Any = client
            begun = 0
            while not gateway.is_closed() and begun < 2 * KEY_EXCHANGE_BURST + 60:
                begun += 1
                peer._send_kexinit()
                peer._kexinit_sent = True
                await until(lambda: peer._kex_complete or gateway.is_closed() or peer.is_closed())
            assert KEY_EXCHANGE_BURST <= begun < 2 * KEY_EXCHANGE_BURST + 60, f"cut after {begun}"

    asyncio.run(go())
