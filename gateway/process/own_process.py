"""A process of the gateway's own beside the one that serves: started, told of each policy in force, and ended.

It is told through its standard input, a line of JSON each: the settings first, then every policy. It ends with that.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from gateway.config import Settings
from gateway.policy import LoadedPolicy

MODULE = "gateway.app.own_process"
_END_SECONDS = 5.0


class OwnProcess:
    """One process; `start` makes it, and whoever keeps it looks at `ended`."""

    def __init__(self, settings: Settings, kind: str, module: str = "") -> None:
        self._settings = settings
        self._kind = kind
        self._module = module or MODULE
        self._process: Process | None = None
        self._told: LoadedPolicy | None = None

    @property
    def is_there(self) -> bool:
        return self._process is not None

    @property
    def ended(self) -> int | None:
        """Its exit code, once it ended."""
        return self._process.returncode if self._process else None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self, *arguments: str, pass_fds: tuple[int, ...] = ()) -> None:
        """Begin, with the settings. Raises: OSError."""
        self._told = None
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", self._module, self._kind, *arguments,
            stdin=PIPE, start_new_session=True, pass_fds=pass_fds,
        )  # fmt: skip
        await self._say(self._settings.model_dump(mode="json"))

    async def tell(self, loaded: LoadedPolicy) -> None:
        """Say which policy is in force, where that is another one than it knows."""
        if loaded is not self._told:
            await self._say({"text": loaded.text})
            self._told = loaded

    async def wait(self) -> None:
        """Return when it has ended."""
        if self._process is not None:
            await self._process.wait()

    async def end(self) -> None:
        """Let it finish; a slow one is killed."""
        process, self._process, self._told = self._process, None, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None  # noqa: S101 - it was started with one
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    def forget(self) -> int | None:
        """Return the exit code of one that ended, and be ready for the next."""
        code, self._process, self._told = self.ended, None, None
        return code

    async def _say(self, order: object) -> None:
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - it was just started
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        with suppress(ConnectionError):  # it has ended, which its keeper sees
            await self._process.stdin.drain()
