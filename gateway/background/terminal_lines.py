"""Lines for terminals where several gateways serve: whoever leads says them to the database, and each process hears.

Without this a warning reached only those who are connected to the gateway that leads.
"""

import asyncio
import logging

from gateway.background.environment_monitor import Notify
from gateway.errors import DevgwError
from gateway.model import EnvironmentRef
from gateway.ssh.transport.log_rate_limiter import LogRateLimiter
from gateway.store.terminal_lines import TerminalLineTable

_LOOK_SECONDS = 0.5
_log = logging.getLogger(__name__)


class TerminalLines:
    """One process's part. `notify` writes to the terminals that this process serves."""

    def __init__(self, table: TerminalLineTable, notify: Notify) -> None:
        self._table = table
        self._notify = notify
        self._heard: int | None = None
        self._saying: set[asyncio.Task[None]] = set()
        self._troubles = LogRateLimiter(30)

    def say(self, ref: EnvironmentRef, line: str) -> None:
        """Have a line written to every terminal of an environment, whichever gateway serves it."""
        task = asyncio.get_running_loop().create_task(self._say(ref, line))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def run(self) -> None:
        """Hear twice a second, until cancelled."""
        while True:
            try:
                await self.hear()
            except Exception as exc:  # noqa: BLE001 - whatever failed, the next look must come
                if (held_back := self._troubles.tell(type(exc).__name__)) is not None:
                    _log.error("lines for terminals could not be read (%d more before): %s", held_back, exc)
            await asyncio.sleep(_LOOK_SECONDS)

    async def hear(self) -> None:
        """Write what was said since the last time; at first only find out what is old."""
        if self._heard is None:
            self._heard = await asyncio.to_thread(self._table.newest)
            return
        for number, ref, line in await asyncio.to_thread(self._table.after, self._heard):
            self._heard = number
            self._notify(ref, line)

    async def _say(self, ref: EnvironmentRef, line: str) -> None:
        try:
            await asyncio.to_thread(self._table.say, ref, line)
        except DevgwError as exc:
            _log.error("a line for terminals reaches those of this process alone: %s", exc.message)
            self._notify(ref, line)
