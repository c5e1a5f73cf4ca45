"""Users: shut one out, let them in again. They are made known by `environments.create`."""

from gateway.model import User, UserName
from gateway.operations.recorded import Recorded
from gateway.store.users import Users


class UserOperations:
    """An administrator's acts on users."""

    def __init__(self, users: Users, recorded: Recorded) -> None:
        self._users = users
        self._recorded = recorded

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
