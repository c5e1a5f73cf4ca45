"""Streams into a pod over the pods' network: one listener inside (`listener`), begun by exec when it is first needed.

Neither the API server nor a kubelet carries any of the bytes. Where the gateway does
not reach the pods, as from outside most clusters, or where a pod cannot listen, streams go by exec.
"""

import asyncio
import json
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gateway.engines.interface import Service
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiRefusalError, ApiSilenceError
from gateway.engines.kubernetes.streams.answers import require_ready, silent
from gateway.engines.kubernetes.streams.by_exec import PYTHON, capture
from gateway.engines.kubernetes.streams.carrier import carry
from gateway.engines.kubernetes.streams.identity import Identity, make_identity
from gateway.engines.kubernetes.streams.loss import Loss
from gateway.engines.kubernetes.streams.silence import Connection, is_silent, watch

_log = logging.getLogger(__name__)

_READ_PROGRAM = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""Its source would be too long a word for a request's address."""
_PIECE_BYTES = 262_144
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 15.0
_LONGEST_END_SECONDS = 86_400.0
"""A service may take its time with what was sent last; one that is gone is noticed by other means."""
_IDLE_SECONDS = 60
_SHUT_SECONDS = 300.0
_REMEMBERED = 1024
_UNREACHED = (OSError, EOFError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class _Door:
    """Where a pod listens, and what both sides show."""

    address: str
    port: int
    context: ssl.SSLContext


class PodNetwork:
    """The listeners that this process has begun, by pod. All of it runs on the cluster's loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._doors: dict[str, asyncio.Task[_Door | None]] = {}
        self._shut: dict[str, float] = {}

    async def dial(self, pod: Mapping[str, Any], path: str, service: Service, loss: Loss) -> socket.socket | None:
        """Return a non-blocking stream to a service of a pod; None where the pod is not reached this way.

        It is cut when the pod is gone, or when nothing answers at its address. That the API knows nothing of the pod's
        node is no reason by itself: these bytes go without kubelet and API server.

        Raises:
            EngineError: what the pod says of the service.
        """
        uid, address = pod["metadata"]["uid"], pod["status"].get("podIP") or ""
        if not address or time.monotonic() < self._shut.get(uid, 0):
            return None
        was_open = uid in self._doors
        link = await self._connected(uid, address, path)
        if link is None and was_open:  # the listener may have left, or been ended, since
            link = await self._connected(uid, address, path)
        if link is None:
            self._remember_shut(uid)
            return None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await link.ask(service)
            require_ready(answer, service)
        except TimeoutError as exc:
            await link.close()
            raise silent(service) from exc
        except (OSError, EOFError):
            await link.close()
            return None
        except BaseException:
            await link.close()
            raise
        return carry(link, b"", lambda: loss.is_gone() or link.is_silent(is_doubted=loss.is_away()))

    async def _connected(self, uid: str, address: str, path: str) -> "_Link | None":
        door = await self._door(uid, address, path)
        if door is None:
            return None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return _Link(
                    *await asyncio.open_connection(
                        door.address,
                        door.port,
                        ssl=door.context,
                        ssl_shutdown_timeout=_LONGEST_END_SECONDS,
                        limit=_PIECE_BYTES,
                    )
                )
        except _UNREACHED as exc:
            _log.info("the listener of pod %s at %s is not reached: %s", uid, address, exc or type(exc).__name__)
            self._doors.pop(uid, None)
            return None

    async def _door(self, uid: str, address: str, path: str) -> _Door | None:
        """Return the pod's door; all who ask while it is made wait for the same one."""
        task = self._doors.get(uid)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = self._doors[uid] = asyncio.create_task(self._open(address, path))
            while len(self._doors) > _REMEMBERED:
                self._doors.pop(next(iter(self._doors)))
        door = await asyncio.shield(task)
        if door is None:
            self._doors.pop(uid, None)
        return door

    async def _open(self, address: str, path: str) -> _Door | None:
        """Begin a listener inside."""
        inside, ours = make_identity(), make_identity()
        settings = {
            "address": address,
            "identity": inside.private,
            "client": ours.certificate,
            "idle_seconds": _IDLE_SECONDS,
        }
        source = _source()
        given = b"%d\n%b%b\n" % (len(source), source, json.dumps(settings).encode())
        try:
            output = await capture(self._cluster, path, [*PYTHON, _READ_PROGRAM], _ANSWER_SECONDS, given)
        except (ApiRefusalError, ApiSilenceError) as exc:
            _log.info("no listener in the pod: %s", exc)
            return None
        if not (output.out.startswith(b"+") and output.out[1:].strip().isdigit()):
            said = " ".join(output.error.decode(errors="replace").split())[-200:]
            _log.info("a pod cannot listen, its streams go by exec: %s", said or output.code)
            return None
        return _Door(address, int(output.out[1:]), _context(inside, ours))

    def _remember_shut(self, uid: str) -> None:
        self._shut[uid] = time.monotonic() + _SHUT_SECONDS
        while len(self._shut) > _REMEMBERED:
            self._shut.pop(next(iter(self._shut)))


class _Link:
    """A connection to a listener (`carrier.Link`)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._connection: Connection = writer.get_extra_info("socket")
        watch(self._connection)

    def is_silent(self, *, is_doubted: bool) -> bool:
        return is_silent(self._connection, is_doubted=is_doubted)

    async def ask(self, service: Service) -> bytes:
        """Name the service; return the answer without its end of line. Raises: OSError, EOFError."""
        self._writer.write(f"{service}\n".encode())
        return (await self._reader.readuntil(b"\n"))[:-1]

    async def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))
        await self._writer.drain()

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._reader.read(_PIECE_BYTES):
            yield piece

    async def finish(self) -> None:
        """The listener waits for this, so nothing that it sent is lost; what was sent to it goes before the end."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def close(self) -> None:
        self._writer.transport.abort()


def _context(inside: Identity, ours: Identity) -> ssl.SSLContext:
    """Return what a handshake must keep to: TLS 1.3, and the one certificate that went into the pod."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate is one pod's; no name says more
    context.load_verify_locations(cadata=inside.certificate)
    place = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(place, ours.private.encode())
        context.load_cert_chain(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
    return context


def _source() -> bytes:
    return files(__package__).joinpath("listener.py").read_bytes()
