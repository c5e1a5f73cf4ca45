"""What a host says of a user who goes to another one: read anew each time, so that changes meanwhile go along."""

import subprocess
from dataclasses import asdict
from pathlib import Path

from gateway.config import Settings
from gateway.environments.connection import public_host
from gateway.environments.layout import VOLUMES
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.model import Environment
from gateway.moves.description import Description, EnvironmentSaid, KeySaid
from gateway.operations.arrival import roles_of
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.moves import Move
from gateway.store.moving import history_of
from gateway.store.users import Users
from gateway.version import VERSION


class UserDescriptions:
    """Describes users of one gateway."""

    def __init__(
        self, settings: Settings, database: Database, lifecycle: EnvironmentLifecycle, policy: PolicyInForce
    ) -> None:
        self._settings = settings
        self._database = database
        self._users = Users(database)
        self._table = EnvironmentTable(database)
        self._lifecycle = lifecycle
        self._policy = policy
        self._sizes: dict[Path, int] = {}

    def of(self, move: Move, *, is_measured: bool = True) -> Description:
        """Say all there is to say of a user now; how large their files are, where the target has to know."""
        user = self._users.require(move.user)
        share, history = history_of(self._database, user.name)
        environments = tuple(self._said_of(one, is_measured=is_measured) for one in self._table.all(user.name))
        keys = tuple(KeySaid(**asdict(key)) for key in self._users.keys(user.name))
        return self.named(move).model_copy(
            update={
                "disabled": user.disabled,
                "roles": roles_of(self._policy, user.name),
                "keys": keys,
                "environments": environments,
                "share": share,
                "history": history,
            }
        )

    def named(self, move: Move) -> Description:
        """Say which move of whom this is."""
        return Description(
            devgw=VERSION,
            id=move.id,
            user=move.user,
            source=public_host(self._settings),
            by=move.by,
            reason=move.reason,
        )

    def _said_of(self, environment: Environment, *, is_measured: bool) -> EnvironmentSaid:
        lifecycle, limits = self._lifecycle, environment.limits
        places = {name: lifecycle.files.volume(environment.ref, name) for name in VOLUMES}
        return EnvironmentSaid(
            name=environment.ref.name,
            image=environment.image,
            memory_bytes=limits.memory_bytes,
            cpus=limits.cpus,
            pids=limits.pids,
            shm_bytes=limits.shm_bytes,
            disk_bytes=limits.disk_bytes,
            gpu_request=environment.gpu_request,
            datasets=environment.datasets,
            egress=environment.egress,
            created_at=environment.created_at,
            last_active_at=environment.last_active_at,
            password_hash=lifecycle.files.password_hash(environment.ref),
            volume_bytes={name: self._size(place) for name, place in places.items() if is_measured and place.is_dir()},
        )

    def _size(self, place: Path) -> int:
        """Measure a directory once: of a large home it takes its time, and only the target's first look needs it."""
        if place not in self._sizes:
            self._sizes[place] = _size_of(place)
        return self._sizes[place]


def _size_of(place: Path) -> int:
    """Return what a directory holds on its own file system; 0 where that cannot be said."""
    command = ["du", "-sx", "--block-size=1", "--", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=None)
    words = done.stdout.split()
    return int(words[0]) if words and words[0].isdigit() else 0
