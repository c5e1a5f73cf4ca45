"""Reads a backup into a directory of its own, and believes nothing of it: names, kinds, owners, sizes and digests."""

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.backup.manifest import MANIFEST, Entry, Manifest, checked_name
from gateway.errors import BackupError, NotFoundError

_BLOCK_BYTES = 2**20
_ANOTHER = "take another backup; nothing was changed here"


@dataclass(frozen=True, slots=True)
class _Written:
    size: int
    sha256: str


def unpack_directory(backup: Path, staging: Path) -> Manifest:
    """Copy a backup's files, as its manifest names them, into a directory.

    Raises: BackupError, NotFoundError, OSError.
    """
    if not backup.is_dir():
        raise NotFoundError("backup.not-found", f"{backup} is no directory with a backup", "or - for a tar stream")
    try:
        with _reading(backup, MANIFEST) as file:
            manifest = Manifest.parse(file.read())
    except FileNotFoundError as exc:
        hint = "it is half a backup, or none; the manifest is written last"
        raise BackupError("backup.incomplete", f"{backup} has no {MANIFEST}", hint) from exc
    for name, entry in manifest.entries.items():
        try:
            with _reading(backup, name) as source:
                written = _write(source, staging / name, entry.size)
        except FileNotFoundError as exc:
            raise BackupError("backup.incomplete", f"{name} is missing in {backup}", _ANOTHER) from exc
        _require_same(name, entry, written)
    return manifest


def unpack_stream(stream: BinaryIO, staging: Path) -> Manifest:
    """Read a tar stream into a directory; its manifest comes last. Raises: BackupError, OSError."""
    written: dict[str, _Written] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                source = _source_of(tar, member)
                if manifest is not None or member.name in written:
                    raise BackupError("backup.unsafe", f"{member.name[:120]!r} comes twice or too late", _ANOTHER)
                if member.name == MANIFEST:
                    manifest = Manifest.parse(source.read())
                else:
                    written[member.name] = _write(source, staging / member.name, member.size)
    except (tarfile.TarError, EOFError) as exc:
        raise BackupError("backup.incomplete", f"the stream is no backup, or ends too early: {exc}", _ANOTHER) from exc
    if manifest is None:
        raise BackupError("backup.incomplete", "the stream ends before its manifest", "it is half a backup, or none")
    for name, entry in manifest.entries.items():
        _require_same(name, entry, written.pop(name, _Written(-1, "")))
    if written:
        raise BackupError("backup.damaged", f"{next(iter(written))} is not in the manifest", _ANOTHER)
    return manifest


def _source_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    checked_name(member.name)
    source = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if source is None:
        raise BackupError("backup.unsafe", f"{member.name} is no plain file, as all of a backup are", _ANOTHER)
    return source  # type: ignore[return-value]  # IO[bytes]


def _write(source: BinaryIO, place: Path, size: int) -> _Written:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    digest, count = hashlib.sha256(), 0
    with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
        while block := source.read(_BLOCK_BYTES):
            count += len(block)
            if count > size:
                break
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return _Written(count, digest.hexdigest())


def _require_same(name: str, entry: Entry, written: _Written) -> None:
    if written.size < 0:
        raise BackupError("backup.incomplete", f"{name} is missing in the backup", _ANOTHER)
    if (written.size, written.sha256) != (entry.size, entry.sha256):
        raise BackupError("backup.damaged", f"{name} is not as it was when the backup was made", _ANOTHER)


@contextmanager
def _reading(backup: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file below a directory, through no link on the way. Raises: BackupError `backup.unsafe`."""
    parts = Path(name).parts
    place = os.open(backup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_foreign(place, str(backup))
        for part in parts[:-1]:
            place, above = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place), place
            os.close(above)
            _refuse_foreign(place, f"the backup's {part}")
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError):
            raise
        raise BackupError("backup.unsafe", f"{name} is no plain file, or below a link", _ANOTHER) from exc
    finally:
        os.close(place)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise BackupError("backup.unsafe", f"{name} is no plain file", _ANOTHER)
        _refuse_foreign(file, f"the backup's {name}")
        yield opened


def _refuse_foreign(descriptor: int, place: str) -> None:
    """Whoever may write to a backup decides who gets in. Raises: BackupError `backup.foreign`."""
    status = os.fstat(descriptor)
    if status.st_uid not in {0, os.geteuid()}:
        hint = "look at who could write there, then change the owner of all of the backup"
        raise BackupError("backup.foreign", f"{place} belongs to uid {status.st_uid}", hint)
    if stat.S_IMODE(status.st_mode) & 0o022:
        hint = "look at who could write there, then 'chmod -R go-w' the backup"
        raise BackupError("backup.foreign", f"others may write to {place}", hint)
