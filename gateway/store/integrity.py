"""Asks whether the database is whole, without making, changing or migrating anything."""

from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from gateway.errors import StoreError
from gateway.store.database import SCHEMA_HEAD


def integrity_faults(url: str) -> str:
    """Return what is wrong with the database, or nothing.

    Raises:
        StoreError: `store.unusable`, where it cannot be asked.
    """
    address, place = make_url(url), url
    if address.get_backend_name() == "sqlite" and address.database:
        place = address.database
        if not Path(place).exists():
            return f"{place} is not there"
        url = f"sqlite:///file:{place}?mode=ro&uri=true"
    else:
        place = address.render_as_string(hide_password=True)
    engine = create_engine(url)
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
    address = make_url(url)
    if address.get_backend_name() == "sqlite" and address.database:
        if not Path(address.database).exists():
            return ""
        url = f"sqlite:///file:{address.database}?mode=ro&uri=true"
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")
    except SQLAlchemyError as exc:
        place = address.render_as_string(hide_password=True)
        raise StoreError("store.unusable", f"cannot read {place}: {exc}", "check owner and permissions") from exc
    finally:
        engine.dispose()


def _problem(connection: Connection) -> str:
    if connection.dialect.name == "sqlite":
        first = str(connection.execute(text("PRAGMA quick_check(1)")).scalar())
        if first != "ok":
            return first
    if not inspect(connection).has_table("alembic_version"):
        return "it has no tables of devgw's"
    revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
    return f"schema {revision} is newer than this devgw's {SCHEMA_HEAD}" if revision > SCHEMA_HEAD else ""
