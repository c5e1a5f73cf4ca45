"""The side of a process beside the one that serves SSH: its settings come on standard input, then its orders.

`own_process` is the other side.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Protocol

_LINE_MAX = 20 << 20
"""A policy has 16 MiB at most."""


class Obedient(Protocol):
    """What serves until its orders end."""

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve."""

    def end(self) -> None:
        """Give up what it holds."""


async def obey(make: Callable[[bytes], Obedient]) -> None:
    """Make what serves, from the first line, and let it serve until standard input ends."""
    orders = asyncio.StreamReader(limit=_LINE_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    process = make(await orders.readline())
    try:
        await process.run(orders)
    finally:
        process.end()
