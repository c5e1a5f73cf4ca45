"""The AEAD ciphers of SSH packets with their key schedules kept, where asyncssh makes new objects for each packet.

They fit asyncssh's `Encryption` and, beyond it, seal and open packets in place of its per-packet slicing (`wire`).
"""

from collections.abc import Iterable
from typing import Protocol

from asyncssh.encryption import ChachaEncryption, Encryption, GCMEncryption
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

LENGTH_BYTES = 4
TAG_BYTES = 16


class PacketCipher(Encryption):
    """One direction's cipher: a packet is a length, sealed bytes of that length, and a tag."""

    block_bytes = 8

    def __init__(self) -> None:
        self.opened: bytes | None = None
        """What `wire` has opened already and hands to asyncssh to interpret."""

    def seal(self, sequence: int, parts: Iterable[bytes], size: int) -> list[bytes]:
        """Return what goes on the wire for one packet of `size` bytes, given in parts."""
        raise NotImplementedError

    def length(self, sequence: int, header: memoryview) -> int:
        """Read the length of the packet that begins with these four bytes."""
        raise NotImplementedError

    def open(self, sequence: int, packet: memoryview) -> bytes | None:
        """Return the bytes of a packet, length and tag included in what is given; None when the tag is wrong."""
        raise NotImplementedError

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:  # noqa: ARG002 - the length is that of the packet
        return b"".join(self.seal(seq, (packet,), len(packet))), b""

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        length = self.length(seq, memoryview(first_block)[:header_len])
        return first_block, length.to_bytes(LENGTH_BYTES, "big")

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:  # noqa: ARG002 - always LENGTH_BYTES
        plain, self.opened = self.opened, None
        return plain if plain is not None else self.open(seq, memoryview(first + rest + mac))


class GcmPackets(PacketCipher):
    """aes128-gcm@openssh.com and aes256-gcm@openssh.com (RFC 5647): the length is authenticated, not encrypted."""

    block_bytes = 16

    def __init__(self, key: bytes, nonce: bytes) -> None:
        super().__init__()
        self._aead = AESGCM(key)
        self._fixed = nonce[:4]
        self._invocation = int.from_bytes(nonce[4:], "big")

    def _next_nonce(self) -> bytes:
        nonce = self._fixed + self._invocation.to_bytes(8, "big")
        self._invocation = (self._invocation + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, sequence: int, parts: Iterable[bytes], size: int) -> list[bytes]:  # noqa: ARG002 - this cipher counts itself
        header = size.to_bytes(LENGTH_BYTES, "big")
        return [header, self._aead.encrypt(self._next_nonce(), b"".join(parts), header)]

    def length(self, sequence: int, header: memoryview) -> int:  # noqa: ARG002 - not encrypted
        return int.from_bytes(header, "big")

    def open(self, sequence: int, packet: memoryview) -> bytes | None:  # noqa: ARG002 - this cipher counts itself
        try:
            return self._aead.decrypt(self._next_nonce(), packet[LENGTH_BYTES:], packet[:LENGTH_BYTES])
        except InvalidTag:
            return None


class ChachaPackets(PacketCipher):
    """chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305): the length has a key of its own."""

    def __init__(self, key: bytes, length_key: bytes) -> None:
        super().__init__()
        nonce = bytes(16)
        self._body = Cipher(ChaCha20(key, nonce), mode=None).encryptor()
        self._header = Cipher(ChaCha20(length_key, nonce), mode=None).encryptor()

    def _crypt_header(self, sequence: int, header: bytes | memoryview) -> bytes:
        self._header.reset_nonce(bytes(8) + sequence.to_bytes(8, "big"))
        return self._header.update(header)

    def _tag_key(self, sequence: int) -> bytes:
        """Begin a packet: block 0 gives the key of the tag, the bytes follow from block 1 on."""
        self._body.reset_nonce(bytes(8) + sequence.to_bytes(8, "big"))
        return self._body.update(bytes(64))[:32]

    def seal(self, sequence: int, parts: Iterable[bytes], size: int) -> list[bytes]:
        header = self._crypt_header(sequence, size.to_bytes(LENGTH_BYTES, "big"))
        tag = Poly1305(self._tag_key(sequence))
        sealed = self._body.update(b"".join(parts))
        tag.update(header)
        tag.update(sealed)
        return [header, sealed, tag.finalize()]

    def length(self, sequence: int, header: memoryview) -> int:
        return int.from_bytes(self._crypt_header(sequence, header), "big")

    def open(self, sequence: int, packet: memoryview) -> bytes | None:
        try:
            Poly1305.verify_tag(self._tag_key(sequence), packet[:-TAG_BYTES], bytes(packet[-TAG_BYTES:]))
        except InvalidSignature:
            return None
        return self._body.update(packet[LENGTH_BYTES:-TAG_BYTES])


class _Keyed(Protocol):
    _key: bytes
    _iv: bytes
    _adkey: bytes


def kept(encryption: Encryption | None) -> Encryption | None:
    """Return asyncssh's cipher as one that keeps its key schedule, at the same place of its stream; others stay."""
    if not isinstance(encryption, GCMEncryption | ChachaEncryption):
        return encryption
    cipher: _Keyed = encryption._cipher  # type: ignore[assignment]  # noqa: SLF001 - asyncssh gives no other way to its keys
    if isinstance(encryption, GCMEncryption):
        return GcmPackets(cipher._key, cipher._iv)  # noqa: SLF001 - as above
    return ChachaPackets(cipher._key, cipher._adkey)  # noqa: SLF001 - as above
