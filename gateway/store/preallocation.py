"""Room for the database on a full disk: free pages within it, and a write-ahead log that owns its blocks.

SQLite takes pages from its free list before it lets the file grow, and writes its log over from the start after each
checkpoint; so what both own is enough for what administrators change. Other databases look after themselves.
"""

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from gateway.disk import is_full, owned_bytes, set_aside
from gateway.errors import StoreError
from gateway.store.database import Database

FREE_BYTES = 2 * 2**20
LOG_BYTES = 8 * 2**20
INDEX_BYTES = 64 * 2**10
_held: dict[int, int] = {}
"""Descriptors of indexes by inode; there is one for each database that this process opens."""


def preallocate(database: Database) -> bool:
    """Set room aside where it is not; says whether it is there now. The log's is there while a process holds it open.

    Raises:
        StoreError: `store.unusable`, for anything but a full disk.
    """
    if database.path is None:
        return True
    try:
        with database.transaction() as connection:
            _fill_free_list(connection)
        with database.reading() as connection:
            connection.execute(text("SELECT 1"))
    except StoreError as exc:
        if _says_full(exc):
            return False
        raise
    _preallocate_index(database.path.with_name(f"{database.path.name}-shm"))
    return _preallocate_log(database.path.with_name(f"{database.path.name}-wal"))


def _fill_free_list(connection: Connection) -> None:
    """Make pages and free them again: without auto_vacuum they stay in the file."""
    page_bytes = int(connection.execute(text("PRAGMA page_size")).scalar_one())
    free_bytes = int(connection.execute(text("PRAGMA freelist_count")).scalar_one()) * page_bytes
    if free_bytes >= FREE_BYTES // 2:
        return
    connection.execute(text("CREATE TABLE room_set_aside (bytes BLOB)"))
    connection.execute(text("INSERT INTO room_set_aside VALUES (zeroblob(:size))"), {"size": FREE_BYTES})
    connection.execute(text("DROP TABLE room_set_aside"))


def _preallocate_log(log: Path) -> bool:
    """Closing this descriptor drops no lock: SQLite locks the database and its index, never the log."""
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return owned_bytes(descriptor) >= LOG_BYTES or set_aside(descriptor, LOG_BYTES)
    except OSError as exc:
        if is_full(exc):
            return False
        raise
    finally:
        os.close(descriptor)


def _preallocate_index(index: Path) -> None:
    """Own every block of the log's index: SQLite writes to it as memory, and a hole in it that cannot be filled kills.

    The descriptor stays open: closing any of a file's drops the locks that this process has on it (fcntl(2)).
    """
    with suppress(OSError):
        number = index.stat().st_ino
        if number not in _held:
            _held[number] = os.open(index, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        set_aside(_held[number], INDEX_BYTES)


def _says_full(exc: StoreError) -> bool:
    cause = exc.__cause__
    original = cause.orig if isinstance(cause, DBAPIError) else None
    return getattr(original, "sqlite_errorname", "") in {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}
