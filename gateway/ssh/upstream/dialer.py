"""Reaches an environment's sockets, starting it first where it is stopped; one start serves all who wait.

A socket is kept where its user's share of the descriptors has room for it.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from gateway.audit import events
from gateway.engines.interface import Service
from gateway.environments.waking import dial_awake
from gateway.errors import DevgwError, TimedOutError
from gateway.gate import Recorder
from gateway.model import Actor, EnvironmentRef, UserName
from gateway.ssh.descriptors import may_keep, may_serve
from gateway.ssh.services import EnvironmentAccess, Offload

Tell = Callable[[str], None]
T = TypeVar("T")
DIALS_MAX: Final = 8
"""At once: their sockets are open before anybody can look whether there is room for them."""


def tell_nobody(_line: str) -> None:
    """Drop progress lines where there is no screen to show them on."""


class EnvironmentDialer:
    """Dials environments."""

    def __init__(
        self,
        environments: EnvironmentAccess,
        offload: Offload,
        recorder: Recorder,
        start_timeout_seconds: float,
        held: Callable[[UserName], int] = lambda _user: 0,
    ) -> None:
        """`held` says how many connections and channels a user has."""
        self._held = held
        self._dialing = asyncio.Semaphore(DIALS_MAX)
        self._environments = environments
        self._offload = offload
        self._recorder = recorder
        self._timeout = start_timeout_seconds
        self._starts: dict[EnvironmentRef, Attempt[None]] = {}

    async def dial(
        self, ref: EnvironmentRef, service: Service, actor: Actor, tell: Tell = tell_nobody
    ) -> socket.socket:
        """Return a connected socket, waking the environment for `actor` if it does not answer.

        Raises:
            DevgwError: what the environment's start says, `environment.start-timeout` or `server.full`.
        """
        sock = await dial_awake(
            lambda: self._connected(partial(self._environments.dial, ref, service)),
            lambda: self._wake(ref, Wake(actor, service), tell),
        )
        return self._kept(sock, ref.user, may_serve if service == "ssh" else may_keep)

    async def own(self, connect: Callable[[], socket.socket], user: UserName) -> socket.socket:
        """Return a socket of the gateway's own, for one user. Raises: DevgwError, as `dial`."""
        return self._kept(await self._connected(connect), user, may_keep)

    async def _connected(self, connect: Callable[[], socket.socket]) -> socket.socket:
        """Connect off the event loop, a few at a time; where nobody waits any more, the socket is closed."""
        await self._dialing.acquire()
        connecting = asyncio.ensure_future(self._offload.quick(connect))
        connecting.add_done_callback(lambda _done: self._dialing.release())
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise

    def _kept(self, sock: socket.socket, user: UserName, may: Callable[[int, int], bool]) -> socket.socket:
        """Return the socket, or close it where its user has too many. Raises: DevgwError."""
        if may(sock.fileno(), self._held(user)):
            return sock
        sock.close()
        raise DevgwError(
            "server.full",
            "the gateway has no room for more connections and forwards of yours",
            "end some of yours; an administrator can raise the limit of open files (LimitNOFILE)",
        )

    async def _wake(self, ref: EnvironmentRef, wake: "Wake", tell: Tell) -> None:
        start = self._starts.get(ref)
        if start is None:
            start = self._starts[ref] = Attempt(lambda attempt: self._run(ref, wake, attempt))
        await start.join(tell)

    async def _run(self, ref: EnvironmentRef, wake: "Wake", start: "Attempt[None]") -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def progress(line: str) -> None:
            loop.call_soon_threadsafe(start.say, line)

        try:
            woken = await asyncio.wait_for(
                self._offload.slow(self._environments.ensure_running, ref, progress, wake.actor), self._timeout
            )
            if woken is not None:
                why = f"its {wake.service} was asked for"
                seconds = loop.time() - began
                self._recorder.submit(events.environment_woken(wake.actor, woken, why, seconds))
        except TimeoutError as exc:
            raise TimedOutError(
                "environment.start-timeout",
                f"your environment did not start within {self._timeout:.0f} s",
                f"try again, or ask an administrator to look at 'devgw show {ref}'",
            ) from exc
        finally:
            del self._starts[ref]


@dataclass(frozen=True, slots=True)
class Wake:
    """For whom an environment is woken, and for which of its services: the first who asked."""

    actor: Actor
    service: Service


class Attempt(Generic[T]):
    """Something under way that several wait for; all see the same lines, those that came before included."""

    def __init__(self, work: "Callable[[Attempt[T]], Coroutine[Any, Any, T]]") -> None:
        self._lines: list[str] = []
        self._listeners: list[Tell] = []
        self._task = asyncio.create_task(work(self))
        self._task.add_done_callback(_retrieve)

    async def join(self, tell: Tell) -> T:
        """Wait for the outcome; one who gives up waiting does not stop it for the others."""
        self._listeners.append(tell)
        try:
            for line in self._lines:
                tell(line)
            return await asyncio.shield(self._task)
        finally:
            self._listeners.remove(tell)

    def say(self, line: str) -> None:
        """Show a line to all who wait."""
        self._lines.append(line)
        for tell in self._listeners:
            tell(line)

    def cancel(self) -> None:
        """Give up for all who wait."""
        self._task.cancel()


def _close_late(connecting: "asyncio.Future[socket.socket]") -> None:
    if not connecting.cancelled() and not connecting.exception():
        connecting.result().close()


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Mark a failure as seen, since all who waited for it may have left."""
    if not task.cancelled():
        task.exception()
