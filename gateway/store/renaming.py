"""Users and environments under another name: every row that points at the old one, in one transaction.

No constraint is put off, so it works on every database: the new row comes first, what pointed at the old one is moved,
and the old row goes. Tables are found by their columns, so a table that is added later is renamed too.
"""

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.errors import ConflictError, NotFoundError
from gateway.model import EnvironmentRef, UserName
from gateway.store.database import Database
from gateway.store.schema import ENVIRONMENTS, LIVE_SESSIONS, METADATA, MOVES, SHARES, USERS

_APART = frozenset({ENVIRONMENTS.name, LIVE_SESSIONS.name, MOVES.name})
"""The first is copied; of the second each row goes when its connection ends, which it does now; the third is past."""


def rename_user(database: Database, old: UserName, new: UserName) -> None:
    """Give a user another name; uid, keys, shares and all they used go along.

    Raises:
        NotFoundError: `user.not-found`.
        ConflictError: `user.exists`; `user.name-used`, where what somebody of that name used is on record.
    """
    try:
        with database.transaction(changes_access=True) as connection:
            row = connection.execute(select(USERS).where(USERS.c.name == old)).one_or_none()
            if row is None:
                raise NotFoundError("user.not-found", f"no user {old!r}", "'devgw user list' shows who is known")
            if connection.execute(select(USERS).where(USERS.c.name == new)).one_or_none() is not None:
                raise ConflictError("user.exists", f"there is a user {new} already", "choose another name")
            uid = row.uid
            connection.execute(insert(USERS).values(**(dict(row._mapping) | {"name": new, "uid": -uid})))  # noqa: SLF001 - SQLAlchemy's public name
            connection.execute(delete(SHARES).where(SHARES.c.user == new))  # of somebody who is no more
            names = connection.execute(select(ENVIRONMENTS.c.name).where(ENVIRONMENTS.c.user == old)).scalars().all()
            for name in names:
                _move(connection, EnvironmentRef(old, name), EnvironmentRef(new, name))
            for table in _with("user"):
                connection.execute(update(table).where(table.c.user == old).values(user=new))
            connection.execute(delete(USERS).where(USERS.c.name == old))
            connection.execute(update(USERS).where(USERS.c.name == new).values(uid=uid))
    except IntegrityError as exc:
        raise _name_used(new) from exc


def rename_environment(database: Database, old: EnvironmentRef, new: EnvironmentRef) -> None:
    """Give an environment of a user another name. Raises: ConflictError `user.name-used`."""
    try:
        with database.transaction(changes_access=True) as connection:
            _move(connection, old, new)
    except IntegrityError as exc:
        raise _name_used(str(new)) from exc


def _move(connection: Connection, old: EnvironmentRef, new: EnvironmentRef) -> None:
    found = (ENVIRONMENTS.c.user == old.user) & (ENVIRONMENTS.c.name == old.name)
    row = connection.execute(select(ENVIRONMENTS).where(found)).one()
    renamed = {"user": new.user, "name": new.name}
    connection.execute(insert(ENVIRONMENTS).values(**(dict(row._mapping) | renamed)))  # noqa: SLF001
    for table in _with("user", "name"):
        mine = (table.c.user == old.user) & (table.c.name == old.name)
        connection.execute(update(table).where(mine).values(**renamed))
    connection.execute(delete(ENVIRONMENTS).where(found))


def _with(*columns: str) -> list[Table]:
    return [
        table for table in METADATA.sorted_tables if set(columns) <= set(table.c.keys()) and table.name not in _APART
    ]


def _name_used(name: str) -> ConflictError:
    message = f"somebody called {name} used GPUs before, which is on record"
    return ConflictError("user.name-used", message, "choose another name")
