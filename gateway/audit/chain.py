"""The end of the journal as one process writes it: locked against the others, repaired when torn, rolled when full.

The newest segment owns the disk for megabytes that come, so that a full disk stops what is new and nothing else.
Used by the writer thread alone; `journal` gathers events into the batches that come here.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.record import encode, finish
from gateway.audit.segments import EMPTY_TAIL, Tail, first_record, read_tail, segment_path, segments
from gateway.disk import give_back, is_full, owned_bytes, set_aside
from gateway.errors import JournalError
from gateway.model import Actor

RESERVE_BYTES = 8 * 2**20
"""What the newest segment owns ahead; it is renewed when half of it is used."""
KEPT_BYTES = 4 * 2**20
"""The end of the reserve: for ends, revocations and administrators, while what is new is refused."""
_SPARE = ".spare"
_SLACK_BYTES = 64 * 2**10  # what the file system itself takes of a file's blocks
_UNLIMITED = 2**62
_FRAME_BYTES = 128  # number and hash of a record, and its share of a seal

JOURNAL = Actor("gateway", "journal")
_FRESH = -1


class Chain:
    """Appends batches of encoded events durably and in order, whichever process wrote last."""

    def __init__(
        self, directory: Path, segment_bytes: int, segment_age: timedelta, sync: Callable[[int], None]
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment_age = segment_age
        self._sync = sync
        self._lock = _open_directory(directory)
        self._file = _FRESH
        self._path = directory
        self._tail = EMPTY_TAIL
        self._began = datetime.now(UTC)
        self.is_short = False

    def append(self, entries: Sequence[tuple[bytes, bool]]) -> Sequence[bool]:
        """Write and sync one batch; on failure nothing of it stays.

        An entry is an event, and whether something new begins with it: that is left out where the disk is full. An
        empty one only has the disk looked at.
        Returns which were written. Raises: OSError, JournalError.
        """
        with self._locked():
            self._catch_up()
            room = self._room(sum(len(body) + _FRAME_BYTES for body, _new in entries))
            self.is_short = room < KEPT_BYTES
            written = [not (self.is_short and is_new) for _body, is_new in entries]
            bodies = [body for (body, _new), is_written in zip(entries, written, strict=True) if is_written and body]
            if room < sum(len(body) + _FRAME_BYTES for body in bodies):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if bodies:
                self._write(bodies)
            return written

    def close(self) -> None:
        """Let go of the files."""
        self._forget()
        os.close(self._lock)

    def _room(self, wanted_bytes: int) -> int:
        """Return how much can be written whatever happens to the disk, after setting more of it aside if need be."""
        size = self._tail.size_bytes
        left = owned_bytes(self._file) - size - _SLACK_BYTES
        if left < wanted_bytes + RESERVE_BYTES // 2:
            try:
                if not set_aside(self._file, size + wanted_bytes + RESERVE_BYTES):
                    return _UNLIMITED
            except OSError as exc:
                if not is_full(exc):
                    raise
            left = owned_bytes(self._file) - size - _SLACK_BYTES
        return max(0, left)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """Make the known tail the true one: other processes may have written, sealed, or died while writing."""
        is_new = self._file == _FRESH
        if is_new:
            self._open_newest()
        status = os.fstat(self._file)
        if status.st_nlink == 0:
            self._leave_removed()
            is_new, status = True, os.fstat(self._file)
        if is_new or status.st_size != self._tail.size_bytes:
            self._read_tail(check=is_new)
        if self._tail.code == "journal.sealed":
            self._forget()
            self._open_newest()
            self._read_tail(check=False)
        if self._tail.torn:
            self._repair()
        if self._tail.code == "journal.sealed":
            self._begin(self._tail)
        elif self._tail.size_bytes == 0:
            self._begin(self._tail_before())

    def _open_newest(self) -> None:
        known = segments(self._directory)
        if not known:
            self._create(1)
            return
        self._path = known[-1].path
        flags = os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(self._path, os.O_RDWR | flags)
        except PermissionError:  # sealed and not followed yet; anything else fails when it is written to
            self._file = os.open(self._path, os.O_RDONLY | flags)
        if os.fstat(self._file).st_size:
            self._began = first_record(self._path).at

    def _leave_removed(self) -> None:
        """Go on behind a segment that is gone: others sealed it, wrote on, and pruned it while this process was idle.

        Raises:
            JournalError: `journal.damaged`, where nobody wrote on: that was no pruning.
        """
        removed, known = self._path, segments(self._directory)
        if not known or known[-1].first <= self._tail.number:
            raise JournalError("journal.damaged", f"{removed.name} was removed while the journal was open")
        self._forget()
        self._open_newest()

    def _read_tail(self, *, check: bool) -> None:
        try:
            self._tail = read_tail(self._file, check=check)
        except ValueError as exc:
            hint = "'devgw audit verify' names the first bad record"
            raise JournalError("journal.damaged", f"{self._path.name}: {exc}", hint) from exc

    def _tail_before(self) -> Tail:
        """Return the end of the segment before an empty one: a crash came between its creation and its first record."""
        before = [segment for segment in segments(self._directory) if segment.path != self._path]
        if not before:
            return EMPTY_TAIL
        descriptor = os.open(before[-1].path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_tail(descriptor, check=False)
        finally:
            os.close(descriptor)

    def _begin(self, before: Tail) -> None:
        """Open the next segment with a record that says what it follows."""
        if self._tail.size_bytes:
            self._forget()
            self._create(before.number + 1)
        self._began = datetime.now(UTC)
        detail: dict[str, str | int | float | bool | None] = {
            "previous_seq": before.number,
            "previous_hash": before.digest.hex(),
        }
        self._tail = replace(before, size_bytes=0, torn=b"", code="")
        self._write([encode(Event("journal.opened", JOURNAL, detail=detail, at=self._began))], may_seal=False)

    def _create(self, first: int) -> None:
        self._path = segment_path(self._directory, first)
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        spare = self._directory / _SPARE
        if spare.exists():
            os.link(spare, self._path)  # fails where that segment is there
            spare.unlink()
        else:
            flags |= os.O_CREAT | os.O_EXCL
        self._file = os.open(self._path, flags, 0o600)
        self._give_to_owner(self._file)
        os.fsync(self._lock)

    def _has_spare(self) -> bool:
        """Have the next segment's room ready before this one is sealed. False where the disk is full."""
        spare = self._directory / _SPARE
        descriptor = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, 0)
            set_aside(descriptor, RESERVE_BYTES)
        except OSError as exc:
            if not is_full(exc):
                raise
            spare.unlink()
            return False
        finally:
            os.close(descriptor)
        return True

    def _write(self, bodies: Sequence[bytes], *, may_seal: bool = True) -> None:
        lines: list[bytes] = []
        number, digest, size = self._tail.number, self._tail.digest, self._tail.size_bytes
        for body in bodies:
            number += 1
            line, digest = finish(number, body, digest)
            lines.append(line)
            size += len(line)
        code = ""
        is_complete = size >= self._segment_bytes or datetime.now(UTC) - self._began >= self._segment_age
        if may_seal and is_complete and self._has_spare():
            number += 1
            line, digest = finish(number, encode(Event("journal.sealed", JOURNAL)), digest)
            lines.append(line)
            size += len(line)
            code = "journal.sealed"
        self._put(b"".join(lines))
        self._tail = Tail(number, digest, code, size)
        if code:
            give_back(self._file, size)
            os.fchmod(self._file, 0o400)

    def _put(self, block: bytes) -> None:
        """Write all and sync, or take back what was written."""
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._sync(self._file)
        except OSError:
            os.ftruncate(self._file, self._tail.size_bytes)
            self._forget()
            raise

    def _repair(self) -> None:
        """Move an unfinished write aside and say so in the chain. Nobody was told that it had been recorded."""
        torn = self._tail.torn
        aside = self._directory / f"torn-{self._tail.number + 1:012}-{hashlib.sha256(torn).hexdigest()[:16]}.bin"
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            self._give_to_owner(file.fileno())
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        os.fsync(self._lock)
        os.ftruncate(self._file, self._tail.size_bytes)
        self._tail = replace(self._tail, torn=b"")
        if self._tail.size_bytes == 0:
            self._begin(self._tail_before())
        detail: dict[str, str | int | float | bool | None] = {
            "bytes": len(torn),
            "sha256": hashlib.sha256(torn).hexdigest(),
            "file": aside.name,
        }
        self._write([encode(Event("journal.repaired", JOURNAL, detail=detail))])

    def _give_to_owner(self, descriptor: int) -> None:
        """Let a file made by an administrator's command belong to whom the directory belongs: the gateway's user."""
        if os.geteuid() == 0:
            owner = os.fstat(self._lock)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _forget(self) -> None:
        if self._file != _FRESH:
            os.close(self._file)
            self._file = _FRESH


def _open_directory(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
