"""Streams into a pod by exec, through the API: a service's bytes, or what a command wrote."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from gateway.engines.interface import Service
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiSilenceError
from gateway.engines.kubernetes.streams.answers import require_ready, silent
from gateway.engines.kubernetes.streams.carrier import carry
from gateway.engines.kubernetes.streams.splice import PROGRAM

PYTHON = ["python3", "-I", "-c"]
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_TO_STDIN = bytes([_STDIN])
_ANSWER_SECONDS = 15.0
_MOST_OUTPUT = 2**20


@dataclass(frozen=True, slots=True)
class Output:
    """What a command inside a pod wrote. `code` is None where the stream ended before the command did."""

    code: int | None
    out: bytes
    error: bytes


async def capture(
    cluster: Cluster, path: str, command: list[str], seconds: float = _ANSWER_SECONDS, given: bytes = b""
) -> Output:
    """Run a command in a pod; `given` is on its standard input, which does not end.

    Raises:
        ApiRefusalError, ApiSilenceError.
    """
    out, error, code = bytearray(), bytearray(), None
    stream = await cluster.exec(path, command)
    try:
        async with asyncio.timeout(seconds):
            if given:
                await stream.send_bytes(_TO_STDIN + given)
            async for channel, content in _pieces(stream):
                if channel == _STATUS:
                    code = _exit_code(content)
                elif channel == _STDOUT and len(out) < _MOST_OUTPUT:
                    out += content
                elif channel == _STDERR and len(error) < _MOST_OUTPUT:
                    error += content
    except TimeoutError as exc:
        raise ApiSilenceError(f"a command inside the pod took more than {seconds:.0f} s") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise ApiSilenceError(str(exc) or type(exc).__name__) from exc
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
        require_ready(answer, service)
        return carry(_ExecLink(stream, pieces), rest, is_lost)
    except TimeoutError as exc:
        await stream.close()
        raise silent(service) from exc
    except BaseException:
        await stream.close()
        raise


class _ExecLink:
    """Standard input and output of the program inside (`carrier.Link`)."""

    def __init__(self, stream: aiohttp.ClientWebSocketResponse, pieces: AsyncIterator[tuple[int, bytes]]) -> None:
        self._stream = stream
        self._pieces = pieces

    async def send(self, *parts: bytes) -> None:
        try:
            await self._stream.send_bytes(b"".join((_TO_STDIN, *parts)))
        except aiohttp.ClientError as exc:
            raise ApiSilenceError(str(exc) or type(exc).__name__) from exc

    async def pieces(self) -> AsyncIterator[bytes]:
        async for channel, piece in self._pieces:
            if channel == _STDOUT:
                yield piece

    async def finish(self) -> None:
        """The program inside leaves, and the stream with it, when it has handed on everything."""
        async for _ in self._pieces:
            pass

    async def close(self) -> None:
        with suppress(aiohttp.ClientError, OSError):
            await self._stream.close()


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
