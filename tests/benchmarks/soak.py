"""`make soak`: a thousand users with idle tunnels and fifty busy ones, for ten minutes: no error, no growth.

Each busy user downloads the same bytes over and over through a tunnel of their own and compares them. The exit code is
1 where anything failed or the gateway's memory grew by more than a tenth after the first third of the time.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field

import asyncssh

from tests.benchmarks.clients import Target
from tests.benchmarks.many_users import held
from tests.benchmarks.processes import cpu_seconds, pss_bytes
from tests.benchmarks.rig import Rig, rig

PIECE_BYTES = 256 << 10
BREATH_SECONDS = 0.5
"""Between two downloads of one user: fifty of them ask for 25 MB/s together, and get it on two cores."""
SAMPLE_SECONDS = 5.0
GROWTH_MAX = 1.1


@dataclass
class Tally:
    """What the busy users saw, and what the gateway weighed meanwhile."""

    downloads: int = 0
    errors: list[str] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The most it weighed in the last two thirds over the most in the first."""
        third = max(1, len(self.pss_mib) // 3)
        return max(self.pss_mib[third:], default=0.0) / max(self.pss_mib[:third])


async def be_busy(target: Target, tally: Tally, until: float) -> None:
    """Download until the time is over; what goes wrong is counted, and the user logs in again."""
    expected = b""
    while time.monotonic() < until:
        try:
            async with await target.connect() as connection:
                while time.monotonic() < until:
                    reader, writer = await connection.open_connection("localhost", target.notebook)
                    writer.write(b"D%015d" % PIECE_BYTES)
                    got = await reader.readexactly(PIECE_BYTES)
                    writer.close()
                    expected = expected or got
                    tally.downloads += 1
                    if got != expected:
                        tally.errors.append("bytes that differ")
                    await asyncio.sleep(BREATH_SECONDS)
        except (OSError, asyncssh.Error, asyncio.IncompleteReadError) as error:
            tally.errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(BREATH_SECONDS)


async def weigh(servers: list[int], tally: Tally, until: float) -> None:
    """Sample the gateway's memory."""
    while time.monotonic() < until:
        tally.pss_mib.append(await asyncio.to_thread(pss_bytes, servers) / (1 << 20))
        await asyncio.sleep(SAMPLE_SECONDS)


async def soak(made: Rig, busy: int, seconds: float) -> Tally:
    """Let them work beside the idle ones that are there already."""
    tally, until = Tally(), time.monotonic() + seconds
    target = Target(str(made.root / "alice"), made.ports["devgw"], made.notebook["devgw"])
    users = [be_busy(target, tally, until) for _ in range(busy)]
    await asyncio.gather(weigh(made.servers("devgw", notebook=True), tally, until), *users)
    return tally


def main() -> int:
    """Run and say what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    with rig() as made:
        servers = made.servers("devgw", notebook=True)
        with held(made, "devgw", options.idle):
            before = cpu_seconds(servers)
            tally = asyncio.run(soak(made, options.busy, options.seconds))
            used = cpu_seconds(servers) - before
    print(f"{options.idle} idle tunnels, {options.busy} busy ones, {options.seconds:.0f} s")
    print(f"downloads: {tally.downloads} of {PIECE_BYTES >> 10} KiB, all compared; errors: {len(tally.errors)}")
    first, last, most = tally.pss_mib[0], tally.pss_mib[-1], max(tally.pss_mib)
    print(f"memory (PSS): {first:.1f} MiB at first, {last:.1f} at last, most {most:.1f}")
    print(f"growth after the first third: {tally.growth:.2f}; processor: {used / options.seconds:.0%} of one core")
    for error in sorted(set(tally.errors)):
        print(f"error, {tally.errors.count(error)} times: {error}", file=sys.stderr)
    return 1 if tally.errors or tally.growth > GROWTH_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
