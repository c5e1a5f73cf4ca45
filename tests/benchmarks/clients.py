"""Many logins, or many idle tunnels, from one cheap client process, the same towards the gateway and towards OpenSSH.

`python -m tests.benchmarks.clients KEY PORT NOTEBOOK_PORT KIND COUNT AT_ONCE` prints the seconds of each login as JSON;
with KIND `hold` it keeps COUNT tunnels open until its input ends.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import asyncssh


@dataclass(frozen=True)
class Target:
    """Where to log in."""

    key: str
    port: int
    notebook: int

    async def connect(self) -> asyncssh.SSHClientConnection:
        """Log in as alice."""
        return await asyncssh.connect(
            "127.0.0.1",
            self.port,
            username="alice",
            client_keys=[self.key],
            known_hosts=None,
            config=None,
            agent_path=None,
        )

    async def first_byte(self, kind: str) -> float:
        """Return the seconds from connecting to the first byte of a program or of the notebook."""
        began = time.perf_counter()
        async with await self.connect() as connection:
            if kind == "exec":
                process = await connection.create_process("echo x", encoding=None)
                await process.stdout.readexactly(1)
            else:
                reader, writer = await connection.open_connection("localhost", self.notebook)
                writer.write(b"D%015d" % 1)
                await reader.readexactly(1)
            return time.perf_counter() - began


async def log_in_often(target: Target, kind: str, count: int, at_once: int) -> list[float]:
    """Log in so many times, so many of them at the same time."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> float:
        async with gate:
            return await target.first_byte(kind)

    return await asyncio.gather(*(one() for _ in range(count)))


async def hold(target: Target, count: int, at_once: int) -> None:
    """Open tunnels with one idle channel each, and keep them until stdin ends."""
    gate = asyncio.Semaphore(at_once)
    held = []

    async def one() -> None:
        async with gate:
            connection = await target.connect()
            held.append((connection, await connection.open_connection("localhost", target.notebook)))

    await asyncio.gather(*(one() for _ in range(count)))
    print(len(held), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for connection, _ in held:
        connection.abort()


def main() -> None:
    """Read the command line."""
    key, port, notebook, kind, count, at_once = sys.argv[1:]
    target = Target(key, int(port), int(notebook))
    if kind == "hold":
        asyncio.run(hold(target, int(count), int(at_once)))
        return
    began = time.perf_counter()
    each = asyncio.run(log_in_often(target, kind, int(count), int(at_once)))
    print(json.dumps({"each": each, "all": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
