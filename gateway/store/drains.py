"""Nodes that get no new environments because an administrator wants them empty."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from gateway.model import NodeName
from gateway.store.database import Database
from gateway.store.schema import DRAINS


@dataclass(frozen=True, slots=True)
class Drain:
    """A node that is being emptied. `stop_at` is when what runs there stops; None: when its users stop it."""

    node: NodeName
    reason: str
    since: datetime
    stop_at: datetime | None = None


class DrainTable:
    """Rows of drains; a node has at most one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[NodeName, Drain]:
        """Return every drain by its node."""
        with self._database.reading() as connection:
            rows = connection.execute(select(DRAINS).order_by(DRAINS.c.node)).all()
        return {NodeName(row.node): Drain(NodeName(row.node), row.reason, row.since, row.stop_at) for row in rows}

    def put(self, drain: Drain) -> None:
        """Begin a drain; one of the same node is replaced."""
        with self._database.transaction() as connection:
            connection.execute(delete(DRAINS).where(DRAINS.c.node == drain.node))
            row = {"node": drain.node, "reason": drain.reason, "since": drain.since, "stop_at": drain.stop_at}
            connection.execute(insert(DRAINS).values(**row))

    def remove(self, node: NodeName) -> bool:
        """End a drain; say whether there was one."""
        with self._database.transaction() as connection:
            return bool(connection.execute(delete(DRAINS).where(DRAINS.c.node == node)).rowcount)
