"""What a logged-in user does to the gateway, each until its time is over; one that is cut begins again.

`python -m tests.soak.floods NAME PORT KEY SECONDS` runs one of them as alice in a process of its own.
"""

import asyncio
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncssh
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_GLOBAL_REQUEST, MSG_REQUEST_FAILURE
from asyncssh.packet import Boolean, String, UInt32

CONNECTIONS = 6
FORWARDS = 64
BACKLOG_BYTES = 4 << 20
"""Of its own that an attacker lets wait before it goes on."""
BREATH_SECONDS = 0.2
LISTED = 20_000
"""Files in the directory that is listed."""
_LISTENER = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
kept = []
def blast(taken):
    try:
        while True:
            taken.sendall(bytes(65536))
    except OSError:
        pass
while True:
    taken = listener.accept()[0]
    kept.append(taken)
    if sys.argv[1] == "blast":
        threading.Thread(target=blast, args=(taken,), daemon=True).start()
"""
Connection = asyncssh.SSHClientConnection
Flood = Callable[["Attacker"], Awaitable[None]]


class Deaf(asyncssh.SSHTCPSession[bytes]):
    """A channel that is never read."""

    def connection_made(self, chan: Any) -> None:
        chan.pause_reading()


class Attacker:
    """How one of alice's attackers comes in, and until when."""

    def __init__(self, port: int, key: str, seconds: float, user: str = "alice") -> None:
        self.port, self.key, self.user = port, key, user
        self.until = time.monotonic() + seconds
        self.count = 0

    def goes_on(self, connection: Connection) -> bool:
        """Say whether there is time left, and a connection; count one more try."""
        self.count += 1
        return time.monotonic() < self.until and not connection.is_closed()

    async def enter(self, **options: Any) -> Connection:
        """Log in."""
        return await asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=self.user,
            client_keys=[self.key],
            known_hosts=None,
            config=None,
            agent_path=None,
            **options,
        )

    async def breathe(self, connection: Connection) -> None:
        """Let the loop run, longer while the gateway takes nothing."""
        transport: Any = connection._transport
        while transport and transport.get_write_buffer_size() > BACKLOG_BYTES and time.monotonic() < self.until:  # noqa: ASYNC110 - asyncssh tells no event
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)

    async def listener(self, connection: Connection, kind: str) -> int:
        """Start a program inside that accepts and then sends without end, or never reads; return its port."""
        process = await connection.create_process(f"exec python3 -c '{_LISTENER}' {kind}")
        return int(await process.stdout.readline())


async def global_requests(attacker: Attacker) -> None:
    """Ask for remote forwards of long names without waiting for an answer."""
    connection: Any = await attacker.enter()
    connection._packet_handlers = {**type(connection)._packet_handlers, MSG_REQUEST_FAILURE: lambda *_: True}
    request = String(b"tcpip-forward"), Boolean(True), String(b"x" * 30_000), UInt32(80)
    while attacker.goes_on(connection):
        for _ in range(32):
            connection.send_packet(MSG_GLOBAL_REQUEST, *request)
        await attacker.breathe(connection)


async def small_packets(attacker: Attacker) -> None:
    """Let eight programs print zeros in the smallest packets that are permitted, and drop what comes."""
    connection: Any = await attacker.enter(rekey_bytes=1 << 40)
    for _ in range(8):
        await connection.create_session(
            asyncssh.SSHClientSession, "exec cat /dev/zero", encoding=None, window=0x7FFFFFFF, max_pktsize=1024
        )
    connection.data_received = lambda *_: None
    while attacker.goes_on(connection):  # noqa: ASYNC110 - others do the work
        await asyncio.sleep(BREATH_SECONDS)


async def tiny_writes(attacker: Attacker) -> None:
    """Type single bytes into four programs as fast as it goes."""
    connection = await attacker.enter()
    channels = [
        (await connection.create_session(asyncssh.SSHClientSession, "cat >/dev/null", encoding=None))[0]
        for _ in range(4)
    ]
    while attacker.goes_on(connection):
        for channel in channels:
            for _ in range(100):
                channel.write(b"x")
        await attacker.breathe(connection)


async def deaf_forwards(attacker: Attacker) -> None:
    """Hold hundreds of forwards to a program that sends without end, and read none of them."""
    await _hold(attacker, "blast", 1)


async def unread_uploads(attacker: Attacker) -> None:
    """Fill hundreds of forwards to a program that reads nothing."""
    await _hold(attacker, "keep", 1 << 21)


async def _hold(attacker: Attacker, kind: str, window: int) -> None:
    first = await attacker.enter()
    port = await attacker.listener(first, kind)
    connections, channels = [first], []
    for _ in range(CONNECTIONS):
        connections.append(await attacker.enter())
        for _ in range(FORWARDS):
            try:
                channel, _ = await connections[-1].create_connection(
                    Deaf, "127.0.0.1", port, window=window, encoding=None
                )
            except asyncssh.ChannelOpenError:
                continue
            channels.append(channel)
    while attacker.goes_on(first):
        for channel in channels if kind == "keep" else ():
            if not channel.is_closing() and channel.get_write_buffer_size() < 1 << 16:
                channel.write(bytes(1 << 16))
        await asyncio.sleep(BREATH_SECONDS)
    for connection in connections:
        connection.abort()


async def open_and_close(attacker: Attacker) -> None:
    """Open forwards, write, and leave at once."""
    connection = await attacker.enter()
    port = await attacker.listener(connection, "keep")
    while attacker.goes_on(connection):
        for channel, _ in await asyncio.gather(
            *[connection.create_connection(Deaf, "127.0.0.1", port, encoding=None) for _ in range(16)]
        ):
            channel.write(bytes(60_000))
            channel.abort()
        await attacker.breathe(connection)


async def control_messages(attacker: Attacker) -> None:
    """Send signals of long names to a program whose sshd has been stopped."""
    connection: Any = await attacker.enter()
    stop = "(sleep 1; pkill -STOP -f '^sshd: alice'; sleep 20; pkill -CONT -f '^sshd: alice') & sleep 30"
    channel, _ = await connection.create_session(asyncssh.SSHClientSession, stop, encoding=None)
    while attacker.goes_on(connection):
        for _ in range(32):
            channel.send_packet(MSG_CHANNEL_REQUEST, String(b"signal"), Boolean(False), String(b"x" * 30_000))
        channel.change_terminal_size(80, attacker.count % 100)
        await attacker.breathe(connection)


async def sftp_renames(attacker: Attacker) -> None:
    """Rename what is not there in eight channels, to fill the journal."""
    connection = await attacker.enter()
    path = _field(b"\xff" * 1020)
    channels = []
    for _ in range(8):
        channel, _ = await connection.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        channel.write(struct.pack(">IBI", 5, 1, 3))
        channels.append(channel)
    while attacker.goes_on(connection):
        for channel in channels:
            for number in range(64 if channel.get_write_buffer_size() < 1 << 18 else 0):
                channel.write(_field(bytes([18]) + struct.pack(">I", number) + path + path))
        await attacker.breathe(connection)


async def listings(attacker: Attacker) -> None:
    """List a directory of twenty thousand files through sftp, over and over."""
    connection = await attacker.enter()
    await connection.run(f"mkdir -p /tmp/many && cd /tmp/many && seq -f name-%g 1 {LISTED} | xargs touch")
    async with connection.start_sftp_client() as sftp:
        while attacker.goes_on(connection):
            await sftp.readdir("/tmp/many")


async def key_exchanges(attacker: Attacker) -> None:
    """Begin a key exchange as soon as the last one has ended."""
    connection: Any = await attacker.enter()
    while attacker.goes_on(connection):
        if connection._kex_complete and not connection._kexinit_sent:
            connection._send_kexinit()
            connection._kexinit_sent = True
        await asyncio.sleep(0.001)


async def half_logins(attacker: Attacker) -> None:
    """Connect and say nothing, or what is no SSH."""
    waiting = []
    while time.monotonic() < attacker.until:
        attacker.count += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", attacker.port)
        writer.write(b"" if attacker.count % 2 else b"GET / HTTP/1.1\r\n\r\n" * 100)
        waiting.append((reader, writer))
        if len(waiting) > 8:
            waiting.pop(0)[1].close()
        await asyncio.sleep(0.02)


def _field(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


FLOODS: Final[dict[str, Flood]] = {
    flood.__name__: flood
    for flood in (
        global_requests,
        small_packets,
        tiny_writes,
        deaf_forwards,
        unread_uploads,
        open_and_close,
        control_messages,
        sftp_renames,
        listings,
        key_exchanges,
        half_logins,
    )
}


async def attack(flood: Flood, attacker: Attacker) -> None:
    """Repeat it until the time is over: being cut or refused is what it has to expect."""
    while (left := attacker.until - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                await flood(attacker)
        except (OSError, asyncssh.Error, TimeoutError, ValueError):
            await asyncio.sleep(min(BREATH_SECONDS, max(0.0, left)))


if __name__ == "__main__":
    acting = Attacker(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
    asyncio.run(attack(FLOODS[sys.argv[1]], acting))
    print(acting.count, flush=True)
