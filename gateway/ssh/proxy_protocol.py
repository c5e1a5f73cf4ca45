"""PROXY protocol v2: the header by which a balancer of this site says whose connection it hands on.

The form is HAProxy's (haproxy.org/download/2.9/doc/proxy-protocol.txt §2.2). Whom to believe is the caller's to say.
"""

import ipaddress
import struct
from dataclasses import dataclass

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESS_BYTES = {_TCP4: 4, _TCP6: 16}
_PORTS_BYTES = 4
HEADER_MAX_BYTES = 2048
"""With what may follow the addresses (TLVs), of which nothing is read."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a balancer says of a connection; `address` is empty where it speaks for itself, as in a health check."""

    length: int
    address: str


def read_header(heard: bytes) -> ProxyHeader | None:
    """Return the header that these bytes begin with, or None while it is not whole. Raises: ValueError."""
    if not _SIGNATURE.startswith(heard[: len(_SIGNATURE)]):
        raise ValueError("no PROXY header of version 2")
    if len(heard) < _FIXED.size:
        return None
    _signature, command, family, rest = _FIXED.unpack_from(heard)
    length = _FIXED.size + rest
    if command not in {_LOCAL, _PROXY} or length > HEADER_MAX_BYTES:
        raise ValueError("a PROXY header of another form")
    if len(heard) < length:
        return None
    if command == _LOCAL:
        return ProxyHeader(length, "")
    wanted = _ADDRESS_BYTES.get(family)
    if wanted is None or rest < 2 * wanted + _PORTS_BYTES:
        raise ValueError("a PROXY header that names no TCP address")
    return ProxyHeader(length, str(ipaddress.ip_address(heard[_FIXED.size : _FIXED.size + wanted])))
