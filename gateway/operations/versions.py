"""The database's tables and the version of devgw: what an upgrade would change, and the way one step back."""

import os
from dataclasses import dataclass
from pathlib import Path

from gateway.backup.restoring import refuse_while_open
from gateway.config import Settings
from gateway.errors import ConflictError, StoreError
from gateway.operations.recorded import Recorded
from gateway.store.database import SCHEMA_HEAD, Database
from gateway.store.integrity import integrity_faults, schema_of
from gateway.store.snapshot import snapshots
from gateway.version import VERSION


@dataclass(frozen=True, slots=True)
class Outlook:
    """What this version would do with the database as it is. `problem` is empty where nothing stands in the way."""

    version: str
    found: str
    wanted: str
    database_bytes: int
    free_bytes: int
    problem: str = ""
    kept: tuple[Path, ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.found) and self.found != self.wanted


class VersionOperations:
    """An administrator's acts on the tables."""

    def __init__(self, settings: Settings, database: Database, recorded: Recorded) -> None:
        self._settings = settings
        self._database = database
        self._recorded = recorded

    def look(self) -> Outlook:
        """Say what an upgrade would do; nothing is changed. Raises: StoreError."""
        path = self._database.path
        found = schema_of(self._settings.database)
        size = path.stat().st_size if path is not None and path.exists() else 0
        free = _free_bytes(self._settings.state_dir)
        problem = integrity_faults(self._settings.database) if found else ""
        if not problem and found and found != SCHEMA_HEAD and size > free:
            problem = f"{size} bytes are needed for a copy of the database before, and {free} are free"
        kept = tuple(snapshots(path)) if path is not None else ()
        return Outlook(VERSION, found, SCHEMA_HEAD, size, free, problem, kept)

    def upgrade(self) -> Outlook:
        """Bring the tables to this version's, after a copy. Raises: ConflictError `upgrade.blocked`, StoreError."""
        outlook = self.look()
        if outlook.problem:
            raise ConflictError("upgrade.blocked", f"the tables are left alone: {outlook.problem}", "'devgw doctor'")
        if not outlook.changes:
            return outlook
        detail = {"from": outlook.found, "to": outlook.wanted}
        with self._recorded.act("database.migrated", **detail):
            self._database.revision()
        return outlook

    def downgrade(self) -> tuple[str, str]:
        """Bring the tables one revision back, after a copy. Raises: ConflictError `restore.in-use`, StoreError."""
        refuse_while_open(self._settings)
        with self._recorded.failing("database.downgraded"):
            before, after = self._database.downgrade()
        self._recorded.note("database.downgraded", **{"from": before, "to": after})
        return before, after


def _free_bytes(directory: Path) -> int:
    try:
        found = os.statvfs(directory)
    except OSError as exc:
        raise StoreError("store.unusable", f"{directory}: {exc.strerror}", "'devgw init' makes it") from exc
    return found.f_bavail * found.f_frsize
