"""Every byte arrives in its order, whatever the sizes of pieces and windows and whoever reads slowly.

Each seed is another mixture; DEVGW_TEST_SEEDS says how many are tried.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncssh
import pytest

from tests.support.ssh_gateway import TestGateway

SEEDS = range(int(os.environ.get("DEVGW_TEST_SEEDS", "6")))
SECONDS = 60
MIRROR = """
import os, random, socket, sys, threading, time
def put(to, data):
    while data:
        data = data[os.write(to, data):]
def mirror(seed, source, *targets):
    chance = random.Random(seed)
    while piece := os.read(source, chance.randrange(1, 40000)):
        for target in targets:
            put(target, piece)
        if chance.random() < 0.2:
            time.sleep(0.003 * chance.random())
def serve(seed, taken):
    mirror(seed, taken.fileno(), taken.fileno())
    taken.shutdown(socket.SHUT_WR)
"""
"""Gives back what it reads, with pauses of its own."""
STREAMS = MIRROR + "mirror(int(sys.argv[1]), 0, 1, 2)"
SERVICE = (
    MIRROR
    + """
port = socket.create_server(("127.0.0.1", 0))
print(port.getsockname()[1], flush=True)
for seed in range(3):
    threading.Thread(target=serve, args=(seed, port.accept()[0])).start()
"""
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestGateway]:
    made = TestGateway(tmp_path_factory.mktemp("integrity"), rekey_bytes=1 << 20)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def key(gateway: TestGateway) -> Path:
    return gateway.add_user("alice")


def connect(gateway: TestGateway, key: Path) -> "AbstractAsyncContextManager[asyncssh.SSHClientConnection]":
    return asyncssh.connect(
        "127.0.0.1", gateway.port, username="alice", client_keys=[str(key)], known_hosts=None, config=None
    )


async def send(writer: "asyncssh.SSHWriter[bytes]", data: bytes, chance: random.Random) -> None:
    """Write in pieces of many sizes: most are smaller than those that are kept together, some are large."""
    at = 0
    while at < len(data):
        size = chance.choice((1, 30, 700, 1509, 2616, 4096, 4125, 8192, 32768, 70000))
        writer.write(data[at : at + size])
        at += size
        if chance.random() < 0.05:
            await writer.drain()
    writer.write_eof()


async def receive(reader: "asyncssh.SSHReader[bytes]", chance: random.Random) -> bytes:
    """Read to the end, with pauses in which windows fill."""
    received = bytearray()
    while got := await reader.read(chance.randrange(1, 60000)):
        received += got
        if chance.random() < 0.1:
            await asyncio.sleep(0.02 * chance.random())
    return bytes(received)


def differs(got: bytes, sent: bytes) -> str:
    """Say where two streams part; empty where they do not."""
    if got == sent:
        return ""
    at = next(
        (at for at, (one, other) in enumerate(zip(got, sent, strict=False)) if one != other), min(len(got), len(sent))
    )
    return f"{len(got)} of {len(sent)} bytes, the first wrong one at {at}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_command_gives_back_what_it_was_given_on_both_streams(gateway: TestGateway, key: Path, seed: int) -> None:
    """Through keys exchanged anew, a reader inside that pauses and a client that pauses."""

    async def go() -> None:
        chance = random.Random(seed)
        data = chance.randbytes(chance.randrange(1 << 20, 5 << 20))
        async with connect(gateway, key) as connection:
            window = chance.choice((32 << 10, 200 << 10, 2 << 20))
            writer, reader, errors = await connection.open_session(
                f"python3 -c '{STREAMS}' {seed}", encoding=None, window=window, max_pktsize=chance.choice((1024, 32768))
            )
            _, out, err = await asyncio.gather(
                send(writer, data, chance),
                receive(reader, random.Random(seed + 1)),
                receive(errors, random.Random(-seed)),
            )
        assert (differs(out, data), differs(err, data)) == ("", "")

    asyncio.run(asyncio.wait_for(go(), SECONDS))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_forward_gives_back_what_it_was_given(gateway: TestGateway, key: Path, seed: int) -> None:
    """Three at once on one connection, each with sizes and pauses of its own."""

    async def one(connection: asyncssh.SSHClientConnection, port: int, number: int) -> str:
        chance = random.Random(seed * 10 + number)
        data = chance.randbytes(chance.randrange(1 << 20, 3 << 20))
        reader, writer = await connection.open_connection(
            "localhost", port, encoding=None, window=chance.choice((32 << 10, 2 << 20)), max_pktsize=32768
        )
        _, back = await asyncio.gather(send(writer, data, chance), receive(reader, random.Random(number)))
        return differs(back, data)

    async def go() -> None:
        async with connect(gateway, key) as connection:
            _, ready, _ = await connection.open_session(f"python3 -c '{SERVICE}'", encoding=None)
            port = int(await ready.readline())
            found = await asyncio.gather(*(one(connection, port, number) for number in range(3)))
        assert found == [""] * 3

    asyncio.run(asyncio.wait_for(go(), SECONDS))
