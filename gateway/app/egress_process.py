"""The process that carries connections of environments to hosts outside, apart from the one that serves SSH.

`process.egress_child` starts it as `python -m gateway.app.egress_process`, writes the settings and then each policy in
force to its standard input, a line of JSON each, and ends it by closing that.
"""

import asyncio
import logging
import sys

import uvloop

from gateway.app.composition import App
from gateway.background.hosts_by_name import HostsByName, SiteParts
from gateway.config import Settings
from gateway.ssh.descriptors import raise_limit

_LINE_MAX = 20 << 20
"""A policy has 16 MiB at most."""


async def _main() -> None:
    orders = asyncio.StreamReader(limit=_LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    app = App(Settings.model_validate_json(await orders.readline()))
    process = HostsByName(
        SiteParts(app.settings, app.policy, app.journal, app.database, app.users, app.table, app.open_hosts)
    )
    try:
        await process.run(orders)
    finally:
        process.end()


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [hosts by name] %(message)s")
    raise_limit()
    uvloop.run(_main())


if __name__ == "__main__":
    main()
