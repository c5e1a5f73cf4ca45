"""Rows about forwards to a port of the environment other than the notebook's, beside one direct OpenSSH hop."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from tests.benchmarks.clients import Target
from tests.benchmarks.processes import pss_bytes
from tests.benchmarks.result import Result
from tests.benchmarks.rig import Rig
from tests.benchmarks.stream import ECHO_BYTES, download, echo, upload

ROUTES = ("devgw", "direct")
OPEN_BOUND_MS = 2.0
FORWARDS_BOUND_MIB = 20.0
CHANNELS_A_CONNECTION = 100
Values = dict[str, list[float]]


def streams(rig: Rig, size: int, rounds: int) -> Iterator[Result]:
    """One stream each way; short, and the two routes in turn, so that both meet the same load."""
    with ExitStack() as stack:
        tunnels = {route: stack.enter_context(rig.tunnel(route, inside=True)) for route in ROUTES}
        for name, move in (("download", download), ("upload", upload)):
            speed: Values = {route: [] for route in ROUTES}
            for port in tunnels.values():
                move(port, 16 << 20)  # past the start of TCP and the change of ciphers
            for turn in range(rounds):
                for route in _in_turn(turn):
                    speed[route].append(size / 1e6 / move(tunnels[route], size))
            yield Result(f"other port, {name}", "direct", "MB/s", 1.0, True, *_pairs(speed))


def echoes(rig: Rig, count: int, rounds: int) -> Iterator[Result]:
    """A short message there and back, one route after the other each time; the median of a round."""
    message = bytes(ECHO_BYTES)
    with ExitStack() as stack:
        sockets = {}
        for route in ROUTES:
            port = stack.enter_context(rig.tunnel(route, inside=True))
            sock = sockets[route] = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"E%015d" % (count * rounds))
        taken: Values = {route: [] for route in ROUTES}
        for turn in range(rounds):
            samples: Values = {route: [] for route in ROUTES}
            for _ in range(count):
                for route in _in_turn(turn):
                    samples[route].append(echo(sockets[route], message) * 1000)
            for route, times in samples.items():
                taken[route].append(median(times))
        yield Result(f"other port, echo of {ECHO_BYTES} bytes", "direct", "ms", 1.2, False, *_pairs(taken))


def openings(rig: Rig, count: int, rounds: int) -> Iterator[Result]:
    """Open a channel on a connection that stands, until the first byte; beside OpenSSH, and beside a bound."""
    taken: Values = {route: [] for route in ROUTES}
    for turn in range(rounds):
        for route in _in_turn(turn):
            taken[route].append(asyncio.run(_open_often(_target(rig, route), count)) * 1000)
    yield Result("other port, open and first byte", "direct", "ms", 2.0, False, *_pairs(taken))
    bound = tuple([OPEN_BOUND_MS] * rounds)
    yield Result("other port, open and first byte", "the bound", "ms", 1.0, False, tuple(taken["devgw"]), bound)


def open_forwards(rig: Rig, count: int) -> Iterator[Result]:
    """Memory of open, idle forwards, as PSS of the gateway and of the environment together."""
    servers = rig.servers("devgw")
    with _held(rig, 10):  # what the first ones cost is not theirs
        time.sleep(1)
    before = pss_bytes(servers)
    with _held(rig, count):
        time.sleep(1)
        grown = (pss_bytes(servers) - before) / (1 << 20)
    yield Result(f"{count:,} open forwards, memory", "the bound", "MiB", 1.0, False, (grown,), (FORWARDS_BOUND_MIB,))


async def _open_often(target: Target, count: int) -> float:
    """Return the median time of an opening."""
    taken = []
    async with await target.connect() as connection:
        for _ in range(count):
            began = time.perf_counter()
            reader, writer = await connection.open_connection("localhost", target.notebook)
            writer.write(b"D%015d" % 1)
            await reader.readexactly(1)
            taken.append(time.perf_counter() - began)
            writer.close()
    return median(taken)


async def hold(target: Target, count: int) -> None:
    """Open forwards with a byte moved through each, many on one connection; keep them until stdin ends."""
    connections, held = [], []
    for number in range(count):
        if number % CHANNELS_A_CONNECTION == 0:
            connections.append(await target.connect())
        reader, writer = await connections[-1].open_connection("localhost", target.notebook)
        writer.write(b"D%015d" % 1)
        await reader.readexactly(1)
        held.append((reader, writer))
    print(len(held), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for connection in connections:
        connection.abort()


@contextmanager
def _held(rig: Rig, count: int) -> Iterator[None]:
    target = _target(rig, "devgw")
    command = [sys.executable, "-m", __name__, target.key, str(target.port), str(target.notebook), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdin
    try:
        assert int(process.stdout.readline()) == count
        yield
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def _target(rig: Rig, route: str) -> Target:
    return Target(
        str(rig.root / "alice"),
        rig.ports["devgw" if route == "devgw" else "inner"],
        rig.target(route, inside=True),
    )


def _in_turn(turn: int) -> tuple[str, ...]:
    return ROUTES if turn % 2 == 0 else ROUTES[::-1]


def _pairs(values: Values) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(values["devgw"]), tuple(values["direct"])


if __name__ == "__main__":
    asyncio.run(hold(Target(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), int(sys.argv[4])))
