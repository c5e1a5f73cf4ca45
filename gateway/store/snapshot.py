"""A database copied whole while others write to it: for backups, and before its tables change.

SQLite's own backup does it in one read transaction, PostgreSQL's tools in one of theirs (`postgresql_dump`).
"""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.engine import make_url

from gateway.errors import StoreError
from gateway.store import postgresql_dump

_KEPT = 3
_HINT = "check owner and free space"


def kind_of(url: str) -> str:
    """Return which kind of database an address names: `sqlite` or `postgresql`."""
    return make_url(url).get_backend_name()


def dump(url: str, target: Path) -> str:
    """Write a copy of the database to a new file, mode 0600. Returns its schema's revision.

    Raises:
        StoreError: `store.unusable`; `store.no-space`.
    """
    return copy(file_of(url), target) if kind_of(url) == "sqlite" else postgresql_dump.dump(url, target)


def load(dumped: Path, url: str) -> None:
    """Put a dump in the place of a database that is not there, or has no tables yet.

    Raises:
        StoreError: as `dump`.
    """
    if kind_of(url) != "sqlite":
        postgresql_dump.load(dumped, url)
        return
    place = file_of(url)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError("store.unusable", f"{place.parent}: {exc.strerror}", _HINT) from exc
    copy(dumped, place)


def file_of(url: str) -> Path:
    """Return the file of an SQLite database. Raises: StoreError `store.elsewhere`."""
    address = make_url(url)
    if address.get_backend_name() != "sqlite" or not address.database:
        raise StoreError(
            "store.elsewhere",
            f"the database {address.render_as_string(hide_password=True)} is on a server, and has no file here",
            "name one of the same kind by database_url",
        )
    return Path(address.database)


def snapshot(database: Path, revision: str) -> Path:
    """Keep a copy beside the database before its tables change; of these the newest few stay. Raises: StoreError."""
    directory = database.parent / "snapshots"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise StoreError("store.unusable", f"{directory}: {exc.strerror}", _HINT) from exc
    place = directory / f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{revision}.db"
    copy(database, place)
    for old in snapshots(database)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return place


def snapshots(database: Path) -> list[Path]:
    """List the copies that were kept, the oldest first."""
    return sorted((database.parent / "snapshots").glob(f"{database.stem}-*.db"))


def copy(source: Path, target: Path) -> str:
    """Copy one SQLite file whole, whoever is writing to it. Returns its revision. Raises: StoreError."""
    if not source.exists():
        raise StoreError("store.unusable", f"{source} is not there", "'devgw init' makes one")
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise StoreError("store.unusable", f"{target}: {exc.strerror}", _HINT) from exc
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=15)) as origin,
            closing(sqlite3.connect(target)) as copied,
        ):
            origin.backup(copied)
            copied.execute("PRAGMA journal_mode=DELETE")
            found = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            revision = _revision(copied)
        with target.open("rb") as file:
            os.fsync(file.fileno())
    except (sqlite3.Error, OSError) as exc:
        target.unlink(missing_ok=True)
        if getattr(exc, "sqlite_errorname", "") == "SQLITE_FULL":
            raise StoreError("store.no-space", f"no space for a copy of the database at {target}", "make room") from exc
        raise StoreError("store.unusable", f"{source} cannot be copied: {exc}", _HINT) from exc
    return revision


def _revision(database: sqlite3.Connection) -> str:
    known = database.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = database.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return str(row[0]) if row else ""
