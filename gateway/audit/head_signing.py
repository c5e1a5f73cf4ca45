"""Signing the journal's end: only one that continues the end signed before, and what pruning is about to remove.

A journal that was exchanged while the gateway ran gets no signature, so a head never vouches for what a forger wrote.
"""

import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit.heads import Head, Pruned, Signer, Verifier, last_note, notes_in, open_head
from gateway.audit.segments import EMPTY_TAIL, read_tail, segments
from gateway.audit.verify import verify
from gateway.errors import JournalError

PRUNED_HEADS = "pruned.heads"
"""In the journal's directory: the heads that pruning signed, so that a copy of the directory explains its beginning."""
_HINT = "keep a copy; 'devgw audit head --anew' signs it all the same, and says so in the journal"

_VERIFY = "keep a copy; 'devgw audit verify' says more"


def current_head(directory: Path, origin: str, now: datetime | None = None) -> Head:
    """Return the journal's durable end. Raises: JournalError `journal.unreadable`."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)  # a batch that is being written is not durable yet
        tail = EMPTY_TAIL
        for segment in reversed(segments(directory)):
            descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                tail = read_tail(descriptor, check=False)
            finally:
                os.close(descriptor)
            if tail.number:
                break
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal's end cannot be read: {exc}") from exc
    finally:
        os.close(lock)
    return Head(origin, tail.number, tail.digest, now or datetime.now(UTC))


class HeadSigner:
    """Signs heads of one journal. `last_file` holds the last one signed, by whichever process."""

    def __init__(self, directory: Path, signer: Callable[[], Signer], last_file: Path) -> None:
        self.directory = directory
        self._signer = signer
        self._last_file = last_file

    def ensure_key(self) -> None:
        """Make the key where there is none. Raises: JournalError `head.bad-key`, OSError."""
        self._signer()

    def end_size(self) -> int:
        """Return how many records there are. Raises: JournalError `journal.unreadable`."""
        return current_head(self.directory, "").size

    def sign(self, *, anew: bool = False) -> tuple[Head, str]:
        """Sign the present end; `anew` does not ask whether it continues the last one.

        Raises:
            JournalError: `journal.not-continued`, when the journal is not the one signed before; `journal.unreadable`,
                `head.bad-key`.
        """
        signer = self._signer()
        head = current_head(self.directory, signer.verifier.name)
        if not anew:
            self._check_continues(head, signer)
        note = signer.sign(head)
        self._remember(note)
        return head, note

    def prove_whole(self) -> None:
        """Verify all of the journal, up to the head signed last: what was tampered with is evidence, not to be pruned.

        Raises:
            JournalError: `journal.not-whole`, `journal.not-continued`, `journal.unreadable`.
        """
        signer = self._signer()
        last = self._last(signer)
        report = verify(self.directory, *([last] if last else []), kept=kept_heads(self.directory, signer.verifier))
        if not report.ok:
            said = report.problem.message if report.problem else report.unproven
            raise JournalError("journal.not-whole", f"the journal is not pruned, for it is not whole: {said}", _VERIFY)

    def sign_pruned(self, pruned: Pruned) -> str:
        """Sign that the records up to one are about to be removed, and keep that beside the journal.

        Raises:
            JournalError: as `sign`.
            OSError: the head cannot be kept.
        """
        signer = self._signer()
        head = replace(current_head(self.directory, signer.verifier.name), pruned=pruned)
        self._check_continues(head, signer)
        note = signer.sign(head)
        with (self.directory / PRUNED_HEADS).open("a") as file:
            _give_to_owner(file.fileno(), self.directory)
            file.write(f"{note}\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(note)
        return note

    def _check_continues(self, head: Head, signer: Signer) -> None:
        last = self._last(signer)
        if last is None:
            return
        behind = [segment for segment in segments(self.directory) if segment.first > last.size]
        every = len(segments(self.directory))
        report = verify(self.directory, last, head, last_segments=min(every, len(behind) + 1))
        if report.problem is not None or not {last.size, head.size} <= report.compared | {0}:
            said = report.problem.message if report.problem else "its records are gone"
            message = f"the journal does not continue the head signed last, at record {last.size}: {said}"
            raise JournalError("journal.not-continued", message, _HINT)

    def _last(self, signer: Signer) -> Head | None:
        try:
            text = self._last_file.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise JournalError("journal.not-continued", f"{self._last_file} cannot be read: {exc}", _HINT) from exc
        try:
            return open_head(last_note(text), signer.verifier)
        except JournalError as exc:
            message = f"the head signed last, in {self._last_file}, cannot be compared: {exc.message}"
            raise JournalError("journal.not-continued", message, _HINT) from exc

    def _remember(self, note: str) -> None:
        """Keep the head for the next one. Without room the one before stays, which is as true as this one."""
        aside = self._last_file.with_suffix(f".{os.getpid()}")
        try:
            with aside.open("w") as file:
                _give_to_owner(file.fileno(), self._last_file.parent)
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._last_file)
        except OSError:
            aside.unlink(missing_ok=True)


def kept_heads(directory: Path, *verifiers: Verifier) -> list[Head]:
    """Return the heads that pruning left beside a journal. Raises: JournalError."""
    path = directory / PRUNED_HEADS
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as exc:
        raise JournalError("head.malformed", f"{path} cannot be read: {exc}") from exc
    return [open_head(note, *verifiers) for note in notes_in(text)] if text.strip() else []


def _give_to_owner(descriptor: int, directory: Path) -> None:
    """Let a file made by an administrator's command belong to whom the directory belongs."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
