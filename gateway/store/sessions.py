"""Live SSH connections as their gateway last wrote them down, and which of them an administrator wants ended.

A row belongs to a process, not to the store: what a killed gateway left behind is neither shown nor waited for.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, and_, bindparam, delete, insert, select

from gateway.model import UserName
from gateway.store.database import Database
from gateway.store.schema import KILL_REQUESTS, LIVE_SESSIONS


class Owner(NamedTuple):
    """A serving process of this host; its start (in ticks since boot) tells it from a later one with its pid."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class LiveSession:
    """One connection. Bytes are those sent to and received from the user."""

    id: str
    user: str
    fingerprint: str
    address: str
    environment: str
    channels: tuple[str, ...]
    sent_bytes: int
    received_bytes: int
    since: datetime


class SessionTraffic(NamedTuple):
    """Of a connection only what is counted."""

    id: str
    user: str
    channels: Sequence[str]
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class OwnedSession:
    """A connection together with the process that alone can end it."""

    owner: Owner
    session: LiveSession


class LiveSessionTable:
    """Rows of all serving processes; each of these writes its own."""

    def __init__(
        self,
        database: Database,
        is_alive: Callable[[Owner], bool],
        is_forgotten: Callable[[Owner], bool] | None = None,
    ) -> None:
        """`is_forgotten` says of whom nothing need be kept any more; where nobody else serves, of all who are dead."""
        self._database = database
        self._is_alive = is_alive
        self._is_forgotten = is_forgotten or (lambda owner: not is_alive(owner))

    def all(self, user: UserName | None = None) -> list[OwnedSession]:
        """Return connections of processes that still run, oldest first."""
        query = select(LIVE_SESSIONS).order_by(LIVE_SESSIONS.c.since, LIVE_SESSIONS.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query if user is None else query.where(LIVE_SESSIONS.c.user == user)).all()
        owned = [_owned(row._asdict()) for row in rows]
        alive = {owner for owner in {one.owner for one in owned} if self._is_alive(owner)}
        return [one for one in owned if one.owner in alive]

    def traffic(self) -> list[SessionTraffic]:
        """Return what connections of processes that still run move and have open: quick, for it is asked often."""
        columns = LIVE_SESSIONS.c
        query = select(
            columns.pid, columns.started, columns.boot, columns.id, columns.user, columns.channels,
            columns.sent_bytes, columns.received_bytes,
        )  # fmt: skip
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        alive = {owner for owner in {Owner(*row[:3]) for row in rows} if self._is_alive(owner)}
        return [SessionTraffic(*row[3:]) for row in rows if tuple(row[:3]) in alive]

    def count_of_others(self, owner: Owner, user: UserName) -> int:
        """Return how many connections a user has in other processes, as these last wrote down."""
        return sum(one.owner != owner for one in self.all(user))

    def publish(
        self, owner: Owner, changed: Sequence[LiveSession], gone: Collection[str], heeded: Collection[str]
    ) -> None:
        """Write down what became of a process's connections; `heeded` are ids whose end was asked for and begun."""
        replaced = {*gone, *(session.id for session in changed)}
        with self._database.transaction() as connection:
            _remove(connection, LIVE_SESSIONS, owner, replaced)
            _remove(connection, KILL_REQUESTS, owner, heeded)
            if changed:
                connection.execute(insert(LIVE_SESSIONS), [_row(owner, session) for session in changed])

    def clear(self, owner: Owner) -> None:
        """Forget all that a process wrote or was asked, at its end."""
        with self._database.transaction() as connection:
            for table in (LIVE_SESSIONS, KILL_REQUESTS):
                connection.execute(delete(table).where(_is(table, owner)))

    def sweep(self) -> None:
        """Forget what processes left behind that were killed, and nothing of another gateway's."""
        with self._database.reading() as connection:
            owners = {
                Owner(*row)
                for table in (LIVE_SESSIONS, KILL_REQUESTS)
                for row in connection.execute(select(table.c.pid, table.c.started, table.c.boot).distinct())
            }
        for owner in filter(self._is_forgotten, owners):
            self.clear(owner)

    def ask_to_end(self, sessions: Sequence[OwnedSession], reason: str) -> None:
        """Leave word for the processes that serve them, who look twice a second; asking again changes nothing."""
        with self._database.transaction(changes_access=True) as connection:
            for one in sessions:
                _remove(connection, KILL_REQUESTS, one.owner, {one.session.id})
            rows = [one.owner._asdict() | {"id": one.session.id, "reason": reason} for one in sessions]
            connection.execute(insert(KILL_REQUESTS), rows)

    def to_end(self, owner: Owner) -> dict[str, str]:
        """Return the ids a process was asked to end, each with the reason. Waits for no writer."""
        query = select(KILL_REQUESTS.c.id, KILL_REQUESTS.c.reason).where(_is(KILL_REQUESTS, owner))
        with self._database.reading() as connection:
            return {str(wanted): str(reason) for wanted, reason in connection.execute(query)}


def _is(table: Table, owner: Owner) -> Any:
    return and_(table.c.boot == owner.boot, table.c.pid == owner.pid, table.c.started == owner.started)


def _remove(connection: Connection, table: Table, owner: Owner, ids: Collection[str]) -> None:
    if ids:  # executed for each id, prepared once: a list of many would pass SQLite's bound on parameters
        one = delete(table).where(_is(table, owner), table.c.id == bindparam("wanted"))
        connection.execute(one, [{"wanted": wanted} for wanted in ids])


def _row(owner: Owner, session: LiveSession) -> dict[str, Any]:
    return owner._asdict() | asdict(session) | {"channels": list(session.channels)}


def _owned(row: dict[str, Any]) -> OwnedSession:
    owner = Owner(*(row.pop(name) for name in Owner._fields))
    return OwnedSession(owner, LiveSession(**row | {"channels": tuple(row["channels"])}))
