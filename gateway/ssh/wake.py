"""Reaches an environment's sockets, starting it first where it is stopped; one start serves all who wait."""

import asyncio
import socket
from collections.abc import Callable

from gateway.errors import DevgwError, TimedOutError
from gateway.model import EnvironmentRef
from gateway.ssh.services import Environments, Offload, Service

Tell = Callable[[str], None]


def tell_nobody(_line: str) -> None:
    """Drop progress lines where there is no screen to show them on."""


class Waker:
    """Dials environments."""

    def __init__(self, environments: Environments, offload: Offload, start_timeout_seconds: float) -> None:
        self._environments = environments
        self._offload = offload
        self._timeout = start_timeout_seconds
        self._starts: dict[EnvironmentRef, _Start] = {}

    async def dial(self, ref: EnvironmentRef, service: Service, tell: Tell = tell_nobody) -> socket.socket:
        """Return a connected socket, waking the environment if it does not answer.

        Raises:
            DevgwError: what the environment's start says, or `environment.start-timeout`.
        """
        try:
            return await self._offload.quick(self._environments.dial, ref, service)
        except (DevgwError, OSError):
            await self._wake(ref, tell)
            return await self._offload.quick(self._environments.dial, ref, service)

    async def _wake(self, ref: EnvironmentRef, tell: Tell) -> None:
        start = self._starts.get(ref)
        if start is None:
            start = self._starts[ref] = _Start()
            start.task = asyncio.create_task(self._run(ref, start))
        start.listen(tell)
        assert start.task is not None  # noqa: S101 - set two lines above or by whom we join
        await asyncio.shield(start.task)

    async def _run(self, ref: EnvironmentRef, start: "_Start") -> None:
        loop = asyncio.get_running_loop()

        def progress(line: str) -> None:
            loop.call_soon_threadsafe(start.say, line)

        try:
            await asyncio.wait_for(self._offload.slow(self._environments.ensure_running, ref, progress), self._timeout)
        except TimeoutError as exc:
            raise TimedOutError(
                "environment.start-timeout",
                f"your environment did not start within {self._timeout:.0f} s",
                f"try again, or ask an administrator to look at 'devgw show {ref}'",
            ) from exc
        finally:
            del self._starts[ref]


class _Start:
    """A start under way and those who watch it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._lines: list[str] = []
        self._listeners: list[Tell] = []

    def listen(self, tell: Tell) -> None:
        self._listeners.append(tell)
        for line in self._lines:
            tell(line)

    def say(self, line: str) -> None:
        self._lines.append(line)
        for tell in self._listeners:
            tell(line)
