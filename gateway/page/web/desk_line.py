"""Asks the process that has the gateway's rights, over the socket that it left: many questions at a time, by number."""

import asyncio
import json
import socket
from itertools import count
from typing import Any

from gateway.page.wire import LINE_MAX, Answer, Fault, Question

_LONGEST_SECONDS = 900.0
"""An environment that is made may take minutes."""


GONE: Fault = {
    "code": "page.restarting",
    "message": "the page is being started again",
    "hint": "look again in a few seconds; what was asked for may have been done",
    "status": 503,
}


class DeskFault(Exception):  # noqa: N818 - the word of the wire
    """The gateway says why not."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault["message"])
        self.fault = fault


class DeskLine:
    """The socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Take answers until the gateway is gone."""
        reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=LINE_MAX)
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        finally:
            self._writer = None
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(DeskFault(GONE))

    async def ask(self, claim: str, question: str, values: dict[str, Any], *, live: bool = False) -> Any:
        """Ask and wait; `live` for a live part, which asks again and again. Raises: DeskFault."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        asked = Question(number=number, claim=claim, ask=question, values=values, live=live)
        line = json.dumps(asked).encode() + b"\n"
        try:
            if len(line) > LINE_MAX:
                raise DeskFault({"code": "page.bad-question", "message": "too long", "hint": "", "status": 400})
            if self._writer is None:
                raise DeskFault(GONE)
            self._writer.write(line)
            await self._writer.drain()
            return await asyncio.wait_for(waiting, _LONGEST_SECONDS)
        except ConnectionError as exc:
            raise DeskFault(GONE) from exc
        finally:
            self._waiting.pop(number, None)

    def _take(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer["number"])
        if waiting is None or waiting.done():
            return  # who asked has gone
        if "fault" in answer:
            waiting.set_exception(DeskFault(answer["fault"]))
        else:
            waiting.set_result(answer.get("answer"))
