"""The program that listens inside a pod and joins whoever holds the gateway's key to a service's socket.

Its source goes in by exec and runs there as `python3 -I`, with its settings as one line of JSON on standard input; it
needs nothing but Python's own library (3.9 or newer). It says its port, leaves, and listens on from the background
until nobody has used it for a while. Both sides show certificates that the gateway made for this pod alone, so an
address that is another pod's by now, or a neighbour who finds the port, gets no further than the handshake.

Each connection begins with the service's name on a line, answered as in `answers`; `frames` follow.
"""

import asyncio
import json
import os
import socket
import ssl
import stat
import struct
import sys
from typing import Any

DIRECTORY = "/run/devgw"
SERVICES = ("ssh", "notebook", "ports")
LENGTH = struct.Struct(">I")
MOST_CONTENT = 65_536
MOST_CONNECTIONS = 256
ANSWER_SECONDS = 5
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class RefusalError(Exception):
    """A service that is not joined: the word of its answer."""


def main() -> None:
    """Say the port, and listen from the background."""
    settings = json.loads(sys.stdin.buffer.readline())
    context = context_of(settings["identity"], settings["client"])
    address = settings["address"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, backlog=64)
    if os.fork():
        os.write(1, b"+%d\n" % listener.getsockname()[1])
        os._exit(0)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    asyncio.run(Listener(listener, context, settings["idle_seconds"]).run())


def context_of(identity: str, client: str) -> ssl.SSLContext:
    """Return what a handshake must keep to: TLS 1.3, and that one client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=client)
    place = os.memfd_create("identity")
    try:
        os.write(place, identity.encode())
        context.load_cert_chain(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
    return context


class Listener:
    """Serves until it has been idle for `idle_seconds`."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, idle_seconds: float) -> None:
        self._listener = listener
        self._context = context
        self._idle_seconds = idle_seconds
        self._open = 0
        self._used = 0

    async def run(self) -> None:
        server = await asyncio.start_server(
            self._take, sock=self._listener, ssl=self._context, ssl_handshake_timeout=ANSWER_SECONDS, limit=262_144
        )
        async with server:
            seen = -1
            while self._open or seen != self._used:
                seen = self._used
                await asyncio.sleep(self._idle_seconds)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._used += 1
        if self._open >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            await join(reader, writer)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):  # noqa: UP041 - another one before 3.11
            pass
        finally:
            self._open -= 1
            self._used += 1
            writer.transport.abort()


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection, to its end."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    service = (await asyncio.wait_for(reader.readline(), ANSWER_SECONDS)).decode().strip()
    try:
        joined = await asyncio.get_running_loop().run_in_executor(None, connected, service)
    except RefusalError as exc:
        writer.write(f"-{exc}\n".encode())
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), ANSWER_SECONDS)
        return
    inside, out = await asyncio.open_unix_connection(sock=joined, limit=262_144)
    out.transport.set_write_buffer_limits(high=0)  # so that what was drained is with the service
    writer.write(b"+\n")
    ended, broken = asyncio.Event(), asyncio.Event()
    reading = asyncio.ensure_future(inward(reader, out, ended, broken))
    finished = asyncio.gather(outward(inside, writer), ended.wait())
    try:
        both: list[asyncio.Future[Any]] = [reading, finished]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            reading.result()
        finished.result()
        if broken.is_set():
            writer.close()
            await writer.wait_closed()
        else:  # the gateway closes, when it has taken all: what closes first may lose what the other has not read
            await asyncio.wait([reading])
    finally:
        reading.cancel()
        finished.cancel()
        out.transport.abort()


def connected(service: str) -> socket.socket:
    """Return a connection to a service's socket, which is the environment's own and no link. Raises: RefusalError."""
    if service not in SERVICES:
        raise RefusalError("refused")
    try:
        place = os.open(f"{DIRECTORY}/{service}.sock", os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise RefusalError("absent") from None
    except OSError:
        raise RefusalError("forged") from None
    try:
        found = os.fstat(place)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
            raise RefusalError("forged")
        joined = socket.socket(socket.AF_UNIX)
        try:
            joined.settimeout(ANSWER_SECONDS)
            joined.connect(f"/proc/self/fd/{place}")
        except OSError:
            joined.close()
            raise RefusalError("refused") from None
    finally:
        os.close(place)
    joined.setblocking(False)
    return joined


async def inward(
    reader: asyncio.StreamReader, out: asyncio.StreamWriter, ended: asyncio.Event, broken: asyncio.Event
) -> None:
    """Hand on what the gateway sends, and say when nothing more comes. It ends with the connection alone, by an error.

    What a service that has gone no longer takes is dropped.
    """
    while size := LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]:
        if size > MOST_CONTENT:
            raise ValueError(size)
        data = await reader.readexactly(size)
        if not broken.is_set():
            try:
                out.write(data)
                await out.drain()
            except OSError:
                broken.set()
                ended.set()
    if not broken.is_set():
        out.write_eof()
    ended.set()
    await reader.read(1)
    raise EOFError


async def outward(inside: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what the service says, and its end."""
    while data := await inside.read(MOST_CONTENT):
        writer.write(LENGTH.pack(len(data)) + data)
        await writer.drain()
    writer.write(LENGTH.pack(0))
    await writer.drain()


if __name__ == "__main__":
    main()
