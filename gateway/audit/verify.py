"""Proving that the journal is whole: each record follows from the one before it, and an exported head is reached.

Needs the files alone: no gateway, no engine, no private key. Memory does not grow with the journal.
"""

from binascii import hexlify
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway.audit.heads import Head
from gateway.audit.record import GENESIS, HASH_FIELD_BYTES, TAG, Record, parse
from gateway.audit.segments import Segment, segments, torn_paths
from gateway.errors import JournalError

_BLOCK_BYTES = 2**20
_LONGEST_LINE = 2**20
_OWN = b"journal."


@dataclass(frozen=True, slots=True)
class Problem:
    """The first record that is not as it was written.

    `kind` is one of changed, missing, out-of-order, unreadable, unlinked, pruned-unannounced, truncated, head-differs.
    """

    kind: str
    seq: int
    file: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `problem` is None for a journal that is whole as far as the files and the head can show."""

    records: int
    first_seq: int
    last_seq: int
    last_hash: str
    problem: Problem | None = None
    head_checked: bool = False
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.problem is None

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        problem = self.problem
        return {
            "version": 1,
            "ok": self.ok,
            "records": self.records,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "last_hash": self.last_hash,
            "head_checked": self.head_checked,
            "notes": list(self.notes),
            "problem": problem and {name: getattr(problem, name) for name in problem.__slots__},
        }


class _Bad(Exception):  # noqa: N818  # carries a finding up, not an error
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(slots=True)
class _Walk:
    """Where the walk along the chain stands."""

    head: Head | None
    seq: int = 0
    digest: bytes = GENESIS
    first_seq: int = 1
    records: int = 0
    file: str = ""
    line: int = 0
    head_checked: bool = False
    unannounced: tuple[int, str] | None = None
    notes: list[str] = field(default_factory=list)

    def advance(self, records: int, digest: bytes) -> None:
        self.seq, self.line, self.records = self.seq + records, self.line + records, self.records + records
        self.digest = digest

    def bad(self, kind: str, message: str) -> _Bad:
        return _Bad(Problem(kind, self.seq + 1, self.file, self.line + 1, message))


def verify(directory: Path, head: Head | None = None, *, last_segments: int = 0) -> Report:
    """Check a journal, or a copy of one, from end to end, or only its last so many segments.

    Raises:
        JournalError: `journal.unreadable`.
    """
    walk = _Walk(head)
    problem = None
    try:
        every = segments(directory)
        found = every[-last_segments:]
        for place, segment in enumerate(found):
            _walk_segment(walk, segment, is_first=place == 0, is_last=place == len(found) - 1)
        if len(found) < len(every):
            walk.unannounced = None  # the records before the tail are there, they were not looked at
        _conclude(walk)
    except _Bad as bad:
        problem = bad.problem
    except OSError as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc}") from exc
    walk.notes += [f"{path.name}: an unfinished write was moved here" for path in torn_paths(directory)]
    return Report(
        walk.records,
        walk.first_seq,
        walk.seq,
        walk.digest.hex(),
        problem,
        head_checked=walk.head_checked,
        notes=tuple(walk.notes),
    )


def _walk_segment(walk: _Walk, segment: Segment, *, is_first: bool, is_last: bool) -> None:
    walk.file, walk.line = segment.path.name, 0
    with segment.path.open("rb", buffering=0) as file:
        for lines, rest in _blocks(walk, iter(lambda: file.read(_BLOCK_BYTES), b"")):
            if walk.line == 0 and lines:
                _check_opening(walk, lines[0], segment, is_first=is_first)
            first = walk.seq + 1
            _walk_lines(walk, lines)
            _note_own(walk, lines, first)
            if rest and not is_last:
                raise walk.bad("unreadable", "a sealed segment ends in the middle of a record")
            if rest:
                walk.notes.append(f"{walk.file}: {len(rest)} bytes of an unfinished record at the end")


def _blocks(walk: _Walk, blocks: Iterator[bytes]) -> Iterator[tuple[list[bytes], bytes]]:
    """Cut blocks into whole lines without their newlines; what no newline ends comes last, by itself."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise walk.bad("unreadable", "a line is longer than any record")
        yield lines, b""
    if rest:
        yield [], rest


def _walk_lines(walk: _Walk, lines: list[bytes]) -> None:
    """Follow the chain; the loop that a million records pass through, so it parses nothing that is in order.

    A record's number stands inside what is hashed, so a chain that holds needs it compared only now and then.
    """
    digest, tag, join = walk.digest, TAG, b"".join
    head_place = walk.head.size - walk.seq - 1 if walk.head else -1
    for place, line in enumerate(lines):
        content = line[:-HASH_FIELD_BYTES]
        following = sha256(join((tag, digest, len(content).to_bytes(8), content))).digest()
        if line[-HASH_FIELD_BYTES:] != join((b',"hash":"', hexlify(following), b'"}')):
            walk.advance(place, digest)
            raise _diagnose(walk, line, lines[place + 1 : place + 2])
        digest = following
        if place == head_place:
            _check_head(walk, walk.seq + place + 1, digest)
    if lines and not lines[-1].startswith(b'{"v":1,"seq":%d,"' % (walk.seq + len(lines))):
        _find_misnumbered(walk, lines)
    walk.advance(len(lines), digest)


def _find_misnumbered(walk: _Walk, lines: list[bytes]) -> None:
    for place, line in enumerate(lines):
        if not line.startswith(b'{"v":1,"seq":%d,"' % (walk.seq + place + 1)):
            walk.advance(place, b"")
            raise _diagnose(walk, line, lines[place + 1 : place + 2])


def _check_opening(walk: _Walk, line: bytes, segment: Segment, *, is_first: bool) -> None:
    """Check what a segment says it follows. The oldest one left may follow records that were pruned."""
    try:
        opening = parse(line)
        previous = int(opening.detail["previous_seq"] or 0), str(opening.detail["previous_hash"])
    except (ValueError, KeyError) as exc:
        raise walk.bad("unreadable", f"a segment does not begin with a journal.opened record: {exc}") from exc
    if is_first and previous[0] > 0:
        walk.seq, walk.digest = previous[0], bytes.fromhex(previous[1])
        walk.first_seq = previous[0] + 1
        walk.unannounced = previous
    if previous != (walk.seq, walk.digest.hex()):
        kind = "missing" if previous[0] > walk.seq else "unlinked"
        raise walk.bad(kind, f"{segment.path.name} follows record {previous[0]}, but {walk.seq} is the one before it")


def _note_own(walk: _Walk, lines: list[bytes], first: int) -> None:
    """Remember repairs, and whether the records that are gone were pruned on purpose.

    Where the code stands in a line depends only on how many digits its number has.
    """
    for digits in {len(str(first)), len(str(first + len(lines)))}:
        start = len(b'{"v":1,"seq":,"time":"2026-05-03T12:00:00.000000Z","code":"') + digits
        end = start + len(_OWN)
        for line in [line for line in lines if line[start:end] == _OWN]:
            _note(walk, parse(line))


def _note(walk: _Walk, record: Record) -> None:
    if record.code == "journal.repaired":
        walk.notes.append(
            f"record {record.number}: {record.detail.get('bytes')} bytes of an unfinished write were moved"
        )
    if record.code == "journal.pruned" and walk.unannounced is not None:
        stated = record.detail.get("last_seq"), record.detail.get("last_hash")
        if stated == walk.unannounced:
            walk.unannounced = None


def _check_head(walk: _Walk, seq: int, digest: bytes) -> None:
    head = walk.head
    walk.head_checked = True
    if head is not None and head.digest != digest:
        raise _Bad(
            Problem("head-differs", seq, walk.file, 0, f"record {seq} is not the one that the head was signed over")
        )


def _conclude(walk: _Walk) -> None:
    head = walk.head
    if walk.unannounced is not None:
        message = f"records up to {walk.unannounced[0]} are gone and no journal.pruned record says so"
        raise _Bad(Problem("pruned-unannounced", walk.first_seq, walk.file, 0, message))
    if head is None or walk.head_checked:
        return
    if head.size > walk.seq:
        raise walk.bad("truncated", f"the journal ends at record {walk.seq}, but its head was signed at {head.size}")
    walk.notes.append(f"the head at record {head.size} is older than the records kept and could not be compared")


def _diagnose(walk: _Walk, line: bytes, following: list[bytes]) -> _Bad:
    """Say what is wrong with a record, once it is known that something is."""
    expected = walk.seq + 1
    try:
        found = parse(line).number
    except ValueError:
        return walk.bad("unreadable", f"record {expected} cannot be read")
    if found == expected:
        return walk.bad("changed", f"record {expected} was changed, or the one before it was replaced")
    is_next = any(b'"seq":%d,' % expected in after[:40] for after in following)
    if found > expected and not is_next:
        return walk.bad("missing", f"record {expected} is missing; {found} stands in its place")
    return walk.bad("out-of-order", f"record {found} stands where {expected} belongs: moved, repeated or inserted")
