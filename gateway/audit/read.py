"""Reading the journal: a stream of records that a filter lets through, and a stream that waits for new ones."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from heapq import merge
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

from gateway.audit.journal_index import FORGED, JournalIndex
from gateway.audit.record import Record, parse, stamp
from gateway.audit.segment_index import REFUSALS, SegmentIndex, Wanted, is_at_a_line, is_denial, people_of
from gateway.audit.segments import Segment, journals_in, segments

_TIME = b'"time":"'
_STAMP_BYTES = 27
_CODE_ENDS = 160  # number, time and code stand first
_SPARSE_BYTES = 8 * 2**10
_BATCH_BYTES = 256 * 2**10


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
    codes: frozenset[str] = frozenset()
    """Several codes, each whole."""
    owners: frozenset[str] = frozenset()
    """Several users whose environments are meant."""

    def lets_through(self, record: Record) -> bool:
        """Judge one record."""
        return (
            (not self.user or self.user in people_of(record))
            and (not self.action or _is_action(record.code, self.action))
            and (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (not self.denied or is_denial(record.code, record.decision))
            and (not self.reference or record.reference == self.reference)
            and (not self.codes or record.code in self.codes)
            and (not self.owners or record.environment.partition("+")[0] in self.owners)
        )

    def _is_code(self, code: str) -> bool:
        return (not self.action or _is_action(code, self.action)) and (not self.codes or code in self.codes)

    def asked(self) -> Wanted:
        """Return the same for an index."""
        return Wanted(
            frozenset({self.user}) if self.user else self.owners,
            self._is_code if self.action or self.codes else None,
            self.reference,
            self.denied,
            stamp(self.since) if self.since else "",
            stamp(self.until) if self.until else "~",
        )

    def needles(self) -> tuple[tuple[bytes, ...], ...]:
        """Return bytes of which the line of a wanted record holds one of each group, to pass over the others unparsed.

        A name stands whole in its quotes, or before the `+` of an environment.
        """
        groups: list[tuple[bytes, ...]] = []
        if self.user:
            name = json.dumps(self.user)[:-1].encode()
            groups.append((name + b'"', name + b"+"))
        if self.reference:
            groups.append((json.dumps(self.reference).encode(),))
        if self.action and not set(self.action) & set("*?["):
            groups.append((b'"code":"' + self.action.encode(),))
        if self.denied:
            groups.append((b'"decision":"denied"', *(b'"code":"%b"' % code.encode() for code in sorted(REFUSALS))))
        return tuple(groups)


def stream(directory: Path, wanted: Filter | None = None, *, whole: bool = False, after: int = 0) -> Iterator[Record]:
    """Yield the wanted records in order; an unfinished last line is left out.

    What an index says cannot hold them is passed over unread, unless `whole`; so are the segments that end before the
    record `after`. Segments that are pruned meanwhile are gone; those begun meanwhile are left for the next time.
    A directory that holds the journals of several gateways stands for all of them, in the order of their times.
    Raises: OSError, ValueError.
    """
    wanted = wanted or Filter()
    if several := journals_in(directory):
        yield from merge(*(stream(one, wanted, whole=whole) for one in several), key=lambda record: record.at)
        return
    sieve, lines = Sieve(wanted), _Lines(directory, None if whole else wanted)
    found = segments(directory)
    for segment, following in zip(found, [*found[1:], None], strict=False):
        if following is None or following.first > after:
            for batch in lines.of(segment, is_newest=following is None):
                yield from (record for record in sieve.pick(batch) if record.number > after)


def settled_before(directory: Path, moment: datetime) -> int:
    """Return the number of a record up to which every record is older than a moment, clock jumps included.

    As far as the indexes know it: 0 where there are none. Raises: OSError.
    """
    if journals_in(directory):
        return 0  # their numbers are their own
    index, settled = JournalIndex(directory), 0
    found = segments(directory)
    for segment, following in pairwise(found):
        known = index.of(segment)
        if known is None or known.last >= stamp(moment):
            break
        settled = following.first - 1
    return settled


def last_of_each(directory: Path, users: Iterable[str], code: str) -> dict[str, Record]:
    """Return each user's own last record of a code: from the newest segment back, until all have been found.

    Raises: OSError, ValueError.
    """
    index, left, last = JournalIndex(directory), set(users), dict[str, Record]()
    if several := journals_in(directory):
        everywhere = [last_of_each(one, left, code) for one in several]
        for found_there in everywhere:
            last |= {user: one for user, one in found_there.items() if user not in last or last[user].at < one.at}
        return last
    found = segments(directory)
    for segment in reversed(found):
        if not left:
            break
        known = index.of(segment) if segment != found[-1] else None
        try:
            here = _last_in(segment, known, left, code)
        except FileNotFoundError:
            if any(one.first < segment.first for one in segments(directory)):
                raise
            break  # pruned meanwhile, and all before it
        left -= here.keys()
        last |= here
    return last


def _last_in(segment: Segment, index: SegmentIndex | None, users: set[str], code: str) -> dict[str, Record]:
    if index is not None:
        try:
            return _last_by_index(segment, index, users, code)
        except FORGED:
            pass
    sieve = Sieve(Filter(action=code))
    with segment.path.open("rb") as file:
        records = [record for batch in _batches(file) for record in sieve.pick(batch)]
    return {record.actor["name"]: record for record in records if record.actor["name"] in users}


def _last_by_index(segment: Segment, index: SegmentIndex, users: set[str], code: str) -> dict[str, Record]:
    last: dict[str, Record] = {}
    with segment.path.open("rb", buffering=_SPARSE_BYTES) as file:
        for user, places in index.lines_by_user(users, code):
            for place in places:
                file.seek(place)
                record = parse(file.readline())
                if record.actor["name"] == user:
                    last[user] = record
                    break
    return last


class _Lines:
    """The lines of a segment that may be wanted: those an index names, or all."""

    def __init__(self, directory: Path, wanted: Filter | None) -> None:
        self._directory = directory
        self._asked = wanted.asked() if wanted is not None else Wanted()
        self._index = JournalIndex(directory)

    def of(self, segment: Segment, *, is_newest: bool) -> Iterator[list[bytes]]:
        """Raises: OSError, where the segment is there and cannot be read."""
        try:
            spans = None if is_newest or self._asked == Wanted() else self._spans(segment)
            if spans is None:
                with segment.path.open("rb") as file:
                    yield from _batches(file)
            elif spans:
                yield from self._within(segment, spans)
        except FileNotFoundError:
            if any(one.first <= segment.first for one in segments(self._directory)):
                raise  # not pruned: what is older is still there

    def _spans(self, segment: Segment) -> list[tuple[int, int]] | None:
        index = self._index.of(segment)
        if index is None:
            return None
        try:
            return list(index.find(self._asked))
        except (*FORGED, OSError):
            return None

    def _within(self, segment: Segment, spans: list[tuple[int, int]]) -> Iterator[list[bytes]]:
        with segment.path.open("rb", buffering=_SPARSE_BYTES) as file:
            place = 0
            for number, (begin, end) in enumerate(spans):
                if place != begin:
                    file.seek(begin)
                    place = begin
                while place < end and (line := file.readline()):
                    if place == begin and not is_at_a_line(line):
                        yield from _outside(file, spans[:number])  # the index lies: all of the others
                        return
                    place += len(line)
                    yield [line]


def _batches(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of a file, some hundred at a time: judged together they cost a fifth."""
    while lines := file.readlines(_BATCH_BYTES):
        yield lines


def _outside(file: BinaryIO, spans: list[tuple[int, int]]) -> Iterator[list[bytes]]:
    place = file.seek(0)
    for line in file:
        if not any(begin <= place < end for begin, end in spans):
            yield [line]
        place += len(line)


def of_codes(
    directory: Path, codes: Iterable[str], until: datetime, *, owners: Iterable[str] | None = None, after: int = 0
) -> Iterator[Record]:
    """Yield the records of several codes before a moment and behind a number, in their order.

    With `owners` only those of environments that belong to one of them. Raises: OSError, ValueError.
    """
    if owners is None:
        return stream(directory, Filter(codes=frozenset(codes), until=until), after=after)
    of_them = frozenset(owners)
    wanted = Filter(codes=frozenset(codes), owners=of_them, until=until)
    return stream(directory, wanted, after=after) if of_them else iter(())


def follow(directory: Path, wanted: Filter, wait: Callable[[], bool], *, after: int | None = None) -> Iterator[Record]:
    """Yield records as they are written, from now on or after a number, until `wait` says False.

    `wait` is called when nothing new is there; it pauses for as long as it likes.
    """
    follower, sieve = _Follower(directory, wanted, after), Sieve(wanted)
    while True:
        for line in follower.new_lines():
            yield from sieve.pick([line])
        if not wait():
            return


class Sieve:
    """Looks at the bytes of lines first: most are not wanted, and parsing them costs ten times as much."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._needles = wanted.needles()
        codes = b"|".join(re.escape(code.encode()) for code in sorted(wanted.codes))
        self._code = re.compile(b'"code":"(?:%b)"' % codes) if codes else None
        self._since = stamp(wanted.since).encode() if wanted.since else b""
        self._until = stamp(wanted.until).encode() if wanted.until else b"~"

    def may_hold(self, block: bytes) -> bool:
        """Say whether there may be wanted records in a block of lines; of the two searches rfind is the quicker one."""
        return all(any(block.rfind(needle) >= 0 for needle in group) for group in self._needles)

    def pick(self, lines: list[bytes]) -> Iterator[Record]:
        """Yield those records of whole lines that are wanted, in the order of the lines. Raises: ValueError."""
        for group in self._needles:
            lines = _holding(lines, group)
        if (code := self._code) is not None:
            lines = [line for line in lines if code.search(line, 0, _CODE_ENDS)]
        if self._wanted.since or self._wanted.until:
            since, until = self._since, self._until
            place = len(_TIME)
            lines = [
                line
                for line in lines
                if since <= line[(at := line.find(_TIME, 0, 64) + place) : at + _STAMP_BYTES] < until
            ]
        for line in lines:
            if line.endswith(b"\n"):
                record = parse(line)
                if self._wanted.lets_through(record):
                    yield record


def _holding(lines: list[bytes], needles: tuple[bytes, ...]) -> list[bytes]:
    """Return the lines that hold one of some needles: one list at a time is what Python is quickest at."""
    match needles:
        case (one,):
            return [line for line in lines if one in line]
        case (one, two):
            return [line for line in lines if one in line or two in line]
    one_of_them = re.compile(b"|".join(map(re.escape, needles))).search
    return [line for line in lines if one_of_them(line)]


def _is_action(code: str, action: str) -> bool:
    return code == action or code.startswith(f"{action}.") or fnmatchcase(code, action)


class _Follower:
    """Reads on from where it was, across segments."""

    def __init__(self, directory: Path, wanted: Filter, after: int | None) -> None:
        self._directory = directory
        self._lines = _Lines(directory, wanted)
        self._first, self._offset = 0, 0
        self._skip_to = after
        if after is None:
            for segment in segments(directory)[-1:]:
                self._first, self._offset = segment.first, segment.path.stat().st_size

    def new_lines(self) -> Iterator[bytes]:
        found = segments(self._directory)
        for segment, following in zip(found, [*found[1:], None], strict=False):
            if segment.first < self._first or (following and following.first <= (self._skip_to or 0)):
                continue
            if following and not segment.path.exists():
                continue  # pruned since it was listed
            offset = self._offset if segment.first == self._first else 0
            if following and not offset:
                self._first, self._offset = segment.first, segment.path.stat().st_size
                yield from self._unseen(chain.from_iterable(self._lines.of(segment, is_newest=False)))
            else:
                yield from self._unseen(self._read_on(segment, offset))

    def _read_on(self, segment: Segment, offset: int) -> Iterator[bytes]:
        with segment.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                self._first, self._offset = segment.first, offset
                yield line

    def _unseen(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        if not self._skip_to:
            return lines
        return (line for line in lines if parse(line).number > (self._skip_to or 0))


def utc(day: str) -> datetime:
    """Read `2026-05-03` or a full ISO time; without a zone it is UTC. Raises: ValueError."""
    moment = datetime.fromisoformat(day)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
