"""Row E: hostile transports. Each attack ends in bounded time and memory, writes nothing false, and bob works on."""

import asyncio
import random
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import asyncssh
import pytest

from gateway.audit.verify import verify
from tests.attacks.second_user import second_user
from tests.fuzz.gateway_under_fire import GatewayUnderFire, gateway_under_fire
from tests.fuzz.packets import (
    CURVE,
    DEBUG,
    DISCONNECT,
    ECDH_REPLY,
    IGNORE,
    KEXINIT,
    NEWKEYS,
    SERVICE_REQUEST,
    STRICT,
    UNIMPLEMENTED,
    VERSION,
    Conversation,
    converse,
    ecdh_init,
    kexinit,
    packet,
    payloads,
    string,
)

MIB = 1 << 20
GROWTH_MAX_BYTES = 12 * MIB
GRACE_SECONDS = 3.0
STRANGER = ("127.0.0.9", 0)
"""An address from where no user has proved a key: MaxStartups are for those."""
FULL = 20


@pytest.fixture(scope="module")
def under_fire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayUnderFire]:
    """The usual time to log in: what hangs up here does so at once and not because time is over."""
    with gateway_under_fire(tmp_path_factory.mktemp("transport")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayUnderFire]:
    """Little time to log in, and the real MaxStartups."""
    root = tmp_path_factory.mktemp("strict")
    with gateway_under_fire(root, login_grace_seconds=GRACE_SECONDS, max_startups=f"10:30:{FULL}") as gateway:
        yield gateway


@contextmanager
def attack(gateway: GatewayUnderFire, attempts: int = 0) -> Iterator[None]:
    """Hold what every attack leaves: bounded memory, no traceback, login attempts alone in the journal, bob at work."""
    with second_user(gateway):
        before = gateway.resident_bytes()
        strangers = len(gateway.records("login.refused"))
        yield
        assert gateway.resident_bytes() - before < GROWTH_MAX_BYTES
    assert len(gateway.records("login.refused")) == strangers + attempts
    assert gateway.holds_no_traceback(), gateway.log()
    assert verify(gateway.root / "journal").problem is None


@pytest.mark.attack("E1", "no version string, one byte at a time: cut at LoginGraceTime")
def test_a_version_line_that_never_ends_in_time(strict: GatewayUnderFire) -> None:
    """One byte after the other does not prolong LoginGraceTime."""
    with attack(strict), socket.create_connection(("127.0.0.1", strict.port), 5) as sock:
        began = time.monotonic()
        sock.settimeout(0.2)
        assert drip(sock) == b"SSH-2.0-devgw\r\n"
        assert GRACE_SECONDS - 0.5 < time.monotonic() - began < GRACE_SECONDS + 3


def drip(sock: socket.socket) -> bytes:
    """Send a byte whenever the gateway has been silent for a while; return what it said until it hung up."""
    said, deadline = b"", time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            data = sock.recv(1000)
            said += data
            if not data:
                return said
        except TimeoutError:
            sock.send(b"S")
        except ConnectionError:
            return said
    raise AssertionError("the gateway did not hang up")


@pytest.mark.attack("E2", "400 idle TCP connections: MaxStartups are kept, the others are told why, users get in after")
def test_idle_connections_fill_max_startups_and_no_more(strict: GatewayUnderFire) -> None:
    """Those turned away learn the reason at once; those kept go at LoginGraceTime; then alice logs in."""
    count = 400
    with attack(strict), ExitStack() as stack, selectors.DefaultSelector() as selector:
        said: dict[socket.socket, bytes] = {}
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", strict.port), 10, STRANGER))
            said[sock] = b""
            selector.register(sock, selectors.EVENT_READ)
        read_to_end(selector, said, GRACE_SECONDS + 10)
        turned_away = [words for words in said.values() if b"the gateway is busy" in words]
        assert count - FULL <= len(turned_away) < count
        assert {words for words in said.values() if words not in turned_away} <= {b"SSH-2.0-devgw\r\n"}
        assert asyncio.run(run_as_alice(strict, "echo hi")) == b"hi\n"


def read_to_end(selector: selectors.BaseSelector, said: dict[socket.socket, bytes], seconds: float) -> None:
    """Collect what the gateway says on many sockets until it has hung up on all."""
    deadline, left = time.monotonic() + seconds, len(said)
    while left:
        assert time.monotonic() < deadline, f"{left} connections are still open"
        for key, _ in selector.select(0.5):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                data = sock.recv(65536)
            except ConnectionError:
                data = b""
            said[sock] += data
            if not data:
                selector.unregister(sock)
                left -= 1


async def login(gateway: GatewayUnderFire, **options: object) -> asyncssh.SSHClientConnection:
    """Log in as alice."""
    return await asyncssh.connect(
        "127.0.0.1",
        gateway.port,
        username="alice",
        client_keys=[str(gateway.key("alice"))],
        known_hosts=None,
        config=None,
        **options,
    )


async def run_as_alice(gateway: GatewayUnderFire, command: str) -> bytes:
    async with await login(gateway) as connection:
        return bytes((await connection.run(command, encoding=None)).stdout or b"")


@pytest.mark.attack("E3", "packet lengths that cannot be, 0xfffffff0 first: refused before anything is kept")
@pytest.mark.parametrize("length", [0xFFFFFFF0, 0x7FFFFFFF, 1 << 20, 300_000, 0, 1])
def test_an_impossible_packet_length_ends_the_connection(under_fire: GatewayUnderFire, length: int) -> None:
    """Four bytes do not make the gateway wait for what they announce."""
    with attack(under_fire):
        done = converse(under_fire.port, [VERSION, length.to_bytes(4, "big") + bytes(64), bytes(4 * MIB)])
    assert_refused(done)


def assert_refused(done: Conversation) -> None:
    """Hold that the gateway hung up at once and that no key exchange came of it; a flood may lose its last words."""
    assert ECDH_REPLY not in done.types
    assert done.seconds < 5


@pytest.mark.attack("E4", "an endless or senseless version line: cut after 8 KiB")
@pytest.mark.parametrize(
    "line", [b"SSH-2.0-" + b"a" * MIB, b"a" * MIB, b"\0" * MIB, b"GET / HTTP/1.1\r\n" * 999, b"SSH-1.5-old\r\n"]
)
def test_an_endless_version_line_ends_the_connection(under_fire: GatewayUnderFire, line: bytes) -> None:
    """No newline, or lines that are no version: there is nothing to wait for."""
    with attack(under_fire):
        done = converse(under_fire.port, [line])
    assert_refused(done)


@pytest.mark.attack("E5", "KEXINIT over and over before login: the second one is one too many")
@pytest.mark.parametrize("strict_kex", [True, False])
def test_a_loop_of_offers_ends_the_connection(under_fire: GatewayUnderFire, strict_kex: bool) -> None:
    """An offer in the middle of an exchange is a protocol error."""
    offer = kexinit((CURVE, STRICT) if strict_kex else (CURVE,))
    with attack(under_fire):
        done = converse(under_fire.port, [VERSION, *[packet(offer)] * 200])
    assert_refused(done)
    assert "already in progress" in done.reason or done.reason == ""


LATER = {
    "service request": bytes([SERVICE_REQUEST]) + string("ssh-userauth"),
    "service of channels": bytes([SERVICE_REQUEST]) + string("ssh-connection"),
    "authentication": bytes([50]) + string("alice") + string("ssh-connection") + string("none"),
    "success of authentication": bytes([52]),
    "answer to an offered key": bytes([60]) + string("ssh-ed25519") + string(b""),
    "global request": bytes([80]) + string("tcpip-forward") + b"\1" + string("") + bytes(4),
    "session channel": bytes([90]) + string("session") + bytes(4) + b"\0\x20\0\0" + b"\0\0\x80\0",
    "channel data": bytes([94]) + bytes(4) + string("data"),
    "channel request": bytes([98]) + bytes(4) + string("shell") + b"\1",
    "new keys without an exchange": bytes([NEWKEYS]),
}


@pytest.mark.attack("E7", "messages of a later phase before the key exchange: refused")
@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("after_offer", [True, False])
def test_a_message_before_its_phase_ends_the_connection(
    under_fire: GatewayUnderFire, name: str, after_offer: bool
) -> None:
    """Before keys are agreed on, nothing but the agreement is listened to."""
    start = [VERSION, packet(kexinit())] if after_offer else [VERSION]
    with attack(under_fire):
        done = converse(under_fire.port, [*start, packet(LATER[name])])
    assert_refused(done)
    assert 52 not in done.types


class Early(asyncssh.SSHClient):
    """A client that says something else where it should ask for the service of authentication."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        def say(_service: bytes) -> None:
            conn._auth_complete = True  # asyncssh would hold the message back
            conn.send_packet(self._payload[0], self._payload[1:])

        conn.send_service_request = say  # type: ignore[method-assign]


@pytest.mark.attack("E8", "messages of a later phase inside the encryption, before login: refused")
@pytest.mark.parametrize("name", [name for name, payload in LATER.items() if payload[0] >= 50])
def test_a_message_before_login_ends_the_connection(under_fire: GatewayUnderFire, name: str) -> None:
    """Keys are not a login: no channel, no forward, no authentication without its service."""

    async def come_early() -> str:
        with pytest.raises((asyncssh.Error, ConnectionError)) as caught:
            await asyncio.wait_for(login(under_fire, client_factory=lambda: Early(LATER[name])), 10)
        return str(caught.value)

    with attack(under_fire, attempts=int(name == "authentication")):
        assert asyncio.run(come_early())


@pytest.mark.attack("E9", "strict key exchange (Terrapin): one message too many in the cleartext ends it")
@pytest.mark.parametrize("extra", [IGNORE, UNIMPLEMENTED, DEBUG])
@pytest.mark.parametrize("place", ["before the offer", "after the offer", "after the exchange"])
def test_strict_key_exchange_takes_no_message_too_many(under_fire: GatewayUnderFire, extra: int, place: str) -> None:
    """With the strict marker, an ignorable message does not shift the sequence numbers (CVE-2023-48795)."""
    bodies = {IGNORE: string(""), UNIMPLEMENTED: bytes(4), DEBUG: b"\0" + string("") + string("")}
    smuggled = packet(bytes([extra]) + bodies[extra])
    messages = [packet(kexinit()), packet(ecdh_init())]
    messages.insert(["before the offer", "after the offer", "after the exchange"].index(place), smuggled)
    with attack(under_fire):
        is_late = place == "after the exchange"
        done = converse(under_fire.port, [VERSION, *messages], hear=ECDH_REPLY if is_late else None)
    assert is_late or "Strict key exchange violation" in done.reason
    assert done.seconds < 5
    assert (ECDH_REPLY in done.types) == is_late


OLD = {
    "group 1 with SHA-1": {"exchanges": ("diffie-hellman-group1-sha1",)},
    "group 14 with SHA-1": {"exchanges": ("diffie-hellman-group14-sha1",)},
    "a group of the client's": {"exchanges": ("diffie-hellman-group-exchange-sha256",)},
    "a NIST curve": {"exchanges": ("ecdh-sha2-nistp256",)},
    "RSA with SHA-1": {"host_key": "ssh-rsa"},
    "DSA": {"host_key": "ssh-dss"},
    "triple DES": {"cipher": "3des-cbc"},
    "CBC": {"cipher": "aes128-cbc"},
    "RC4": {"cipher": "arcfour"},
    "no cipher": {"cipher": "none"},
    "SHA-1 in the MAC": {"cipher": "aes128-ctr", "mac": "hmac-sha1"},
    "MD5 in the MAC": {"cipher": "aes128-ctr", "mac": "hmac-md5"},
    "no MAC": {"cipher": "aes128-ctr", "mac": "none"},
}


@pytest.mark.attack("E10", "downgrade: a client that offers only what is broken gets no key exchange")
@pytest.mark.parametrize("name", OLD)
def test_a_broken_algorithm_is_not_agreed_on(under_fire: GatewayUnderFire, name: str) -> None:
    """The gateway ends it with a reason, and has signed nothing."""
    with attack(under_fire):
        done = converse(under_fire.port, [VERSION, packet(kexinit(**OLD[name])), packet(ecdh_init())])
    assert_refused(done)
    assert done.types == [KEXINIT, DISCONNECT]
    assert "No matching" in done.reason or "compatible server host key" in done.reason


@pytest.mark.attack("E11", "compression, and with it a bomb, is not offered before login or after")
@pytest.mark.parametrize("compression", ["zlib", "zlib@openssh.com"])
def test_compression_is_not_agreed_on(under_fire: GatewayUnderFire, compression: str) -> None:
    """A client that insists is refused, so nothing ever expands in the gateway."""
    with attack(under_fire):
        done = converse(under_fire.port, [VERSION, packet(kexinit(compression=compression))])
    assert "No matching compression" in done.reason
    offer = payloads(done.said.partition(b"\r\n")[2])[0]
    assert b"zlib" not in offer
    assert offer.count(string("none")) == 2


@pytest.mark.attack("E12", "garbage after NEWKEYS: one failed tag ends it, a flood is cut")
@pytest.mark.parametrize("size", [1, 16, 64, 5000, 2 * MIB])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_garbage_after_new_keys_ends_the_connection(under_fire: GatewayUnderFire, size: int, seed: int) -> None:
    """What does not decrypt is not looked at, and what is too short to be a packet ends with its sender."""
    agreed = [VERSION, packet(kexinit()), packet(ecdh_init()), packet(bytes([NEWKEYS]))]
    garbage = random.Random(seed).randbytes(size)
    with attack(under_fire):
        done = converse(under_fire.port, [*agreed, garbage], hear=ECDH_REPLY, leave=True)
    assert ECDH_REPLY in done.types
    assert done.seconds < 5


class Deaf(asyncssh.SSHTCPSession[bytes]):
    """A channel whose client never reads its socket."""


@pytest.mark.attack("E13", "a window of 4 GiB and a client that stops reading: a few MiB, and the sender waits")
def test_a_deaf_client_with_an_endless_window_costs_little(under_fire: GatewayUnderFire) -> None:
    """96 MiB wait in the environment, not in the gateway: its process is measured from outside."""
    grown = []

    async def stop_reading() -> None:
        connection = await login(under_fire)
        channel, _ = await connection.create_connection(Deaf, "localhost", 8888, window=0xFFFFFFFF)
        before = under_fire.resident_bytes()
        assert connection._transport is not None
        connection._transport.pause_reading()
        channel.write(f"GET /?size={96 * MIB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        ended = asyncio.get_running_loop().time() + 3
        while asyncio.get_running_loop().time() < ended:
            await asyncio.sleep(0.05)
            grown.append(under_fire.resident_bytes() - before)
        connection.abort()

    with attack(under_fire):
        asyncio.run(stop_reading())
    assert max(grown) < GROWTH_MAX_BYTES
