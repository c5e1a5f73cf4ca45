"""The process that speaks HTTP for the page, without any right: `desk.process` starts it and answers what it asks."""

import asyncio
import json
import logging
import socket
import sys
import time

import anyio
import uvicorn

from gateway.page.web.confinement import confine
from gateway.page.web.connection import ClaimedConnection
from gateway.page.web.desk_line import DeskLine
from gateway.page.web.site import PageSite
from gateway.page.web.views import VIEWS

_KEEP_ALIVE_SECONDS = 75
_CONNECTIONS_MAX = 512
_GOODBYE_SECONDS = 1
_LOOK_SECONDS = 0.5


async def _main(told: dict[str, int]) -> None:
    desk = DeskLine(socket.socket(fileno=told["desk"]))
    site = PageSite(VIEWS, desk)
    config = uvicorn.Config(
        site.application,
        http=ClaimedConnection,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        limit_concurrency=_CONNECTIONS_MAX,
        h11_max_incomplete_event_size=32 << 10,
    )
    config.load()
    async with anyio.create_task_group():
        """What a streamed answer needs is loaded by this: nothing can be afterwards."""
    server = uvicorn.Server(config)
    confine(told["uid"])
    line = asyncio.create_task(desk.run())
    serving = asyncio.create_task(server.serve(sockets=[socket.socket(fileno=told["listening"])]))
    idle = asyncio.create_task(_nobody(server, told["idle"]))
    await asyncio.wait({line, serving, idle}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving


async def _nobody(server: uvicorn.Server, seconds: float) -> None:
    """Return when nobody has been connected for so long; never for 0."""
    since = time.monotonic()
    while not seconds or time.monotonic() - since < seconds:
        await asyncio.sleep(_LOOK_SECONDS)
        if server.server_state.connections:
            since = time.monotonic()


def main() -> None:
    """Serve until the desk is gone, or SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s [page] %(message)s")
    asyncio.run(_main(json.loads(sys.argv[1])))


main()
