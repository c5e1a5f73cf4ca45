"""The name that a TLS client asks for (SNI, RFC 6066 §3), read from its ClientHello (RFC 8446 §4.1.2) in bounds.

Nothing is decrypted or changed: the bytes that were read go on as they came.
"""

from dataclasses import dataclass

HELLO_MAX = 16 << 10
"""Bytes until the ClientHello must be complete; today's, with ML-KEM, have two KiB."""
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_RECORD_MAX = 1 << 14


class HelloError(ValueError):
    """What claims to be TLS and is no ClientHello, or one that two readers could read differently."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the client began with. `server_name` is None where it is TLS without a name."""

    is_tls: bool
    server_name: str | None = None


def read_hello(data: bytes) -> Hello | None:
    """Return what a client's first bytes are, None where more must come. Raises: HelloError."""
    if not data:
        return None
    if data[0] != _HANDSHAKE:
        return Hello(is_tls=False)
    message = _message(data)
    if message is None:
        if len(data) >= HELLO_MAX:
            raise HelloError("the ClientHello is too long")
        return None
    return Hello(is_tls=True, server_name=_server_name(message))


def _message(data: bytes) -> bytes | None:
    """Join the records until the first handshake message is whole."""
    message, place = b"", 0
    while (whole := _whole(message)) is None:
        header = data[place : place + _RECORD_HEADER]
        if header[:1] not in {b"", bytes([_HANDSHAKE])} or header[1:2] not in {b"", b"\x03"}:
            raise HelloError("no TLS record where one should be")
        if len(header) < _RECORD_HEADER:
            return None
        size = int.from_bytes(header[3:], "big")
        if not 0 < size <= _RECORD_MAX:
            raise HelloError("a TLS record of an impossible size")
        place += _RECORD_HEADER
        content = data[place : place + size]
        message += content
        if len(content) < size:
            return _whole(message)
        place += size
    return whole


def _whole(message: bytes) -> bytes | None:
    """Return the content of the handshake message, None while it is not all there."""
    length = int.from_bytes(message[1:_MESSAGE_HEADER], "big")
    if message and (message[0] != _CLIENT_HELLO or length > HELLO_MAX):
        raise HelloError("TLS that does not begin with a ClientHello")
    if len(message) < _MESSAGE_HEADER + length or len(message) < _MESSAGE_HEADER:
        return None
    return message[_MESSAGE_HEADER : _MESSAGE_HEADER + length]


class _Fields:
    """Reads vectors of a message one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if len(self.data) < size:
            raise HelloError("a ClientHello that ends in the middle")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def vector(self, size_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(size_bytes), "big"))


def _server_name(message: bytes) -> str | None:
    fields = _Fields(message)
    fields.take(2 + 32)  # legacy_version, random
    fields.vector(1)  # legacy_session_id
    fields.vector(2)  # cipher_suites
    fields.vector(1)  # legacy_compression_methods
    if not fields.data:
        return None
    extensions = _Fields(fields.vector(2))
    if fields.data:
        raise HelloError("a ClientHello with something behind it")
    names: list[str] = []
    while extensions.data:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.vector(2)
        if kind == _SERVER_NAME:
            names.append(_only_name(content))
    if len(names) > 1:
        raise HelloError("a ClientHello with two server names")
    return names[0] if names else None


def _only_name(content: bytes) -> str:
    outer = _Fields(content)
    entries = _Fields(outer.vector(2))
    kind, name = entries.take(1)[0], entries.vector(2)
    if kind != _HOST_NAME or entries.data or outer.data:
        raise HelloError("a ClientHello with two server names")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise HelloError("a server name that is not ASCII") from None
