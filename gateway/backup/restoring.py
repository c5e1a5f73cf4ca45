"""Puts a backup in place: all of it is read and proven beside the state first, and only then moved there."""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit.head_key import read_verifiers
from gateway.audit.head_signing import kept_heads
from gateway.audit.heads import Head, Verifier, notes_in, open_head
from gateway.audit.segments import last_record, segments
from gateway.audit.verify import Report, verify
from gateway.backup.contents import GATEWAYS, REPLACED, RESTORING, is_of_an_environment
from gateway.backup.manifest import CONFIG, HEAD, STATE, Manifest
from gateway.config import Settings
from gateway.errors import BackupError, ConflictError, JournalError, StoreError
from gateway.store import postgresql_dump
from gateway.store.database import SCHEMA_HEAD
from gateway.store.integrity import integrity_faults
from gateway.store.snapshot import file_of, kind_of, load

_ENDS = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put in place. `moved_aside` holds what was there before, and nothing of it is gone."""

    manifest: Manifest
    report: Report
    placed: tuple[Path, ...]
    moved_aside: Path | None = None
    lost_records: int = 0
    """How many the heads that were kept elsewhere cover behind the backup's last."""


def refuse_while_open(settings: Settings) -> None:
    """Raises: ConflictError `restore.in-use`, where a process has files of the state open."""
    state = str(settings.state_dir.resolve())
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) == os.getpid():
                continue
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()).startswith(f"{state}/"):
                        raise ConflictError(
                            "restore.in-use",
                            f"process {process.name} has files in {state} open",
                            "stop the gateway and its environments first",
                        )


def staging_of(settings: Settings) -> Path:
    """Make the directory into which a backup is read: on the file system where it goes. Raises: OSError."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = settings.state_dir / f"{RESTORING}-{os.getpid()}"
    staging.mkdir(mode=0o700)
    return staging


def prove(staging: Path, manifest: Manifest, heads: Path | None, key: str | None) -> tuple[Report, int]:
    """Check what was read: the database, and the journal against its own head and those that were kept elsewhere.

    Heads go on to be signed after a backup; those over later records are no contradiction, but say how many are lost.
    The backup's own head stands for its end. Returns the report, and the record that the last head covers.

    Raises: BackupError `backup.newer`, `backup.damaged`, JournalError.
    """
    if manifest.schema > SCHEMA_HEAD:
        message = f"the backup's database has schema {manifest.schema}, and this devgw knows {SCHEMA_HEAD}"
        raise BackupError("backup.newer", message, f"restore it by devgw {manifest.devgw}, which made it, or newer")
    if manifest.dump and (fault := _fault_of(staging / manifest.dump, manifest.database)):
        raise BackupError("backup.damaged", f"the backup's database cannot be used: {fault}", "take another backup")
    journal = staging / STATE / manifest.journal
    beside = journal.with_name("journal_head.pub")
    own = beside if beside.exists() else staging / STATE / "keys" / "journal_head.pub"
    verifiers = read_verifiers(own) if own.exists() else ()
    known: list[Head] = []
    if heads is not None:
        known += _opened(heads, read_verifiers(key) if key else verifiers)
    journal.mkdir(mode=0o700, parents=True, exist_ok=True)
    end = _end_of(journal)
    own_head = _opened(staging / HEAD, verifiers) if (staging / HEAD).exists() else []
    within = [one for one in (*(head for head in known if head.size <= end), *own_head) if one.size]
    report = verify(journal, *within, kept=kept_heads(journal, *verifiers) if verifiers else None)
    return report, max((one.size for one in known), default=0)


def _fault_of(dumped: Path, kind: str) -> str:
    if kind == "sqlite":
        return integrity_faults(f"sqlite:///{dumped}")
    try:
        postgresql_dump.require_whole(dumped)
    except StoreError as exc:
        return exc.message
    return ""


def require_place_for_database(settings: Settings, manifest: Manifest) -> None:
    """Refuse a backup whose database is of another kind than the settings name, or whose place is taken.

    Raises:
        StoreError: `store.elsewhere`, `store.unusable`.
        ConflictError: `restore.not-empty`, for a database on a server. A file is looked at with the others.
    """
    if not manifest.dump:
        return
    kind = kind_of(settings.database)
    if kind != manifest.database:
        raise StoreError(
            "store.elsewhere",
            f"the backup's database is of {manifest.database}, and database_url names one of {kind}",
            "name its place first, by DEVGW_DATABASE_URL or in devgw.toml",
        )
    if kind == "postgresql":
        postgresql_dump.require_empty(settings.database)


def _end_of(journal: Path) -> int:
    found = segments(journal)
    try:
        return last_record(found[-1].path).number if found else 0
    except ValueError:
        return 0  # `verify` says what is wrong


def require_proven(report: Report) -> None:
    """Raises: BackupError `backup.journal-broken`."""
    if not report.ok:
        said = report.problem.message if report.problem else report.unproven
        hint = "--unproven restores it all the same"
        raise BackupError("backup.journal-broken", f"the backup's journal is not whole: {said}", hint)


def put_in_place(settings: Settings, staging: Path, manifest: Manifest, report: Report, *, force: bool) -> Restored:
    """Move what was read to where it belongs; what is there already is moved aside with `force`, and else refused.

    Raises:
        ConflictError: `restore.not-empty`.
        StoreError, OSError: a place that cannot be written.
    """
    staged = sorted((staging / STATE).iterdir()) if (staging / STATE).is_dir() else []
    moves = {one: settings.gateways_dir if one.name == GATEWAYS else settings.state_dir / one.name for one in staged}
    moves |= {one: settings.config_dir / one.relative_to(staging / CONFIG) for one in _files(staging / CONFIG)}
    require_place_for_database(settings, manifest)
    database = file_of(settings.database) if manifest.dump and manifest.database == "sqlite" else None
    there = [place for one, place in moves.items() if _is_other(one, place)]
    if database is not None:
        there += [place for end in _ENDS if (place := database.with_name(database.name + end)).exists()]
    if there and not force:
        hint = f"--force moves what is there aside, to {settings.state_dir / REPLACED}..."
        raise ConflictError("restore.not-empty", f"{there[0]} is there already", hint)
    _own(settings, staging, manifest)
    aside = _move_aside(settings, there)
    for one, place in moves.items():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        one.rename(place) if one.stat().st_dev == place.parent.stat().st_dev else shutil.move(one, place)
    if manifest.dump:
        load(staging / manifest.dump, settings.database)
    if database is not None:
        _give(database, settings.state_dir.stat())
    return Restored(manifest, report, tuple(moves.values()), aside)


def _is_other(staged: Path, place: Path) -> bool:
    """Say whether something else is where this goes. An empty directory is nothing, an equal file the same."""
    if not os.path.lexists(place):
        return False
    if staged.is_dir():
        return not place.is_dir() or place.is_symlink() or any(place.iterdir())
    return place.is_symlink() or not place.is_file() or place.read_bytes() != staged.read_bytes()


def _move_aside(settings: Settings, there: Sequence[Path]) -> Path | None:
    if not there:
        return None
    aside = settings.state_dir / f"{REPLACED}{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    aside.mkdir(mode=0o700)
    for place in there:
        beside = aside / (CONFIG if place.is_relative_to(settings.config_dir) else STATE) / place.name
        beside.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.move(place, beside)
    return aside


def _own(settings: Settings, staging: Path, manifest: Manifest) -> None:
    """Give each file its mode, and as root its owner: the state directory's, or the environment's user."""
    owner, is_root = settings.state_dir.stat(), os.geteuid() == 0
    for name, entry in manifest.entries.items():
        path, of_user = staging / name, is_of_an_environment(name)
        path.chmod(entry.mode & (0o555 if of_user else 0o700) | (0 if of_user else 0o400))
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        if is_root:
            os.chown(path, *((entry.uid, entry.gid) if of_user else (owner.st_uid, owner.st_gid)))
    names = {str(parent) for name in manifest.entries for parent in Path(name).parents if parent.name}
    for name in names:
        place, of_user = staging / name, is_of_an_environment(f"{name}/")
        place.chmod(0o755 if of_user else 0o700)
        if is_root and not of_user:
            os.chown(place, owner.st_uid, owner.st_gid)


def _give(path: Path, owner: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []


def _opened(file: Path, verifiers: Iterable[Verifier]) -> list[Head]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise JournalError("head.malformed", f"{file} cannot be read: {exc}") from exc
    return [open_head(note, *verifiers) for note in notes_in(text)]
