"""Streams into a pod by exec: a service's bytes to one end of a pair of sockets, or what a command wrote.

The gateway gets the other end, a plain socket. Where the exec stream ends before the service did, that end is closed
as a broken connection is, and whoever reads an exit status there gets none.
"""

import asyncio
import json
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from gateway.engines.interface import Service
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiSilenceError
from gateway.engines.kubernetes.splice import (
    ABSENT,
    END,
    FORGED,
    MOST_CONTENT,
    PROGRAM,
    READY,
    FrameReader,
    frame,
)
from gateway.engines.run_directory import absent
from gateway.errors import EngineError

_log = logging.getLogger(__name__)

PYTHON = ["python3", "-I", "-c"]
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_ANSWER_SECONDS = 15.0
_LOOK_SECONDS = 0.5
_LOST_SECONDS = 1.0
_MOST_OUTPUT = 2**20


@dataclass(frozen=True, slots=True)
class Output:
    """What a command inside a pod wrote. `code` is None where the stream ended before the command did."""

    code: int | None
    out: bytes
    error: bytes


async def capture(cluster: Cluster, path: str, command: list[str], seconds: float = _ANSWER_SECONDS) -> Output:
    """Run a command in a pod. Raises: ApiRefusalError, ApiSilenceError."""
    out, error, code = bytearray(), bytearray(), None
    stream = await cluster.exec(path, command)
    try:
        async with asyncio.timeout(seconds):
            async for channel, content in _pieces(stream):
                if channel == _STATUS:
                    code = _exit_code(content)
                elif channel == _STDOUT and len(out) < _MOST_OUTPUT:
                    out += content
                elif channel == _STDERR and len(error) < _MOST_OUTPUT:
                    error += content
    except TimeoutError as exc:
        raise ApiSilenceError(f"a command inside the pod took more than {seconds:.0f} s") from exc
    finally:
        await stream.close()
    return Output(code, bytes(out), bytes(error))


async def dial(
    cluster: Cluster, path: str, service: Service, is_lost: Callable[[], bool] = lambda: False
) -> socket.socket:
    """Return a non-blocking stream to a service of a pod, which is cut when `is_lost` says that it leads nowhere.

    A node that was cut off ends no stream by itself for many minutes.

    Raises:
        EngineError, ApiRefusalError, ApiSilenceError.
    """
    stream = await cluster.exec(path, [*PYTHON, PROGRAM, service])
    pieces = _pieces(stream)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer, rest = await _first_line(pieces)
        _require_ready(answer, service)
        ours, theirs = socket.socketpair()
    except TimeoutError as exc:
        await stream.close()
        raise EngineError("socket.refused", f"the environment's {service} service does not answer in time") from exc
    except BaseException:
        await stream.close()
        raise
    ours.setblocking(False)
    theirs.setblocking(False)
    carrier = _Carrier(stream, pieces, rest, ours, is_lost)
    task = asyncio.get_running_loop().create_task(carrier.run())
    _carriers.add(task)
    task.add_done_callback(_carriers.discard)
    return theirs


_carriers: set[asyncio.Task[None]] = set()  # a loop holds its tasks only weakly


class _Carrier:
    """Moves bytes between an exec stream and our end of a pair until both directions have ended, or one was lost."""

    def __init__(
        self,
        stream: aiohttp.ClientWebSocketResponse,
        pieces: AsyncIterator[tuple[int, bytes]],
        rest: bytes,
        ours: socket.socket,
        is_lost: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._is_lost = is_lost
        self._pieces = pieces
        self._rest = rest
        self._socket = ours

    async def run(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._socket, limit=4 * MOST_CONTENT)
        inward, outward = asyncio.create_task(self._inward(reader)), asyncio.create_task(self._outward(writer))
        try:
            await self._until_over(inward, outward)
            for task in (inward, outward):
                if task.done():
                    task.result()
            if outward.done():  # what was read is handed on before the end is
                writer.close()
                await writer.wait_closed()
        except (ApiSilenceError, OSError, ValueError, aiohttp.ClientError) as exc:
            _log.debug("a stream into a pod was lost: %s", exc)
        finally:
            inward.cancel()
            outward.cancel()
            writer.transport.abort()
            with suppress(aiohttp.ClientError, OSError):
                await self._stream.close()

    async def _until_over(self, inward: "asyncio.Task[None]", outward: "asyncio.Task[None]") -> None:
        """Wait for the end of both directions, of one that failed, or of whoever reads at our end."""
        await self._while_led({inward, outward})
        if outward.done() and outward.exception() is None:
            await self._while_led({inward})
        elif inward.done() and inward.exception() is None:
            await self._until_hung_up(outward)

    async def _while_led(self, tasks: "set[asyncio.Task[None]]") -> None:
        """Wait for the first of these to end. Raises: ApiSilenceError, when the stream leads nowhere any more."""
        while not (await asyncio.wait(tasks, timeout=_LOST_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
            self._require_led()

    def _require_led(self) -> None:
        if self._is_lost():
            raise ApiSilenceError("the pod is gone, or its node does not answer")

    async def _inward(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(MOST_CONTENT):
            await self._stream.send_bytes(bytes([_STDIN]) + frame(data))
        await self._stream.send_bytes(bytes([_STDIN]) + END)

    async def _outward(self, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        for content in frames.feed(self._rest):
            if not content:
                writer.write_eof()
                return
            writer.write(content)
        async for channel, piece in self._pieces:
            if channel != _STDOUT:
                continue
            for content in frames.feed(piece):
                if not content:
                    await writer.drain()
                    writer.write_eof()
                    return
                writer.write(content)
            await writer.drain()
        raise ApiSilenceError("the exec stream ended before the service did")

    async def _until_hung_up(self, outward: "asyncio.Task[None]") -> None:
        """Wait for the service's end, but not for one whose reader has gone: only poll(2) tells half from whole."""
        poll = select.poll()
        poll.register(self._socket, 0)
        while not outward.done():
            if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
                return
            await asyncio.wait({outward}, timeout=_LOOK_SECONDS)
            self._require_led()


async def _pieces(stream: aiohttp.ClientWebSocketResponse) -> AsyncIterator[tuple[int, bytes]]:
    """Yield what comes on each channel (v4.channel.k8s.io: one byte of channel, then content)."""
    async for message in stream:
        if message.type is aiohttp.WSMsgType.BINARY and message.data:
            yield message.data[0], message.data[1:]
        elif message.type is aiohttp.WSMsgType.TEXT and message.data:
            yield ord(message.data[0]), message.data[1:].encode()


async def _first_line(pieces: AsyncIterator[tuple[int, bytes]]) -> tuple[bytes, bytes]:
    """Return the line in which the program inside says whether it is joined, and what came behind it."""
    line, errors = b"", b""
    async for channel, piece in pieces:
        if channel == _STDOUT:
            line += piece
            if b"\n" in line:
                answer, _, rest = line.partition(b"\n")
                return answer, rest
        elif channel in {_STDERR, _STATUS}:
            errors += piece
    return b"-" + errors[:300], b""


def _require_ready(answer: bytes, service: Service) -> None:
    if answer == READY:
        return
    if answer == ABSENT:
        raise absent(service)
    if answer == FORGED:
        raise EngineError("socket.forged", f"what lies at {service}.sock is not the environment's socket")
    said = answer.decode(errors="replace").strip("-")
    why = f": {' '.join(said.split())[:160]}" if said not in {"", "refused"} else ""
    raise EngineError("socket.refused", f"the environment's {service} service does not answer{why}")


def _exit_code(content: bytes) -> int | None:
    """Read the Status object that ends a command; one that says nothing of the exit is None, never 0."""
    try:
        status = json.loads(content)
        if status.get("status") == "Success":
            return 0
        causes = (status.get("details") or {}).get("causes") or ()
        return next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
