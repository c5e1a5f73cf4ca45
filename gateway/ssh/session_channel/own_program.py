"""A command of the gateway's own on a session channel: drawn again and again on a terminal, written once elsewhere."""

import asyncio
import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

from gateway.errors import UsageError
from gateway.ssh.services import Caller, OwnProgram, StartOwnProgram, Terminal

ENTER: Final = b"\x1b[?1049h\x1b[?25l"
"""The terminal's other screen, without a cursor (xterm's private modes)."""
LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = b"\x1b[H", b"\x1b[K", b"\x1b[J"
_QUIT: Final = frozenset(b"qQ\x03\x04")
"""q, Ctrl-C and Ctrl-D."""
_KEPT_LINES: Final = 5
_USAGE_STATUS: Final = 2


class Side(Protocol):
    """What the program shows itself on."""

    def write(self, data: bytes, datatype: int | None) -> None: ...
    def tell(self, line: str) -> None: ...
    def is_held_back(self) -> bool:
        """Say whether the user's side takes nothing just now."""

    def terminal(self) -> Terminal | None: ...


def find_program(programs: Mapping[str, StartOwnProgram], command: str) -> StartOwnProgram | None:
    """Return the program that a command line names by its first word."""
    return programs.get(command.split(maxsplit=1)[0]) if command.strip() else None


class OwnProgramRun:
    """One program from its start to its end."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._over = asyncio.Event()
        self._woken = asyncio.Event()
        self.is_entered = False
        """Whether it has the user's screen."""
        self._kept: list[str] = []

    async def run(self, start: StartOwnProgram, caller: Caller, command: str) -> int:
        """Show it until it ends; return the exit status. Raises: DevgwError, where nothing can be shown."""
        try:
            program = start(caller, _words(command))
        except UsageError as error:
            for line in filter(None, (error.message, error.hint)):
                self._side.tell(line)
            return _USAGE_STATUS
        if self._side.terminal() is None or program.interval_seconds is None:
            self._side.write(await self._written_once(program), None)
            return 0
        try:
            await self._show_until_over(program, program.interval_seconds)
        finally:
            self.leave()
        return 0

    def typed(self, data: bytes) -> None:
        """Take keys: some end it, the others do nothing."""
        if _QUIT.intersection(data):
            self.end()

    def resized(self) -> None:
        """Draw again, for another size."""
        self._woken.set()

    def end(self) -> None:
        """Show nothing further."""
        self._over.set()
        self._woken.set()

    def keeps(self, line: str) -> bool:
        """Take a line that somebody else says meanwhile: it is drawn below the picture, and stays when that is gone."""
        if self.is_entered:
            self._kept = [*self._kept, line][-_KEPT_LINES:]
            self._woken.set()
        return self.is_entered

    def leave(self) -> None:
        """Give the user their own screen back, with what was said meanwhile; called again it does nothing."""
        self.end()
        if self.is_entered:
            self.is_entered = False
            self._side.write(LEAVE, None)
            for line in self._kept:
                self._side.tell(line)

    async def _written_once(self, program: OwnProgram) -> bytes:
        end = "\r\n" if self._side.terminal() else "\n"
        return (await program.picture(None) + "\n").replace("\n", end).encode()

    async def _show_until_over(self, program: OwnProgram, interval_seconds: float) -> None:
        self.is_entered = True
        self._side.write(ENTER, None)
        while not self._over.is_set():
            terminal = self._side.terminal()
            self._woken.clear()
            if not self._side.is_held_back():
                picture = await self._unless_over(program, terminal)
                if picture is None:
                    return
                said = "".join(f"\ndevgw: {line}" for line in self._kept)
                self._side.write(drawn(picture + said, terminal), None)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), interval_seconds)

    async def _unless_over(self, program: OwnProgram, terminal: Terminal | None) -> str | None:
        """Return the picture; None where the user leaves while it is made, which may take long."""
        making, over = asyncio.ensure_future(program.picture(terminal)), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({making, over}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._over.is_set() else making.result()
        finally:
            making.cancel()
            over.cancel()


def drawn(picture: str, terminal: Terminal | None) -> bytes:
    """Return what draws lines over those that stand there, no more of them than the terminal has."""
    lines = picture.rstrip("\n").split("\n")[: terminal.rows if terminal else None]
    return _HOME + b"\r\n".join(line.encode() + _END_OF_LINE for line in lines) + _END_OF_SCREEN


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)[1:]
    except ValueError as exc:
        raise UsageError("option.unknown", f"the command is not understood: {str(exc).lower()}") from exc
