"""Forwards to any port of the environment's loopback through `ports.sock`: one decryption, no inner SSH connection."""

import asyncio
import hashlib
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.model import EnvironmentRef
from gateway.ssh.forwarding.environment_port import RESET
from tests.e2e.conftest import Laboratory
from tests.support.environment_inside import LOOPBACK_PORT, blob
from tests.support.ssh_clients import poll
from tests.support.ssh_environment import SshEnvironment

ALICE = EnvironmentRef.parse("alice")
SIZE = 24 << 20
STALLED_MAX_BYTES = 24 << 20
"""What two kernels, the environment's listener and the gateway hold of a stream that nobody reads."""


class Seen(asyncssh.SSHTCPSession[bytes]):
    """A forward that remembers how it ended."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.eof = False
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self.data += data
        self.begun.set()

    def eof_received(self) -> bool:
        self.eof = True
        self.ended.set()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended.set()
        self.closed.set()


def environment(laboratory: Laboratory) -> SshEnvironment:
    return laboratory.gateway.environments.by_ref[ALICE]


def logins_inside(laboratory: Laboratory) -> int:
    return (environment(laboratory).root / "sshd.log").read_text().count("Accepted publickey")


@contextmanager
def serving(laboratory: Laboratory, program: str) -> Iterator[int]:
    """Run a Python program in alice's environment; it prints its port."""
    file = environment(laboratory).home / "service.py"
    file.write_text(f"import os, socket, struct, sys, time, hashlib\n{program}")
    command = laboratory.gateway.ssh("alice", laboratory.alice, f"exec python3 -u {file}")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdin
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(10)
        process.stdout.close()


def listening(host: str = "127.0.0.1", backlog: int = 8) -> str:
    family = "AF_INET6" if ":" in host else "AF_INET"
    return (
        f"s = socket.socket(socket.{family})\ns.bind(({host!r}, 0))\ns.listen({backlog})\nprint(s.getsockname()[1])\n"
    )


def with_alice(laboratory: Laboratory, work: Callable[[asyncssh.SSHClientConnection], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        async with await asyncssh.connect(
            "127.0.0.1",
            laboratory.gateway.port,
            username="alice",
            client_keys=[str(laboratory.alice)],
            known_hosts=None,
            config=None,
            agent_path=None,
        ) as connection:
            return await asyncio.wait_for(work(connection), 15)

    return asyncio.run(go())


async def opened(
    connection: asyncssh.SSHClientConnection, host: str, port: int
) -> tuple[asyncssh.SSHTCPChannel[bytes], Seen]:
    channel, session = await connection.create_connection(Seen, host, port)
    assert isinstance(session, Seen)
    return channel, session


def forwarded(laboratory: Laboratory, host: str, port: int, send: bytes = b"", *, end: bool = True) -> Seen:
    """Open a forward, send, and return what was seen once it is closed, or without an `end` of ours has ended."""

    async def go(connection: asyncssh.SSHClientConnection) -> Seen:
        channel, seen = await opened(connection, host, port)
        channel.write(send)
        if end:
            channel.write_eof()
        await (seen.closed if end else seen.ended).wait()
        return seen

    seen: Seen = with_alice(laboratory, go)
    return seen


def test_a_forward_makes_no_connection_to_the_sshd_inside(laboratory: Laboratory) -> None:
    """The environment's own listener joins the forward to the port."""
    before = logins_inside(laboratory)
    seen = forwarded(laboratory, "localhost", LOOPBACK_PORT, b"GET / HTTP/1.0\r\n\r\n")
    assert seen.data.endswith(b"notebook of alice\n")
    assert logins_inside(laboratory) == before


@pytest.mark.parametrize("asked", ["localhost", "LocalHost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("bound", ["127.0.0.1", "::1"])
def test_each_name_of_the_loopback_reaches_the_one_that_answers(laboratory: Laboratory, asked: str, bound: str) -> None:
    """A server on `::1` alone, which is what Node makes of `localhost`, is reached like one on 127.0.0.1."""
    program = listening(bound) + "c = s.accept()[0]\nc.sendall(b'here')\nc.close()\n"
    with serving(laboratory, program) as port:
        seen = forwarded(laboratory, asked, port, end=False)
    assert (bytes(seen.data), seen.eof) == (b"here", True)


@pytest.mark.parametrize("asked", ["127.0.0.1", "::1"])
def test_the_loopback_that_was_named_comes_first(laboratory: Laboratory, asked: str) -> None:
    """Where both answer, and differ, the one asked for does."""
    program = (
        listening() + "t = socket.socket(socket.AF_INET6)\nt.bind(('::1', s.getsockname()[1]))\nt.listen()\n"
        f"c = (s if {asked!r} == '127.0.0.1' else t).accept()[0]\nc.sendall({asked.encode()!r})\nc.close()\n"
    )
    with serving(laboratory, program) as port:
        assert forwarded(laboratory, asked, port, end=False).data == asked.encode()


def test_what_is_sent_after_a_half_close_arrives(laboratory: Laboratory) -> None:
    """The service answers when the client's end has come, with what it was sent: both directions, whole."""
    program = listening() + (
        "c = s.accept()[0]\nh = hashlib.sha256()\nn = 0\n"
        "while d := c.recv(1 << 20):\n    h.update(d)\n    n += len(d)\n"
        "c.sendall(h.digest())\nc.close()\n"
    )
    sent = blob(SIZE, "up")
    with serving(laboratory, program) as port:
        seen = forwarded(laboratory, "localhost", port, sent)
    assert (bytes(seen.data), seen.eof) == (hashlib.sha256(sent).digest(), True)


def test_a_service_may_end_its_output_and_read_on(laboratory: Laboratory) -> None:
    """The other half-close: the client sees an end of file, and what it sends afterwards is read."""
    program = listening() + (
        "c = s.accept()[0]\nc.sendall(b'first')\nc.shutdown(socket.SHUT_WR)\n"
        "d = b''\nwhile m := c.recv(9999):\n    d += m\nprint(d.decode())\nc.close()\n"
    )

    async def go(connection: asyncssh.SSHClientConnection) -> Seen:
        channel, seen = await opened(connection, "localhost", port)
        await seen.ended.wait()
        channel.write(b"after the end")
        channel.write_eof()
        await seen.closed.wait()
        return seen

    with serving(laboratory, program + "time.sleep(30)\n") as port:
        assert with_alice(laboratory, go).data == b"first"


@pytest.mark.attack("C15", "a service that resets its connection: told apart from one that ends it")
def test_a_reset_is_no_end_of_file(laboratory: Laboratory) -> None:
    """What had been sent arrives, then the channel closes without an EOF, and the journal says why."""
    program = listening() + (
        "c = s.accept()[0]\nc.sendall(b'half')\nc.recv(1)\n"
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\nc.close()\n"
    )
    mark = laboratory.gateway.recorder.mark()

    async def go(connection: asyncssh.SSHClientConnection) -> Seen:
        channel, seen = await opened(connection, "localhost", port)
        await seen.begun.wait()
        channel.write(b"x")
        await seen.closed.wait()
        return seen

    with serving(laboratory, program) as port:
        seen = with_alice(laboratory, go)
    assert (bytes(seen.data), seen.eof) == (b"half", False)
    laboratory.gateway.recorder.find("forward.closed", mark, saying=RESET)


@pytest.mark.attack("C15", "a client that leaves: the service inside hears of it though it says nothing")
def test_a_client_that_leaves_ends_the_services_connection(laboratory: Laboratory) -> None:
    """Nothing stays open inside for a forward that is gone."""
    program = listening() + "c = s.accept()[0]\nc.sendall(b'x')\nprint('end', c.recv(10))\nos._exit(0)\n"

    async def go(connection: asyncssh.SSHClientConnection) -> None:
        _, seen = await opened(connection, "localhost", port)
        await seen.begun.wait()
        connection.abort()

    with serving(laboratory, program) as port:
        with_alice(laboratory, go)
        poll(lambda: not is_bound(laboratory, port), "the end of the service inside")


def is_bound(laboratory: Laboratory, port: int) -> bool:
    done = laboratory.gateway.run("alice", laboratory.alice, f"ss -Hltn | grep -c :{port}")
    return int(done.stdout) > 0


def test_a_port_where_nothing_listens_is_said_to_be_that(laboratory: Laboratory) -> None:
    """And at once."""
    began = time.monotonic()
    with pytest.raises(asyncssh.ChannelOpenError, match="nothing listens on this port") as refused:
        forwarded(laboratory, "localhost", 4998)
    assert refused.value.code == asyncssh.OPEN_CONNECT_FAILED
    assert time.monotonic() - began < 2


@pytest.mark.slow
@pytest.mark.attack("C15", "a port whose queue is full and that never answers")
def test_a_port_that_never_answers_is_given_up(laboratory: Laboratory) -> None:
    """Within seconds, and other forwards open meanwhile."""
    full = listening(backlog=0) + (
        "held = []\nfor _ in range(3):\n    c = socket.socket()\n    c.setblocking(False)\n"
        "    c.connect_ex(s.getsockname())\n    held.append(c)\ntime.sleep(60)\n"
    )

    async def go(connection: asyncssh.SSHClientConnection) -> str:
        opening = asyncio.ensure_future(connection.create_connection(Seen, "127.0.0.1", port))
        await connection.create_connection(Seen, "localhost", LOOPBACK_PORT)
        assert not opening.done()
        with pytest.raises(asyncssh.ChannelOpenError) as refused:
            await asyncio.wait_for(opening, 20)
        return refused.value.reason

    with serving(laboratory, full) as port:
        assert "refused" not in with_alice(laboratory, go)


@pytest.mark.attack("C15", "a forward whose client reads nothing: the service inside is held back")
def test_a_client_that_does_not_read_holds_the_service_back(laboratory: Laboratory) -> None:
    """Nothing between the two takes more than its buffers, and the next byte is there when the client reads again."""
    program = listening() + (
        "c = s.accept()[0]\nn = 0\nc.settimeout(1.5)\nb = bytes(1 << 16)\n"
        "try:\n    while True:\n        n += c.send(b)\nexcept TimeoutError:\n    pass\n"
        "c.settimeout(30)\nc.sendall(b'%020d' % n)\nc.close()\n"
    )

    async def go(connection: asyncssh.SSHClientConnection) -> Seen:
        channel, seen = await opened(connection, "localhost", port)
        channel.pause_reading()
        await asyncio.sleep(3)  # the service gives up after 1.5 s in which nothing is taken
        channel.resume_reading()
        await seen.ended.wait()
        return seen

    with serving(laboratory, program) as port:
        seen = with_alice(laboratory, go)
    stalled = int(seen.data[-20:])
    assert len(seen.data) == stalled + 20
    assert 0 < stalled < STALLED_MAX_BYTES


def test_an_older_image_is_reached_through_its_sshd(laboratory: Laboratory, tmp_path: Path) -> None:
    """Without a ports.sock the forward goes through the inner SSH connection, as before."""
    inside = environment(laboratory)
    before = logins_inside(laboratory)
    inside.stop()
    (inside.root / "no-ports").touch()
    try:
        inside.start()
        assert not (inside.root / "ports.sock").exists()
        seen = forwarded(laboratory, "127.0.0.1", LOOPBACK_PORT, b"GET / HTTP/1.0\r\n\r\n")
    finally:
        (inside.root / "no-ports").unlink()
        inside.stop()
        inside.start()
    assert seen.data.endswith(b"notebook of alice\n")
    assert logins_inside(laboratory) > before


@pytest.mark.attack("C16", "a hostile ports.sock: no answer, garbage, an endless refusal, a yes and then nothing")
@pytest.mark.parametrize("words", [b"", b"?", b"-" + b"\x1b[2J" * 1000, b"-refused\x00\x1b]0;x\x07\n", b"ok\n"])
def test_a_listener_that_lies_costs_its_own_user_a_forward(laboratory: Laboratory, words: bytes) -> None:
    """The reason shown is the gateway's own words, and the connection works on."""
    inside = environment(laboratory)
    inside.stop()
    (inside.root / "no-ports").touch()  # the real listener would take its place back within a second
    try:
        inside.start()
        with socket.socket(socket.AF_UNIX) as liar:
            liar.bind(str(inside.root / "ports.sock"))
            liar.listen()
            liar.settimeout(10)

            async def go(connection: asyncssh.SSHClientConnection) -> str:
                opening = asyncio.ensure_future(connection.create_connection(Seen, "localhost", 6006))
                near, _ = await asyncio.to_thread(liar.accept)
                with near:
                    near.sendall(words)
                with pytest.raises(asyncssh.ChannelOpenError) as refused:
                    await opening
                assert (await connection.run("echo on")).stdout == "on\n"
                return refused.value.reason

            reason = with_alice(laboratory, go)
    finally:
        (inside.root / "no-ports").unlink()
        inside.stop()
        (inside.root / "ports.sock").unlink(missing_ok=True)
        inside.start()
    assert reason == "your environment does not answer there"
