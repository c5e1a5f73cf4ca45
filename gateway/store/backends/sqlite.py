"""SQLite: one file in WAL mode, for one host."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from gateway.errors import StoreError
from gateway.store.backends.interface import ONLY_READS

_BUSY_TIMEOUT_MS = 15_000


class Sqlite:
    """The file at a path; None for one in memory."""

    reading_options: Mapping[str, Any] = {ONLY_READS: True}

    def __init__(self, url: str, path: Path | None, make_room: Callable[[], object]) -> None:
        """`make_room` frees room that is kept for this, before SQLite makes the log that no process has open."""
        self._url = url
        self.path = path
        self._make_room = make_room

    def open(self) -> Engine:
        engine = create_engine(self._url)
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
        return engine

    def open_for_locks(self) -> None:
        return None

    def make_ready(self) -> None:
        if self.path is None:
            return
        if not self.path.with_name(f"{self.path.name}-wal").exists():
            self._make_room()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600, exist_ok=True)
        except OSError as exc:
            raise self.explain(exc) from exc

    def explain(self, exc: Exception) -> StoreError:
        cause = str(getattr(exc, "orig", None) or exc)
        return StoreError(
            "store.unusable",
            f"cannot use the database {self.path or self._url}: {cause}",
            "'devgw init' makes one; check owner and free space",
        )


def _set_pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _begin
    # the wait comes first: of several processes that make the file at once, each changes its journal mode
    for pragma in (f"busy_timeout={_BUSY_TIMEOUT_MS}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # a deferred transaction that reads first and writes later fails instead of waiting (sqlite.org/isolation.html)
    only_reads = connection.get_execution_options().get(ONLY_READS)
    connection.exec_driver_sql("BEGIN DEFERRED" if only_reads else "BEGIN IMMEDIATE")
