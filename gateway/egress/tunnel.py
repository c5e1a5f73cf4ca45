"""One connection from an environment to a host outside: bytes both ways, counted, with an end that has a reason."""

import asyncio
import time
from contextlib import suppress

from gateway.egress.client_hello import Hello, HelloError, read_hello
from gateway.egress.proxy_request import CHUNK_BYTES, ClientSide, ProxyRequest, write_head
from gateway.egress.resolver import Streams
from policies.egress_hosts import normal_host

_Direction = asyncio.Task[None]
HELLO_SECONDS = 10.0
UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
"""A fatal alert (RFC 8446 §6.2, RFC 6066 §3)."""
NO_NAME = "TLS without a server name, which must be the name that was asked for"


class CutError(Exception):
    """The gateway ends a connection, and why. `is_refusal`: the client began with what may not be."""

    def __init__(self, reason: str, *, is_refusal: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_refusal = is_refusal


class Tunnel:
    """Joins the two sides until both have ended, nothing moves for too long, or it is cut."""

    def __init__(self, request: ProxyRequest, near: ClientSide, far: Streams, idle_seconds: float) -> None:
        self.request = request
        self.sent_bytes = 0
        """What the environment sent, inside TLS or not."""
        self.received_bytes = 0
        self._near = near
        self._far_reader, self._far_writer = far
        self._idle_seconds = idle_seconds
        self._moved_at = time.monotonic()
        self._cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def cut(self, reason: str) -> None:
        """End it from outside; the first reason stays."""
        if not self._cut.done():
            self._cut.set_result(reason)

    async def carry(self) -> None:
        """Carry bytes until the end. Raises: CutError, RequestError, OSError."""
        early = await self._near.accept_tunnel() if self.request.is_tunnel else b""
        outward = asyncio.create_task(self._tunnel_outward(early) if self.request.is_tunnel else self._plain_outward())
        inward, idle = asyncio.create_task(self._inward()), asyncio.create_task(self._until_idle())
        needed = {outward, inward} if self.request.is_tunnel else {inward}
        try:
            while any(not one.done() for one in needed):
                waited = {one for one in (outward, inward, idle, self._cut) if not one.done()}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                self._raise_end(outward, inward, idle)
        except BaseException:
            self._far_writer.transport.abort()
            raise
        finally:
            for one in (outward, inward, idle):
                one.cancel()
            await asyncio.gather(outward, inward, idle, return_exceptions=True)
            self._far_writer.close()

    def _raise_end(self, outward: _Direction, inward: _Direction, idle: _Direction) -> None:
        if self._cut.done():
            raise CutError(self._cut.result())
        for direction in (outward, inward):
            if direction.done():
                direction.result()
        if idle.done():
            raise CutError(f"nothing moved for {self._idle_seconds:g} s")

    async def _tunnel_outward(self, data: bytes) -> None:
        """Hold back what may be a ClientHello until it is whole and names the right host; then pass on as it comes."""
        data = await self._checked_beginning(data)
        while data:
            await self._send(data)
            data = await self._near.reader.read(CHUNK_BYTES)
        with suppress(OSError, RuntimeError):
            self._far_writer.write_eof()

    async def _checked_beginning(self, data: bytes) -> bytes:
        deadline: float | None = None
        while True:
            try:
                hello = read_hello(data)
                if hello is not None:
                    self._require_agreement(hello)
                    return data
                if data and deadline is None:
                    deadline = asyncio.get_running_loop().time() + HELLO_SECONDS
                async with asyncio.timeout_at(deadline):
                    more = await self._near.reader.read(CHUNK_BYTES)
            except HelloError as exc:
                raise self._refusal(str(exc)) from exc
            except TimeoutError:
                raise self._refusal("a ClientHello that does not end") from None
            if not more:
                return b""
            data += more

    def _require_agreement(self, hello: Hello) -> None:
        if not hello.is_tls:
            return
        if hello.server_name is None:
            raise self._refusal(NO_NAME)
        if normal_host(hello.server_name) != self.request.host:
            raise self._refusal(f"TLS for {hello.server_name[:80]!a}, but {self.request.host} was asked for")

    def _refusal(self, reason: str) -> CutError:
        """Tell a TLS client in its own words, where the far side has not spoken yet."""
        if not self.received_bytes:
            self._near.writer.write(UNRECOGNIZED_NAME)
        return CutError(reason, is_refusal=True)

    async def _plain_outward(self) -> None:
        """Send a plain request whose framing h11 makes anew; what follows it is not read."""
        assert self.request.plain is not None  # noqa: S101 - said by is_tunnel
        framing, head = write_head(self.request.plain)
        await self._send(head)
        while True:
            part = await self._near.read_body()
            await self._send(framing.send(part) or b"")
            if not hasattr(part, "data"):
                return

    async def _send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._moved_at = time.monotonic()
        if data:
            self._far_writer.write(data)
            await self._far_writer.drain()

    async def _inward(self) -> None:
        while data := await self._far_reader.read(CHUNK_BYTES):
            self.received_bytes += len(data)
            self._moved_at = time.monotonic()
            await self._near.send_raw(data)
        with suppress(OSError, RuntimeError):
            self._near.writer.write_eof()

    async def _until_idle(self) -> None:
        while (left := self._moved_at + self._idle_seconds - time.monotonic()) > 0:  # noqa: ASYNC110 - time ends it
            await asyncio.sleep(left)
