"""Moves of users between hosts as rows: which step is done, on which side, and whose door is shut for it.

The row and the two words on its user change in one transaction, so a step that is done is done on both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from gateway.errors import ConflictError, NotFoundError
from gateway.model import UserName
from gateway.store.database import Database
from gateway.store.schema import MOVES, USERS

Side = Literal["source", "target"]


@dataclass(frozen=True, slots=True)
class Move:
    """One move as this host knows it. `step` is the last that is done; `detail` what later steps need to know."""

    id: str
    side: Side
    user: UserName
    other: str
    step: str
    reason: str = ""
    by: str = ""
    begun_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    detail: Mapping[str, Any] = field(default_factory=dict)


class MoveTable:
    """Rows of moves; a user has at most one that is going on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, move_id: str) -> Move | None:
        """Return a move, going on or over."""
        with self._database.reading() as connection:
            row = connection.execute(select(MOVES).where(MOVES.c.id == move_id)).one_or_none()
        return None if row is None else _move(row)

    def require(self, move_id: str) -> Move:
        """Return a move. Raises: NotFoundError `move.not-found`."""
        found = self.get(move_id)
        if found is None:
            raise NotFoundError("move.not-found", f"no move {move_id[:40]!r} is known here", "'devgw move-in list'")
        return found

    def going_on(self, user: str) -> Move | None:
        """Return the move of a user that is going on."""
        query = select(MOVES).join(USERS, USERS.c.move == MOVES.c.id).where(USERS.c.name == user)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _move(row)

    def last_away(self, user: str) -> Move | None:
        """Return the last move of a user to another host."""
        return next((move for move in reversed(self.all("source")) if move.user == user), None)

    def all(self, side: Side) -> list[Move]:
        """Return all moves of one side, oldest first."""
        query = select(MOVES).where(MOVES.c.side == side).order_by(MOVES.c.begun_at, MOVES.c.id)
        with self._database.reading() as connection:
            return [_move(row) for row in connection.execute(query)]

    def begin(self, move: Move) -> Move:
        """Store a move of a user who is known here. Raises: ConflictError `move.going-on`."""
        with self._database.transaction(changes_access=True) as connection:
            insert_move(connection, move)
        return move

    def advance(
        self,
        move: Move,
        step: str,
        *,
        closed_because: str | None = None,
        is_over: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> Move:
        """Store that a step is done; `closed_because` shuts the user's door, or empty opens it.

        Raises:
            ConflictError: `move.going-on`, where another process has gone on with it meanwhile.
        """
        with self._database.transaction(changes_access=True) as connection:
            return advance_move(
                connection, move, step, closed_because=closed_because, is_over=is_over, detail=detail or {}
            )


def insert_move(connection: Connection, move: Move) -> None:
    """Store a move within the caller's transaction. Raises: ConflictError `move.going-on`."""
    values = {
        "id": move.id, "side": move.side, "user": move.user, "other": move.other, "step": move.step,
        "reason": move.reason, "by": move.by, "begun_at": move.begun_at, "changed_at": datetime.now(UTC),
        "detail": dict(move.detail),
    }  # fmt: skip
    free = (USERS.c.name == move.user) & (USERS.c.move == "")
    if connection.execute(update(USERS).where(free).values(move=move.id)).rowcount != 1:
        raise _taken(move.user)
    connection.execute(insert(MOVES).values(**values))


def advance_move(
    connection: Connection,
    move: Move,
    step: str,
    *,
    closed_because: str | None,
    is_over: bool,
    detail: Mapping[str, Any],
) -> Move:
    """The same as `MoveTable.advance`, within the caller's transaction."""
    changed = replace(move, step=step, detail={**move.detail, **detail})
    mine = (MOVES.c.id == move.id) & (MOVES.c.step == move.step)
    values = {"step": step, "detail": dict(changed.detail), "changed_at": datetime.now(UTC)}
    if connection.execute(update(MOVES).where(mine).values(**values)).rowcount != 1:
        raise _taken(move.user)
    words: dict[str, str] = {}
    if closed_because is not None:
        words["closed_because"] = closed_because
    if is_over:
        words["move"] = ""
    if words:
        connection.execute(update(USERS).where(USERS.c.name == move.user, USERS.c.move == move.id).values(**words))
    return changed


def _taken(user: str) -> ConflictError:
    return ConflictError("move.going-on", f"{user} is being moved to another host", f"wait, then 'devgw move {user}'")


def _move(row: Row[tuple[object, ...]]) -> Move:
    return Move(row.id, row.side, UserName(row.user), row.other, row.step, row.reason, row.by, row.begun_at, row.detail)
