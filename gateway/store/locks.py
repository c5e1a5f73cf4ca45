"""Locks by name that every process of a site sees, each held by a connection of its own to the database.

The server lets go of a lock when the process that holds it ends, however it ends. SQLite has none: its users are of one
host, where the kernel's locks do.
"""

import logging
import threading
from hashlib import sha256

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.store.backends.interface import Backend

_log = logging.getLogger(__name__)


class NamedLock:
    """One lock; `take` and `release` by one thread at a time."""

    def __init__(self, backend: Backend, engine: Engine, name: str) -> None:
        self._backend = backend
        self._engine = engine
        self._key = int.from_bytes(sha256(name.encode()).digest()[:8], "big", signed=True)
        self._connection: Connection | None = None
        self._guard = threading.Lock()

    def take(self, *, wait: bool) -> bool:
        """Take it, waiting while another has it; without `wait` say whether it was free. Raises: StoreError."""
        connection: Connection | None = None
        try:
            connection = self._engine.connect()
            call = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
            answer = connection.execute(text(f"SELECT {call}(:key)"), {"key": self._key}).scalar()
        except SQLAlchemyError as exc:
            _drop(connection)
            raise self._backend.explain(exc) from exc
        except BaseException:
            _drop(connection)
            raise
        if not wait and not answer:
            _drop(connection)
            return False
        self._connection = connection
        return True

    def is_held(self) -> bool:
        """Ask the server: a lock is lost with its connection."""
        with self._guard:
            if self._connection is None:
                return False
            try:
                self._connection.execute(text("SELECT 1"))
            except SQLAlchemyError as exc:
                _log.warning("%s", self._backend.explain(exc).message)
                return False
            return True

    def release(self) -> None:
        """Let go; at the end of the connection the server does."""
        with self._guard:
            connection, self._connection = self._connection, None
            _drop(connection)


def _drop(connection: Connection | None) -> None:
    if connection is not None:
        connection.invalidate()  # closed for good, also where the server is gone
        connection.close()
