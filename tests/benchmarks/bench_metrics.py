"""What one scrape costs at 1,000 users: prints numbers, asserts nothing about time.

Run it on a quiet machine: `python -m tests.benchmarks.bench_metrics [USERS]`.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time

from prometheus_client.exposition import generate_latest

from tests.support.busy_site import collection

SCRAPES = 40


def main(users: int) -> None:
    """Scrape a store of so many users, each with an environment and a connection; 56 leases."""
    with tempfile.TemporaryDirectory() as root:
        made, _events = collection(Path(root), users)
        registry = made.registry()
        wall, cpu, size = [], [], 0
        for _ in range(SCRAPES):
            made._last_at = float("-inf")
            began, used = perf_counter(), thread_time()
            size = len(generate_latest(registry))
            wall.append(perf_counter() - began)
            cpu.append(thread_time() - used)
    print(
        f"scrape, {users} users: {median(wall) * 1e3:.1f} ms ({min(wall) * 1e3:.1f}-{max(wall) * 1e3:.1f}),"
        f" processor {median(cpu) * 1e3:.1f} ms, {size / 1e3:.0f} kB"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
