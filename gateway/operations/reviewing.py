"""What an access review is made from: who is known to the store, with their keys, and when each last logged in."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from gateway.audit.read import last_of_each
from gateway.audit.review import Person
from gateway.errors import JournalError
from gateway.model import PublicKey, User
from gateway.store.users import Users


def people_of(users: Users, journal: Path) -> list[Person]:
    """Return everybody, by name. Raises: JournalError `journal.unreadable`, StoreError."""
    known = users.all()
    logins = _last_logins(journal, [user.name for user in known])
    keys = users.keys_by_user()
    return [_person(user, tuple(keys.get(user.name, ())), logins.get(user.name)) for user in known]


def _person(user: User, keys: tuple[PublicKey, ...], in_journal: datetime | None) -> Person:
    """Join what both know: the journal may be pruned, or name somebody as they were called then; a key may be gone."""
    used = [at for at in (in_journal, *(key.last_used_at for key in keys)) if at is not None]
    return Person(user, keys, max(used, default=None))


def _last_logins(journal: Path, users: Iterable[str]) -> Mapping[str, datetime]:
    try:
        return {name: record.at for name, record in last_of_each(journal, users, "login.allowed").items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc}", "'devgw audit verify'") from exc
