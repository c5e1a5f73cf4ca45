"""Reaches an environment's sockets, starting it first where it is stopped; one start serves all who wait."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gateway.audit import events
from gateway.engines.interface import Service
from gateway.environments.waking import dial_awake
from gateway.errors import TimedOutError
from gateway.gate import Recorder
from gateway.model import Actor, EnvironmentRef
from gateway.ssh.services import EnvironmentAccess, Offload

Tell = Callable[[str], None]
T = TypeVar("T")


def tell_nobody(_line: str) -> None:
    """Drop progress lines where there is no screen to show them on."""


class EnvironmentDialer:
    """Dials environments."""

    def __init__(
        self, environments: EnvironmentAccess, offload: Offload, recorder: Recorder, start_timeout_seconds: float
    ) -> None:
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
            DevgwError: what the environment's start says, or `environment.start-timeout`.
        """
        return await dial_awake(
            lambda: self._offload.quick(self._environments.dial, ref, service),
            lambda: self._wake(ref, Wake(actor, service), tell),
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
                self._recorder.submit(
                    events.environment_woken(wake.actor, str(ref), why, seconds, woken.image, woken.image_digest)
                )
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
        for line in self._lines:
            tell(line)
        return await asyncio.shield(self._task)

    def say(self, line: str) -> None:
        """Show a line to all who wait."""
        self._lines.append(line)
        for tell in self._listeners:
            tell(line)

    def cancel(self) -> None:
        """Give up for all who wait."""
        self._task.cancel()


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Mark a failure as seen, since all who waited for it may have left."""
    if not task.cancelled():
        task.exception()
