"""Processes beside the one that serves SSH: connections to hosts outside by name, and the page.

`process.own_process` starts them, writes the settings and then each policy in force, and ends them by closing that.
"""

import asyncio
import logging
import sys

import uvloop

from gateway.app.composition import App
from gateway.background.hosts_by_name import HostsByName, SiteParts
from gateway.config import Settings
from gateway.page.desk.process import PageDesk
from gateway.ssh.descriptors import raise_limit

_LINE_MAX = 20 << 20
"""A policy has 16 MiB at most."""


async def _main(kind: str, *arguments: str) -> None:
    orders = asyncio.StreamReader(limit=_LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    app = App(Settings.model_validate_json(await orders.readline()))
    process = PageDesk(app, int(arguments[0])) if kind == "page" else HostsByName(SiteParts.of(app))
    try:
        await process.run(orders)
    finally:
        process.end()


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s [{sys.argv[1]}] %(message)s")
    raise_limit()
    uvloop.run(_main(*sys.argv[1:]))


if __name__ == "__main__":
    main()
