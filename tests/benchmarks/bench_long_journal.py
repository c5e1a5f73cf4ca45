"""How long a question to a long journal takes: prints numbers, asserts nothing about time.

Run it on a quiet machine with room for 0.4 GB a million: `python -m tests.benchmarks.bench_long_journal [RECORDS]`.
The journal is of one year, with a clock that once ran ahead by a month for a hundred records.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

from gateway.audit.event import Event
from gateway.audit.exposure import exposure
from gateway.audit.journal_index import INDEX_DIRECTORY, JournalIndex
from gateway.audit.policy_history import keep
from gateway.audit.read import Filter, last_of_each, stream
from gateway.audit.record import GENESIS, encode, finish
from gateway.audit.segments import last_record, segment_path, segments
from gateway.model import Actor
from policies.load import DEFAULT_POLICY

YEAR = timedelta(days=365)
END = datetime(2026, 6, 1, tzinfo=UTC)
SEGMENT_BYTES = 64 * 2**20
USERS = 1000
RARE = "visitor"
_OWN = Actor("gateway", "journal")
_CODES = (
    "login.allowed", "forward.allowed", "forward.opened", "forward.closed", "session.opened", "session.closed",
    "connection.closed",
)  # fmt: skip


def write_journal(directory: Path, count: int, end: datetime = END) -> None:
    """Write a year up to `end` as the gateway would: segments sealed, chained and named, without waiting for a disk.

    A thousand users log in, forward and end; one came for a day in spring; one record in 500 is a refusal; their
    environments, with data mounted, are made at the beginning and started each working day, which is one record in 40;
    policies are loaded and the gateway begins anew every few days.
    """
    directory.mkdir(parents=True)
    policy = keep(directory / "policies", DEFAULT_POLICY.read_text())
    bodies = _Bodies(policy)
    stamp_start = bodies.usual[0].index(b'"time":"') + 8
    number, digest, file, size = 0, GENESIS, None, SEGMENT_BYTES
    for place in range(count):
        at = end - YEAR + YEAR * (place / count)
        if count // 2 <= place < count // 2 + 100:
            at += timedelta(days=30)
        text = at.isoformat(timespec="microseconds")[:26].encode()
        if size >= SEGMENT_BYTES:
            if file is not None:
                number += 1
                line, digest = finish(number, encode(Event("journal.sealed", _OWN, at=at)), digest)
                file.write(line)
                file.close()
            file, size = segment_path(directory, number + 1).open("wb"), 0
            detail: dict[str, str | int | float | bool | None] = {
                "previous_seq": number,
                "previous_hash": digest.hex(),
            }
            number += 1
            line, digest = finish(number, encode(Event("journal.opened", _OWN, detail=detail, at=at)), digest)
            file.write(line)
        body = bodies.of(place, count)
        number += 1
        line, digest = finish(number, body[:stamp_start] + text + body[stamp_start + 26 :], digest)
        file.write(line)  # type: ignore[union-attr]  # the first turn opens it
        size += len(line)
    if file is not None:
        file.close()


class _Bodies:
    """What the records say, made once."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.usual = [encode(_act(number)) for number in range(USERS * len(_CODES))]
        self.refusals = [encode(_refusal(number)) for number in range(USERS)]
        self.made = [encode(_life(number, "environment.created")) for number in range(USERS)]
        self.starts = [encode(_life(number, "environment.started")) for number in range(USERS)]

    def of(self, place: int, count: int) -> bytes:
        if place % (count // 100 or 1) == 0:
            return encode(_rare(place // (count // 100 or 1), self.policy))
        if place < USERS:
            return self.made[place]
        if place % 40 == 7:
            return self.starts[place // 40 % USERS]
        if place % 500 == 0:
            return self.refusals[place // 500 % USERS]
        if 0.8 < place / count < 0.803 and place % 50 == 0:
            return encode(_act(place // 50, RARE))
        return self.usual[place * 7919 % len(self.usual)]


def _act(number: int, user: str = "") -> Event:
    """Return one of the usual records: of another user for each number, of another code after each thousand."""
    user = user or f"user{number % USERS}"
    code = _CODES[number // USERS % len(_CODES)] if user != RARE else _CODES[number % len(_CODES)]
    actor = Actor("user", user, "SHA256:" + "a" * 43, f"192.0.2.{number % 250}")
    if code == "connection.closed":
        moved = {"connection": f"{number:08x}", "sent_bytes": 81920, "received_bytes": 4096, "seconds": 61.5}
        return Event(code, actor, user, reason="closed by the client", detail=moved, reference="0a1b2c3d4e")
    rule, reason = "roles.member.permit_open (policy.toml:24)", "forwards to 'localhost' port 8888 are permitted"
    return Event(code, actor, user, "allowed", rule, reason, {"host": "localhost", "port": 8888})


def _life(number: int, code: str) -> Event:
    """Return what an environment's making and its starts leave: every third has the images mounted."""
    user = f"user{number % USERS}"
    datasets = "imagenet" if number % 3 == 0 else "wmt"
    return Event(code, Actor("user", user, "", ""), user, detail={"datasets": datasets, "image": "devgw/env:cpu"})


def _refusal(number: int) -> Event:
    user = f"user{number % USERS}"
    actor = Actor("user", user, "SHA256:" + "a" * 43, f"192.0.2.{number % 250}")
    said = "no role permits forwards to 'db.internal' port 5432"
    return Event(
        "forward.denied", actor, user, "denied", "built-in", said, {"host": "db.internal", "port": 5432}, "ref"
    )


def _rare(number: int, policy: str) -> Event:
    """Return what a gateway writes a few times a week: it ends, begins, takes a policy."""
    code = ("gateway.stopped", "gateway.started", "policy.loaded", "user.disabled")[number % 4]
    detail = {
        "policy.loaded": {
            "sha256": policy,
            "file": "policy.toml",
            "change_count": 1,
            "changes": "alice: +gpu",
        },
        "user.disabled": {"user": "user7"},
    }
    return Event(code, _OWN, detail=dict(detail.get(code, {})))


def bench(directory: Path) -> None:
    """Time the making of all indexes, then each question, asked by the command as a person would."""
    found = segments(directory)
    size = sum(one.path.stat().st_size for one in found)
    seconds = _timed(lambda: list(JournalIndex(directory).refresh()))
    index_size = sum(one.stat().st_size for one in (directory / INDEX_DIRECTORY).iterdir())
    print(
        f"{len(found)} segments of {size / 1e9:.2f} GB; index {index_size / size:.1%} of it, "
        f"made in {seconds:.1f} s ({seconds / max(1, len(found) - 1):.2f} s a segment)"
    )
    end = last_record(found[-1].path).at
    hour = end - timedelta(hours=1)
    _ask(directory, "the last hour", "--since", hour.isoformat())
    day = (end - timedelta(days=90)).replace(hour=0)
    _ask(
        directory, "an hour, 90 days ago", "--since", day.isoformat(), "--until", (day + timedelta(hours=1)).isoformat()
    )
    _ask(directory, "who-did: one rare user", "--user", RARE)
    _ask(directory, "who-did: nobody", "--user", "nobody")
    _ask(directory, "who-did: one user in a thousand", "--user", "user7")
    _ask(
        directory,
        "a user's day",
        "--user",
        "user7",
        "--since",
        day.isoformat(),
        "--until",
        (day + timedelta(1)).isoformat(),
    )
    seconds = _timed(lambda: last_of_each(directory, [f"user{n}" for n in range(USERS)], "login.allowed"))
    print(f"review: last logins of {USERS} users: {seconds:.2f} s")
    for name, since in (("year", end - YEAR), ("last day", end - timedelta(days=1))):
        seconds = _timed(lambda since=since: exposure(directory, directory / "policies", "imagenet", since, end))
        print(f"exposure: who had a dataset in the {name}: {seconds:.1f} s")
    seconds = _timed(lambda: sum(1 for _ in stream(directory, Filter(since=hour), whole=True)))
    print(f"the last hour by reading everything: {seconds:.1f} s")


def _ask(directory: Path, name: str, *flags: str) -> None:
    program = [sys.executable, "-m", "gateway", "audit", "log", "--journal", str(directory), "-o", "json", *flags]
    environ = os.environ | {"DEVGW_CONFIG_DIR": "/nonexistent", "DEVGW_STATE_DIR": "/nonexistent"}
    best, lines = 1e9, 0
    for _ in range(3):
        started = perf_counter()
        done = subprocess.run(program, capture_output=True, check=True, env=environ, timeout=600)
        best, lines = min(best, perf_counter() - started), done.stdout.count(b"\n")
    print(f"{name}: {best:.2f} s, {lines:,} records (the command, its own start included; best of three)")


def _timed(act: object) -> float:
    started = perf_counter()
    act()  # type: ignore[operator]
    return perf_counter() - started


def main() -> None:
    """Write the journal, ask, and remove it; or ask one that another benchmark has kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_long_journal", description=__doc__)
    parser.add_argument("records", nargs="?", type=int, default=10_000_000)
    parser.add_argument("--journal", type=Path)
    options = parser.parse_args()
    count = options.records
    print(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}, {os.cpu_count()} cores")
    if options.journal:
        bench(options.journal)
        return
    directory = Path(tempfile.mkdtemp(prefix="devgw-bench-"))
    try:
        seconds = _timed(lambda: write_journal(directory / "journal", count))
        print(f"{count:,} records, written in {seconds:.0f} s")
        bench(directory / "journal")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
