"""How long the page takes at a thousand environments and a long journal: prints numbers, asserts nothing about time.

Run it on a quiet machine with room for 0.5 GB a million records: `python -m tests.benchmarks.bench_page [RECORDS]`.
`--journal DIR` keeps the journal there for another run. Each view is asked for by a browser without JavaScript through
a real `ssh -L`; its HTML is read to the end.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.audit.journal_index import INDEX_DIRECTORY, JournalIndex
from gateway.audit.segments import segments
from gateway.model import GATEWAY
from tests.benchmarks.bench_long_journal import RARE, write_journal
from tests.support.gateway_process import GatewayProcess
from tests.support.page_site import Browser, begin, browser, fill

ENVIRONMENTS = 1000
LOOKS = 9
VIEWERS = 20
"""Of the live part at a time."""
READING_SECONDS = 1.1
"""After which what all viewers share is read again: between the looks at such views so much time passes."""
RECORDINGS, LINES = 200, 2000
OWN = ("/", "/runs", "/account", "/connect", "/may")
SHARED = (
    "/gpus", "/sessions", "/administration", "/people", "/administration/connections", "/administration/gpus",
)  # fmt: skip
AUDITORS = (
    "/sessions/past", "/journal", f"/journal?user={RARE}", "/journal?user=user7", "/journal?user=nobody",
    "/journal?denied=on", "/journal?since=1h", "/journal?since=90d&until=89d", "/journal?action=user.disabled",
    "/journal?reference=nosuchref1", "/journal/proof", "/policies", "/who-can?user=alice", "/who-can?question=shell",
    "/recordings", "/recordings/search?text=line+1999+of+7", "/recordings/search?text=not+there",
)  # fmt: skip
ROWS = ("/administration", "/people", "/sessions", "/who-can?question=shell", "/review")


def main() -> None:
    """Write the journal, serve above it, look, and remove it all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_page", description=__doc__)
    parser.add_argument("records", nargs="?", type=int, default=10_000_000)
    parser.add_argument("--journal", type=Path)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="devgw-bench-", dir=options.journal and options.journal.parent))
    print(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}, {os.cpu_count()} cores")
    try:
        kept = options.journal or root / "kept"
        if not kept.exists():
            write(kept, options.records)
        link(kept, root / "state" / "journal")
        record(root / "state" / "recordings" / "alice")
        began = perf_counter()
        gateway = begin(root)
        print(f"served after {perf_counter() - began:.1f} s", flush=True)
        try:
            fill(gateway, ENVIRONMENTS)
            look(gateway)
        finally:
            gateway.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write(directory: Path, count: int) -> None:
    """Write a journal that ends now, and its indexes."""
    began = perf_counter()
    write_journal(directory, count, end=datetime.now(UTC))
    journal = Journal(directory)
    journal.append(Event("gateway.stopped", GATEWAY))
    journal.close()
    print(f"{count:,} records, written in {perf_counter() - began:.0f} s", flush=True)
    began = perf_counter()
    made = len(list(JournalIndex(directory).refresh()))
    print(f"{made} segments indexed in {perf_counter() - began:.0f} s", flush=True)


def link(kept: Path, journal: Path) -> None:
    """Give a gateway a journal of its own: what is sealed is the same file, what is written to is a copy."""
    shutil.copytree(kept, journal, copy_function=os.link)
    newest = segments(kept)[-1].path
    (journal / newest.name).unlink()
    shutil.copy2(newest, journal / newest.name)
    size = sum(one.path.stat().st_size for one in segments(journal))
    index = sum(one.stat().st_size for one in journal.glob(f"{INDEX_DIRECTORY}/*"))
    last = newest.stat().st_size >> 20
    print(f"{len(segments(journal))} segments of {size / 1e9:.1f} GB, the newest {last} MiB; indexes {index >> 20} MiB")


def record(directory: Path) -> None:
    """Write recordings of a day, as the gateway does."""
    directory.mkdir(parents=True)
    for number in range(RECORDINGS):
        lines = [json.dumps({"version": 2, "width": 80, "height": 24})]
        lines += [json.dumps([line / 10, "o", f"line {line} of {number}\r\n"]) for line in range(LINES)]
        name = f"20261101T{number // 60:02}{number % 60:02}00Z-r{number:09}.cast"
        (directory / name).write_text("\n".join(lines) + "\n")


def look(gateway: GatewayProcess) -> None:
    """Time every view, the first request apart; then the live part for many at once, and lists of ten thousand."""
    with browser(gateway, "alice") as alice, browser(gateway, "carol") as carol:
        print(f"the very first request, which starts the processes: {timed(alice, '/'):.0f} ms")
        for path in OWN:
            show(alice, path)
        for path in SHARED:
            show(carol, path, READING_SECONDS)
        for path in AUDITORS:
            show(carol, path)
        print(f"/review: {timed(carol, '/review'):.0f} ms, and again within ten seconds {timed(carol, '/review'):.0f}")
        began, looks = monotonic(), 0
        with ThreadPoolExecutor(VIEWERS) as pool:
            while monotonic() - began < 10:
                looks += len(list(pool.map(lambda _number: timed(carol, "/sessions", part=True), range(VIEWERS))))
        print(f"live sessions, {VIEWERS} at a time: {looks / (monotonic() - began):.0f} a second")
        fill(gateway, 10_000 - ENVIRONMENTS, ENVIRONMENTS)
        time.sleep(10)  # after which the review is made again
        for path in ROWS:
            print(f"{path}, 10,000 users: {timed(carol, path):.0f} ms", flush=True)


def show(one: Browser, path: str, pause: float = 0.0) -> None:
    """Look at a view several times and print how long it took."""
    first, several = timed(one, path), []
    for _ in range(LOOKS):
        time.sleep(pause)
        several.append(timed(one, path))
    print(
        f"{path}: median {median(several):.0f} ms ({min(several):.0f}-{max(several):.0f}), first {first:.0f}",
        flush=True,
    )


def timed(one: Browser, path: str, *, part: bool = False) -> float:
    """Return the milliseconds until a view, or its live part alone, is read to its end."""
    headers = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"} if part else {}
    began = perf_counter()
    answer = one.get(path, headers=headers)
    assert answer.status_code == 200, (path, answer.text)
    return (perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
