"""`make bench`: the gateway beside OpenSSH, every measure in pairs that follow one another; a Markdown table on stdout.

`--short` is quick and rough. `--record FILE` keeps the ratios, `--check FILE` fails when one fell under 80 % of them
twice in a row.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import bulk, floor, many_users, ports
from tests.benchmarks.result import HEADER, Result
from tests.benchmarks.rig import Rig, rig

MIB = 1 << 20
GROUPS = ("streams", "ports", "gcm", "files", "logins", "tunnels", "keystrokes")


def measure(made: Rig, group: str, one_pass: str, *, short: bool) -> Iterator[Result]:
    """Yield the rows of a part of the table as they come."""
    match group:
        case "streams":
            yield from bulk.streams(made, 96 * MIB if short else 512 * MIB, 3 if short else 7, floor=one_pass)
        case "gcm":
            yield from bulk.streams(made, 96 * MIB if short else 512 * MIB, 3 if short else 7, bulk.GCM, one_pass)
        case "ports":
            yield from ports.streams(made, 64 * MIB if short else 256 * MIB, 5 if short else 11)
            yield from ports.echoes(made, 200 if short else 1000, 3 if short else 7)
            yield from ports.openings(made, 50 if short else 300, 3 if short else 5)
            yield from ports.open_forwards(made, 1000)
        case "logins":
            yield from many_users.logins(made, 32 if short else 160, 3 if short else 5)
            yield from many_users.commands(made, 9 if short else 40)
            yield from many_users.judged_logins(made, 20 if short else 60, 3 if short else 9)
        case "keystrokes":
            yield from many_users.keystrokes(made, 150 if short else 1000, 3 if short else 5)
        case "tunnels":
            yield from many_users.idle_tunnels(made, 50 if short else 1000)
        case "files":
            yield from bulk.files(made, 64 * MIB if short else 1024 * MIB, 1000 if short else 10_000, 3)


def shown(rows: Iterator[Result]) -> list[Result]:
    """Print rows as they come and return them."""
    results = []
    for result in rows:
        print(result.row(), flush=True)
        results.append(result)
    return results


def fallen(results: list[Result], recorded: dict[str, float]) -> dict[str, str]:
    """Return what fell too far behind a record, by title; a row that was not recorded is not judged."""
    return {
        result.title: f"{result.title}: {result.ratio:.2f}, recorded {recorded[result.title]:.2f}"
        for result in results
        if result.title in recorded and result.worsened(recorded[result.title])
    }


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
    groups = options.only or [name for name in GROUPS if not (options.short and name == "gcm")]
    one_pass = f"{1e3 / ours['aes128-gcm']:.2f} s/GB, {ours['aes128-gcm']:.0f} MB/s"
    recorded = json.loads(options.check.read_text()) if options.check else {}
    results: list[Result] = []
    faults: dict[str, str] = {}
    with rig() as made:
        for group in groups:
            rows = shown(measure(made, group, one_pass, short=options.short))
            results += rows
            fell = fallen(rows, recorded)
            if fell:  # a busy moment looks like a slow gateway, but not twice
                again = fallen(shown(measure(made, group, one_pass, short=options.short)), recorded)
                faults |= {title: line for title, line in again.items() if title in fell}
    if options.record:
        ratios = {result.title: round(result.ratio, 3) for result in results}
        options.record.write_text(json.dumps(ratios, indent=2, ensure_ascii=False) + "\n")
    for fault in faults.values():
        print(f"worsened: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
