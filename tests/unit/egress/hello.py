"""ClientHellos as a real client makes them, and with parts put where they do not belong."""

import contextlib
import ssl

RECORD_MAX = 1 << 14


def client_hello(name: str | None) -> bytes:
    """Return the first bytes of Python's own TLS client for a name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def message_of(hello: bytes) -> bytes:
    """Return the handshake message of a hello in one record."""
    return hello[5:]


def records(message: bytes, size: int) -> bytes:
    """Cut a handshake message into records of a size."""
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def minimal(extensions: bytes) -> bytes:
    """Return a hello with these extensions and little else, in one record."""
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\0"
        + b"\0\x02\x13\x01"
        + b"\x01\0"
        + len(extensions).to_bytes(2, "big")
        + extensions
    )
    return records(b"\x01" + len(body).to_bytes(3, "big") + body, RECORD_MAX)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """Return the extension with these names."""
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for name in names)
    content = len(entries).to_bytes(2, "big") + entries
    return b"\0\0" + len(content).to_bytes(2, "big") + content
