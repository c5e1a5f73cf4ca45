"""Users and their public keys as rows. Whether a key may log in is decided elsewhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.errors import ConflictError, NotFoundError
from gateway.model import Fingerprint, PublicKey, User, UserName
from gateway.store.database import Database
from gateway.store.schema import PUBLIC_KEYS, USERS


class Users:
    """Who is known, and by which keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> User | None:
        """Return the user, or None."""
        with self._database.reading() as connection:
            row = _row(connection, name)
        return None if row is None else _user(row)

    def account(self, name: str) -> tuple[User | None, Sequence[PublicKey]]:
        """Return the user and their keys, in one transaction: a login reads both."""
        with self._database.reading() as connection:
            row = _row(connection, name)
            keys = [_key(key) for key in connection.execute(_keys_of(name))]
        return (None if row is None else _user(row)), keys

    def require(self, name: str) -> User:
        """Return the user. Raises: NotFoundError `user.not-found`."""
        user = self.get(name)
        if user is None:
            raise NotFoundError("user.not-found", f"no user {name!r}", "'devgw user list' shows who is known")
        return user

    def require_settled(self, name: str) -> User:
        """Return a user who is not being moved between hosts. Raises: NotFoundError; ConflictError `move.going-on`."""
        user = self.require(name)
        if user.move:
            hint = f"'devgw move {name}' goes on with it, 'devgw move {name} --abort' puts back"
            raise ConflictError("move.going-on", f"{name} is being moved to another host", hint)
        return user

    def all(self) -> list[User]:
        """Return everybody, by name."""
        with self._database.reading() as connection:
            return [_user(row) for row in connection.execute(select(USERS).order_by(USERS.c.name))]

    def count(self) -> tuple[int, int]:
        """Return how many may log in, and how many are disabled."""
        with self._database.reading() as connection:
            every, disabled = connection.execute(select(func.count(), func.count(USERS.c.disabled_at))).one()
        return every - disabled, disabled

    def ensure(self, name: UserName, *, uid_start: int) -> User:
        """Return the user, made with the next free uid when new."""
        with self._database.transaction(changes_access=True) as connection:
            return ensure_user(connection, name, uid_start)

    def add(self, name: UserName, *, uid_start: int) -> User:
        """Make a user with the next free uid. Raises: ConflictError `user.exists`."""
        with self._database.transaction(changes_access=True) as connection:
            if _row(connection, name) is not None:
                raise ConflictError("user.exists", f"there is a user {name} already", f"'devgw key list {name}'")
            return _user(_make(connection, name, uid_start))

    def set_disabled(self, name: UserName, *, disabled: bool) -> None:
        """Close or open the door for a user. Raises: NotFoundError `user.not-found`."""
        self.require(name)
        when = datetime.now(UTC) if disabled else None
        with self._database.transaction(changes_access=True) as connection:
            connection.execute(update(USERS).where(USERS.c.name == name).values(disabled_at=when))

    def forget(self, name: UserName) -> None:
        """Remove a user and their keys; the caller has made sure that no environment is left."""
        with self._database.transaction(changes_access=True) as connection:
            connection.execute(delete(USERS).where(USERS.c.name == name))

    def keys(self, name: str) -> Sequence[PublicKey]:
        """Return a user's keys in the order they were added."""
        with self._database.reading() as connection:
            return [_key(row) for row in connection.execute(_keys_of(name))]

    def keys_by_user(self) -> dict[str, list[PublicKey]]:
        """Return everybody's keys at once, those without any included."""
        with self._database.reading() as connection:
            names = connection.execute(select(USERS.c.name).order_by(USERS.c.name)).scalars()
            found: dict[str, list[PublicKey]] = {name: [] for name in names}
            for row in connection.execute(select(PUBLIC_KEYS).order_by(PUBLIC_KEYS.c.added_at)):
                found[row.user].append(_key(row))
        return found

    def add_key(self, name: UserName, key: PublicKey) -> None:
        """Let a key in. Raises: ConflictError `key.exists`, NotFoundError `user.not-found`."""
        self.require(name)
        try:
            with self._database.transaction(changes_access=True) as connection:
                connection.execute(insert(PUBLIC_KEYS).values(**key_row(name, key), added_at=datetime.now(UTC)))
        except IntegrityError as exc:
            raise ConflictError(
                "key.exists", f"{name} has the key {key.fingerprint} already", f"'devgw key list {name}'"
            ) from exc

    def remove_key(self, name: UserName, fingerprint: str) -> None:
        """Shut a key out. Raises: NotFoundError `key.not-found`."""
        condition = (PUBLIC_KEYS.c.user == name) & (PUBLIC_KEYS.c.fingerprint == fingerprint)
        with self._database.transaction(changes_access=True) as connection:
            removed = connection.execute(delete(PUBLIC_KEYS).where(condition)).rowcount
        if not removed:
            raise NotFoundError("key.not-found", f"{name} has no key {fingerprint}", f"'devgw key list {name}'")

    def key_used(self, name: str, fingerprint: str) -> None:
        """Remember that a key logged in just now."""
        condition = (PUBLIC_KEYS.c.user == name) & (PUBLIC_KEYS.c.fingerprint == fingerprint)
        with self._database.transaction() as connection:
            connection.execute(update(PUBLIC_KEYS).where(condition).values(last_used_at=datetime.now(UTC)))


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(USERS).where(USERS.c.name == name)).one_or_none()


def _make(connection: Connection, name: str, uid_start: int) -> Row[Any]:
    highest = connection.execute(select(func.max(USERS.c.uid))).scalar()
    uid = max(uid_start, (highest or 0) + 1)
    connection.execute(insert(USERS).values(name=name, uid=uid, created_at=datetime.now(UTC)))
    return connection.execute(select(USERS).where(USERS.c.name == name)).one()


def ensure_user(connection: Connection, name: UserName, uid_start: int) -> User:
    """Return the user, made with the next free uid when new, within the caller's transaction."""
    return _user(_row(connection, name) or _make(connection, name, uid_start))


def key_row(name: str, key: PublicKey) -> dict[str, object]:
    """Return what the table has of a key, but when it was added and used."""
    return {
        "user": name, "fingerprint": key.fingerprint, "algorithm": key.algorithm, "bits": key.bits,
        "line": key.line, "comment": key.comment,
    }  # fmt: skip


def _keys_of(name: str) -> Select[Any]:
    return select(PUBLIC_KEYS).where(PUBLIC_KEYS.c.user == name).order_by(PUBLIC_KEYS.c.added_at)


def _user(row: Row[tuple[object, ...]]) -> User:
    disabled = row.disabled_at is not None
    return User(UserName(row.name), row.uid, row.created_at, disabled, row.move, row.closed_because)


def _key(row: Row[tuple[object, ...]]) -> PublicKey:
    return PublicKey(
        Fingerprint(row.fingerprint), row.algorithm, row.bits, row.line, row.comment, row.added_at, row.last_used_at
    )
