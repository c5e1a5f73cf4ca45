"""What the SSH server asks of store and environments, answered from this gateway's own."""

import socket
from collections.abc import Callable, Sequence
from typing import Literal

from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.model import EnvironmentRef, Fingerprint, PublicKey, User, UserName
from gateway.store.environments import EnvironmentTable
from gateway.store.users import Users


class StoredDirectory:
    """Users and keys from the store, as they are at this moment."""

    def __init__(self, users: Users) -> None:
        self._users = users

    def account(self, name: UserName) -> tuple[User | None, Sequence[PublicKey]]:
        return self._users.account(name)

    def key_used(self, user: UserName, fingerprint: Fingerprint) -> None:
        self._users.key_used(user, fingerprint)


class StoredEnvironments:
    """Environments as the SSH server uses them."""

    def __init__(self, environments: EnvironmentLifecycle, table: EnvironmentTable) -> None:
        self._environments = environments
        self._table = table

    def exists(self, ref: EnvironmentRef) -> bool:
        return self._environments.exists(ref)

    def ensure_running(self, ref: EnvironmentRef, progress: Callable[[str], None]) -> None:
        self._environments.ensure_running(ref, progress)

    def dial(self, ref: EnvironmentRef, service: Literal["ssh", "notebook"]) -> socket.socket:
        return self._environments.dial(ref, service)

    def host_key(self, ref: EnvironmentRef) -> str:
        return self._environments.host_key(ref)

    def touch(self, ref: EnvironmentRef, moved_bytes: int) -> None:
        if moved_bytes:
            self._table.touch(ref)
