"""Users: make one known, shut one out, let them in again. `environments.create` makes its user known too."""

from collections.abc import Sequence

from gateway.model import PublicKey, User, UserName
from gateway.operations.keys import KeyOperations
from gateway.operations.recorded import Recorded
from gateway.store.users import Users


class UserOperations:
    """An administrator's acts on users."""

    def __init__(self, users: Users, keys: KeyOperations, recorded: Recorded, uid_start: int) -> None:
        self._users = users
        self._keys = keys
        self._recorded = recorded
        self._uid_start = uid_start

    def add(self, name: UserName, keys: Sequence[PublicKey]) -> User:
        """Make a user known who has no environment yet, with keys. Raises: ConflictError `user.exists`."""
        with self._recorded.act("user.created", user=name):
            made = self._users.add(name, uid_start=self._uid_start)
        for key in keys:
            self._keys.add_if_new(name, key)
        return made

    def disable(self, name: UserName) -> User:
        """Shut a user out; their live sessions end. Raises: NotFoundError."""
        return self._set_disabled("user.disabled", name, disabled=True)

    def enable(self, name: UserName) -> User:
        """Let a user in again. Raises: NotFoundError."""
        return self._set_disabled("user.enabled", name, disabled=False)

    def _set_disabled(self, code: str, name: UserName, *, disabled: bool) -> User:
        self._users.require(name)
        with self._recorded.act(code, user=name):
            self._users.set_disabled(name, disabled=disabled)
        return self._users.require(name)
