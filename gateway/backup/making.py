"""Makes a backup of a gateway that may be serving.

The database comes first and the journal then, so that nothing in the one lacks its record in the other; of the segment
that is being written, as much is taken as was durable at one moment.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit.head_signing import HeadSigner
from gateway.audit.segments import read_tail, segments
from gateway.backup.contents import RECORDINGS, Found, beside_segments, configuration, journal_in, own_elsewhere, state
from gateway.backup.manifest import DATABASES, HEAD, STATE, VOLUMES, Entry, Manifest
from gateway.backup.target import Target
from gateway.config import Settings
from gateway.errors import BackupError, JournalError, StoreError
from gateway.store.snapshot import dump, file_of, kind_of
from gateway.version import VERSION

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a backup is to hold beside keys, journal, policies and settings."""

    recordings: bool = False
    volumes: bool = False
    database: bool = True


def make(settings: Settings, signer: HeadSigner, target: Target, plan: Plan, show: Show) -> Manifest:
    """Write a backup, all but its volumes. Returns the manifest, which the caller hands to `target.finish`.

    Raises:
        StoreError, JournalError, BackupError: what cannot be read.
        OSError: the target cannot be written, or a file not be read.
    """
    entries: dict[str, Entry] = {}
    with tempfile.TemporaryDirectory(prefix="devgw-backup-", dir=_room(settings)) as beside:
        schema, kind = "", kind_of(settings.database)
        database = file_of(settings.database) if kind == "sqlite" else None
        if plan.database:
            show("the database")
            schema = dump(settings.database, Path(beside) / "dump")
            entries[DATABASES[kind]] = target.put(Found(DATABASES[kind], Path(beside) / "dump"))
        show("the journal")
        records, note = _sign(signer, show)
        if note:
            (Path(beside) / "head").write_text(note)
            entries[HEAD] = target.put(Found(HEAD, Path(beside) / "head"))
        entries |= _journal(settings, target)
        show("keys, policies and settings")
        held = state(settings, database, recordings=plan.recordings)
        for found in (*configuration(settings), *held, *own_elsewhere(settings)):
            _put(entries, target, found)
    left_out = [name for name, is_in in ((RECORDINGS, plan.recordings), (VOLUMES, plan.volumes)) if not is_in]
    return Manifest(
        devgw=VERSION,
        schema=schema,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        records=records,
        entries=entries,
        has_volumes=plan.volumes,
        left_out=(*left_out, *(() if plan.database else ("database",))),
        database=kind if plan.database else "",
        journal=str(journal_in(settings)),
    )


def _sign(signer: HeadSigner, show: Show) -> tuple[int, str]:
    """Sign the journal's end. A journal that must not be signed is taken all the same: it is evidence."""
    try:
        head, note = signer.sign()
    except JournalError as exc:
        show(f"no head is in this backup: {exc.message}")
        return signer.end_size(), ""
    return head.size, note


def _room(settings: Settings) -> Path:
    """Return where the database is dumped to: private, and where there was room for it before."""
    if not settings.state_dir.is_dir():
        raise StoreError("store.unusable", f"{settings.state_dir} is not there", "'devgw init' makes it")
    directory = settings.state_dir / "snapshots"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _journal(settings: Settings, target: Target) -> dict[str, Entry]:
    """Take every segment up to one moment's durable end; from the start again where old ones are pruned meanwhile."""
    entries: dict[str, Entry] = {}
    for found in (*_segments(settings), *beside_segments(settings)):
        try:
            entries[found.name] = target.put(found)
        except FileNotFoundError as exc:
            if found.path.name.startswith("segment-"):
                hint = "try again; it was pruned while the backup was made"
                raise BackupError("backup.changed", f"{found.path.name} is gone", hint) from exc
    return entries


def _segments(settings: Settings) -> Iterator[Found]:
    """Yield the segments with their durable sizes; while the lock is held nobody writes (`audit.chain`)."""
    directory = settings.journal_dir
    sizes: list[tuple[Path, int]] = []
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        for segment in segments(directory):
            descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sizes.append((segment.path, read_tail(descriptor, check=False).size_bytes))
            finally:
                os.close(descriptor)
    except ValueError as exc:
        hint = "'devgw audit verify' says more"
        raise JournalError("journal.unreadable", f"the journal's end cannot be read: {exc}", hint) from exc
    finally:
        os.close(lock)
    within = f"{STATE}/{journal_in(settings)}"
    return iter([Found(f"{within}/{path.name}", path, size) for path, size in sizes])


def _put(entries: dict[str, Entry], target: Target, found: Found) -> None:
    """Take a file; one that is gone meanwhile was an environment's that is deleted, and is left out."""
    try:
        entries[found.name] = target.put(found)
    except FileNotFoundError:
        return
