"""Which database a URL means. The implementations are named here and nowhere else."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from gateway.errors import StoreError
from gateway.store.backends.interface import Backend
from gateway.store.backends.postgresql import PostgreSql
from gateway.store.backends.sqlite import Sqlite

_FORMS = "'postgresql+psycopg://user@host/database', or nothing for SQLite in the state directory"


def backend_of(url: str, make_room: Callable[[], object] = bool) -> Backend:
    """Return what a `database_url` names.

    Raises:
        StoreError: `store.bad-url`; it repeats nothing of the URL, which may hold a password.
    """
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        raise StoreError(
            "store.bad-url",
            "database_url cannot be read as a URL",
            f"write {_FORMS}; in a password, % / : @ and # are written as %25 %2F %3A %40 %23",
        ) from None
    if kind == "sqlite":
        return Sqlite(url, Path(parsed.database) if parsed.database else None, make_room)
    if parsed.drivername in {"postgresql", "postgresql+psycopg"}:
        return PostgreSql(parsed)
    raise StoreError(
        "store.bad-url", f"database_url begins with {parsed.drivername}://, which is unknown", f"write {_FORMS}"
    )
