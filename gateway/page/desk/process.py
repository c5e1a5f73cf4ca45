"""The page's process with the gateway's rights: it answers what the one asks that has none.

It follows the orders that `process.own_process` writes: each policy in force. It ends with its orders or its child.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from gateway.background.policy_orders import PolicyOrders
from gateway.page.claim import Seal
from gateway.page.desk.answers import KNOWN, read_ahead
from gateway.page.desk.desk import Desk
from gateway.page.desk.site import Site
from gateway.page.desk.web_process import WebProcess
from gateway.page.wire import LINE_MAX, Question

_THREADS = 8
_QUESTIONS_MAX = 64
"""Being answered at a time; more wait in the socket."""
_END_SECONDS = 3.0
_WARM_AFTER_SECONDS = 1.0
_log = logging.getLogger(__name__)


class PageDesk:
    """Both halves of the page, until nobody needs them."""

    def __init__(self, site: Site, web: WebProcess) -> None:
        self._site = site
        self._web = web
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
        ended = asyncio.create_task(self._web.wait())
        if not await policies.follow(orders):
            return
        is_over = await self._until_one_ends(policies.follow_all(orders), ended)
        try:
            code = await asyncio.wait_for(asyncio.shield(ended), _END_SECONDS)
        except TimeoutError:
            self._web.kill()
            code = await ended
        if not is_over and code != 0:
            raise RuntimeError(f"the process that speaks HTTP for the page ended with {code}")

    async def _until_one_ends(self, orders: Coroutine[None, None, None], ended: asyncio.Task[int]) -> bool:
        """Answer until the orders, the line to the other half, or that half end; say whether the orders did."""
        following = asyncio.create_task(orders)
        serving = asyncio.create_task(self._serve(self._web.line))
        warming = asyncio.create_task(self._warm())
        await asyncio.wait({following, serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        is_over = following.done()
        (self._line or self._web.line).close()  # at which the other half ends
        for task in (following, serving, warming):
            task.cancel()
        return is_over

    async def _warm(self) -> None:
        """Have what the views of many read first loaded and read once, when whoever came first has been answered."""
        await asyncio.sleep(_WARM_AFTER_SECONDS)
        await asyncio.get_running_loop().run_in_executor(self._pool, read_ahead, self._site)

    def end(self) -> None:
        """Finish what was begun, and have everything on disk; the other half is there no longer."""
        self._web.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._site.journal.close()

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
