"""Create, start, stop and delete environments: each step in order, and everything given back when one fails.

A container lives only while its environment runs; what lasts is on volumes. Deciding who may is the gate's work.
"""

import socket
from collections.abc import Callable, Mapping
from datetime import datetime

from gateway.engines.interface import Engine, Load, Progress, Service, ignore_progress
from gateway.engines.nodes import unreachable
from gateway.environments.disks import Disks
from gateway.environments.files import EnvironmentFiles
from gateway.environments.leasing import EnvironmentLeases, Leasing
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.locks import EnvironmentLocks, Locks
from gateway.environments.starting import Starter
from gateway.environments.status import Status, read_status
from gateway.environments.undo import undo_on_error
from gateway.errors import ConflictError, DevgwError, NotFoundError
from gateway.gate import Recorder
from gateway.model import (
    GATEWAY,
    NOWHERE,
    Actor,
    Environment,
    EnvironmentRef,
    EnvironmentSpec,
    EnvironmentState,
    NodeName,
    User,
)
from gateway.store.environments import EnvironmentTable
from gateway.store.users import Users


class EnvironmentLifecycle:
    """The environments of one gateway. Calls block; every one takes the environment's lock."""

    def __init__(
        self,
        table: EnvironmentTable,
        users: Users,
        engine: Callable[[], Engine],
        leases: Leasing,
        settings: LifecycleSettings,
        recorder: Recorder,
    ) -> None:
        self._table = table
        self._users = users
        self._engine = engine
        self.leases = EnvironmentLeases(leases, engine, recorder)
        self._settings = settings
        self.locks: EnvironmentLocks = settings.shared_locks or Locks(settings.state_dir / "locks")
        self.disks = settings.disks or Disks(settings.state_dir)
        self.files = EnvironmentFiles(table, users, engine, settings.state_dir, self.disks, self.locks)
        self._starter = Starter(table, engine, self.leases, self.files, settings)

    def create(
        self,
        environment: Environment,
        bcrypt_hash: str,
        progress: Progress = ignore_progress,
        actor: Actor = GATEWAY,
    ) -> Environment:
        """Make and start an environment whose user is in the store; on failure nothing is left but old volumes.

        Raises:
            ConflictError: `environment.exists`.
            DevgwError: whatever the lease, the engine or the disk said.
        """
        ref = environment.ref
        with self.locks.hold(ref):
            _require_here(self._users.require(ref.user))
            self.require_known(ref)
            self._starter.require_open_node(environment)
            self.clear_remains(ref)
            if environment.limits.disk_bytes:
                self.disks.require_no_shrink(ref, environment.limits.disk_bytes)
            self._table.add(environment)
            layout = self.files.layout(ref)
            with undo_on_error() as undo:
                undo.callback(self._table.remove, ref)
                undo.callback(layout.remove_empty_volumes)
                undo.callback(self.disks.release, ref)
                undo.callback(layout.remove)
                progress("making directories")
                self.files.make(ref, environment.limits.disk_bytes, bcrypt_hash)
                self._starter.start(environment, progress, actor)
            return self._table.require(ref)

    def start(
        self,
        ref: EnvironmentRef,
        progress: Progress = ignore_progress,
        actor: Actor = GATEWAY,
        *,
        is_filled: bool = False,
    ) -> Environment:
        """Start a stopped environment; a running one is left alone. Raises: NotFoundError, DevgwError.

        With `is_filled` for a user who arrives from another host, so that their files can come into it.
        """
        with self.locks.hold(ref):
            environment = self._table.require(ref)
            if not is_filled:
                _require_here(self._users.require(ref.user))
            _require_not_going(environment)
            self.require_known(ref)
            if environment.state is EnvironmentState.CREATING:
                raise NotFoundError(
                    "environment.half-made", f"{ref} was never finished", f"'devgw delete {ref}', then create it again"
                )
            if not self._is_running(environment):
                self._starter.require_open_node(environment)
                self._starter.start(environment, progress, actor)
            return self._table.require(ref)

    def stop(self, ref: EnvironmentRef, actor: Actor = GATEWAY) -> None:
        """Stop an environment and give its GPUs back; its files stay. Raises: NotFoundError, EngineError."""
        with self.locks.hold(ref):
            environment = self._table.require(ref)
            _require_not_going(environment)
            self.require_known(ref)
            self._table.set_state(ref, environment.state, should_run=False)  # so that a stop cut off is finished later
            self._engine().stop(ref, self._settings.stop_timeout)
            self._engine().delete(ref)
            self.leases.give_back(ref, actor, "the environment was stopped")
            self._table.set_state(ref, EnvironmentState.STOPPED, should_run=False)

    def delete(self, ref: EnvironmentRef, *, force: bool = False, purge: bool = False, actor: Actor = GATEWAY) -> None:
        """Remove an environment; with `purge` its volumes too, for good; what is begun is finished.

        Raises:
            ConflictError: `environment.running`, without `force`.
        """
        with self.locks.hold(ref):
            environment = self._table.require(ref)
            self.require_known(ref)
            if not force and self._is_running(environment):
                raise ConflictError("environment.running", f"{ref} is running", f"'devgw stop {ref}' first, or --force")
            self._table.begin_delete(ref, purge=purge)
            self._engine().stop(ref, self._settings.stop_timeout)
            self._engine().delete(ref)
            self.leases.give_back(ref, actor, "the environment was deleted")
            self.files.remove(ref, purge=purge or environment.purges)
            self._table.remove(ref)

    def grow_disk(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Make an environment's disk larger while it runs; one that has none gets it while it is stopped.

        Raises:
            ConflictError: `disk.no-shrink`, `disk.no-room`, `disk.too-small`, `environment.running`.
            StoreError: `disk.unenforced`, `disk.failed`, `disk.damaged`.
        """
        with self.locks.hold(ref):
            environment = self._table.require(ref)
            _require_not_going(environment)
            self.disks.grow(ref, size_bytes, in_use=self._is_running(environment))
            self._table.set_disk(ref, size_bytes)

    def spec_of(self, ref: EnvironmentRef) -> EnvironmentSpec:
        """Return what the engine would be told at a start now, with the GPUs it holds. Raises: NotFoundError."""
        return self._starter.spec_of(self._table.require(ref))

    def require_open_node(self, environment: Environment) -> None:
        """Refuse to start what could only start on a node that is drained. Raises: ConflictError `node.drained`."""
        self._starter.require_open_node(environment)

    def clear_remains(self, ref: EnvironmentRef) -> None:
        """Roll a create back and finish a delete that were cut off; the caller holds the lock, so nobody is at it."""
        found = self._table.get(ref)
        if found is not None and found.state in {EnvironmentState.CREATING, EnvironmentState.DELETING}:
            self.require_known(ref)
            self._engine().delete(ref)
            self.files.remove(ref, purge=found.purges)
            self._table.remove(ref)

    def recreate(
        self, ref: EnvironmentRef, progress: Progress = ignore_progress, actor: Actor = GATEWAY
    ) -> Environment:
        """Make a running environment anew, from its image as that is now, with the GPUs and files it has.

        One that is cut off is started by the reconciler. Raises: NotFoundError, DevgwError.
        """
        with self.locks.hold(ref):
            environment = self._table.require(ref)
            _require_here(self._users.require(ref.user))
            _require_not_going(environment)
            self.require_known(ref)
            self._engine().stop(ref, self._settings.stop_timeout)
            self._starter.start(environment, progress, actor)
            return self._table.require(ref)

    def unreachable(self) -> Mapping[EnvironmentRef, NodeName]:
        """Return the environments whose node does not answer: nothing may be done about them."""
        return self._engine().unreachable()

    def require_known(self, ref: EnvironmentRef) -> None:
        """Refuse to act on an environment that may run where nobody can see it. Raises: NodeError."""
        node = self.unreachable().get(ref)
        if node is not None:
            raise unreachable(ref, node)

    def give_up(self, ref: EnvironmentRef, node: NodeName, actor: Actor) -> bool:
        """Take an environment for ended with its node; say whether it may be started elsewhere.

        What was being made or deleted there is cleared away. Raises: NodeError, while the engine does not say so too.
        """
        with self.locks.hold(ref):
            self.require_known(ref)
            environment = self._table.get(ref)
            if environment is None:
                return False
            self.clear_remains(ref)
            if self._table.get(ref) is None:
                return False
            why = f"its node {node} was declared lost"
            self.leases.give_back(ref, actor, why)
            if environment.node_request == node:
                self._table.set_node_request(ref, NOWHERE)
            self._table.set_state(ref, EnvironmentState.STOPPED, should_run=False, detail=why)
            return True

    def status(self, ref: EnvironmentRef, now: datetime) -> Status | None:
        """Return what the environment reports of itself, if it does."""
        return read_status(self._engine().status(ref), now)

    def load(self, ref: EnvironmentRef) -> Load | None:
        """Return what it uses, by the engine's account. Raises: EngineError."""
        return self._engine().load(ref)

    def exists(self, ref: EnvironmentRef) -> bool:
        """Say whether the environment is known and whole."""
        found = self._table.get(ref)
        return found is not None and found.state not in {EnvironmentState.CREATING, EnvironmentState.DELETING}

    def ensure_running(
        self, ref: EnvironmentRef, progress: Progress = ignore_progress, actor: Actor = GATEWAY
    ) -> Environment | None:
        """Wake a stopped environment for someone who connects; return it where it had to be. Raises: DevgwError."""
        environment = self._table.require(ref)
        if environment.state is EnvironmentState.RUNNING and self._answers_now(ref):
            return None
        progress(f"starting your environment {ref}, this takes a moment")
        return self.start(ref, actor=actor)

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        """Return a connected, non-blocking stream to one of the environment's services. Raises: EngineError."""
        return self._engine().dial(ref, service)

    def touch(self, ref: EnvironmentRef, moved_bytes: int) -> None:
        """Note that bytes moved: an open connection alone is no use of an environment."""
        if moved_bytes:
            self._table.touch(ref)

    def host_key(self, ref: EnvironmentRef) -> str:
        """Return the environment's pinned public host key."""
        return self.files.host_key(ref)

    def nodes_of_environments(self) -> Mapping[EnvironmentRef, NodeName]:
        """Return where the engine has each environment. Raises: EngineError."""
        return {observed.ref: observed.node for observed in self._engine().observe_all()}

    def _is_running(self, environment: Environment) -> bool:
        observed = self._engine().observe(environment.ref)
        return observed is not None and observed.running

    def _answers_now(self, ref: EnvironmentRef) -> bool:
        try:
            self.dial(ref, "ssh").close()
        except DevgwError:
            return False
        return True


def _require_here(user: User) -> None:
    """Refuse to run anything of a user who is being moved, or was: a home has one writer. Raises: ConflictError."""
    if user.closed_because:
        hint = f"'devgw {'move' if user.move else 'user delete'} {user.name}' brings it to its end"
        raise ConflictError("user.closed", f"nothing of {user.name}'s runs here: {user.closed_because}", hint)


def _require_not_going(environment: Environment) -> None:
    if environment.state is EnvironmentState.DELETING:
        raise NotFoundError(
            "environment.half-made",
            f"{environment.ref} is being deleted",
            f"'devgw delete {environment.ref}' finishes it",
        )
