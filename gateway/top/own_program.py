"""`ssh -t alice@gateway devgw-top`: a user's own environments, live on their terminal, or once without one."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.errors import UsageError
from gateway.ssh.services import Caller, OwnProgram, StartOwnProgram, Terminal
from gateway.top.own_look import OwnLooks, TopParts
from gateway.top.own_view import PLAIN_COLUMNS, OwnHistory, document, picture

NAME = "devgw-top"
USAGE = f"'{NAME}' on a terminal (ssh -t), or '{NAME} -o json'"
_INTERVAL_SECONDS = 2.0
_BETWEEN_TWO_LOOKS_SECONDS = 1.1
"""Without a terminal: rates need a second look, which is another one after a second."""
_THREADS = 4
"""Of their own: an engine that does not answer holds nobody's login."""


def own_programs(parts: TopParts) -> Mapping[str, StartOwnProgram]:
    """Return the commands that the gateway answers itself."""
    looks, pool = OwnLooks(parts), ThreadPoolExecutor(_THREADS, "devgw-top")

    def start(caller: Caller, words: Sequence[str]) -> OwnProgram:
        if list(words) not in ([], ["-o", "json"]):
            raise UsageError("option.unknown", f"{NAME} does not know {' '.join(words)[:80]!r}", USAGE)
        return OwnTop(caller.subject.user, looks, pool, as_json=bool(words))

    return {NAME: start}


class OwnTop:
    """One user's terminal."""

    def __init__(self, user: str, looks: OwnLooks, pool: ThreadPoolExecutor, *, as_json: bool) -> None:
        self._user = user
        self._looks = looks
        self._pool = pool
        self._as_json = as_json
        self.interval_seconds = None if as_json else _INTERVAL_SECONDS
        self._history = OwnHistory()

    async def picture(self, terminal: Terminal | None) -> str:
        """Look, and return what to show. Raises: StoreError."""
        await self._look()
        if terminal is None:
            await asyncio.sleep(_BETWEEN_TWO_LOOKS_SECONDS)
            await self._look()
        look = self._history.last
        assert look is not None  # noqa: S101 - it has just been taken
        if self._as_json:
            return json.dumps(document(look, self._history))
        columns, is_unicode = (terminal.columns, terminal.is_unicode) if terminal else (PLAIN_COLUMNS, True)
        return picture(look, self._history, columns, ascii_only=not is_unicode, is_live=terminal is not None)

    async def _look(self) -> None:
        self._history.add(await asyncio.get_running_loop().run_in_executor(self._pool, self._looks.of, self._user))
