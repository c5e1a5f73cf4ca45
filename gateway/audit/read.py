"""Reading the journal: a stream of records that a filter lets through, and a stream that waits for new ones."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from heapq import merge
from pathlib import Path

from gateway.audit.record import Record, parse, stamp
from gateway.audit.segments import segments

_TIME = b'"time":"'
_STAMP_BYTES = 27


@dataclass(frozen=True, slots=True)
class Filter:
    """What to let through; what is left out lets everything through. `since` is included, `until` is not.

    `action` is a code, its first word, or a pattern: `forward.denied`, `forward`, `key.*`. `user` is the actor or the
    owner of the environment.
    """

    user: str = ""
    action: str = ""
    since: datetime | None = None
    until: datetime | None = None
    denied: bool = False
    reference: str = ""

    def lets_through(self, record: Record) -> bool:
        """Judge one record."""
        return (
            (not self.user or self.user in _people(record))
            and (not self.action or _is_action(record.code, self.action))
            and (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (not self.denied or is_denial(record))
            and (not self.reference or record.reference == self.reference)
        )

    def needles(self) -> tuple[bytes, ...]:
        """Return bytes that the line of a wanted record must hold, to pass over the others unparsed."""
        wanted = [json.dumps(text)[1:-1].encode() for text in (self.user, self.reference) if text]
        if self.action and not set(self.action) & set("*?["):
            wanted.append(b'"code":"' + self.action.encode())
        return tuple(wanted)


def is_denial(record: Record) -> bool:
    """Say whether somebody was refused: by the policy or before it was asked."""
    return record.decision == "denied" or record.code in {"login.refused", "notebook.refused", "source.banned"}


def stream(directory: Path, wanted: Filter | None = None) -> Iterator[Record]:
    """Yield the wanted records in order; an unfinished last line is left out. Raises: OSError, ValueError."""
    sieve = _Sieve(wanted or Filter())
    for segment in segments(directory):
        with segment.path.open("rb") as file:
            for line in file:
                yield from sieve.pick(line)


def of_codes(directory: Path, codes: Iterable[str], until: datetime) -> Iterator[Record]:
    """Yield the records of several codes before a moment, in their order. Raises: OSError, ValueError."""
    each = (stream(directory, Filter(action=code, until=until)) for code in codes)
    return merge(*each, key=lambda record: record.number)


def follow(directory: Path, wanted: Filter, wait: Callable[[], bool], *, after: int | None = None) -> Iterator[Record]:
    """Yield records as they are written, from now on or after a number, until `wait` says False.

    `wait` is called when nothing new is there; it pauses for as long as it likes.
    """
    follower, sieve = _Follower(directory, after), _Sieve(wanted)
    while True:
        for line in follower.new_lines():
            yield from sieve.pick(line)
        if not wait():
            return


class _Sieve:
    """Looks at a line's bytes first: most lines are not wanted, and parsing them costs ten times as much."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._needles = wanted.needles()
        self._since = stamp(wanted.since).encode() if wanted.since else b""
        self._until = stamp(wanted.until).encode() if wanted.until else b"~"

    def pick(self, line: bytes) -> Iterator[Record]:
        """Yield the record of a whole line if it is wanted. Raises: ValueError."""
        for needle in self._needles:
            if needle not in line:
                return
        place = line.find(_TIME, 0, 64) + len(_TIME)
        if self._since <= line[place : place + _STAMP_BYTES] < self._until and line.endswith(b"\n"):
            record = parse(line)
            if self._wanted.lets_through(record):
                yield record


def _is_action(code: str, action: str) -> bool:
    return code == action or code.startswith(f"{action}.") or fnmatchcase(code, action)


class _Follower:
    """Reads on from where it was, across segments."""

    def __init__(self, directory: Path, after: int | None) -> None:
        self._directory = directory
        self._first, self._offset = 0, 0
        self._skip_to = after
        if after is None:
            for segment in segments(directory)[-1:]:
                self._first, self._offset = segment.first, segment.path.stat().st_size

    def new_lines(self) -> Iterator[bytes]:
        for segment in segments(self._directory):
            if segment.first < self._first:
                continue
            offset = self._offset if segment.first == self._first else 0
            with segment.path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    self._first, self._offset = segment.first, offset
                    if self._skip_to is None or parse(line).number > self._skip_to:
                        yield line


def utc(day: str) -> datetime:
    """Read `2026-05-03` or a full ISO time; without a zone it is UTC. Raises: ValueError."""
    moment = datetime.fromisoformat(day)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _people(record: Record) -> set[str]:
    """Return whom a record concerns: who acted, whose environment it is, and the user an administrator named."""
    return {record.actor["name"], record.environment.partition("+")[0], str(record.detail.get("user", ""))}
