"""No client makes the gateway's memory grow without bound, before or after login (invariant 10)."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from gateway.auth.throttle import Limits
from gateway.model import EnvironmentRef
from tests.e2e.conftest import Laboratory
from tests.support.ssh_clients import poll
from tests.support.ssh_gateway import TestGateway

MIB = 1 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[TestGateway]:
    made = TestGateway(
        tmp_path,
        login_grace_seconds=1.0,
        per_source_max_startups=5,
        max_channels=6,
        max_sessions=3,
        throttle_limits=Limits(failures_per_user=3, failures_per_address=100, ban_seconds=30),
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Deaf(asyncssh.SSHTCPSession[bytes]):
    """A channel whose client never reads its socket."""


async def connect(gateway: TestGateway, key: Path) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", gateway.port, username="alice", client_keys=[str(key)], known_hosts=None, config=None
    )


async def stop_reading(gateway: TestGateway, key: Path, megabytes: int) -> int:
    """Ask for much with a window of 4 GiB, then never read; return how far the test's memory grew."""
    connection = await connect(gateway, key)
    channel, _ = await connection.create_connection(Deaf, "localhost", 8888, window=0xFFFFFFFF)
    before = resident_bytes()
    transport = connection._transport
    assert transport is not None
    channel.write(f"GET /?size={megabytes * MIB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    transport.pause_reading()
    peak = before
    for _ in range(30):
        await asyncio.sleep(0.1)
        peak = max(peak, resident_bytes())
    connection.abort()
    return peak - before


@pytest.mark.attack("E13", "a window of 4 GiB and a client that stops reading: a few MiB, and the sender waits")
def test_a_client_that_stops_reading_stops_its_own_sender(laboratory: Laboratory) -> None:
    """96 MiB towards a deaf client with a 4 GiB window cost a few MiB, and bob notices nothing."""
    gateway = laboratory.gateway
    grown = asyncio.run(stop_reading(gateway, laboratory.alice, 96))
    assert grown < 12 * MIB
    began = time.monotonic()
    assert gateway.run("bob", laboratory.bob, "echo hi").stdout == b"hi\n"
    assert time.monotonic() - began < 5


@pytest.mark.attack("D8", "200 MB of output that nobody reads")
def test_an_exec_whose_output_nobody_reads_waits(laboratory: Laboratory) -> None:
    """The program in the environment blocks; the gateway does not collect its output."""
    gateway = laboratory.gateway
    before = resident_bytes()
    command = gateway.ssh("alice", laboratory.alice, "head -c 200000000 /dev/zero")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        time.sleep(1.5)  # time in which a gateway without bounds would collect it all
        assert resident_bytes() - before < 16 * MIB
        assert process.stdout is not None
        assert len(process.stdout.read()) == 200_000_000
    finally:
        process.wait(20)


@pytest.mark.attack("D8", "endless input that nobody reads")
def test_input_that_nobody_reads_waits(laboratory: Laboratory) -> None:
    """Upload into a program that does not read: the client blocks, the gateway stays small."""
    gateway = laboratory.gateway
    before = resident_bytes()
    with Path("/dev/zero").open("rb") as zero:
        process = subprocess.Popen(gateway.ssh("alice", laboratory.alice, "sleep 2; echo end"), stdin=zero)
        time.sleep(1.5)  # as above
        assert resident_bytes() - before < 16 * MIB
        process.terminate()
        process.wait(10)


def test_login_grace_ends_a_silent_connection(strict: TestGateway) -> None:
    """One byte per second does not prolong it."""
    with socket.create_connection(("127.0.0.1", strict.port), 5) as sock:
        sock.settimeout(5)
        began = time.monotonic()
        while sock.recv(1000):
            pass
        assert 0.5 < time.monotonic() - began < 3


@pytest.mark.attack("E2", "connections that never log in, from one source: turned away with a reason")
def test_a_source_that_hogs_startups_is_told_so(strict: TestGateway) -> None:
    """The sixth idle connection gets a disconnect message instead of a key exchange."""
    idle = [socket.create_connection(("127.0.0.1", strict.port), 5) for _ in range(5)]
    try:
        poll(lambda: strict.server and strict.server._admission._startups_total == 5, "five startups")
        with socket.create_connection(("127.0.0.1", strict.port), 5) as sock:
            sock.settimeout(5)
            said = b""
            while data := sock.recv(1000):
                said += data
        assert b"that have not logged in" in said
    finally:
        for sock in idle:
            sock.close()


@pytest.mark.attack("E15", "megabytes of ignorable packets before login: cut")
def test_megabytes_before_login_are_cut(strict: TestGateway) -> None:
    """An endless stream of ignorable packets ends the connection, not the memory."""
    with socket.create_connection(("127.0.0.1", strict.port), 5) as sock:
        sock.settimeout(5)
        packet = (1 + 5 + 65536 + 6).to_bytes(4, "big") + b"\x06\x02" + (65536).to_bytes(4, "big") + bytes(65542)
        sock.sendall(b"SSH-2.0-flood\r\n")
        with pytest.raises(ConnectionError):
            sock.sendall(packet * 1000)


@pytest.mark.attack("C15", "more channels and sessions on one connection than are permitted")
def test_channels_and_sessions_are_counted(strict: TestGateway) -> None:
    """MaxSessions and the limit of channels refuse the next one and keep the connection."""
    key = strict.add_user("alice")

    async def open_many() -> tuple[int, int]:
        connection = await connect(strict, key)
        sessions = [await connection.create_process("sleep 30", encoding=None) for _ in range(3)]
        with pytest.raises(asyncssh.ChannelOpenError, match="more than 3 sessions"):
            await connection.create_process("true")
        forwards = [await connection.create_connection(Deaf, "localhost", 8888) for _ in range(3)]
        with pytest.raises(asyncssh.ChannelOpenError, match="more than 6 channels"):
            await connection.create_connection(Deaf, "localhost", 8888)
        connection.abort()
        return len(sessions), len(forwards)

    assert asyncio.run(open_many()) == (3, 3)


@pytest.mark.attack("G1", "wrong keys from one address: that name is banned there and told so, another gets in")
def test_failed_connections_are_banned_and_told(strict: TestGateway) -> None:
    """Three failed connections of one user name ban that name at this address; another name gets in."""
    alice, bob = strict.add_user("alice"), strict.add_user("bob")
    for _ in range(3):
        strict.run("alice", bob, "true")
    poll(lambda: strict.throttle.ban_left_seconds("127.0.0.1", "alice"), "the ban")
    done = strict.run("alice", alice, "true")
    assert b"too many failed logins" in done.stderr
    assert strict.run("bob", bob, "true").returncode == 0


@pytest.mark.attack("E18", "leaving while a forward is being opened: its socket into the environment is closed")
def test_a_client_that_leaves_while_a_forward_opens_leaves_nothing_open(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each time would cost a file descriptor for good, and in the end everybody their gateway."""
    gateway, may_dial, dialled = laboratory.gateway, threading.Event(), []
    dial = gateway.environments.dial

    def slow_dial(ref: EnvironmentRef, service: str) -> socket.socket:
        made = dial(ref, service)
        dialled.append(made)
        assert may_dial.wait(10)
        return made

    monkeypatch.setattr(gateway.environments, "dial", slow_dial)
    since = gateway.recorder.mark()

    async def leave() -> None:
        connection = await connect(gateway, laboratory.alice)
        opening = asyncio.ensure_future(connection.create_connection(Deaf, "localhost", 8888))
        await asyncio.to_thread(poll, lambda: dialled, "the dialling")
        connection.abort()
        with pytest.raises(asyncssh.ChannelOpenError):
            await opening

    asyncio.run(leave())
    gateway.recorder.find("connection.closed", since)
    may_dial.set()
    poll(lambda: dialled[0].fileno() == -1, "the end of its socket")
    assert gateway.run("bob", laboratory.bob, "echo hi").stdout == b"hi\n"


@pytest.mark.attack("E19", "a client that vanishes without a word: asked whether it is there, then given up")
def test_a_silent_client_is_given_up_and_one_that_only_waits_is_not(tmp_path: Path) -> None:
    """ClientAliveInterval and ClientAliveCountMax: silence counts from the last packet, an answer ends it."""
    gateway = TestGateway(tmp_path, client_alive_interval_seconds=0.3, client_alive_count_max=2)
    gateway.start()
    try:
        alice, bob = gateway.add_user("alice"), gateway.add_user("bob")
        since = gateway.recorder.mark()
        stopped = subprocess.Popen(gateway.ssh("alice", alice, "sleep 60"), stdin=subprocess.DEVNULL)
        waiting = subprocess.Popen(gateway.ssh("bob", bob, "sleep 3; exit 5"), stdin=subprocess.DEVNULL)
        for user in ("alice", "bob"):
            poll(lambda user=user: user in opened(gateway, since), f"the session of {user}")
        stopped.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert gateway.recorder.find("connection.closed", since).actor.name == "alice"
        assert 0.5 < time.monotonic() - began < 3
        assert waiting.wait(20) == 5
    finally:
        stopped.kill()
        stopped.wait()
        gateway.stop()


def opened(gateway: TestGateway, since: int) -> set[str]:
    """Return whose sessions were opened."""
    return {event.actor.name for event in gateway.recorder.events[since:] if event.code == "session.opened"}


def test_rekeying_in_the_middle_of_a_transfer_loses_nothing(laboratory: Laboratory) -> None:
    """Data waits while keys are exchanged and goes on after."""
    before = ["-o", "RekeyLimit=3M"]
    done = laboratory.gateway.run("alice", laboratory.alice, "head -c 30000000 /dev/zero", before=before)
    assert done.stdout == bytes(30_000_000), done.stderr


@pytest.mark.attack("E6", "a rekey storm after login: cut before it has burnt much time")
def test_a_rekey_storm_ends_its_connection(laboratory: Laboratory) -> None:
    """A client that exchanges keys without end is cut before it has burnt much of the gateway's time."""

    async def storm() -> int:
        connection = await connect(laboratory.gateway, laboratory.alice)
        for exchange in range(200):
            connection._send_kexinit()
            connection._kexinit_sent = True
            while not connection._kex_complete and not connection.is_closed():  # noqa: ASYNC110 - asyncssh has no event for it
                await asyncio.sleep(0.001)
            if connection.is_closed():
                return exchange
        return 200

    assert 20 < asyncio.run(storm()) < 100
