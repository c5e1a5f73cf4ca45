"""What was seen and said of environments that run: when they were last used, and which warnings their users got."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from gateway.model import EnvironmentName, EnvironmentRef, UserName
from gateway.store.database import Database
from gateway.store.schema import TERMS


@dataclass(frozen=True, slots=True)
class NoticeState:
    """`said` is the last phase announced, and only of the end at `said_of`; `warned_at` is when the first was."""

    ref: EnvironmentRef
    active_at: datetime | None = None
    activity: str = ""
    said: str = ""
    said_of: datetime | None = None
    warned_at: datetime | None = None
    healed_at: datetime | None = None


class NoticeTable:
    """Rows of terms; they go with their environment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, ref: EnvironmentRef) -> NoticeState:
        """Return what is known, nothing at first."""
        with self._database.reading() as connection:
            row = connection.execute(select(TERMS).where(_is(ref))).one_or_none()
        return NoticeState(ref) if row is None else NoticeState(ref, *row[2:])

    def all(self) -> dict[EnvironmentRef, NoticeState]:
        """Return what is known of every environment."""
        with self._database.reading() as connection:
            rows = connection.execute(select(TERMS)).all()
        refs = (EnvironmentRef(UserName(row.user), EnvironmentName(row.name)) for row in rows)
        return {ref: NoticeState(ref, *row[2:]) for ref, row in zip(refs, rows, strict=True)}

    def note_activity(self, ref: EnvironmentRef, at: datetime, activity: str) -> None:
        """Remember that an environment was in use, and by what."""
        self._set(ref, active_at=at, activity=activity)

    def note_said(self, ref: EnvironmentRef, said: str, said_of: datetime | None, warned_at: datetime | None) -> None:
        """Remember what was announced."""
        self._set(ref, said=said, said_of=said_of, warned_at=warned_at)

    def note_healed(self, ref: EnvironmentRef, at: datetime) -> None:
        """Remember that an environment was made anew."""
        self._set(ref, healed_at=at)

    def forget(self, ref: EnvironmentRef) -> None:
        """Start over: the environment has stopped."""
        with self._database.transaction() as connection:
            connection.execute(delete(TERMS).where(_is(ref)))

    def _set(self, ref: EnvironmentRef, **values: object) -> None:
        with self._database.transaction() as connection:
            if not connection.execute(update(TERMS).where(_is(ref)).values(**values)).rowcount:
                _insert(connection, ref, values)


def _insert(connection: Connection, ref: EnvironmentRef, values: dict[str, object]) -> None:
    row = {"user": ref.user, "name": ref.name, "activity": "", "said": "", **values}
    connection.execute(insert(TERMS).values(**row))


def _is(ref: EnvironmentRef):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's expression types say nothing here
    return (TERMS.c.user == ref.user) & (TERMS.c.name == ref.name)
