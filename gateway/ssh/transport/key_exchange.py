"""What a client names in its KEXINIT (RFC 4253 §7.1): as much of it as asyncssh does not keep."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncssh.packet import SSHPacket

_BEFORE_LISTS_BYTES = 1 + 16
"""The message number and the cookie."""


@dataclass(frozen=True, slots=True)
class KeyExchangeOffer:
    """The client's lists, first choice first."""

    key_exchanges: Sequence[bytes]
    host_keys: Sequence[bytes]
    inward: Sequence[bytes]
    """Ciphers from client to server."""
    outward: Sequence[bytes]
    guess_follows: bool
    """Whether the next packet begins the key exchange that the client guesses will be chosen."""

    @classmethod
    def read(cls, payload: bytes) -> "KeyExchangeOffer":
        """Read the message. Raises: asyncssh.packet.PacketDecodeError."""
        packet = SSHPacket(payload)
        packet.get_bytes(_BEFORE_LISTS_BYTES)
        key_exchanges, host_keys, inward, outward, *_others = (packet.get_namelist() for _ in range(10))
        return cls(key_exchanges, host_keys, inward, outward, packet.get_boolean())

    def has_first_choices(self, key_exchanges: Sequence[bytes], host_keys: Sequence[bytes]) -> bool:
        """Say whether a guess is right: both sides put the same key exchange and host key first (RFC 4253 §7)."""
        return self.key_exchanges[:1] == key_exchanges[:1] and self.host_keys[:1] == host_keys[:1]
