"""The quick way of channel data: every cipher, every cut of the stream, and what a broken packet does."""

import asyncio
import hashlib
from pathlib import Path

import asyncssh
import pytest

from gateway.ssh.transport import algorithms
from gateway.ssh.transport.guarded_connection import BULK_BYTES, GuardedServerConnection
from tests.e2e.conftest import Laboratory
from tests.support.environment_inside import blob
from tests.support.ssh_gateway import TestGateway

MIB = 1 << 20
CHACHA = "chacha20-poly1305@openssh.com"


async def connect(gateway: TestGateway, key: Path, *ciphers: str) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1",
        gateway.port,
        username="alice",
        client_keys=[str(key)],
        known_hosts=None,
        config=None,
        encryption_algs=list(ciphers),
    )


async def fetch(connection: asyncssh.SSHClientConnection, size: int) -> bytes:
    """Download from the notebook."""
    reader, writer = await connection.open_connection("localhost", 8888)
    writer.write(f"GET /?size={size} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(size)


async def push(connection: asyncssh.SSHClientConnection, data: bytes) -> str:
    """Upload to the notebook; return the digest that it answers."""
    reader, writer = await connection.open_connection("localhost", 8888)
    writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    await reader.readuntil(b"\r\n\r\n")
    return (await reader.readexactly(64)).decode()


def cipher_of(connection: asyncssh.SSHClientConnection) -> object:
    return connection.get_extra_info("recv_cipher")


@pytest.mark.parametrize("cipher", algorithms.CIPHERS)
def test_bytes_arrive_whole_with_every_cipher(laboratory: Laboratory, cipher: str) -> None:
    """Both ways at once on one connection, through the socket and through the environment's sshd."""

    async def move() -> None:
        connection = await connect(laboratory.gateway, laboratory.alice, cipher)
        data = blob(9 * MIB + 12345)
        program = connection.run("sha256sum", input=data, encoding=None)
        got, answered, ran = await asyncio.gather(fetch(connection, len(data)), push(connection, data), program)
        digest = hashlib.sha256(data).hexdigest()
        assert got == data
        assert answered == digest
        assert isinstance(ran.stdout, bytes)
        assert ran.stdout.split()[0].decode() == digest
        connection.abort()

    asyncio.run(move())


def test_a_busy_connection_changes_to_the_quick_cipher(laboratory: Laboratory) -> None:
    """A client that prefers chacha20 and would take AES-GCM gets it once it moves much, and loses no byte."""

    async def move() -> tuple[object, object]:
        connection = await connect(laboratory.gateway, laboratory.alice, CHACHA, *algorithms.CIPHERS)
        assert len(await fetch(connection, 1000)) == 1000
        first = cipher_of(connection)
        data = blob(3 * BULK_BYTES)
        got, answered = await asyncio.gather(fetch(connection, len(data)), push(connection, data))
        assert got == data
        assert answered == hashlib.sha256(data).hexdigest()
        last = cipher_of(connection)
        connection.abort()
        return first, last

    assert asyncio.run(move()) == (CHACHA, algorithms.QUICK_CIPHERS[0])


def test_a_client_without_the_quick_ciphers_keeps_its_own(laboratory: Laboratory) -> None:
    """Nothing is forced on a client that offers chacha20 only."""

    async def move() -> object:
        connection = await connect(laboratory.gateway, laboratory.alice, CHACHA)
        assert await fetch(connection, 3 * BULK_BYTES) == blob(3 * BULK_BYTES)
        found = cipher_of(connection)
        connection.abort()
        return found

    assert asyncio.run(move()) == CHACHA


def test_openssh_changes_its_cipher_too(laboratory: Laboratory) -> None:
    """OpenSSH takes a key exchange that the server begins, in the middle of a download."""
    before = ["-v", "-o", f"Ciphers={CHACHA},aes128-gcm@openssh.com"]
    done = laboratory.gateway.run("alice", laboratory.alice, "head -c 30000000 /dev/zero", before=before)
    assert done.stdout == bytes(30_000_000), done.stderr
    used = [line for line in done.stderr.decode().splitlines() if "server->client cipher" in line]
    assert [CHACHA in used[0], "aes128-gcm@openssh.com" in used[-1], len(used)] == [True, True, 2]


@pytest.mark.parametrize("cut", [1, 7, 15, 33, 4096])
def test_packets_may_arrive_in_any_pieces(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """The stream is cut into pieces of one size, however packets lie in it."""
    whole = GuardedServerConnection.data_received

    def in_pieces(self: GuardedServerConnection, data: bytes, datatype: int | None = None) -> None:
        for start in range(0, len(data), cut):
            whole(self, data[start : start + cut], datatype)

    monkeypatch.setattr(GuardedServerConnection, "data_received", in_pieces)

    async def move() -> str:
        connection = await connect(laboratory.gateway, laboratory.alice, CHACHA, *algorithms.CIPHERS)
        answered = await push(connection, blob(300_000))
        connection.abort()
        return answered

    assert asyncio.run(move()) == hashlib.sha256(blob(300_000)).hexdigest()


@pytest.mark.parametrize("cipher", [CHACHA, *algorithms.QUICK_CIPHERS])
def test_a_changed_bit_ends_the_connection(laboratory: Laboratory, cipher: str) -> None:
    """A forged packet is refused as a whole, and bob notices nothing."""

    async def forge() -> str:
        connection = await connect(laboratory.gateway, laboratory.alice, cipher)
        await fetch(connection, 100)
        transport = connection._transport
        assert transport is not None

        def spoilt(data: bytes) -> None:
            transport.write(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])

        connection._send = spoilt  # type: ignore[method-assign]  # what travels is changed on its way
        with pytest.raises((asyncssh.Error, asyncio.IncompleteReadError)) as caught:
            await push(connection, bytes(1000))
        await connection.wait_closed()
        return type(caught.value).__name__

    assert asyncio.run(forge())
    assert laboratory.gateway.run("bob", laboratory.bob, "echo hi").stdout == b"hi\n"


def test_data_for_no_channel_ends_the_connection(laboratory: Laboratory) -> None:
    """A channel number that was never given out is a protocol error (RFC 4254 §5.2)."""

    async def send() -> bool:
        connection = await connect(laboratory.gateway, laboratory.alice, *algorithms.CIPHERS)
        await fetch(connection, 100)
        connection.send_packet(94, (999).to_bytes(4, "big"), (3).to_bytes(4, "big"), b"abc")
        await asyncio.wait_for(connection.wait_closed(), 10)
        return connection.is_closed()

    assert asyncio.run(send())


def test_data_beyond_the_window_ends_the_connection(laboratory: Laboratory) -> None:
    """The receive window bounds what one channel may have in flight."""

    async def send() -> bool:
        connection = await connect(laboratory.gateway, laboratory.alice, *algorithms.CIPHERS)
        process = await connection.create_process("sleep 20", encoding=None)
        channel = process.channel
        for _ in range(200):
            channel._send_window = 1 << 30
            process.stdin.write(bytes(32768))
        await asyncio.wait_for(connection.wait_closed(), 10)
        return connection.is_closed()

    assert asyncio.run(send())
