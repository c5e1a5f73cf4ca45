"""Reading the journal: a stream of records that a filter lets through, and a stream that waits for new ones."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from gateway.audit.record import Record, first_stamp, parse
from gateway.audit.segments import Segment, segments

_SLACK = timedelta(days=1)


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
    wanted = wanted or Filter()
    needles = wanted.needles()
    for segment in _relevant(segments(directory), wanted):
        with segment.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield from _pick(line, wanted, needles)


def follow(directory: Path, wanted: Filter, wait: Callable[[], bool], *, after: int | None = None) -> Iterator[Record]:
    """Yield records as they are written, from now on or after a number, until `wait` says False.

    `wait` is called when nothing new is there; it pauses for as long as it likes.
    """
    follower = _Follower(directory, after)
    while True:
        for line in follower.new_lines():
            yield from _pick(line, wanted, wanted.needles())
        if not wait():
            return


def _pick(line: bytes, wanted: Filter, needles: tuple[bytes, ...]) -> Iterator[Record]:
    if all(needle in line for needle in needles):
        record = parse(line)
        if wanted.lets_through(record):
            yield record


def _relevant(found: list[Segment], wanted: Filter) -> list[Segment]:
    """Leave out segments that end long before `since` or begin long after `until`; a day's slack for clock jumps."""
    begins = [_began(segment) for segment in found]
    ends = [*begins[1:], None]
    return [
        segment
        for segment, begin, end in zip(found, begins, ends, strict=True)
        if not (wanted.since and end and end + _SLACK < wanted.since)
        and not (wanted.until and begin and begin - _SLACK > wanted.until)
    ]


def _began(segment: Segment) -> datetime | None:
    with segment.path.open("rb") as file:
        return first_stamp(file.readline(2**16))


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
