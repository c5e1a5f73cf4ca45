"""How long the page takes at a thousand environments and a long journal: prints numbers, asserts nothing about time.

Run it on a quiet machine with room for 0.5 GB a million records: `python -m tests.benchmarks.bench_page [RECORDS]`.
Each view is asked for by a browser without JavaScript through a real `ssh -L`; its HTML is read to the end.
"""

import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.audit.journal_index import JournalIndex
from gateway.model import GATEWAY
from tests.benchmarks.bench_long_journal import RARE, write_journal
from tests.support.gateway_process import GatewayProcess
from tests.support.page_site import Browser, begin, browser, fill

ENVIRONMENTS = 1000
LOOKS = 15
VIEWERS = 20
"""Of the live part at a time."""
OWN = ("/", "/runs", "/account", "/connect", "/may")
AUDITORS = (
    "/gpus", "/sessions", "/sessions/past", "/journal", f"/journal?user={RARE}", "/journal?user=user7",
    "/journal?denied=yes", "/journal/proof", "/who-can?user=alice", "/review", "/recordings",
)  # fmt: skip
ADMINISTRATORS = ("/administration", "/people", "/administration/connections", "/administration/gpus")


def main(count: int) -> None:
    """Write the journal, serve above it, look, and remove it all."""
    root = Path(tempfile.mkdtemp(prefix="devgw-bench-"))
    try:
        began = perf_counter()
        write_journal(root / "state" / "journal", count, end=datetime.now(UTC))
        journal = Journal(root / "state" / "journal")
        journal.append(Event("gateway.stopped", GATEWAY))
        journal.close()
        print(f"{count:,} records, written in {perf_counter() - began:.0f} s", flush=True)
        began = perf_counter()
        made = len(list(JournalIndex(root / "state" / "journal").refresh()))
        print(f"{made} segments indexed in {perf_counter() - began:.0f} s", flush=True)
        began = perf_counter()
        gateway = begin(root)
        print(f"served after {perf_counter() - began:.1f} s")
        try:
            fill(gateway, ENVIRONMENTS)
            look(gateway)
        finally:
            gateway.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def look(gateway: GatewayProcess) -> None:
    """Time every view, the first request apart; then the live part for many at once."""
    with browser(gateway, "alice") as alice, browser(gateway, "carol") as carol:
        print(f"the very first request, which starts the processes: {timed(alice, '/'):.0f} ms")
        for one, paths in ((alice, OWN), (carol, AUDITORS + ADMINISTRATORS)):
            for path in paths:
                first, several = timed(one, path), [timed(one, path) for _ in range(LOOKS)]
                spread = f"({min(several):.0f}-{max(several):.0f})"
                print(f"{path}: median {median(several):.0f} ms {spread}, first {first:.0f}", flush=True)
        began, looks = monotonic(), 0
        with ThreadPoolExecutor(VIEWERS) as pool:
            while monotonic() - began < 10:
                looks += len(list(pool.map(lambda _number: timed(carol, "/sessions"), range(VIEWERS))))
        print(f"live sessions, {VIEWERS} at a time: {looks / (monotonic() - began):.0f} a second")


def timed(one: Browser, path: str) -> float:
    """Return the milliseconds until a view is read to its end."""
    began = perf_counter()
    answer = one.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return (perf_counter() - began) * 1e3


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
