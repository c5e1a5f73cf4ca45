"""SSH's cleartext part by hand: version line, packets, KEXINIT, and a conversation of a client that says just that."""

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.ssh.transport import algorithms

VERSION = b"SSH-2.0-stranger\r\n"
DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG, SERVICE_REQUEST = 1, 2, 3, 4, 5
KEXINIT, NEWKEYS, ECDH_INIT, ECDH_REPLY = 20, 21, 30, 31
STRICT = "kex-strict-c-v00@openssh.com"
CURVE = "curve25519-sha256"
CIPHER = "aes128-gcm@openssh.com"
MAC = algorithms.MACS[0]


def string(data: bytes | str) -> bytes:
    """Return a string of RFC 4251 §5."""
    raw = data.encode() if isinstance(data, str) else data
    return len(raw).to_bytes(4, "big") + raw


def packet(payload: bytes) -> bytes:
    """Frame a payload without encryption (RFC 4253 §6)."""
    padding = 8 - (5 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    return (1 + len(payload) + padding).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)


def payloads(stream: bytes) -> list[bytes]:
    """Return the payloads of whole cleartext packets, as far as they look like such."""
    found = []
    while len(stream) > 5 and 4 + (length := int.from_bytes(stream[:4], "big")) <= len(stream) and length < 35000:
        found.append(stream[5 : 4 + length - stream[4]])
        stream = stream[4 + length :]
    return found


def kexinit(
    exchanges: Sequence[str] = (CURVE, STRICT),
    host_key: str = algorithms.HOST_KEY,
    cipher: str = CIPHER,
    mac: str = MAC,
    compression: str = "none",
) -> bytes:
    """Return the payload of an offer (RFC 4253 §7.1)."""
    lists = [",".join(exchanges), host_key, cipher, cipher, mac, mac, compression, compression, "", ""]
    return bytes([KEXINIT]) + bytes(16) + b"".join(map(string, lists)) + bytes(5)


def ecdh_init(point: bytes = b"\x09" + bytes(31)) -> bytes:
    """Return the client's half of an X25519 exchange (RFC 8731)."""
    return bytes([ECDH_INIT]) + string(point)


@dataclass(frozen=True)
class Conversation:
    """What the gateway said until it hung up."""

    said: bytes
    seconds: float

    @property
    def types(self) -> list[int]:
        """Return the message numbers of what it said in clear."""
        _line, _, rest = self.said.partition(b"\r\n")
        return [payload[0] for payload in payloads(rest) if payload]

    @property
    def reason(self) -> str:
        """Return the text of its disconnect message, or nothing; after a key exchange it is ciphertext."""
        _line, _, rest = self.said.partition(b"\r\n")
        last = [payload for payload in payloads(rest) if payload[:1] == bytes([DISCONNECT])]
        return last[-1][9 : 9 + int.from_bytes(last[-1][5:9], "big")].decode(errors="replace") if last else ""


def converse(
    port: int, messages: Sequence[bytes], *, hear: int | None = None, leave: bool = False, seconds: float = 10
) -> Conversation:
    """Send, then read until the gateway hangs up.

    The last message waits until the gateway has sent one of type `hear`; with `leave` this side ends its half after it.

    Raises:
        TimeoutError: it did not hang up.
    """
    began, said = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.settimeout(seconds)
        try:
            sock.sendall(b"".join(messages[:-1]))
            while hear is not None and hear not in Conversation(said, 0).types:
                data = sock.recv(65536)
                if not data:
                    break
                said += data
            sock.sendall(messages[-1])
            if leave:
                with suppress(OSError):  # the gateway was quicker
                    sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                said += data
        except ConnectionError:
            pass  # it hung up with some of what was sent unread
    return Conversation(said, time.monotonic() - began)
