"""Public keys of users: let one in, shut one out."""

from gateway.errors import NotFoundError
from gateway.model import PublicKey, UserName
from gateway.operations.recorded import Recorded
from gateway.store.users import Users


class KeyOperations:
    """An administrator's acts on keys."""

    def __init__(self, users: Users, recorded: Recorded) -> None:
        self._users = users
        self._recorded = recorded

    def add(self, name: UserName, key: PublicKey) -> None:
        """Let a key in. Raises: NotFoundError, ConflictError."""
        self._users.require(name)
        about = {"fingerprint": key.fingerprint, "algorithm": key.algorithm, "bits": str(key.bits)}
        with self._recorded.act("key.added", user=name, **about):
            self._users.add_key(name, key)

    def add_if_new(self, name: UserName, key: PublicKey) -> None:
        """Let a key in unless the user has it already. Raises: NotFoundError."""
        if key.fingerprint not in {known.fingerprint for known in self._users.keys(name)}:
            self.add(name, key)

    def remove(self, name: UserName, fingerprint: str) -> None:
        """Shut a key out; its live sessions end. Raises: NotFoundError."""
        self._users.require(name)
        if fingerprint not in {key.fingerprint for key in self._users.keys(name)}:
            raise NotFoundError("key.not-found", f"{name} has no key {fingerprint}", f"'devgw key list {name}'")
        with self._recorded.act("key.removed", user=name, fingerprint=fingerprint):
            self._users.remove_key(name, fingerprint)
