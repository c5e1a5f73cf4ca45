"""A logged-in user who makes the journal grow as fast as they can: it grows at a rate, and bob notices nothing."""

import asyncio
import struct
import subprocess
import time

import asyncssh
import pytest

from gateway.audit.verify import verify
from tests.e2e.conftest import ServedUsers
from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.engine

SECONDS = 4
RATE = 128 << 10
BURST = 32 * RATE


@pytest.fixture
def gateway(served_users: ServedUsers) -> GatewayProcess:
    return served_users.gateway


def journal_bytes(gateway: GatewayProcess) -> int:
    return sum(segment.stat().st_size for segment in (gateway.root / "state/journal").glob("segment-*.jsonl"))


async def connect(gateway: GatewayProcess, user: str) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1",
        gateway.port,
        username=user,
        client_keys=[str(gateway.make_key(user))],
        known_hosts=None,
        config=None,
        agent_path=None,
    )


def field(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


async def rename_without_end(connection: asyncssh.SSHClientConnection, until: float, path: bytes) -> None:
    """Rename what is not there, over and over, and read no more than comes by itself."""
    channel, _session = await connection.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
    channel.write(struct.pack(">IBI", 5, 1, 3))
    number = 0
    while time.monotonic() < until and not channel.is_closing():
        for _ in range(64):
            number += 1
            channel.write(field(bytes([18]) + struct.pack(">I", number) + field(path) + field(path)))
        while channel.get_write_buffer_size() > 1 << 18 and time.monotonic() < until:  # noqa: ASYNC110 - asyncssh tells no event
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)


@pytest.mark.attack("H5", "renames through sftp that fail, in eight channels at once")
@pytest.mark.parametrize("path", [b"\xff" * 1020, b"a"], ids=["long paths", "short paths"])
def test_renames_through_sftp_fill_the_journal_at_a_rate(gateway: GatewayProcess, path: bytes) -> None:
    """What a user has not used before comes at once; then the channels that cause it are read no further."""
    before, began = journal_bytes(gateway), time.monotonic()

    async def flood() -> "list[subprocess.CompletedProcess[bytes]]":
        alice = await connect(gateway, "alice")
        until = time.monotonic() + SECONDS
        works = [asyncio.create_task(rename_without_end(alice, until, path)) for _ in range(8)]
        answers = [await asyncio.to_thread(gateway.ssh, "bob", "echo here") for _ in range(2)]
        await asyncio.gather(*works, return_exceptions=True)
        alice.abort()
        return answers

    answers = asyncio.run(flood())
    elapsed = time.monotonic() - began
    grown = journal_bytes(gateway) - before
    assert [answer.stdout for answer in answers] == [b"here\n"] * 2
    assert grown < 2 * BURST + RATE * elapsed, f"{grown} bytes in {elapsed:.1f} s"
    assert verify(gateway.root / "state/journal").ok


@pytest.mark.attack("H5", "as many variables as a session takes")
def test_the_variables_of_a_session_are_in_one_record(gateway: GatewayProcess) -> None:
    """Sixty made sixty records; now one says which were denied."""
    sent = {f"EVIL_{number}": "x" for number in range(60)}

    async def run() -> None:
        bob = await connect(gateway, "bob")
        await bob.run("true", env=sent)
        bob.abort()

    before = len(gateway.devgw("audit", "log", "--action", "variable", "-o", "json").stdout.splitlines())
    asyncio.run(run())
    after = gateway.devgw("audit", "log", "--action", "variable", "-o", "json").stdout.splitlines()[before:]
    assert len(after) == 1, after
    assert all(name in after[0] for name in sent)
