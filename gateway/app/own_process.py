"""Processes beside the one that serves SSH: connections to hosts outside by name, and the page.

`process.own_process` starts them, writes the settings and then each policy in force, and ends them by closing that.
"""

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import uvloop

from gateway.page.desk.web_process import WebProcess

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.background.hosts_by_name import HostsByName
    from gateway.page.desk.process import PageDesk

_LINE_MAX = 20 << 20
"""A policy has 16 MiB at most."""


async def _main(web: WebProcess | None) -> None:
    """Load what the process stands on, and serve. With `web` it is the page's."""
    from gateway.app.composition import App
    from gateway.config import Settings

    orders = asyncio.StreamReader(limit=_LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    app = App(Settings.model_validate_json(await orders.readline()))
    process = _hosts_by_name(app) if web is None else _page(app, web)
    try:
        await process.run(orders)
    finally:
        process.end()


def _page(app: "App", web: WebProcess) -> "PageDesk":
    from gateway.page.desk.process import PageDesk

    return PageDesk(app, web)


def _hosts_by_name(app: "App") -> "HostsByName":
    from gateway.background.hosts_by_name import HostsByName, SiteParts

    return HostsByName(SiteParts.of(app))


def main() -> None:
    """Serve until standard input ends."""
    kind, *arguments = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s [{kind}] %(message)s")
    web = WebProcess(*map(int, arguments)) if kind == "page" else None
    from gateway.ssh.descriptors import raise_limit

    raise_limit()
    uvloop.run(_main(web))


if __name__ == "__main__":
    main()
