"""Refuses channels whose peer wants its data in tiny packets (RFC 4254 §5.1): each costs the gateway a whole one."""

from typing import Any, Final

import asyncssh
from asyncssh.connection import SSHConnection
from asyncssh.packet import SSHPacket

PACKET_MIN_BYTES: Final = 1024
"""Clients ask for 16 to 32 KiB, those of small devices for some less; below this the work outgrows the bytes."""


class PacketFloor(SSHConnection):
    """Mixed in before an asyncssh connection class, which dispatches to both methods."""

    def _roomy_open(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """Refuse the one channel; the connection goes on."""
        asked = SSHPacket(packet.get_remaining_payload())
        asked.get_string()
        number, _window, size = asked.get_uint32(), asked.get_uint32(), asked.get_uint32()
        if not 0 < size < PACKET_MIN_BYTES:
            return self._process_channel_open(pkttype, pktid, packet)
        reason = f"packets of less than {PACKET_MIN_BYTES} bytes are not sent"
        self.send_channel_open_failure(number, asyncssh.OPEN_RESOURCE_SHORTAGE, reason, "en")
        return True

    def _roomy_confirmation(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """End the connection: the peer has the channel open already."""
        answer = SSHPacket(packet.get_remaining_payload())
        size = [answer.get_uint32() for _ in range(4)][3]
        if 0 < size < PACKET_MIN_BYTES:
            raise asyncssh.ProtocolError(f"Packets of less than {PACKET_MIN_BYTES} bytes are not sent")
        return self._process_channel_open_confirmation(pkttype, pktid, packet)
