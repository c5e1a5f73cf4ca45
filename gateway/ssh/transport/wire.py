"""The quick way of channel data through a connection: many packets for each call, and no copy that need not be.

Everything but channel data on an authenticated connection takes asyncssh's own way, which this only stands before.
"""

import os
import time
from collections.abc import Sequence
from time import perf_counter
from typing import Any, cast

import asyncssh
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE
from asyncssh.packet import SSHPacketLogger

from gateway.ssh.transport.ciphers import LENGTH_BYTES, TAG_BYTES, PacketCipher, kept

COPY_MAX_BYTES = 4096
"""Data up to this size is copied out of its packet, so that a keystroke kept somewhere does not keep the packet."""
_DATA_OFFSET = 10
"""Of a channel's data in an opened packet: padding length, type, channel, length (RFC 4253 §6, RFC 4254 §5.2)."""
_NOISE_BYTES = 4096


class _Noise:
    """Random padding (RFC 4253 §6), fetched from the system in one call for many packets."""

    def __init__(self) -> None:
        self._left = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return so many bytes, each given once."""
        end = self._at + size
        if end > len(self._left):
            self._left, self._at, end = os.urandom(_NOISE_BYTES), 0, size
        taken, self._at = self._left[self._at : end], end
        return taken


_noise = _Noise()


class Unlogged(SSHPacketLogger):
    """Mixed in before what sends or takes packets."""

    def _log_packet(self, *_args: Any) -> None:
        """Leave asyncssh's line for each packet out: it is formatted also when nobody reads it."""


class Wire(Unlogged, SSHConnection):
    """Mixed in before an asyncssh connection class."""

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """Finish a key exchange with ciphers that keep their key schedules."""
        super().send_newkeys(k, h)
        self._send_encryption = kept(self._send_encryption)
        self._next_recv_encryption = kept(self._next_recv_encryption)

    # Receiving

    _slice_ends = 0.0
    """The reading of `perf_counter` at which others' turn has come; whole packets are processed until then."""
    _slice_is_over = False

    def _recv_pkthdr(self) -> bool:
        if perf_counter() > self._slice_ends:
            self._slice_is_over = True
            return False
        cipher = self._recv_encryption
        if not self._auth_complete or not isinstance(cipher, PacketCipher) or self._decompressor:
            return super()._recv_pkthdr()
        return self._receive(cipher)

    def _receive(self, cipher: PacketCipher) -> bool:
        """Deliver the channel data at the front of the input; leave the first other packet to asyncssh."""
        whole = self._inpbuf
        view, at = memoryview(whole), 0
        try:
            while self._transport:
                length = self._whole_packet(cipher, view, at)
                if length is None:
                    return False
                end = at + LENGTH_BYTES + length + TAG_BYTES
                plain = cipher.open(self._recv_seq, view[at:end])
                if plain is None:
                    raise asyncssh.MACError("MAC verification failed")
                if len(plain) <= _DATA_OFFSET or plain[1] != MSG_CHANNEL_DATA:
                    cipher.opened, self._pktlen = plain, length
                    block = at + self._recv_blocksize
                    self._packet, at = whole[at:block], block
                    break
                at = end
                self._deliver(plain)
                self._finish_recv_packet(MSG_CHANNEL_DATA, self._recv_seq)
                if perf_counter() > self._slice_ends:
                    self._slice_is_over = True
                    return False
            else:
                return False
        finally:
            self._inpbuf = whole[at:]
        return super()._recv_packet()

    def _whole_packet(self, cipher: PacketCipher, view: memoryview, at: int) -> int | None:
        """Return the length of the packet at a place, or None while it has not arrived as a whole."""
        if len(view) - at < self._recv_blocksize:
            return None
        length = cipher.length(self._recv_seq, view[at : at + LENGTH_BYTES])
        if length > self._max_recv_pktlen:
            raise asyncssh.ProtocolError("Max packet size exceeded")
        whole = LENGTH_BYTES + length + TAG_BYTES
        return length if len(view) - at >= max(whole, self._recv_blocksize) else None

    def _deliver(self, plain: bytes) -> None:
        number = int.from_bytes(plain[2:6], "big")
        size = int.from_bytes(plain[6:10], "big")
        if _DATA_OFFSET + size + plain[0] != len(plain):
            raise asyncssh.ProtocolError("Unexpected data at end of packet")
        channel: Any = self._channels.get(number)
        if channel is None:
            raise asyncssh.ProtocolError(f"Invalid channel number {number} received")
        if size <= COPY_MAX_BYTES:
            channel.take_data(plain[_DATA_OFFSET : _DATA_OFFSET + size])
        else:
            channel.take_data(memoryview(plain)[_DATA_OFFSET : _DATA_OFFSET + size])

    # Sending

    def may_send_quickly(self) -> bool:
        """Say whether `send_data` may be used: a key exchange that is due must be begun by asyncssh first."""
        return (
            isinstance(self._send_encryption, PacketCipher)
            and not self._compressor
            and self._kex_complete
            and self._auth_complete
            and self._rekey_bytes_sent < self._rekey_bytes
            and not (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        )

    def send_data(self, number: int, data: memoryview, packet_bytes: int) -> None:
        """Send data of a channel in as many packets as it takes, with one call to the transport."""
        cipher = cast("PacketCipher", self._send_encryption)
        wire: list[bytes] = []
        prefix, sequence, total = MSG_CHANNEL_DATA.to_bytes(1, "big") + number.to_bytes(4, "big"), self._send_seq, 0
        for start in range(0, len(data), packet_bytes):
            part = data[start : start + packet_bytes]
            padding = -(_DATA_OFFSET + len(part)) % cipher.block_bytes
            if padding < 4:  # RFC 4253 §6
                padding += cipher.block_bytes
            size = _DATA_OFFSET + len(part) + padding
            head = padding.to_bytes(1, "big") + prefix + len(part).to_bytes(4, "big")
            wire += cipher.seal(sequence, (head, cast("bytes", part), _noise.take(padding)), size)
            sequence = (sequence + 1) & 0xFFFFFFFF
            total += size
        self._send_seq = sequence
        self._rekey_bytes_sent += total
        self._send_parts(wire)

    def _send_parts(self, parts: Sequence[bytes]) -> None:
        """Hand over to the transport without joining."""
        if self._transport:
            self._transport.writelines(parts)

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send a packet, without the MSG_IGNORE before each that asyncssh keeps for CBC ciphers (RFC 4251 §9.3.1)."""
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)
