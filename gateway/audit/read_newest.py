"""Reading the journal from its end back, a page at a time: what a person looks at first is what happened last."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from gateway.audit.journal_index import FORGED, JournalIndex
from gateway.audit.read import Filter, Sieve
from gateway.audit.record import Record
from gateway.audit.segment_index import Wanted, is_at_a_line
from gateway.audit.segments import Segment, journals_in, segments

_BLOCK_BYTES = 256 * 2**10
_SPARSE_BYTES = 8 * 2**10
_END = 10**19
"""More than any record's number."""


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Some records, the newest first. `older` says where the next page begins; empty where there is none."""

    records: tuple[Record, ...]
    older: str


def newest(directory: Path, wanted: Filter, *, limit: int, before: str = "") -> RecordPage:
    """Return the last wanted records, or the last before those of another page, of which `before` is its `older`.

    A directory that holds the journals of several gateways stands for all of them, the latest times first.
    Raises: OSError, ValueError, also where `before` is none.
    """
    journals = journals_in(directory) or [directory]
    starts = _starts(before, len(journals))
    streams = [
        _backwards(one, wanted, start, place) for place, (one, start) in enumerate(zip(journals, starts, strict=True))
    ]
    found = list(islice(merge(*streams, key=lambda one: one[1].at, reverse=True), limit + 1))
    for place, record in found[:limit]:
        starts[place] = record.number
    older = "-".join(map(str, starts)) if len(found) > limit else ""
    return RecordPage(tuple(record for _place, record in found[:limit]), older)


def _starts(before: str, journals: int) -> list[int]:
    if not before:
        return [_END] * journals
    starts = [int(number) for number in before.split("-")]
    if len(starts) != journals:
        raise ValueError("it is of another number of journals")
    return starts


def _backwards(directory: Path, wanted: Filter, before: int, place: int) -> Iterator[tuple[int, Record]]:
    sieve, index = Sieve(wanted), JournalIndex(directory)
    found = segments(directory)
    for segment in reversed(found):
        if segment.first < before:
            for lines in _lines(segment, index, wanted.asked(), sieve, is_newest=segment == found[-1]):
                yield from ((place, record) for record in sieve.pick(lines) if record.number < before)


def _lines(
    segment: Segment, index: JournalIndex, asked: Wanted, sieve: Sieve, *, is_newest: bool
) -> Iterator[list[bytes]]:
    """Yield the lines that may be wanted, the last first; a segment that was pruned meanwhile has none."""
    try:
        spans = None if is_newest or asked == Wanted() else _spans(segment, index, asked)
        with segment.path.open("rb", buffering=_SPARSE_BYTES) as file:
            size = file.seek(0, os.SEEK_END)
            yield from _reversed_lines(file, 0, size, sieve) if spans is None else _within(file, spans, size, sieve)
    except FileNotFoundError:
        return


def _spans(segment: Segment, index: JournalIndex, asked: Wanted) -> list[tuple[int, int]] | None:
    known = index.of(segment)
    try:
        return list(known.find(asked)) if known is not None else None
    except (*FORGED, OSError):
        return None


def _within(file: BinaryIO, spans: list[tuple[int, int]], size: int, sieve: Sieve) -> Iterator[list[bytes]]:
    """Yield the lines that begin in spans; from one on that leads into the middle of a line, all of them."""
    read_from = size
    for begin, end in reversed(spans):
        file.seek(begin)
        line = file.readline()
        if not is_at_a_line(line):  # the index lies
            yield from _reversed_lines(file, 0, read_from, sieve)
            return
        read_from = begin
        if end - begin > 1:
            yield from _reversed_lines(file, begin, end, sieve)
        else:
            yield [line]


def _reversed_lines(file: BinaryIO, begin: int, end: int, sieve: Sieve) -> Iterator[list[bytes]]:
    """Yield the whole lines between two places, the last first; memory does not grow with their number.

    Blocks that cannot hold what is wanted are passed over: the newest segment, which has no index, is 64 MiB.
    """
    rest = b""
    while end > begin:
        start = max(begin, end - _BLOCK_BYTES)
        file.seek(start)
        block = file.read(end - start) + rest
        end = start
        cut = (block.find(b"\n") + 1 or len(block)) if start > begin else 0
        rest, block = block[:cut], block[cut:]
        if sieve.may_hold(block):
            yield block.splitlines(keepends=True)[::-1]
