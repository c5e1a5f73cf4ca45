"""Peers that want their data in tiny packets are refused, in both directions."""

import asyncio
from typing import Any

import asyncssh
import pytest

from gateway.ssh.transport.packet_floor import PACKET_MIN_BYTES
from gateway.ssh.transport.relay import ChannelEnd
from tests.unit.ssh.transport.peers import OpenDoor, guarded_server, upstream


class Ports(OpenDoor):
    """Lets everything be forwarded."""

    def connection_requested(self, *_where: Any) -> asyncssh.SSHTCPSession[bytes]:
        return asyncssh.SSHTCPSession()


@pytest.mark.attack("E25", "channels with packets of one byte, asked for by a client and by an sshd")
@pytest.mark.parametrize("size", [1, 64, PACKET_MIN_BYTES - 1])
def test_a_channel_with_tiny_packets_is_refused_and_the_next_is_not(size: int) -> None:
    """The connection goes on."""

    async def go() -> None:
        async with guarded_server(Ports) as (_gateway, client):
            with pytest.raises(asyncssh.ChannelOpenError) as caught:
                await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, max_pktsize=size)
            assert caught.value.code == asyncssh.OPEN_RESOURCE_SHORTAGE
            await client.create_connection(asyncssh.SSHTCPSession, "localhost", 80, max_pktsize=PACKET_MIN_BYTES)

    asyncio.run(go())


def test_an_environment_that_confirms_tiny_packets_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reason for the journal."""
    confirm = asyncssh.SSHServerConnection.send_channel_open_confirmation

    def tiny(self: Any, number: int, own: int, window: int, _size: int, *rest: bytes) -> None:
        confirm(self, number, own, window, 1, *rest)

    async def go() -> None:
        reasons: list[str] = []
        async with upstream(Ports, note_cut=reasons.append) as (gateway, sshd):
            monkeypatch.setattr(sshd, "send_channel_open_confirmation", tiny.__get__(sshd))
            with pytest.raises(asyncssh.ChannelOpenError):
                await gateway.create_connection(lambda: ChannelEnd(lambda _size: None), "localhost", 80, "", 0)
            assert gateway.is_ending()
            assert reasons == [f"Packets of less than {PACKET_MIN_BYTES} bytes are not sent"]

    asyncio.run(go())
