"""Opens the database, brings its tables up to date and hands out transactions. Queries stand in the noun's module."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from gateway.errors import StoreError
from gateway.store.backends.choice import backend_of
from gateway.store.locks import NamedLock
from gateway.store.schema import REVISION
from gateway.store.snapshot import snapshot

SCHEMA_HEAD = "0014"
_FIRST = "0001"
_log = logging.getLogger(__name__)


class Database:
    """One database, safe to share between threads and processes."""

    def __init__(self, url: str, make_room: Callable[[], object] = bool) -> None:
        """`make_room` frees room that is kept for this, before SQLite makes the log that no process has open."""
        self._backend = backend_of(url, make_room)
        self._engine = self._backend.open()
        self._lock_engine = self._backend.open_for_locks()
        self._ready = False

    @property
    def path(self) -> Path | None:
        """The SQLite file, or None for a server."""
        return self._backend.path

    @contextmanager
    def transaction(self, *, changes_access: bool = False) -> Iterator[Connection]:
        """One transaction; `changes_access` makes a running gateway look at its live sessions again.

        Raises:
            StoreError: `store.unusable`, for anything but a constraint that the caller means to handle.
        """
        with self._begun() as connection:
            yield connection
            if changes_access:
                connection.execute(update(REVISION).values(number=REVISION.c.number + 1))

    def reading(self) -> AbstractContextManager[Connection]:
        """One transaction that only reads: it waits for no writer, and no writer for it. Raises: StoreError."""
        return self._begun(only_reads=True)

    @contextmanager
    def _begun(self, *, only_reads: bool = False) -> Iterator[Connection]:
        self._prepare()
        options = self._backend.reading_options if only_reads else {}
        try:
            with self._engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeoutError) as exc:
            raise self._backend.explain(exc) from exc

    def revision(self) -> int:
        """Return the number of changes of access so far."""
        with self.reading() as connection:
            return int(connection.execute(select(REVISION.c.number)).scalar_one())

    @property
    def has_locks(self) -> bool:
        """Whether processes on several hosts may have this database, and `lock` is to be had."""
        return self._lock_engine is not None

    def lock(self, name: str) -> NamedLock:
        """Return a lock that every process with this database sees; only where it `has_locks`."""
        assert self._lock_engine is not None  # noqa: S101 - asked before
        return NamedLock(self._backend, self._lock_engine, name)

    def close(self) -> None:
        """Close pooled connections."""
        self._engine.dispose()

    def _prepare(self) -> None:
        if self._ready:
            return
        self._backend.make_ready()
        try:
            found = self._current_revision()
            if found is not None and found > SCHEMA_HEAD:
                raise StoreError(
                    "store.newer-schema",
                    f"the database has tables of a newer devgw: schema {found}, and this one knows {SCHEMA_HEAD}",
                    "use the newer devgw; 'devgw version' shows which this is",
                )
            if found != SCHEMA_HEAD:
                self._keep_before_change(found)
                self.migrate()
        except SQLAlchemyError as exc:
            raise self._backend.explain(exc) from exc
        self._ready = True

    def _current_revision(self) -> str | None:
        with self._engine.connect().execution_options(**self._backend.reading_options) as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def migrate(self) -> None:
        """Bring the tables to `SCHEMA_HEAD`, as one transaction that writes: of several at once, one does it."""
        self._alembic(lambda command, config: command.upgrade(config, "head"))

    def downgrade(self) -> tuple[str, str]:
        """Bring the tables one revision back, for the version before; returns from which to which.

        The next use of this version brings them forward again. Raises: StoreError `store.first-schema`.
        """
        try:
            found = self._current_revision() or ""
            if found in {"", _FIRST}:
                raise StoreError("store.first-schema", "there is no schema before this database's", "nothing to do")
            self._keep_before_change(found)
            self._alembic(lambda command, config: command.downgrade(config, "-1"))
            return found, self._current_revision() or ""
        except SQLAlchemyError as exc:
            raise self._backend.explain(exc) from exc

    def _keep_before_change(self, revision: str | None) -> None:
        """Keep a copy of a database that has something to lose; one on a server is its administrator's to dump."""
        if self.path is not None and revision is not None:
            kept = snapshot(self.path, revision)
            _log.warning("the database's tables change; as they were they are kept in %s", kept)

    def _alembic(self, run: Callable[[Any, Any], None]) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            run(command, config)
