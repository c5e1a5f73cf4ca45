"""One connection to the proxy from its first byte to its record, against a server that is really there.

Only the way from a name to an address is made up here; `test_addresses.py` has that.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from gateway.egress import connection, tunnel
from gateway.egress.connection import ProxyConnection, ProxyParts
from gateway.egress.limits import ConnectionLimits
from gateway.egress.open_tunnels import OpenTunnels
from gateway.egress.proxy_request import HEAD_MAX, ClientSide
from gateway.egress.resolver import Dialer, Streams
from gateway.gate import Gate
from gateway.model import EnvironmentRef
from policies.decide import decide
from policies.load import parse_policy
from policies.model import Policy
from tests.fakes.recorder import MemoryRecorder
from tests.unit.egress.hello import client_hello, message_of, records

NAME = "index.example.net"
CONNECT = f"CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\n\r\n".encode()
MISMATCH = f"TLS for 'evil.example.net', but {NAME} was asked for"
WORDS = "version = 1\ndefault_roles = ['m']\n[roles.m]\negress_hosts = [{}]\n"


class LocalDialer(Dialer):
    """Connects every name to one server here."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    async def connect(self, host: str, port: int) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)


@dataclass
class World:
    """A proxy, a server behind it that keeps what it got, and what was written down."""

    policy: Policy
    recorder: MemoryRecorder = field(default_factory=MemoryRecorder)
    got: bytearray = field(default_factory=bytearray)
    answer: bytes = b""
    idle_seconds: float = 30
    open_tunnels: OpenTunnels = field(default_factory=OpenTunnels)
    limits: ConnectionLimits = field(default_factory=lambda: ConnectionLimits(64, 100))
    disabled: set[str] = field(default_factory=set)
    parts: ProxyParts | None = None

    async def serve_far(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer)
        while data := await reader.read(65_536):
            self.got += data
            if b"\r\n\r\n" in self.got and self.got.startswith((b"GET", b"POST")):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                break
        writer.close()

    def codes(self) -> list[str]:
        return [event.code for event in self.recorder.events]

    def reasons(self, code: str) -> list[str]:
        return [event.reason for event in self.recorder.events if event.code == code]


Client = Callable[[World, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(client: Client, *, hosts: str = f"'{NAME}:443,80'", **settings: object) -> World:
    """Run a client on one connection of alice's environment, and wait until all of it is over."""

    async def main() -> World:
        world = World(parse_policy(WORDS.format(hosts), "tried.toml"), **settings)  # type: ignore[arg-type]
        far = await asyncio.start_server(world.serve_far, "127.0.0.1", 0)
        world.parts = ProxyParts(
            gate=Gate(lambda request: decide(world.policy, request), world.recorder),
            recorder=world.recorder,
            dialer=LocalDialer(far.sockets[0].getsockname()[1]),
            limits=world.limits,
            open_tunnels=world.open_tunnels,
            is_disabled=lambda user: user in world.disabled,
            idle_seconds=world.idle_seconds,
            contact="Ada",
        )
        served = await begin(world)
        async with asyncio.timeout(20):
            await client(world, *served[:2])
            served[1].close()
            await served[2]
        far.close()
        return world

    return asyncio.run(main())


async def begin(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, "asyncio.Task[None]"]:
    """Open one connection to the proxy; return the client's side and the task that serves it."""
    assert world.parts is not None
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    near = ClientSide(*await asyncio.open_unix_connection(sock=theirs))
    task = asyncio.create_task(ProxyConnection(world.parts, EnvironmentRef.parse("alice"), near).serve())
    return reader, writer, task


def sending(*pieces: bytes, into: bytearray | None = None) -> Client:
    """Return a client that sends pieces, each after a turn of the loop, and reads to the end."""

    async def client(_world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if writer.can_write_eof():
            writer.write_eof()
        answer = await reader.read()
        if into is not None:
            into.extend(answer)

    return client


def test_a_tunnel_carries_what_names_the_right_host() -> None:
    answer = bytearray()
    world = run(sending(CONNECT, client_hello(NAME), b"more", into=answer), answer=b"from afar")
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nfrom afar"
    assert bytes(world.got).endswith(b"more")
    assert world.codes() == ["egress-host.allowed", "egress-host.closed"]
    closed = world.recorder.events[-1]
    assert (closed.detail["sent_bytes"], closed.detail["received_bytes"]) == (len(world.got), 9)
    assert "egress_hosts" in closed.rule


def test_what_comes_with_the_request_is_not_lost() -> None:
    hello = client_hello(NAME)
    assert bytes(run(sending(CONNECT + hello + b"early")).got) == hello + b"early"


def test_a_hello_that_comes_byte_by_byte_is_held_back_until_it_is_whole() -> None:
    hello = records(message_of(client_hello(NAME)), 100)
    world = run(sending(CONNECT, *(hello[place : place + 1] for place in range(len(hello)))))
    assert bytes(world.got) == hello


@pytest.mark.attack("C21", "TLS for another name than was asked for, for none, and cut into records of three bytes")
@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (client_hello("evil.example.net"), MISMATCH),
        (client_hello(None), tunnel.NO_NAME),
        (records(message_of(client_hello("evil.example.net")), 3), MISMATCH),
        (b"\x16\x03\x01\x00\x02\x02\x00", "TLS that does not begin with a ClientHello"),
    ],
)
def test_not_a_byte_of_tls_for_another_name_goes_out(hello: bytes, reason: str) -> None:
    answer = bytearray()
    world = run(sending(CONNECT, hello, into=answer))
    assert bytes(world.got) == b""
    assert answer.endswith(tunnel.UNRECOGNIZED_NAME)
    assert world.reasons("egress-host.refused") == [reason]
    assert world.reasons("egress-host.closed") == [reason]


@pytest.mark.attack("C23", "a ClientHello that does not end")
def test_a_hello_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "HELLO_SECONDS", 0.1)

    async def client(_world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNECT + client_hello(NAME)[:20])
        await reader.read()

    world = run(client)
    assert (bytes(world.got), world.reasons("egress-host.refused")) == (b"", ["a ClientHello that does not end"])


def test_what_is_no_tls_passes_and_the_far_side_may_speak_first() -> None:
    answer = bytearray()
    world = run(sending(CONNECT, b"SSH-2.0-client\r\n", into=answer), answer=b"SSH-2.0-server\r\n")
    assert answer.endswith(b"\r\n\r\nSSH-2.0-server\r\n")
    assert bytes(world.got) == b"SSH-2.0-client\r\n"


def refusal(request: bytes, **settings: object) -> tuple[int, str, World]:
    """Send a request; return the status and reason of the answer."""
    answer = bytearray()
    world = run(sending(request, into=answer), **settings)
    version, status, reason = bytes(answer).split(b"\r\n", 1)[0].decode().split(" ", 2)
    assert version == "HTTP/1.1"
    assert reason in bytes(answer).partition(b"\r\n\r\n")[2].decode()
    return int(status), reason, world


def test_a_refusal_says_what_is_closed_and_whom_to_ask_in_status_and_body() -> None:
    status, reason, world = refusal(CONNECT.replace(b":443", b":22"))
    assert status == 403
    assert (
        "no role permits connections to 'index.example.net' port 22; permitted there: index.example.net:80,443"
        in reason
    )
    assert f"; ask Ada (reference {world.recorder.events[0].reference})" in reason
    assert world.codes() == ["egress-host.denied"]


@pytest.mark.attack("C19", "an address, a password, no port or 16 KiB in place of the name of a host outside")
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"CONNECT 127.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT 0x7f000001:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"CONNECT index.example.net HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT index.example.net:https HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT user@index.example.net:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"CONNECT index.example.net:443443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: index.example.net\r\n\r\n", 400),
        (b"GET https://index.example.net/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET ftp://index.example.net/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://u:p@index.example.net/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://index.example.net/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"GET http://index.example.net/ HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2 * HEAD_MAX + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_for_a_name_is_refused_before_anything_is_asked(request_: bytes, status: int) -> None:
    found, _, world = refusal(request_)
    assert found == status
    assert world.codes() == []
    assert bytes(world.got) == b""


def test_a_user_who_is_disabled_gets_nothing() -> None:
    status, reason, world = refusal(CONNECT, disabled={"alice"})
    assert (status, "the user alice is disabled" in reason) == (403, True)
    assert world.codes() == ["egress-host.allowed", "egress-host.refused"]


@pytest.mark.attack("C22", "another `Host` than the URL's, and a second request behind the first")
def test_a_plain_request_is_made_anew_for_the_host_of_its_url() -> None:
    """Nothing for proxies goes on, `Host` is the URL's, and what follows the request is never sent."""
    request = (
        f"POST http://{NAME}/path?query HTTP/1.1\r\nHost: evil.example.net\r\nProxy-Authorization: secret\r\n"
        "Connection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\nContent-Length: 5\r\n\r\nwords"
        f"GET http://evil.example.net/ HTTP/1.1\r\nHost: evil.example.net\r\n\r\n"
    )
    answer = bytearray()
    world = run(sending(request.encode(), into=answer))
    head, _, body = bytes(world.got).decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "POST /path?query HTTP/1.1"
    assert f"host: {NAME}" in map(str.lower, lines)
    assert "secret" not in head
    assert "x-hop" not in head.lower()
    assert "x-kept: 2" in head.lower()
    assert body == "words"
    assert answer.endswith(b"done")


@pytest.mark.attack("C22", "a body with two lengths (request smuggling)")
def test_two_framings_of_one_body_are_refused_or_made_one() -> None:
    """Request smuggling: what a proxy and a server could frame differently leaves with one framing."""
    smuggled = (
        f"POST http://{NAME}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
    )
    world = run(sending(smuggled.encode()))
    assert b"smuggled" not in bytes(world.got)
    assert not (b"content-length" in bytes(world.got).lower() and b"transfer-encoding" in bytes(world.got).lower())


def test_a_client_that_says_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    answers = []

    async def client(_world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"CONNECT ")
        answers.append(await reader.read())

    assert run(client).codes() == []
    assert answers[0].startswith(b"HTTP/1.1 408 devgw: no request came within")


def test_a_tunnel_that_carries_nothing_is_cut() -> None:
    async def client(_world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNECT)
        await reader.read()

    world = run(client, idle_seconds=0.2)
    assert world.reasons("egress-host.closed") == ["nothing moved for 0.2 s"]


def test_another_policy_cuts_what_it_does_not_permit_and_nothing_else() -> None:
    async def client(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        world.open_tunnels.recheck(lambda request: decide(world.policy, request), lambda _user: False)
        writer.write(b"still there")
        async with asyncio.timeout(5):
            while bytes(world.got) != b"still there":  # noqa: ASYNC110 - the far side tells nobody
                await asyncio.sleep(0.01)
        world.policy = parse_policy(WORDS.format("'other.example.net'"), "other.toml")
        world.open_tunnels.recheck(lambda request: decide(world.policy, request), lambda _user: False)
        await reader.read()

    [reason] = run(client).reasons("egress-host.closed")
    assert reason.startswith("no longer permitted: no role permits connections to 'index.example.net' port 443")


def test_a_disabled_users_tunnels_are_cut() -> None:
    async def client(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        world.open_tunnels.recheck(lambda request: decide(world.policy, request), lambda user: user == "alice")
        await reader.read()

    assert run(client).reasons("egress-host.closed") == ["no longer permitted: the user alice is disabled"]


@pytest.mark.attack("C23", "more connections to hosts outside than one user may have")
def test_one_too_many_is_told_so_and_written_down_once() -> None:
    answers = []

    async def client(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(5):
            more_reader, more_writer, task = await begin(world)
            more_writer.write(CONNECT)
            answers.append(await more_reader.read())
            more_writer.close()
            await task

    world = run(client, limits=ConnectionLimits(1, 100))
    assert {answer.split(b"\r\n")[0].split(b" ")[1] for answer in answers} == {b"429"}
    assert world.codes().count("egress-host.refused") == 1
