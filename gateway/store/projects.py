"""Whose which number of a project quota is (`environments.quota_disks`). Rows outlive an environment, as files do."""

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from gateway.model import EnvironmentRef
from gateway.store.database import Database
from gateway.store.schema import PROJECTS


class ProjectTable:
    """Rows of numbers. One that was given up is never given again: files may carry it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def allot(self, ref: EnvironmentRef) -> int:
        """Return the environment's number, a new one where it has none; from 1 on. Raises: StoreError."""
        try:
            with self._database.transaction() as connection:
                if (found := _number(connection, ref)) is not None:
                    return found
                connection.execute(insert(PROJECTS).values(user=ref.user, name=ref.name))
                return _number(connection, ref) or 0
        except IntegrityError:  # another process was quicker
            with self._database.reading() as connection:
                return _number(connection, ref) or 0

    def give_up(self, ref: EnvironmentRef) -> None:
        """Let go of the environment's number. Raises: StoreError."""
        with self._database.transaction() as connection:
            mine = (PROJECTS.c.user == ref.user) & (PROJECTS.c.name == ref.name)
            connection.execute(delete(PROJECTS).where(mine))


def _number(connection: Connection, ref: EnvironmentRef) -> int | None:
    query = select(PROJECTS.c.number).where((PROJECTS.c.user == ref.user) & (PROJECTS.c.name == ref.name))
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else int(found)
