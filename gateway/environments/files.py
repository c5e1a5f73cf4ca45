"""What an environment has on this host: directories, a disk, a notebook's password, notices, and who owns them."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from gateway.engines.interface import Engine
from gateway.environments.account import host_key_line, read_password_hash, write_password_hash
from gateway.environments.disks import Disks
from gateway.environments.layout import Layout
from gateway.environments.locks import EnvironmentLocks
from gateway.environments.status import withdraw_notice, write_notice
from gateway.model import EnvironmentRef
from gateway.store.environments import EnvironmentTable
from gateway.store.users import Users


class EnvironmentFiles:
    """The files of one gateway's environments. Calls block; what makes directories takes the environment's lock."""

    def __init__(
        self,
        table: EnvironmentTable,
        users: Users,
        engine: Callable[[], Engine],
        state_dir: Path,
        disks: Disks,
        locks: EnvironmentLocks,
    ) -> None:
        self._table = table
        self._users = users
        self._engine = engine
        self._state_dir = state_dir
        self.disks = disks
        self._locks = locks

    def layout(self, ref: EnvironmentRef) -> Layout:
        """Return where they lie."""
        return Layout.of(self._state_dir, ref)

    def owner(self, ref: EnvironmentRef) -> tuple[int, int]:
        """Return their uid and gid; a gateway that is not root can own files only as itself. Raises: NotFoundError."""
        uid = self._users.require(ref.user).uid
        return (uid, uid) if os.geteuid() == 0 else (os.getuid(), os.getgid())

    def volume(self, ref: EnvironmentRef, name: str) -> Path:
        """Return where a volume's files are, on a host that runs its environments itself."""
        return self.layout(ref).volumes / name

    def host_key(self, ref: EnvironmentRef) -> str:
        """Return the environment's pinned public host key."""
        return host_key_line(self.layout(ref))

    def make(self, ref: EnvironmentRef, disk_bytes: int, bcrypt_hash: str = "") -> None:
        """Have every directory with its right owner, on a disk of that size (0: none). The caller holds the lock.

        Raises: NotFoundError, StoreError, ConflictError.
        """
        self.disks.prepare(ref, disk_bytes)
        layout, owner = self.layout(ref), self.owner(ref)
        layout.make(*owner)
        if bcrypt_hash:
            write_password_hash(layout, bcrypt_hash, *owner)

    def prepare(self, ref: EnvironmentRef, bcrypt_hash: str = "") -> None:
        """Have the directories of an environment before it starts, for files that come from elsewhere.

        Raises: NotFoundError, StoreError, ConflictError, as a start would.
        """
        with self._locks.hold(ref):
            self.make(ref, self._table.require(ref).limits.disk_bytes, bcrypt_hash)

    def mount_disks(self, user: str = "*") -> list[EnvironmentRef]:
        """Have the files of all environments, or of one user's, where they can be read. Raises: DevgwError."""
        for ref in (refs := self.disks.to_mount(user)):
            with self._locks.hold(ref):
                self.disks.prepare(ref, 0)
        return refs

    def password_hash(self, ref: EnvironmentRef) -> str:
        """Return the hash of the notebook's password. Raises: StoreError."""
        return read_password_hash(self.layout(ref))

    def set_password(self, ref: EnvironmentRef, bcrypt_hash: str) -> None:
        """Give the notebook another password, effective at the next login. Raises: NotFoundError, StoreError."""
        self._table.require(ref)
        write_password_hash(self.layout(ref), bcrypt_hash, *self.owner(ref))
        self._engine().refresh(ref)

    def tell(self, ref: EnvironmentRef, reason: str, stop_at: datetime, *, save: bool) -> None:
        """Let the environment know that it will stop. Raises: NotFoundError, StoreError."""
        uid, gid = self.owner(ref)
        write_notice(self.layout(ref), uid, gid, reason=reason, stop_at=stop_at, save=save)
        self._engine().refresh(ref)

    def withdraw(self, ref: EnvironmentRef) -> None:
        """Let the environment know that it will not stop after all."""
        withdraw_notice(self.layout(ref))
        self._engine().refresh(ref)

    def remove(self, ref: EnvironmentRef, *, purge: bool) -> None:
        """Remove them before the row that remembers that they go."""
        self.layout(ref).remove()
        if purge:
            self._engine().remove_volumes(ref)
            self.disks.remove(ref)
            self.layout(ref).remove_volumes()
        else:
            self.disks.release(ref)
