"""The page's process with the gateway's rights: it starts the one that has none, and answers what that asks.

It follows the orders that `process.own_process` writes: each policy in force. It ends with its orders or its child.
"""

import asyncio
import json
import logging
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from gateway.background.policy_orders import PolicyOrders
from gateway.page.claim import Seal
from gateway.page.desk.answers import KNOWN
from gateway.page.desk.desk import Desk
from gateway.page.desk.site import Site
from gateway.page.wire import LINE_MAX, Question

WEB_MODULE = "gateway.page.web"
_THREADS = 8
_QUESTIONS_MAX = 64
"""Being answered at a time; more wait in the socket."""
_END_SECONDS = 3.0
_log = logging.getLogger(__name__)


class PageDesk:
    """Both halves of the page, until nobody needs them."""

    def __init__(self, site: Site, listening: int) -> None:
        self._site = site
        self._listening = listening
        self._desk = Desk(site, Seal(site.settings.page_seal), KNOWN)
        self._pool = ThreadPoolExecutor(_THREADS, "devgw-page")
        self._room = asyncio.Semaphore(_QUESTIONS_MAX)
        self._line: asyncio.StreamWriter | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve until the orders end. The first is the policy in force.

        Raises: RuntimeError, when the other half ended.
        """
        settings = self._site.settings
        policies = PolicyOrders(settings.journal_dir, settings.policies_dir, self._site.policy)
        if not await policies.follow(orders):
            return
        here, there = socket.socketpair()
        with there:
            web = await self._start_web(there.fileno())
        following = asyncio.create_task(policies.follow_all(orders))
        serving = asyncio.create_task(self._serve(here))
        ended = asyncio.create_task(web.wait())
        await asyncio.wait({following, serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        is_over = following.done()
        if self._line is not None:
            self._line.close()  # at which the other half ends
        try:
            await asyncio.wait_for(ended, _END_SECONDS)
        except TimeoutError:
            web.kill()
        serving.cancel()
        following.cancel()
        if not is_over and web.returncode != 0:
            raise RuntimeError(f"the process that speaks HTTP for the page ended with {web.returncode}")

    def end(self) -> None:
        """Finish what was begun, and have everything on disk."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._site.journal.close()

    async def _start_web(self, desk: int) -> asyncio.subprocess.Process:
        uid = self._site.settings.page.uid if os.geteuid() == 0 else -1
        told = json.dumps(
            {"listening": self._listening, "desk": desk, "uid": uid, "idle": self._site.settings.page.idle_stop}
        )
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", WEB_MODULE, told,
            stdin=asyncio.subprocess.DEVNULL, pass_fds=(self._listening, desk),
        )  # fmt: skip

    async def _serve(self, here: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=here, limit=LINE_MAX)
        self._line = writer
        while line := await reader.readline():
            await self._room.acquire()
            task = asyncio.create_task(self._answer(json.loads(line), writer))
            self._answering.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()

    async def _answer(self, question: Question, writer: asyncio.StreamWriter) -> None:
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._desk.answer, question)
        writer.write(json.dumps(answer).encode() + b"\n")
        with suppress(ConnectionError):
            await writer.drain()
