"""Asks whether the database is whole, without making, changing or migrating anything."""

from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from gateway.errors import StoreError
from gateway.store.backends.choice import backend_of
from gateway.store.backends.interface import Backend
from gateway.store.database import SCHEMA_HEAD


def integrity_faults(url: str) -> str:
    """Return what is wrong with the database, or nothing.

    Raises:
        StoreError: `store.unusable`, where it cannot be asked; `store.bad-url`, `store.driver-missing`.
    """
    backend = backend_of(url)
    return _faults_of_server(backend) if backend.path is None else _faults_of_file(backend.path)


def _faults_of_server(backend: Backend) -> str:
    engine = backend.open()
    try:
        with engine.connect().execution_options(**backend.reading_options) as connection:
            return _problem(connection)
    except SQLAlchemyError as exc:
        raise backend.explain(exc) from exc
    finally:
        engine.dispose()


def _faults_of_file(place: Path) -> str:
    if not place.exists():
        return f"{place} is not there"
    engine = create_engine(_unchanged(place))
    try:
        with engine.connect() as connection:
            return _problem(connection)
    except OperationalError as exc:
        raise StoreError("store.unusable", f"cannot read {place}: {exc.orig}", "check owner and permissions") from exc
    except DatabaseError as exc:  # SQLite's word for a file that is not, or no longer, one of its own
        return str(exc.orig)
    except SQLAlchemyError as exc:
        raise StoreError("store.unusable", f"cannot read {place}: {exc}", "check database_url") from exc
    finally:
        engine.dispose()


def schema_of(url: str) -> str:
    """Return the revision of a database's tables; empty where there is none, or it has none. Changes nothing.

    Raises:
        StoreError: `store.unusable`, where it cannot be asked.
    """
    backend = backend_of(url)
    if backend.path is not None and not backend.path.exists():
        return ""
    engine = create_engine(_unchanged(backend.path)) if backend.path else backend.open()
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")
    except SQLAlchemyError as exc:
        raise backend.explain(exc) from exc
    finally:
        engine.dispose()


def _unchanged(file: Path) -> str:
    """Return the URL by which SQLite only reads a file."""
    return f"sqlite:///file:{file}?mode=ro&uri=true"


def _problem(connection: Connection) -> str:
    if connection.dialect.name == "sqlite":
        first = str(connection.execute(text("PRAGMA quick_check(1)")).scalar())
        if first != "ok":
            return first
    if not inspect(connection).has_table("alembic_version"):
        return "it has no tables of devgw's"
    revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
    return f"schema {revision} is newer than this devgw's {SCHEMA_HEAD}" if revision > SCHEMA_HEAD else ""
