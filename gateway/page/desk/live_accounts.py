"""Who looks at a live part, without a look into the database for each of them at each turn.

The store counts its changes to users and keys; that count is read once a second for all viewers together, and an
account is read again when it has moved on. So who is shut out sees a live part for a second more, and no other page.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from gateway.model import PublicKey, User
from gateway.readings import Shared
from gateway.store.database import Database
from gateway.store.users import Users

Account = tuple[User | None, Sequence[PublicKey]]
_KEPT = 2000


class LiveAccounts:
    """Users with their keys, as of the last second. Its methods may be called from several threads."""

    def __init__(self, database: Database, users: Users, seconds: float = 1.0) -> None:
        self._users = users
        self._revision = Shared(database.revision, seconds)
        self._guard = threading.Lock()
        self._known: OrderedDict[str, tuple[int, Account]] = OrderedDict()

    def get(self, name: str) -> Account:
        """Return a user and their keys."""
        revision = self._revision.get()
        with self._guard:
            known = self._known.get(name)
        if known is not None and known[0] == revision:
            return known[1]
        account = self._users.account(name)  # read after the count: it may be newer, never older
        with self._guard:
            self._known[name] = (revision, account)
            self._known.move_to_end(name)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return account
