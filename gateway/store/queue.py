"""Who waits for a GPU, as rows with a heartbeat: a waiter that died is passed over, and blocks nobody."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update

from gateway.model import EnvironmentName, EnvironmentRef, UserName
from gateway.store.database import Database
from gateway.store.schema import QUEUE, SHARES

ALIVE_SECONDS = 30
_LOWEST = -1.0e300  # below every share: whoever had nothing yet comes first


@dataclass(frozen=True, slots=True)
class Waiter:
    """An environment that waits, and for what."""

    ref: EnvironmentRef
    gpu_request: str
    asked_at: datetime
    share: float


class QueueTable:
    """Rows of the queue, in the order in which they are served: smallest share first, then who asked first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, ref: EnvironmentRef, gpu_request: str, at: datetime) -> None:
        """Join the queue, or say that one still waits; the place is that of the first call."""
        with self._database.transaction() as connection:
            known = connection.execute(update(QUEUE).where(_is(ref)).values(seen_at=at, gpu_request=gpu_request))
            if not known.rowcount:
                row = {"user": ref.user, "name": ref.name, "gpu_request": gpu_request, "asked_at": at, "seen_at": at}
                connection.execute(insert(QUEUE).values(**row))
                if connection.execute(select(SHARES.c.user).where(SHARES.c.user == ref.user)).one_or_none() is None:
                    connection.execute(insert(SHARES).values(user=ref.user, log_hours=_LOWEST))
            connection.execute(delete(QUEUE).where(QUEUE.c.seen_at < at - timedelta(days=1)))

    def leave(self, ref: EnvironmentRef) -> None:
        """Wait no longer."""
        with self._database.transaction() as connection:
            connection.execute(delete(QUEUE).where(_is(ref)))

    def waiting(self, at: datetime, first: int = 0, count: int | None = None) -> list[Waiter]:
        """Return those who wait and live, in their order; `first` and `count` cut a piece out of it."""
        query = _ordered(at).offset(first)
        with self._database.reading() as connection:
            rows = connection.execute(query if count is None else query.limit(count)).all()
        return [_waiter(*row) for row in rows]

    def share(self, user: UserName) -> float:
        """Return the number by which a user's place is found."""
        with self._database.reading() as connection:
            found = connection.execute(select(SHARES.c.log_hours).where(SHARES.c.user == user)).scalar()
        return _LOWEST if found is None else float(found)


def _ordered(at: datetime) -> Select[Any]:
    """Walk along the index of shares, so that the first few are found without sorting the rest."""
    return (
        select(QUEUE.c.user, QUEUE.c.name, QUEUE.c.gpu_request, QUEUE.c.asked_at, SHARES.c.log_hours)
        # coalesce keeps SQLite from scanning the queue and looking up each share by its user
        .select_from(SHARES.join(QUEUE, func.coalesce(SHARES.c.user, "") == QUEUE.c.user))
        .where(_alive(at))
        .order_by(SHARES.c.log_hours, QUEUE.c.asked_at, QUEUE.c.user, QUEUE.c.name)
    )


def _alive(at: datetime):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's expression types say nothing here
    return QUEUE.c.seen_at >= at - timedelta(seconds=ALIVE_SECONDS)


def _is(ref: EnvironmentRef):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's expression types say nothing here
    return (QUEUE.c.user == ref.user) & (QUEUE.c.name == ref.name)


def _waiter(user: str, name: str, gpu_request: str, asked_at: datetime, share: float) -> Waiter:
    return Waiter(EnvironmentRef(UserName(user), EnvironmentName(name)), gpu_request, asked_at, share)
