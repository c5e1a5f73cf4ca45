"""`make bench`: the gateway beside OpenSSH, every measure in pairs that follow one another; a Markdown table on stdout.

`--short` is quick and rough. `--record FILE` keeps the ratios, `--check FILE` fails when one fell under 80 % of them.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import bulk, floor, people
from tests.benchmarks.result import HEADER, Result
from tests.benchmarks.rig import Rig, rig

MIB = 1 << 20
GROUPS = ("streams", "gcm", "files", "logins", "tunnels", "keystrokes")


def measure(made: Rig, groups: list[str], one_pass: str, *, short: bool) -> Iterator[Result]:
    """Yield the rows of the table as they come."""
    if "streams" in groups:
        yield from bulk.streams(made, 96 * MIB if short else 512 * MIB, 3 if short else 7, floor=one_pass)
    if "gcm" in groups:
        yield from bulk.streams(made, 96 * MIB if short else 512 * MIB, 3 if short else 7, bulk.GCM, one_pass)
    if "logins" in groups:
        yield from people.logins(made, 32 if short else 160, 2 if short else 5)
    if "keystrokes" in groups:
        yield from people.keystrokes(made, 150 if short else 1000, 3 if short else 5)
    if "tunnels" in groups:
        yield from people.idle_tunnels(made, 50 if short else 1000)
    if "files" in groups:
        yield from bulk.files(made, 64 * MIB if short else 1024 * MIB, 1000 if short else 10_000, 2 if short else 3)


def worsened(results: list[Result], recorded: dict[str, float]) -> list[str]:
    """Return what fell too far behind a record; a row that was not recorded is not judged."""
    return [
        f"{result.name} vs {result.reference}: {result.ratio:.2f}, recorded {recorded[key]:.2f}"
        for result in results
        if (key := f"{result.name} vs {result.reference}") in recorded and result.worsened(recorded[key])
    ]


def main() -> int:
    """Run what is asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", action="append", choices=GROUPS, default=None)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--check", type=Path)
    options = parser.parse_args()
    ours, theirs = floor.python_rates(), floor.openssl_rates()
    for name in ours:
        print(f"one pass of {name}: {ours[name]:.0f} MB/s from Python, {theirs[name]:.0f} MB/s by openssl speed")
    print(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}, {os.cpu_count()} cores\n")
    print(HEADER, flush=True)
    results = []
    with rig() as made:
        groups = options.only or [name for name in GROUPS if not (options.short and name == "gcm")]
        one_pass = f"{1e3 / ours['aes128-gcm']:.2f} s/GB, {ours['aes128-gcm']:.0f} MB/s"
        for result in measure(made, groups, one_pass, short=options.short):
            print(result.row(), flush=True)
            results.append(result)
    ratios = {f"{result.name} vs {result.reference}": round(result.ratio, 3) for result in results}
    if options.record:
        options.record.write_text(json.dumps(ratios, indent=2, ensure_ascii=False) + "\n")
    faults = worsened(results, json.loads(options.check.read_text())) if options.check else []
    for fault in faults:
        print(f"worsened: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
