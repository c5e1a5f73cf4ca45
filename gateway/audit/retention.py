"""Forgetting the oldest segments: first the chain says which and how they ended, then they go."""

from datetime import datetime
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.audit.segments import Segment, first_record, last_record, segments
from gateway.errors import JournalError
from gateway.model import Actor


def prune(journal: Journal, directory: Path, before: datetime, actor: Actor) -> list[Path]:
    """Remove sealed segments all of whose records are older. Returns what was removed.

    The `journal.pruned` record is durable before anything is removed, so a crash leaves too much, never too little.

    Raises:
        JournalError: `journal.unreadable`, or what keeps the record from being written.
    """
    try:
        old = prunable(directory, before)
        if not old:
            return []
        first, last = first_record(old[0].path), last_record(old[-1].path)
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be pruned: {exc}") from exc
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
    for segment in old:
        segment.path.unlink()
    return [segment.path for segment in old]


def prunable(directory: Path, before: datetime) -> list[Segment]:
    """List sealed segments all of whose records are older; never the newest, which carries the chain on."""
    old: list[Segment] = []
    for segment in segments(directory)[:-1]:
        if last_record(segment.path).at >= before:
            break
        old.append(segment)
    return old
