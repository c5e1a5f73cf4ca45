"""Proving that the journal is whole: each record follows from the one before it, and an exported head is reached.

Needs the files alone: no gateway, no engine, no private key. Memory does not grow with the journal.
"""

import os
import stat
from binascii import hexlify
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from gateway.audit.head_comparison import HeadComparison, disagreement
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

    `kind` is one of changed, missing, out-of-order, unreadable, unlinked, pruned-unannounced, pruned-unsigned,
    truncated, head-differs, heads-disagree.
    """

    kind: str
    seq: int
    file: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `problem` is None for a journal that is whole as far as the files and the heads can show.

    `unproven` says what could not be compared and should have been. Proven are the records from `first_seq` to
    `proven_seq`, which is 0 where nothing is.
    """

    records: int
    first_seq: int
    last_seq: int
    last_hash: str
    problem: Problem | None = None
    head_checked: bool = False
    notes: tuple[str, ...] = ()
    unproven: str = ""
    proven_seq: int = 0
    compared: frozenset[int] = frozenset()
    """The numbers at which a head was compared, and agreed."""

    @property
    def ok(self) -> bool:
        return self.problem is None and not self.unproven

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
            "proven_seq": self.proven_seq,
            "unproven": self.unproven,
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

    heads: HeadComparison
    seq: int = 0
    digest: bytes = GENESIS
    first_seq: int = 1
    records: int = 0
    file: str = ""
    line: int = 0
    notes: list[str] = field(default_factory=list)

    def advance(self, records: int, digest: bytes) -> None:
        self.seq, self.line, self.records = self.seq + records, self.line + records, self.records + records
        self.digest = digest

    def bad(self, kind: str, message: str) -> _Bad:
        return _Bad(Problem(kind, self.seq + 1, self.file, self.line + 1, message))


def verify(directory: Path, *heads: Head, kept: Sequence[Head] | None = (), last_segments: int = 0) -> Report:
    """Check a journal, or a copy of one, from end to end, or only its last so many segments.

    Every head is compared; the one over the most records must be found. `kept` are the heads that pruning left beside
    the journal, None where no key was there to check them with.

    Raises:
        JournalError: `journal.unreadable`.
    """
    walk = _Walk(HeadComparison(heads, kept))
    problem, unproven = None, ""
    try:
        _check_heads((*heads, *(kept or ())))
        every = segments(directory)
        found = every[-last_segments:]
        for place, segment in enumerate(found):
            _walk_segment(walk, segment, is_first=place == 0, is_last=place == len(found) - 1)
        unproven = _conclude(walk, is_all=len(found) == len(every))
    except _Bad as bad:
        problem = bad.problem
    except OSError as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc}") from exc
    walk.notes += [f"{path.name}: an unfinished write was moved here" for path in torn_paths(directory)]
    newest = walk.heads.newest
    return Report(
        walk.records,
        walk.first_seq,
        walk.seq,
        walk.digest.hex(),
        problem,
        head_checked=newest is not None and newest.size in walk.heads.compared,
        notes=tuple(walk.notes),
        unproven=unproven,
        proven_seq=0 if problem else walk.heads.proven_seq,
        compared=frozenset(walk.heads.compared),
    )


def _check_heads(heads: Sequence[Head]) -> None:
    if contrary := disagreement(heads):
        raise _Bad(Problem("heads-disagree", contrary.size, "", 0, contrary.message))


def _walk_segment(walk: _Walk, segment: Segment, *, is_first: bool, is_last: bool) -> None:
    walk.file, walk.line = segment.path.name, 0
    with _open_file(walk, segment.path) as file:
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


def _open_file(walk: _Walk, path: Path) -> BinaryIO:
    """Open a segment; a pipe or a link in its place is a finding, and never waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if not path.is_symlink():
            raise
        raise walk.bad("unreadable", f"{path.name} is no file") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise walk.bad("unreadable", f"{path.name} is no file")
    return os.fdopen(descriptor, "rb", buffering=0)


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
    head_place = walk.heads.next_size - walk.seq - 1
    for place, line in enumerate(lines):
        content = line[:-HASH_FIELD_BYTES]
        following = sha256(join((tag, digest, len(content).to_bytes(8), content))).digest()
        if line[-HASH_FIELD_BYTES:] != join((b',"hash":"', hexlify(following), b'"}')):
            walk.advance(place, digest)
            raise _diagnose(walk, line, lines[place + 1 : place + 2])
        digest = following
        if place == head_place:
            _check_head(walk, walk.seq + place + 1, digest)
            head_place = walk.heads.next_size - walk.seq - 1
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
        seq, digest = _followed(parse(line))
    except (ValueError, TypeError, KeyError, OverflowError) as exc:
        raise walk.bad("unreadable", f"a segment does not begin with a journal.opened record: {exc}") from exc
    if is_first and seq > 0:
        walk.seq, walk.digest, walk.first_seq = seq, digest, seq + 1
        if not walk.heads.begin_after(seq, digest):
            raise _differs(walk, seq)
    if (seq, digest) != (walk.seq, walk.digest):
        kind = "missing" if seq > walk.seq else "unlinked"
        raise walk.bad(kind, f"{segment.path.name} follows record {seq}, but {walk.seq} is the one before it")
    if segment.first != seq + 1:
        raise walk.bad("unlinked", f"{segment.path.name} begins with record {seq + 1}: it was renamed")


def _followed(opening: Record) -> tuple[int, bytes]:
    seq, digest = int(opening.detail["previous_seq"] or 0), bytes.fromhex(str(opening.detail["previous_hash"]))
    if seq < 0 or len(digest) != len(GENESIS):
        raise ValueError("it follows what no record could be")
    return seq, digest


def _note_own(walk: _Walk, lines: list[bytes], first: int) -> None:
    """Remember repairs, and whether the records that are gone were pruned on purpose.

    Where the code stands in a line depends only on how many digits its number has.
    """
    for digits in {len(str(first)), len(str(first + len(lines)))}:
        start = len(b'{"v":1,"seq":,"time":"2026-05-03T12:00:00.000000Z","code":"') + digits
        end = start + len(_OWN)
        for line in [line for line in lines if line[start:end] == _OWN]:
            try:
                _note(walk, parse(line))
            except ValueError as exc:
                raise walk.bad("unreadable", f"a record of the journal's own cannot be read: {exc}") from exc


def _note(walk: _Walk, record: Record) -> None:
    if record.code == "journal.repaired":
        walk.notes.append(
            f"record {record.number}: {record.detail.get('bytes')} bytes of an unfinished write were moved"
        )
    if record.code == "journal.pruned":
        walk.heads.note_pruned(record)


def _check_head(walk: _Walk, seq: int, digest: bytes) -> None:
    if not walk.heads.meet(seq, digest):
        raise _differs(walk, seq)


def _differs(walk: _Walk, seq: int) -> _Bad:
    message = f"record {seq} is not the one that the head was signed over: rewritten, or another journal's head"
    return _Bad(Problem("head-differs", seq, walk.file, 0, message))


def _conclude(walk: _Walk, *, is_all: bool) -> str:
    """Judge what the walk met. Returns what could not be compared, in words; empty where all was."""
    heads = walk.heads
    if is_all and heads.gap is not None and not heads.is_explained():
        if not heads.is_announced():
            message = f"records up to {heads.gap.last_seq} are gone and no journal.pruned record says so"
            raise _Bad(Problem("pruned-unannounced", walk.first_seq, walk.file, 0, message))
        message = f"records up to {heads.gap.last_seq} are gone, and no signed head covers the record that says why"
        if heads.kept is None and not heads.given:
            return f"{message} (there is no key to check one with)"
        raise _Bad(Problem("pruned-unsigned", walk.first_seq, walk.file, 0, message))
    if beyond := heads.beyond(walk.seq):
        message = f"the journal ends at record {walk.seq}, but its head was signed at {beyond.size}"
        raise walk.bad("truncated", message)
    return _uncompared(walk) if is_all else ""


def _uncompared(walk: _Walk) -> str:
    left, newest = walk.heads.uncompared(), walk.heads.newest
    if newest is None or not left:
        return ""
    if newest in left and newest.size == 0:
        return "the head was signed over an empty journal, which proves nothing"
    if newest in left:
        return (
            f"the head at record {newest.size} is older than the records kept, "
            f"which begin at {walk.first_seq}, and could not be compared"
        )
    older = [head.size for head in left if head.size]
    if older:
        walk.notes.append(f"{len(older)} older heads, up to record {max(older)}, are of records that were pruned")
    return ""


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
