"""Keeps what the throttle has counted, over a restart and in common with the other processes that serve.

One file of lines, the last line of a source counts. Nothing is synced: a crash of the host may forget a ban.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

_SPARE_BYTES = 1 << 20


@dataclass(slots=True)
class Tally:
    """What is remembered of one source."""

    failures: int = 0
    since: float = 0.0
    banned_until: float = 0.0
    bans: int = 0


Entry = tuple[str, Tally | None]
"""A source and its tally as it is from now on; None: forgotten."""


class Memory(Protocol):
    """Where tallies are kept. Failing to keep them is no error: a throttle must not keep the gateway from serving."""

    def writing(self) -> AbstractContextManager[None]:
        """Keep every other process from writing meanwhile."""

    def news(self) -> tuple[bool, list[Entry]]:
        """Return what was written since the last call, by oneself too; True: it is all there is, forget the rest."""

    def write(self, entries: Sequence[Entry], all_tallies: Mapping[str, Tally]) -> None:
        """Write entries, to be called while `writing`; `all_tallies` is what they lead to."""


class NoMemory:
    """Forgets at restart and is nobody else's."""

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def news(self) -> tuple[bool, list[Entry]]:
        return False, []

    def write(self, entries: Sequence[Entry], all_tallies: Mapping[str, Tally]) -> None:
        """Keep nothing."""


class SharedFile:
    """Lines appended under a lock. Where nothing was written, a look costs one stat."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_suffix(".lock")
        self._file: BinaryIO | None = None  # held open: a number that is in use is no other file's inode
        self._inode = 0
        self._read_bytes = 0
        self._whole_bytes = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        try:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # no place to keep anything: what this process counts still holds in it
            yield
            return
        try:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def news(self) -> tuple[bool, list[Entry]]:
        try:
            found = self._path.stat()
            is_other = found.st_ino != self._inode or found.st_size < self._read_bytes
            if not is_other and found.st_size == self._read_bytes:
                return False, []
            return is_other, self._read(is_other)
        except OSError:
            return False, []

    def _read(self, is_other: bool) -> list[Entry]:
        if self._file is None or is_other:
            self._open()
        assert self._file is not None  # noqa: S101 - opened above
        self._file.seek(self._read_bytes)
        lines, newline, _unfinished = self._file.read().rpartition(b"\n")
        self._read_bytes += len(lines) + len(newline)
        return [entry for line in lines.splitlines() if (entry := _parse(line)) is not None]

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._file = self._path.open("rb")
        found = os.fstat(self._file.fileno())
        self._inode, self._read_bytes, self._whole_bytes = found.st_ino, 0, found.st_size

    def write(self, entries: Sequence[Entry], all_tallies: Mapping[str, Tally]) -> None:
        with suppress(OSError):
            if self._read_bytes > 2 * self._whole_bytes + _SPARE_BYTES:
                self._replace(all_tallies)
            elif entries:
                self._append(b"".join(map(_line, entries)))

    def _append(self, block: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0) as file:
            file.write(block)

    def _replace(self, all_tallies: Mapping[str, Tally]) -> None:
        """Write each source once, into a new file: its other inode tells the others to read all of it."""
        beside = self._path.with_suffix(".new")
        beside.write_bytes(b"".join(map(_line, all_tallies.items())))
        os.replace(beside, self._path)  # noqa: PTH105 - the atomic call by its POSIX name


def _line(entry: Entry) -> bytes:
    source, tally = entry
    return json.dumps([source, *(astuple(tally) if tally else ())]).encode() + b"\n"


def _parse(line: bytes) -> Entry | None:
    """Read a line, or nothing where it is damaged."""
    try:
        source, *fields = json.loads(line)
        tally = Tally(int(fields[0]), float(fields[1]), float(fields[2]), int(fields[3])) if fields else None
    except (ValueError, TypeError, IndexError):
        return None
    return (source, tally) if isinstance(source, str) else None
