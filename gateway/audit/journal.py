"""The journal: events in, and a promise back that is kept once they are on disk. Many processes may write at once.

One writer thread in each process commits whatever has gathered since its last sync (group commit).
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue

from gateway.audit.chain import Chain
from gateway.audit.event import Event
from gateway.audit.record import encode
from gateway.errors import JournalError

_LARGEST_BATCH = 4096
_Entry = tuple[bytes, bool, "Future[None]", float]


class Journal:
    """Append-only, chained, durable. Nothing is opened and no thread runs before the first event."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = 64 * 2**20,
        segment_age: timedelta = timedelta(days=7),
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment_age = segment_age
        self._sync = sync
        self._guard = threading.Lock()
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False
        self._writing_since: float | None = None
        self._last_lag_seconds = 0.0
        self.is_short = False
        """Whether the disk is full, so that nothing new is allowed to begin."""

    def submit(self, event: Event) -> "Future[None]":
        """Queue an event. The future is done when it is durable, or carries a JournalError: then it must not count."""
        return self.submit_encoded(event, encode(event))

    def submit_encoded(self, event: Event, body: bytes) -> "Future[None]":
        """Queue an event whose canonical form is known already."""
        durable: Future[None] = Future()
        durable.set_running_or_notify_cancel()  # a waiter that gives up does not unwrite what was decided
        with self._guard:
            self._notice_fork()
            if self._closed:
                raise JournalError("journal.closed", "the journal is closed")
            if self._writer is None:
                self._writer = threading.Thread(target=self._run, name="journal", daemon=True)
                self._writer.start()
            self._queue.put((body, _is_new(event), durable, time.monotonic()))
        return durable

    def append(self, event: Event) -> None:
        """Write an event and wait until it is durable. Raises: JournalError."""
        self.submit(event).result()

    def lag_seconds(self) -> float:
        """Return how long the oldest event that is being written has waited, or how long the last batch took."""
        since = self._writing_since
        return self._last_lag_seconds if since is None else max(self._last_lag_seconds, time.monotonic() - since)

    def look_for_room(self) -> None:
        """Look whether a disk that was full has room again, without writing anything. Raises: JournalError."""
        nothing: Future[None] = Future()
        with self._guard:
            if self._writer is None or self._closed:
                return
            self._queue.put((b"", False, nothing, time.monotonic()))
        nothing.result()

    def close(self) -> None:
        """Write what is queued, then stop. Closing twice changes nothing."""
        with self._guard:
            self._notice_fork()
            self._closed = True
            writer, self._writer = self._writer, None
            if writer is not None:
                self._queue.put(None)
        if writer is not None:
            writer.join()

    def _notice_fork(self) -> None:
        """Start afresh in a forked child: the thread, its lock and queued events stay with the parent."""
        if self._pid != os.getpid():
            self._queue, self._writer, self._pid = SimpleQueue(), None, os.getpid()

    def _run(self) -> None:
        chain: Chain | None = None
        queue = self._queue
        open_ended = True
        while open_ended:
            batch, open_ended = _gather(queue)
            if not batch:
                continue
            self._writing_since = batch[0][3]
            try:
                chain = chain or Chain(self._directory, self._segment_bytes, self._segment_age, self._sync)
                written = chain.append([(body, is_new) for body, is_new, _durable, _at in batch])
                self.is_short = chain.is_short
            except Exception as exc:  # noqa: BLE001  # whatever went wrong, no waiter may hang
                _fail(batch, exc, self._directory)
            else:
                _settle(batch, written)
            self._last_lag_seconds, self._writing_since = time.monotonic() - batch[0][3], None
        if chain is not None:
            chain.close()


def _gather(queue: "SimpleQueue[_Entry | None]") -> tuple[list[_Entry], bool]:
    """Wait for one event and take whatever else is there. The second value is False once the end was queued."""
    entry = queue.get()
    batch: list[_Entry] = []
    while entry is not None:
        batch.append(entry)
        if len(batch) == _LARGEST_BATCH:
            return batch, True
        try:
            entry = queue.get_nowait()
        except Empty:
            return batch, True
    return batch, False


def _is_new(event: Event) -> bool:
    """Say whether an event lets a user begin something."""
    return event.decision == "allowed" and event.actor.kind == "user"


def _settle(batch: list[_Entry], written: Sequence[bool]) -> None:
    for (_body, _is_new, durable, _at), is_written in zip(batch, written, strict=True):
        if is_written:
            durable.set_result(None)
        else:
            message = "the gateway's disk is full: nothing new can begin until there is room again"
            durable.set_exception(JournalError("journal.no-space", message, "tell an administrator"))


def _fail(batch: list[_Entry], cause: Exception, directory: Path) -> None:
    """Tell every waiter. Each gets its own exception, since a traceback grows with each raise."""
    code, hint = "journal.unwritable", f"look at the disk that holds {directory}"
    message = f"the journal cannot be written: {getattr(cause, 'strerror', None) or cause}"
    if isinstance(cause, JournalError):
        code, message, hint = cause.code, cause.message, cause.hint
    for _body, _is_new, durable, _at in batch:
        error = JournalError(code, message, hint)
        error.__cause__ = cause
        durable.set_exception(error)
