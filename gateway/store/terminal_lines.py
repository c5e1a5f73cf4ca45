"""Lines for the terminals of an environment, for every process of every gateway that serves its user."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select

from gateway.model import EnvironmentName, EnvironmentRef, UserName
from gateway.store.database import Database
from gateway.store.schema import TERMINAL_LINES

_KEPT = timedelta(minutes=10)


class TerminalLine(NamedTuple):
    """One line. Numbers only grow."""

    number: int
    ref: EnvironmentRef
    line: str


class TerminalLineTable:
    """Rows of lines, kept for as long as a gateway may lose its database and come back to it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def say(self, ref: EnvironmentRef, line: str) -> None:
        """Leave a line for whoever has a terminal open there now."""
        now = datetime.now(UTC)
        row = {"user": ref.user, "name": ref.name, "line": line, "said_at": now}
        with self._database.transaction() as connection:
            connection.execute(insert(TERMINAL_LINES).values(**row))
            connection.execute(delete(TERMINAL_LINES).where(TERMINAL_LINES.c.said_at < now - _KEPT))

    def newest(self) -> int:
        """Return the number of the last line, 0 where there is none."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.max(TERMINAL_LINES.c.number))).scalar() or 0)

    def after(self, number: int) -> list[TerminalLine]:
        """Return the lines behind one, oldest first. Waits for no writer."""
        columns = TERMINAL_LINES.c
        query = select(columns.number, columns.user, columns.name, columns.line)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(columns.number > number).order_by(columns.number)).all()
        return [
            TerminalLine(row.number, EnvironmentRef(UserName(row.user), EnvironmentName(row.name)), row.line)
            for row in rows
        ]
