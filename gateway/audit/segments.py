"""The journal's files: `segment-NNNNNNNNNNNN.jsonl`, named by their first record, and how each ends."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit.record import GENESIS, HASH_FIELD_BYTES, Record, chain, parse

_NAME = re.compile(r"segment-([0-9]{12,19})\.jsonl")
_HASH_END = -3  # '"}' and the newline
_GLANCE_BYTES = 4 * 2**10
_CHECKED_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file and the number of the record it begins with."""

    first: int
    path: Path


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a segment: its last whole record, and what stands behind it unfinished."""

    number: int
    digest: bytes
    code: str
    size_bytes: int
    torn: bytes = b""


EMPTY_TAIL = Tail(0, GENESIS, "", 0)


def segments(directory: Path) -> list[Segment]:
    """List the segments in order. Raises: OSError."""
    found = ((_NAME.fullmatch(name), name) for name in os.listdir(directory))  # noqa: PTH208  # names are enough
    return sorted(Segment(int(match[1]), directory / name) for match, name in found if match)


def journals_in(directory: Path) -> list[Path]:
    """List the journals of a site's gateways, where a directory holds one of each; none where it is itself one."""
    return sorted(directory.glob("*/journal"))


def segment_path(directory: Path, first: int) -> Path:
    """Return the path of the segment that begins with a record."""
    return directory / f"segment-{first:012}.jsonl"


def torn_paths(directory: Path) -> list[Path]:
    """List the files into which unfinished writes were moved."""
    return sorted(directory.glob("torn-*.bin"))


def first_record(path: Path) -> Record:
    """Read a segment's first record. Raises: OSError, ValueError."""
    with path.open("rb") as file:
        return parse(file.readline(2**20))


def known_since(directory: Path) -> datetime | None:
    """Return from when on a journal, or all of several, can be asked; None where nothing was pruned.

    Raises: OSError, ValueError.
    """
    several = [segments(one) for one in journals_in(directory) or [directory]]
    begins = [first_record(held[0].path) for held in several if held]
    return max((record.at for record in begins if record.number > 1), default=None)


def last_record(path: Path) -> Record:
    """Read a segment's last whole record. Raises: OSError, ValueError."""
    with path.open("rb") as file:
        lines, _torn = _last_lines(file.fileno(), os.fstat(file.fileno()).st_size, _GLANCE_BYTES)
    if not lines:
        raise ValueError(f"{path.name} holds no record")
    return parse(lines[-1])


def read_tail(descriptor: int, *, check: bool) -> Tail:
    """Read the end of an open segment; with `check`, the last records' hashes too. Raises: ValueError, OSError."""
    size = os.fstat(descriptor).st_size
    lines, torn = _last_lines(descriptor, size, _CHECKED_BYTES if check else _GLANCE_BYTES)
    if not lines:
        return Tail(0, GENESIS, "", size - len(torn), torn)
    if check:
        _check(lines)
    last = parse(lines[-1])
    return Tail(last.number, bytes.fromhex(last.hash), last.code, size - len(torn), torn)


def _last_lines(descriptor: int, size: int, window: int) -> tuple[list[bytes], bytes]:
    """Return the last whole lines of a file, at least one where there is one, and the bytes behind them.

    A tail is torn where no newline ends it, or from the line on that holds zero bytes, as a crash leaves them.
    """
    while True:
        start = max(0, size - window)
        block = os.pread(descriptor, size - start, start)
        if start:
            block = block[block.find(b"\n") + 1 :]
        whole = block.rfind(b"\n") + 1
        hole = block.find(b"\0")
        if hole >= 0:
            whole = min(whole, block.rfind(b"\n", 0, hole) + 1)
        if whole or not start:
            return block[:whole].splitlines(keepends=True), block[whole:]
        window *= 4


def _check(lines: list[bytes]) -> None:
    previous = digest_of(lines[0])
    for line in lines[1:]:
        digest = digest_of(line)
        if chain(previous, line[: -HASH_FIELD_BYTES - 1]) != digest:
            raise ValueError(f"the record {line[:40]!r} does not follow from the one before it")
        previous = digest


def digest_of(line: bytes) -> bytes:
    """Return the hash that a line states. Raises: ValueError."""
    return bytes.fromhex(line[_HASH_END - 64 : _HASH_END].decode("ascii", "replace"))


def last_written_at(directory: Path) -> datetime:
    """Return when the journal was last written to; now, where there is none or its end cannot be read."""
    try:
        return last_record(segments(directory)[-1].path).at
    except (OSError, ValueError, IndexError):
        return datetime.now(UTC)
