"""What stands where in one sealed segment: times by block, and the lines of each person, code and reference.

An index only says which lines to read; each is judged by what it says itself. It can be made again from the segment at
any time, and proves nothing: `verify` never looks at one.
"""

import json
import os
import re
import struct
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.audit.record import Record, parse, stamp
from gateway.audit.segments import digest_of

Span = tuple[int, int]
"""Bytes of a segment; the lines that begin in them are meant."""

_MAGIC = b"devgwix2"
_FRAME = struct.Struct("<8sI")
_LINES_OF_A_BLOCK = 512
_BUCKETS = 256
_RENAMES = frozenset({b"user.renamed", b"environment.renamed"})
REFUSALS = frozenset({"login.refused", "notebook.refused", "source.banned"})
_TEXT = rb'"((?:[^"\\]|\\.)*)"'
_LINE = re.compile(
    rb'\{"v":1,"seq":[0-9]+,"time":"([0-9TZ:.-]{27})","code":' + _TEXT + rb',"actor":\{"kind":"[a-z]*","name":' + _TEXT
    + rb',"key":(?:' + _TEXT + rb'),"address":(?:' + _TEXT + rb')\},"environment":' + _TEXT + rb',"decision":' + _TEXT
)  # fmt: skip
_USER = re.compile(rb'"user":' + _TEXT)
_REFERENCE = re.compile(rb'"reference":' + _TEXT)


class IndexFault(Exception):  # noqa: N818  # never leaves the room: the segment is read instead
    """The file is no index of this segment as it is now: another version, damaged, or of what stood there before."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for; what is left out restricts nothing. Times are stamps, which sort as times do."""

    users: frozenset[str] = frozenset()
    """Any of them."""
    is_code: Callable[[str], bool] | None = None
    reference: str = ""
    denied: bool = False
    since: str = ""
    until: str = "~"


def is_denial(code: str, decision: str) -> bool:
    """Say whether somebody was refused: by the policy or before it was asked."""
    return decision == "denied" or code in REFUSALS


class SegmentIndex:
    """One segment's index as it stands in a file; parts of it are read when they are asked for."""

    def __init__(self, path: Path, segment: Path) -> None:
        """Raises: IndexFault, OSError."""
        self._path = path
        with path.open("rb") as file:
            head = file.read(4096)
        magic, size = _FRAME.unpack(head[: _FRAME.size]) if len(head) >= _FRAME.size else (b"", 0)
        if magic != _MAGIC:
            raise IndexFault("not an index of this version")
        self._base = _FRAME.size + size
        self._header = _document(head[_FRAME.size : self._base])
        self._directory: dict[str, Any] | None = None
        if self._header.get("state") != _state(segment):
            raise IndexFault("the segment is not the one that was indexed")

    @property
    def last(self) -> str:
        """The latest time in the segment, wherever it stands."""
        return str(self._header["last"])

    def find(self, wanted: Wanted) -> Iterator[Span]:
        """Yield where the wanted lines are, in order; some of them may be others. Raises: IndexFault, OSError."""
        if self._header["last"] < wanted.since or self._header["first"] >= wanted.until:
            return
        lines = self._lines(wanted)
        if lines is not None and not lines:
            return
        blocks = self._blocks(wanted)
        if lines is None:
            yield from blocks
            return
        places = iter(lines)
        place = next(places, None)
        for begin, end in blocks:
            while place is not None and place < end:
                if place >= begin:
                    yield place, place + 1
                place = next(places, None)

    def lines_by_user(self, users: set[str], code: str) -> Iterator[tuple[str, list[int]]]:
        """Yield for each user the places of records of a code, the newest first. Raises: IndexFault, OSError."""
        people, codes = self._parts()["people"], self._parts()["codes"]
        lines = set(self._postings(codes.get(code)))
        for user in users & people.keys() if lines else ():
            yield user, [line for line in self._postings(people[user]) if line in lines][::-1]

    def _lines(self, wanted: Wanted) -> list[int] | None:
        """Return the places of the lines that agree with all but the times; None where nothing was asked of them."""
        sets: list[set[int]] = []
        directory = self._parts()
        if wanted.users:
            people = directory["people"]
            here = wanted.users & people.keys()
            sets.append({line for user in here for line in self._postings(people[user])})
        if wanted.reference:
            sets.append(set(self._postings(directory["references"].get(str(_bucket(wanted.reference))))))
        if wanted.denied:
            sets.append(set(self._postings(directory["denied"])))
        if wanted.is_code is not None and all(sets):
            codes = [place for code, place in directory["codes"].items() if wanted.is_code(code)]
            sets.append({line for place in codes for line in self._postings(place)})
        return sorted(set.intersection(*sets)) if sets else None

    def _blocks(self, wanted: Wanted) -> Iterator[Span]:
        begins, firsts, lasts = self._blob(self._parts()["blocks"]) or ([], [], [])
        ends = [*begins[1:], self._header["state"][0]]
        for begin, end, first, last in zip(begins, ends, firsts, lasts, strict=True):
            if first < wanted.until and last >= wanted.since:
                yield begin, end

    def _parts(self) -> dict[str, Any]:
        if self._directory is None:
            self._directory = self._blob(self._header["directory"])
        return self._directory or {}

    def _postings(self, place: list[int] | None) -> Iterable[int]:
        if place is None:
            return ()
        steps = array("Q")
        steps.frombytes(_unpacked(self._read(place)))
        return _summed(steps)

    def _blob(self, place: list[int]) -> Any:
        return _document(self._read(place))

    def _read(self, place: list[int]) -> bytes:
        start, size = place
        with self._path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, self._base + start)


def build(segment: Path) -> bytes:
    """Read a whole segment and return its index. Raises: OSError, ValueError where a line is no record."""
    state = _state(segment)
    draft = _Draft()
    with segment.open("rb") as file:
        place = 0
        for line in file:
            draft.add(place, line)
            place += len(line)
    if place != state[0] or _state(segment) != state:
        raise ValueError("the segment was written to while it was read")
    return draft.finished(state)


def is_at_a_line(line: bytes) -> bool:
    """Say whether an index has led to the beginning of a record."""
    return line.startswith(b'{"v":1,"seq":')


class _Draft:
    """An index being made, line by line."""

    def __init__(self) -> None:
        self._people: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._codes: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._references: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._denied: array[int] = array("Q")
        self._begins: list[int] = []
        self._firsts: list[str] = []
        self._lasts: list[str] = []
        self._count = 0

    def add(self, place: int, line: bytes) -> None:
        """Take one line. Raises: ValueError."""
        if not line.endswith(b"\n"):
            raise ValueError("a sealed segment ends in the middle of a record")
        at, code, people, decision, reference = _glance(line)
        if self._count % _LINES_OF_A_BLOCK == 0:
            self._begins.append(place)
            self._firsts.append(at)
            self._lasts.append(at)
        elif at < self._firsts[-1]:
            self._firsts[-1] = at
        elif at > self._lasts[-1]:
            self._lasts[-1] = at
        self._count += 1
        self._codes[code].append(place)
        for one in people:
            self._people[one].append(place)
        if reference:
            self._references[str(_bucket(reference))].append(place)
        if is_denial(code, decision):
            self._denied.append(place)

    def finished(self, state: list[Any]) -> bytes:
        if not self._count:
            raise ValueError("the segment is empty")
        blobs: list[bytes] = []
        size = 0

        def put(blob: bytes) -> list[int]:
            nonlocal size
            blobs.append(zlib.compress(blob, 1))
            size += len(blobs[-1])
            return [size - len(blobs[-1]), len(blobs[-1])]

        directory = {
            "blocks": put(_json([self._begins, self._firsts, self._lasts])),
            "denied": put(_steps(self._denied)),
            "people": {name: put(_steps(lines)) for name, lines in self._people.items()},
            "codes": {name: put(_steps(lines)) for name, lines in self._codes.items()},
            "references": {name: put(_steps(lines)) for name, lines in self._references.items()},
        }
        header = {"state": state, "first": min(self._firsts), "last": max(self._lasts), "records": self._count}
        packed = zlib.compress(_json(header | {"directory": put(_json(directory))}))
        return b"".join((_FRAME.pack(_MAGIC, len(packed)), packed, *blobs))


def _glance(line: bytes) -> tuple[str, str, set[str], str, str]:
    """Return time, code, people, decision and reference of a line, without parsing all of it where that can be."""
    match = _LINE.match(line)
    if match is None or b"\\" in line or match[2] in _RENAMES:
        return _parsed(parse(line))
    at, code, actor, _key, _address, environment, decision = match.groups()
    people = {actor.decode(), environment.decode().partition("+")[0]}
    rest = match.end()
    reference = _REFERENCE.search(line, rest)
    detail = line.find(b'"user":', rest)
    if detail >= 0:
        user = _USER.match(line, detail)
        if user is None or line.find(b'"user":', detail + 1) >= 0:
            return _parsed(parse(line))
        people.add(user[1].decode())
    people.discard("")
    return at.decode(), code.decode(), people, decision.decode(), reference[1].decode() if reference else ""


def _parsed(record: Record) -> tuple[str, str, set[str], str, str]:
    return stamp(record.at), record.code, people_of(record) - {""}, record.decision, record.reference


def people_of(record: Record) -> set[str]:
    """Return whom a record concerns: who acted, whose environment it is, and the user an administrator named.

    A renaming concerns both names: who asks for the new one learns under which the rest is found.
    """
    people = {record.actor["name"], record.environment.partition("+")[0], str(record.detail.get("user", ""))}
    if record.code.encode() in _RENAMES:
        people.add(str(record.detail.get("to", "")).partition("+")[0])
    return people


def _state(segment: Path) -> list[Any]:
    """Return what tells a segment from what stood there before: its size, its time, the hash of its last record."""
    descriptor = os.open(segment, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        end = os.pread(descriptor, 128, max(0, status.st_size - 128))
    finally:
        os.close(descriptor)
    try:
        last = digest_of(end).hex()
    except ValueError:
        last = ""
    return [status.st_size, status.st_mtime_ns, last]


def _bucket(reference: str) -> int:
    return zlib.crc32(reference.encode()) % _BUCKETS


def _steps(places: "array[int]") -> bytes:
    before, steps = 0, array("Q")
    for place in places:
        steps.append(place - before)
        before = place
    return steps.tobytes()


def _summed(steps: "array[int]") -> Iterator[int]:
    place = 0
    for step in steps:
        place += step
        yield place


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _unpacked(blob: bytes) -> bytes:
    try:
        return zlib.decompress(blob)
    except zlib.error as exc:
        raise IndexFault(f"damaged: {exc}") from exc


def _document(blob: bytes) -> Any:
    try:
        return json.loads(_unpacked(blob))
    except ValueError as exc:
        raise IndexFault(f"damaged: {exc}") from exc
