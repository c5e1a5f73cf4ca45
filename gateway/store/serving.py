"""Which processes of which gateways serve now, as each says of itself every few seconds, by the database's clock."""

from dataclasses import dataclass

from sqlalchemy import and_, delete, func, insert, select, update

from gateway.store.database import Database
from gateway.store.schema import SERVING, UtcDateTime
from gateway.store.sessions import Owner


@dataclass(frozen=True, slots=True)
class Serving:
    """A process, the gateway it is of, and how long ago it last said that it serves."""

    owner: Owner
    instance: str
    silent_seconds: float


class ServingTable:
    """Rows of all serving processes; each of these writes its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, owner: Owner, instance: str) -> bool:
        """Say that a process serves; return whether it was known to."""
        now = func.current_timestamp(type_=UtcDateTime)
        with self._database.transaction() as connection:
            known = connection.execute(update(SERVING).where(_is(owner)).values(seen_at=now)).rowcount
            if not known:
                connection.execute(insert(SERVING).values(**owner._asdict(), instance=instance, seen_at=now))
        return bool(known)

    def get(self, owner: Owner) -> Serving | None:
        """Return what a process said of itself."""
        return next((one for one in self.all() if one.owner == owner), None)

    def all(self) -> list[Serving]:
        """Return every process that was not forgotten, by gateway."""
        columns = (SERVING.c.pid, SERVING.c.started, SERVING.c.boot, SERVING.c.instance, SERVING.c.seen_at)
        query = select(*columns, func.current_timestamp(type_=UtcDateTime).label("now")).order_by(SERVING.c.instance)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            Serving(Owner(row.pid, row.started, row.boot), row.instance, (row.now - row.seen_at).total_seconds())
            for row in rows
        ]

    def forget(self, owner: Owner) -> None:
        """Forget a process that has ended."""
        with self._database.transaction() as connection:
            connection.execute(delete(SERVING).where(_is(owner)))


def _is(owner: Owner):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's expression types say nothing here
    return and_(SERVING.c.boot == owner.boot, SERVING.c.pid == owner.pid, SERVING.c.started == owner.started)
