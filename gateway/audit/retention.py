"""Forgetting the oldest segments: first the chain says which and how they ended, a head is signed over it, they go."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.head_signing import HeadSigner
from gateway.audit.heads import Pruned
from gateway.audit.journal import Journal
from gateway.audit.segments import Segment, first_record, last_record, segments
from gateway.errors import JournalError
from gateway.model import Actor


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed, and the signed head that says so; empty where nothing was old enough."""

    paths: tuple[Path, ...] = ()
    note: str = ""


def prune(journal: Journal, signer: HeadSigner, before: datetime, actor: Actor) -> Removal:
    """Remove sealed segments all of whose records are older.

    The `journal.pruned` record and a signed head over it are durable before anything is removed, so a crash leaves
    too much, never too little.

    Raises:
        JournalError: `journal.unreadable`, `journal.not-whole`, `journal.not-continued`, or what keeps the record from
            being written; then nothing was removed.
        OSError: the head cannot be kept, or a segment not be removed.
    """
    directory = signer.directory
    try:
        old = prunable(directory, before)
        if not old:
            return Removal()
        first, last = first_record(old[0].path), last_record(old[-1].path)
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be pruned: {exc}") from exc
    signer.prove_whole()
    journal.append(
        Event(
            "journal.pruned",
            actor,
            detail={
                "first_seq": first.number,
                "last_seq": last.number,
                "last_hash": last.hash,
                "before": before.isoformat(),
            },
        )
    )
    note = signer.sign_pruned(Pruned(last.number, bytes.fromhex(last.hash)))
    for segment in old:
        segment.path.unlink()
    return Removal(tuple(segment.path for segment in old), note)


def prunable(directory: Path, before: datetime) -> list[Segment]:
    """List sealed segments all of whose records are older; never the newest, which carries the chain on."""
    old: list[Segment] = []
    for segment in segments(directory)[:-1]:
        if last_record(segment.path).at >= before:
            break
        old.append(segment)
    return old
