"""Where a backup goes: a directory that appears when it is whole, or one tar stream. Both are for their owner alone."""

import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from gateway.backup.contents import Found
from gateway.backup.manifest import MANIFEST, Entry, Manifest
from gateway.disk import is_full
from gateway.errors import BackupError, ConflictError

_BLOCK_BYTES = 2**20


class Target(Protocol):
    """A place for files, one after the other; the manifest ends it."""

    def put(self, found: Found) -> Entry:
        """Take one file whole. Raises: OSError; FileNotFoundError, where it is gone."""

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest; only now the backup is one. Raises: OSError."""


class DirectoryTarget:
    """Files below a directory that has another name until all of them are on disk."""

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        partial.mkdir(mode=0o700)

    def put(self, found: Found) -> Entry:
        place = self._partial / found.name
        for parent in reversed(Path(found.name).parents[:-1]):
            (self._partial / parent).mkdir(mode=0o700, exist_ok=True)
        with _reading(found.path) as source, _new_file(place) as copy:
            status = os.fstat(source.fileno())
            hashed = _Hashed(source, status.st_size if found.size is None else found.size)
            shutil.copyfileobj(cast("IO[bytes]", hashed), copy, _BLOCK_BYTES)
            copy.flush()
            os.fsync(copy.fileno())
        hashed.require_all(found)
        return _entry(hashed, status)

    def finish(self, manifest: Manifest) -> None:
        with _new_file(self._partial / MANIFEST) as file:
            file.write(manifest.text().encode())
            file.flush()
            os.fsync(file.fileno())
        for place in (self._partial, self._partial.parent):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)


class StreamTarget:
    """One tar stream in PAX form, written as it is made."""

    def __init__(self, stream: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - until `finish`

    def put(self, found: Found) -> Entry:
        with _reading(found.path) as source:
            status = os.fstat(source.fileno())
            hashed = _Hashed(source, status.st_size if found.size is None else found.size)
            self._tar.addfile(_member(found.name, hashed.size, status), cast("IO[bytes]", hashed))
        return _entry(hashed, status)

    def finish(self, manifest: Manifest) -> None:
        content = manifest.text().encode()
        self._tar.addfile(_member(MANIFEST, len(content), None), io.BytesIO(content))
        self._tar.close()


@contextmanager
def directory_target(place: Path) -> Iterator[tuple[DirectoryTarget, Path]]:
    """Make a backup's directory under another name, and rename it when all is done; what is half is removed.

    Yields the target and the directory that it has meanwhile.
    Raises: ConflictError `backup.exists`, BackupError `backup.no-space`, `backup.unwritable`.
    """
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        raise ConflictError("backup.exists", f"{place} is there already", "name a directory that is not")
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
    try:
        target = DirectoryTarget(partial)
        yield target, partial
        partial.replace(place)
    except OSError as exc:
        raise unwritable(exc, place) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unwritable(exc: OSError, place: Path | str) -> BackupError:
    """Put an OSError into words."""
    if is_full(exc):
        return BackupError("backup.no-space", f"no space left for the backup at {place}", "make room, or take another")
    return BackupError(
        "backup.unwritable", f"{exc.filename or place}: {(exc.strerror or str(exc)).lower()}", "check owner and path"
    )


class _Hashed:
    """A file's first bytes, with their digest; one that grows meanwhile gives no more, one that shrinks says so."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source = source
        self._left = size
        self._digest = hashlib.sha256()
        self.size = size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, as a file does."""
        block = self._source.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(block)
        self._digest.update(block)
        return block

    def require_all(self, found: Found) -> None:
        """Raises: BackupError `backup.changed`, where the file became shorter."""
        if self._left:
            raise BackupError("backup.changed", f"{found.path} became shorter while it was read", "try again")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        yield file


@contextmanager
def _new_file(place: Path) -> Iterator[BinaryIO]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
        yield file


def _entry(hashed: _Hashed, status: os.stat_result) -> Entry:
    mode = stat.S_IMODE(status.st_mode)
    return Entry(hashed.size, hashed.sha256, mode, status.st_uid, status.st_gid, status.st_mtime_ns)


def _member(name: str, size: int, status: os.stat_result | None) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    if status is not None:
        member.mtime = int(status.st_mtime)
    return member
