"""PROXY protocol v2: a balancer's word about a client, from named networks alone."""

import asyncio
import socket
import struct

import pytest

from gateway.auth.throttle import Throttle
from gateway.config import SshSettings
from gateway.ssh.admission import AcceptProtocol, Admission
from gateway.ssh.proxy_protocol import HEADER_MAX_BYTES, ProxyHeader, read_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def header(command: int = 0x21, family: int = 0x11, addresses: bytes = b"", tail: bytes = b"") -> bytes:
    rest = (addresses or socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.1") + b"\x10\x01\x08\xae") + tail
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + b"\x10\x01\x08\xae"


@pytest.mark.parametrize(
    ("heard", "found"),
    [
        (header(), ProxyHeader(28, "192.0.2.7")),
        (header() + b"SSH-2.0-OpenSSH\r\n", ProxyHeader(28, "192.0.2.7")),
        (header(family=0x21, addresses=V6), ProxyHeader(52, "2001:db8::7")),
        (header(tail=b"\x04\x00\x03abc"), ProxyHeader(34, "192.0.2.7")),  # what follows the addresses is not read
        (header(command=0x20, family=0x00), ProxyHeader(28, "")),  # the balancer's own: a health check
        (b"", None),
        (header()[:5], None),
        (header()[:15], None),
        (header()[:-1], None),
    ],
)
def test_a_header_names_the_client(heard: bytes, found: ProxyHeader | None) -> None:
    assert read_header(heard) == found


@pytest.mark.parametrize(
    "heard",
    [
        b"SSH-2.0-OpenSSH\r\n",  # a client that came past the balancer
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4097 2222\r\n",  # version 1
        header(command=0x22),
        header(command=0x11),
        header(family=0x12),  # UDP
        header(family=0x31),  # a Unix socket
        header(addresses=b"\x01"),
        header(tail=bytes(HEADER_MAX_BYTES)),
    ],
)
def test_anything_else_is_no_header(heard: bytes) -> None:
    with pytest.raises(ValueError, match="PROXY header"):
        read_header(heard)


class Heard(asyncio.Protocol):
    """The protocol that a connection is handed to: what it was told, and of whom."""

    def __init__(self, address: str) -> None:
        self.address, self.said = address, b""

    def data_received(self, data: bytes) -> None:
        self.said += data


async def accepted(trusted: list[str], *pieces: bytes) -> list[Heard]:
    """Connect from loopback, say the pieces one by one; return what was accepted."""
    made: list[Heard] = []
    settings = SshSettings.model_validate({"proxy_protocol_from": trusted})
    admission = Admission(settings, Throttle(lambda: 0.0))

    def accept(admitted) -> Heard:
        made.append(Heard(admitted.address))
        return made[-1]

    loop = asyncio.get_running_loop()
    networks = settings.proxy_protocol_from
    listener = await loop.create_server(lambda: AcceptProtocol(admission, accept, networks), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)
    writer.write_eof()
    async with asyncio.timeout(30):
        while not reader.at_eof() and not (made and made[-1].said.endswith(b"hello")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    writer.close()
    listener.close()
    return made


@pytest.mark.parametrize("pieces", [(header() + b"hello",), (header()[:9], header()[9:], b"hel", b"lo")])
def test_a_client_behind_a_trusted_balancer_is_known_by_its_own_address(pieces: tuple[bytes, ...]) -> None:
    """Also where the header comes in pieces; what follows it is the client's."""
    [one] = asyncio.run(accepted(["127.0.0.0/8"], *pieces))
    assert (one.address, one.said) == ("192.0.2.7", b"hello")


def test_nobody_else_is_believed() -> None:
    """From another network the header is what a client says, and means nothing."""
    [one] = asyncio.run(accepted(["10.0.0.0/8"], header() + b"hello"))
    assert (one.address, one.said) == ("127.0.0.1", header() + b"hello")


def test_a_balancer_that_names_nobody_is_cut() -> None:
    """Otherwise its own address would be taken for its clients'."""
    assert asyncio.run(accepted(["127.0.0.0/8"], b"SSH-2.0-OpenSSH\r\n")) == []
