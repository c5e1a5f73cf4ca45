"""What real clients say to the gateway at hand, recorded on the spot: logins in clear, and the messages after them."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import asyncssh

from gateway.config.ssh import KEY_EXCHANGES
from tests.fuzz.gateway_under_fire import GatewayUnderFire
from tests.fuzz.packets import NEWKEYS, payloads


@dataclass(frozen=True)
class Handshake:
    """The client's half of a login: its version line, the payloads in clear, and what it sent encrypted."""

    version: bytes
    payloads: tuple[bytes, ...]
    sealed: bytes


async def handshakes(gateway: GatewayUnderFire) -> list[Handshake]:
    """Record asyncssh with each key exchange, and OpenSSH."""
    recorded = []
    for exchange in KEY_EXCHANGES[:2]:
        async with _Tap(gateway.port) as tap:
            connection = await login(gateway, port=tap.port, kex_algs=[exchange])
            connection.abort()
        recorded.append(tap.handshake())
    async with _Tap(gateway.port) as tap:
        alias = f"HostKeyAlias=[127.0.0.1]:{gateway.port}"
        command = [*gateway.ssh("alice", "-p", str(tap.port), "-o", alias), "true"]
        client = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(client.wait(), 60) == 0
    return [*recorded, tap.handshake()]


async def login(gateway: GatewayUnderFire, port: int = 0, **options: object) -> asyncssh.SSHClientConnection:
    """Log in as alice."""
    return await asyncssh.connect(
        "127.0.0.1",
        port or gateway.port,
        username="alice",
        client_keys=[str(gateway.key("alice"))],
        known_hosts=None,
        config=None,
        **options,
    )


async def channel_messages(gateway: GatewayUnderFire) -> list[bytes]:
    """Record what a client sends for a terminal, a command, sftp, a forward and a reverse forward that is refused."""
    connection = await login(gateway)
    said: list[bytes] = []
    send = connection.send_packet

    def noted(pkttype: int, *args: bytes, **options: object) -> None:
        said.append(bytes([pkttype]) + b"".join(args))
        send(pkttype, *args, **options)

    connection.send_packet = noted  # type: ignore[method-assign]
    terminal = await connection.create_process("cat", term_type="xterm", term_size=(80, 24), env={"LC_ALL": "C"})
    terminal.stdin.write("hello\n")
    terminal.change_terminal_size(100, 40)
    terminal.send_signal("INT")
    terminal.stdin.write_eof()
    terminal.close()
    await terminal.wait_closed()
    await connection.run("cat", input="some input", check=False)
    async with connection.start_sftp_client() as sftp:
        await sftp.stat(".")
    reader, writer = await connection.open_connection("localhost", 8888)
    writer.write(b"GET /?size=300000 HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readexactly(300_000)
    writer.close()
    with suppress(asyncssh.ChannelListenError):
        await connection.forward_remote_port("", 0, "localhost", 1)
    connection.abort()
    await connection.wait_closed()
    return [message for message in said if message[0] >= 80]


class _Tap:
    """A port that leads to the gateway and keeps what clients say on it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._heard = bytearray()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> "_Tap":  # noqa: PYI034 - private, and never inherited from
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_pump(reader, target_writer, self._heard), _pump(target_reader, writer, bytearray()))

    def handshake(self) -> Handshake:
        """Take apart what was heard."""
        line, newline, rest = bytes(self._heard).partition(b"\n")
        clear: list[bytes] = []
        while not clear or clear[-1][0] != NEWKEYS:
            clear.append(payloads(rest)[0])
            rest = rest[4 + int.from_bytes(rest[:4], "big") :]
        return Handshake(line + newline, tuple(clear), rest)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            heard += data
            writer.write(data)
    writer.close()
