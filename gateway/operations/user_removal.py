"""A user who leaves: shut out, archived if asked, and removed with everything that is theirs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.backup.archive import archive
from gateway.environments.image_disks import DISKS
from gateway.environments.layout import disk_error
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.relocation import require_at_rest
from gateway.errors import ConflictError
from gateway.model import UserName
from gateway.operations.environments import EnvironmentOperations
from gateway.operations.keys import KeyOperations
from gateway.operations.recorded import Recorded
from gateway.operations.users import UserOperations
from gateway.removal import remove_tree
from gateway.store.environments import EnvironmentTable
from gateway.store.users import Users


@dataclass(frozen=True, slots=True)
class RemovalParts:
    """What removing a user stands on."""

    users: Users
    table: EnvironmentTable
    user_operations: UserOperations
    environment_operations: Callable[[], EnvironmentOperations]
    key_operations: KeyOperations
    lifecycle: EnvironmentLifecycle
    state_dir: Path


class UserRemoval:
    """Each step is recorded by itself; what is cut off is finished by doing it again."""

    def __init__(self, parts: RemovalParts, recorded: Recorded) -> None:
        self._parts = parts
        self._recorded = recorded

    def delete(self, name: UserName, *, archive_at: Path | None, purge: bool) -> str:
        """Remove a user, who is shut out first. Returns the archive's SHA-256, or nothing.

        Raises:
            NotFoundError: `user.not-found`.
            ConflictError: `environment.running`; `user.has-files`, with neither an archive nor `purge`.
            BackupError: the archive cannot be made; then nothing is removed.
        """
        parts = self._parts
        user = parts.users.require_settled(name)
        environments = parts.table.all(name)
        for environment in environments:
            require_at_rest(environment)
        volumes = parts.state_dir / "volumes" / name
        if archive_at is None and not purge and volumes.is_dir() and any(volumes.iterdir()):
            hint = "--archive FILE keeps them, --purge removes them for good"
            raise ConflictError("user.has-files", f"{name} has files in {volumes}", hint)
        if not user.disabled:
            parts.user_operations.disable(name)
        digest = ""
        with self._recorded.failing("user.deleted", user=name):
            if archive_at is not None:
                parts.lifecycle.files.mount_disks(name)
                about = {
                    "version": 1,
                    "user": asdict(user),
                    "keys": [asdict(key) for key in parts.users.keys(name)],
                    "environments": [asdict(one) for one in environments],
                }
                digest = archive(about, volumes, archive_at)
        for environment in environments:
            parts.environment_operations().delete(environment.ref, purge=True)
        for key in parts.users.keys(name):
            parts.key_operations.remove(name, key.fingerprint)
        with self._recorded.act("user.deleted", user=name, archive=str(archive_at or ""), sha256=digest):
            try:
                for ref in parts.lifecycle.disks.all(name):
                    parts.lifecycle.disks.remove(ref)
                remove_tree(parts.state_dir / DISKS / name)
                remove_tree(volumes)
                remove_tree(parts.state_dir / "environments" / name)
            except OSError as exc:
                raise disk_error(exc, volumes) from exc
            parts.users.forget(name)
        return digest
