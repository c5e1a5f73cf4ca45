"""The rows of one user as they go to another host: which tables go along is said by name, so that none does by chance.

Each function is one transaction with the step that it completes, so none of it can be done twice or by halves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from gateway.errors import ConflictError, MoveError
from gateway.model import Environment, EnvironmentRef, PublicKey, User, UserName
from gateway.store.database import Database
from gateway.store.environments import row_of
from gateway.store.leases import end_leases
from gateway.store.moves import Move, advance_move, insert_move
from gateway.store.schema import (
    ENVIRONMENTS,
    LOAD_SAMPLES,
    PAST_LEASES,
    PUBLIC_KEYS,
    QUEUE,
    SHARES,
    USAGE_SAMPLES,
    USERS,
    UtcDateTime,
)
from gateway.store.users import ensure_user, key_row

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
_HISTORY = {
    PAST_LEASES.name: (PAST_LEASES, ("gpu_uuid", "name", "leased_at", "ended_at")),
    USAGE_SAMPLES.name: (USAGE_SAMPLES, ("gpu_uuid", "name", "hour")),
    LOAD_SAMPLES.name: (LOAD_SAMPLES, ("name", "hour")),
}
"""Tables whose rows are what somebody used, each with the columns that tell one row from another."""
CARRIED = frozenset({USERS.name, PUBLIC_KEYS.name, ENVIRONMENTS.name, SHARES.name, *_HISTORY})
LEFT_BEHIND = {
    "leases": "a GPU is of one host",
    "queue": "so is its queue",
    "terms": "warnings are counted anew",
    "live_sessions": "they end",
    "terminal_lines": "they are of the last minutes",
    "moves": "each host tells its own side",
    "projects": "the number of a quota is of one host's file system",
}
"""Tables with users in them that do not go along, and why."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a user has in the store and takes along, beside their environments."""

    keys: tuple[PublicKey, ...]
    share: float | None
    history: Rows
    disabled: bool = False


def history_of(database: Database, user: str) -> tuple[float | None, dict[str, list[dict[str, Any]]]]:
    """Return a user's share of the GPUs, and the rows of what they used, without their name."""
    with database.reading() as connection:
        share = connection.execute(select(SHARES.c.log_hours).where(SHARES.c.user == user)).scalar_one_or_none()
        return share, {name: _rows(connection, table, user) for name, (table, _key) in _HISTORY.items()}


def has_history(database: Database, user: str) -> bool:
    """Say whether it is on record here what somebody of that name used."""
    with database.reading() as connection:
        counts = (
            connection.execute(select(func.count()).select_from(table).where(table.c.user == user)).scalar_one()
            for table in (PAST_LEASES, USAGE_SAMPLES)
        )
        return any(counts)


def reserve(database: Database, move: Move, environments: Sequence[Environment], uid_start: int, why: str) -> User:
    """Keep the name for somebody who arrives: user and environments, with the door shut.

    Raises: ConflictError `user.exists`; `move.going-on`.
    """
    with database.transaction(changes_access=True) as connection:
        is_new = connection.execute(select(USERS.c.uid).where(USERS.c.name == move.user)).first() is None
        user = ensure_user(connection, move.user, uid_start)
        if not is_new and not user.closed_because:
            raise ConflictError("user.exists", f"there is a user {move.user} already", "choose another name")
        insert_move(connection, replace(move, detail={**move.detail, "is_new": is_new}))
        if is_new:
            connection.execute(update(USERS).where(USERS.c.name == move.user).values(closed_because=why))
        for environment in environments:
            connection.execute(insert(ENVIRONMENTS).values(**row_of(environment)))
    return user


def place(
    database: Database,
    move: Move,
    environments: Sequence[Environment],
    belongings: Belongings,
    detail: Mapping[str, Any],
) -> Move:
    """Give somebody who arrives all that is theirs, as step `placed`. Raises: ConflictError, MoveError."""
    name = move.user
    with database.transaction(changes_access=True) as connection:
        moved = advance_move(connection, move, "placed", closed_because=None, is_over=False, detail=detail)
        connection.execute(delete(PUBLIC_KEYS).where(PUBLIC_KEYS.c.user == name))
        for key in belongings.keys:
            moments = {"added_at": key.added_at or datetime.now(UTC), "last_used_at": key.last_used_at}
            connection.execute(insert(PUBLIC_KEYS).values(**key_row(name, key), **moments))
        if belongings.disabled:
            shut = (USERS.c.name == name) & USERS.c.disabled_at.is_(None)
            connection.execute(update(USERS).where(shut).values(disabled_at=datetime.now(UTC)))
        for environment in environments:
            mine = (ENVIRONMENTS.c.user == name) & (ENVIRONMENTS.c.name == environment.ref.name)
            values = row_of(environment) | {"last_active_at": environment.last_active_at}
            connection.execute(update(ENVIRONMENTS).where(mine).values(**values))
        connection.execute(delete(SHARES).where(SHARES.c.user == name))
        if belongings.share is not None:
            connection.execute(insert(SHARES).values(user=name, log_hours=belongings.share))
        for table_name, rows in belongings.history.items():
            _add(connection, table_name, name, rows)
    return moved


def forget(database: Database, move: Move, *, is_new: bool) -> Move:
    """Give the name of somebody who does not arrive after all back, as step `aborted`."""
    with database.transaction(changes_access=True) as connection:
        over = advance_move(connection, move, "aborted", closed_because=None, is_over=True, detail={})
        connection.execute(delete(ENVIRONMENTS).where(ENVIRONMENTS.c.user == move.user))
        if is_new:
            connection.execute(delete(USERS).where(USERS.c.name == move.user))
    return over


def leave(database: Database, move: Move, refs: Sequence[EnvironmentRef], detail: Mapping[str, Any]) -> Move:
    """Take the rows of environments that are on another host now away, as step `done`."""
    now = datetime.now(UTC)
    with database.transaction(changes_access=True) as connection:
        over = advance_move(connection, move, "done", closed_because=None, is_over=True, detail=detail)
        for ref in refs:
            end_leases(connection, ref, now)
        connection.execute(delete(QUEUE).where(QUEUE.c.user == move.user))
        connection.execute(delete(ENVIRONMENTS).where(ENVIRONMENTS.c.user == move.user))
    return over


def _rows(connection: Connection, table: Table, user: str) -> list[dict[str, Any]]:
    columns = [column for column in table.c if column.name not in {"id", "user"}]
    found = connection.execute(select(*columns).where(table.c.user == user)).mappings()
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in found
    ]


def _add(connection: Connection, table_name: str, user: UserName, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add what is not there: somebody who comes back brings what they left here too."""
    if table_name not in _HISTORY:
        raise _bad(f"nothing is kept of {table_name[:40]!r} here")
    table, key = _HISTORY[table_name]
    read = [_read(table, row) for row in rows]
    known = {
        tuple(row) for row in connection.execute(select(*(table.c[one] for one in key)).where(table.c.user == user))
    }
    fresh = {tuple(row[one] for one in key): {"user": user, **row} for row in read}
    added = [row for identity, row in fresh.items() if identity not in known]
    if added:
        connection.execute(insert(table), added)


def _read(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    names = [column.name for column in table.c if column.name not in {"id", "user"}]
    if set(row) != set(names):
        raise _bad(f"a row of {table.name} has other columns there")
    try:
        return {
            name: datetime.fromisoformat(row[name]) if isinstance(table.c[name].type, UtcDateTime) else row[name]
            for name in names
        }
    except (TypeError, ValueError) as exc:
        raise _bad(f"a row of {table.name} cannot be read: {exc}") from exc


def _bad(message: str) -> MoveError:
    return MoveError("move.bad-description", message, "both hosts need devgw of the same version")
