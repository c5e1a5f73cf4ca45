"""Create, start, stop and delete environments: each step in order, and everything given back when one fails.

A container lives only while its environment runs; what lasts is on volumes. Deciding who may is the gate's work.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from gateway.engines.interface import Engine, Image, Load, Progress, Service, ignore_progress
from gateway.engines.nodes import unreachable
from gateway.environments.account import (
    EnvironmentAccount,
    host_key_line,
    read_password_hash,
    write_account,
    write_password_hash,
)
from gateway.environments.disks import Disks
from gateway.environments.layout import Layout
from gateway.environments.leasing import NO_GPU, EnvironmentLeases, Leasing
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.locks import EnvironmentLocks, Locks
from gateway.environments.open_hosts import write_open_hosts
from gateway.environments.readiness import wait_until_ready
from gateway.environments.shared_volumes import groups_of
from gateway.environments.status import Status, read_status, withdraw_notice, write_notice
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

_LONGEST_DETAIL = 300


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
        self.disks = settings.disks or Disks(settings.state_dir)
        self.locks: EnvironmentLocks = settings.shared_locks or Locks(settings.state_dir / "locks")

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
        user = self._users.require(ref.user)
        with self.locks.hold(ref):
            _require_here(self._users.require(ref.user))
            self.require_known(ref)
            self.require_open_node(environment)
            self.clear_remains(ref)
            if environment.limits.disk_bytes:
                self.disks.require_no_shrink(ref, environment.limits.disk_bytes)
            self._table.add(environment)
            layout = self._layout(ref)
            with _undo_on_error() as undo:
                undo.callback(self._table.remove, ref)
                undo.callback(layout.remove_empty_volumes)
                undo.callback(self.disks.release, ref)
                undo.callback(layout.remove)
                progress("making directories")
                self.disks.prepare(ref, environment.limits.disk_bytes)
                layout.make(*self._ids(user))
                write_password_hash(layout, bcrypt_hash, *self._ids(user))
                self._start(environment, user, progress, actor)
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
                self.require_open_node(environment)
                self._start(environment, self._users.require(ref.user), progress, actor)
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
            self._remove_files(ref, purge=purge or environment.purges)
            self._table.remove(ref)

    def spec_of(self, ref: EnvironmentRef) -> EnvironmentSpec:
        """Return what the engine would be told at a start now, with the GPUs it holds. Raises: NotFoundError."""
        environment = self._table.require(ref)
        ids = self._ids(self._users.require(ref.user))
        shared = self._settings.shared.given(ref.user)
        account = EnvironmentAccount(ref, *ids, environment.gpus, "", self._settings.notebook_port, shared)
        return self._spec(environment, self._image_of(environment), account, self._layout(ref))

    def set_password(self, ref: EnvironmentRef, bcrypt_hash: str) -> None:
        """Give the notebook another password, effective at the next login. Raises: NotFoundError, StoreError."""
        self._table.require(ref)
        write_password_hash(self._layout(ref), bcrypt_hash, *self.owner(ref))
        self._engine().refresh(ref)

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

    def mount_disks(self, user: str = "*") -> list[EnvironmentRef]:
        """Have the files of all environments, or of one user's, where they can be read. Raises: DevgwError."""
        for ref in (refs := self.disks.to_mount(user)):
            with self.locks.hold(ref):
                self.disks.prepare(ref, 0)
        return refs

    def prepare_files(self, ref: EnvironmentRef, bcrypt_hash: str = "") -> None:
        """Have the directories of an environment before it starts, for files that come from elsewhere.

        Raises: NotFoundError, StoreError, ConflictError, as a start would.
        """
        with self.locks.hold(ref):
            environment = self._table.require(ref)
            self.disks.prepare(ref, environment.limits.disk_bytes)
            layout = self._layout(ref)
            layout.make(*self.owner(ref))
            if bcrypt_hash:
                write_password_hash(layout, bcrypt_hash, *self.owner(ref))

    def password_hash(self, ref: EnvironmentRef) -> str:
        """Return the hash of the notebook's password. Raises: StoreError."""
        return read_password_hash(self._layout(ref))

    def volume(self, ref: EnvironmentRef, name: str) -> Path:
        """Return where a volume's files are, on a host that runs its environments itself."""
        return self._layout(ref).volumes / name

    def clear_remains(self, ref: EnvironmentRef) -> None:
        """Roll a create back and finish a delete that were cut off; the caller holds the lock, so nobody is at it."""
        found = self._table.get(ref)
        if found is not None and found.state in {EnvironmentState.CREATING, EnvironmentState.DELETING}:
            self.require_known(ref)
            self._engine().delete(ref)
            self._remove_files(ref, purge=found.purges)
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
            self._start(environment, self._users.require(ref.user), progress, actor)
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

    def tell(self, ref: EnvironmentRef, reason: str, stop_at: datetime, *, save: bool) -> None:
        """Let the environment know that it will stop. Raises: NotFoundError, StoreError."""
        uid, gid = self.owner(ref)
        write_notice(self._layout(ref), uid, gid, reason=reason, stop_at=stop_at, save=save)
        self._engine().refresh(ref)

    def withdraw(self, ref: EnvironmentRef) -> None:
        """Let the environment know that it will not stop after all."""
        withdraw_notice(self._layout(ref))
        self._engine().refresh(ref)

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

    def owner(self, ref: EnvironmentRef) -> tuple[int, int]:
        """Return uid and gid of an environment's files. Raises: NotFoundError."""
        return self._ids(self._users.require(ref.user))

    def host_key(self, ref: EnvironmentRef) -> str:
        """Return the environment's pinned public host key."""
        return host_key_line(self._layout(ref))

    def _remove_files(self, ref: EnvironmentRef, *, purge: bool) -> None:
        """Remove them before the row that remembers that they go."""
        self._layout(ref).remove()
        if purge:
            self._engine().remove_volumes(ref)
            self.disks.remove(ref)
            self._layout(ref).remove_volumes()
        else:
            self.disks.release(ref)

    def _start(self, environment: Environment, user: User, progress: Progress, actor: Actor) -> None:
        ref, engine, layout = environment.ref, self._engine(), self._layout(environment.ref)
        with _undo_on_error() as undo:
            undo.callback(self._note_failed_start, environment)
            image = self._image_of(environment)
            engine.delete(ref)
            gpus = self.leases.before_start(environment, undo, progress, actor)
            self.disks.prepare(ref, environment.limits.disk_bytes)
            layout.make(*self._ids(user))
            shared, port = self._settings.shared.decide(ref, actor), self._settings.notebook_port
            account = EnvironmentAccount(ref, *self._ids(user), gpus, self._settings.ca_line(), port, shared)
            write_account(layout, account)
            if self._settings.open_hosts is not None:
                hosts = self._settings.open_hosts(ref.user, environment.egress)
                write_open_hosts(layout, account.uid, account.gid, hosts)
            withdraw_notice(layout)
            undo.callback(engine.delete, ref)
            engine.create(self._spec(environment, image, account, layout), progress)
            engine.start(ref)
            found = self.leases.after_start(environment, actor)
            if found != gpus:
                write_account(layout, replace(account, gpus=found))
                engine.refresh(ref)
            wait_until_ready(engine, ref, self._settings.start_timeout, progress)
            self._table.set_image(ref, image.digest)
            self._table.set_state(ref, EnvironmentState.RUNNING, should_run=True)
            self._table.touch(ref)

    def _image_of(self, environment: Environment) -> Image:
        """Return what it is started from now; a channel may have moved since the last time."""
        if self._settings.image_of is None:
            return self._engine().image(environment.image)
        return self._settings.image_of(environment.ref.user, environment.image)

    def _note_failed_start(self, environment: Environment) -> None:
        """Say in the row why it does not run. Called while the cause is handled."""
        cause = sys.exception()
        why = f": {cause.message}" if isinstance(cause, DevgwError) else ""
        detail = f"the last start failed{why}"[:_LONGEST_DETAIL]
        self._table.set_state(environment.ref, EnvironmentState.FAILED, should_run=False, detail=detail)

    def _spec(
        self, environment: Environment, image: Image, account: EnvironmentAccount, layout: Layout
    ) -> EnvironmentSpec:
        ref = environment.ref
        datasets = {
            name: self._settings.datasets[name] for name in environment.datasets if name in self._settings.datasets
        }
        return EnvironmentSpec(
            ref=ref,
            uid=account.uid,
            gid=account.gid,
            image=image.digest or image.reference,  # an engine that keeps no images knows no digests
            limits=environment.limits,
            mounts=layout.mounts(datasets, [one.mount for one in account.shared]),
            groups=groups_of(account.shared),
            variables={"DEVGW_USER": ref.user, "DEVGW_ENVIRONMENT": str(ref), "HOME": f"/home/{ref.user}"},
            gpus=tuple(account.gpus),
            gpu_request=self._wish(environment),
            node=environment.node_request,
            avoided_nodes=tuple(sorted(self._settings.drained())),
            egress=environment.egress,
            read_only_root=self._settings.read_only_root,
        )

    def require_open_node(self, environment: Environment) -> None:
        """Refuse to start what could only start on a node that is drained. Raises: ConflictError `node.drained`."""
        drained = self._settings.drained()
        if not drained:
            return
        wanted = environment.node_request
        candidates = [wanted] if wanted != NOWHERE else [node.name for node in self._engine().nodes()]
        if all(node in drained for node in candidates):
            names = ", ".join(candidates)
            raise ConflictError(
                "node.drained",
                f"{environment.ref} could only start on {names}, which is drained: {drained[candidates[0]]}",
                f"'devgw node undrain {candidates[0]}' puts it back",
            )

    def nodes_of_environments(self) -> Mapping[EnvironmentRef, NodeName]:
        """Return where the engine has each environment. Raises: EngineError."""
        return {observed.ref: observed.node for observed in self._engine().observe_all()}

    def _wish(self, environment: Environment) -> str:
        """Return what the engine is to find; nothing where devgw has chosen already."""
        is_wish = self.leases.deciders.engine_places and environment.gpu_request not in NO_GPU
        return environment.gpu_request if is_wish else ""

    def _is_running(self, environment: Environment) -> bool:
        observed = self._engine().observe(environment.ref)
        return observed is not None and observed.running

    def _answers_now(self, ref: EnvironmentRef) -> bool:
        try:
            self.dial(ref, "ssh").close()
        except DevgwError:
            return False
        return True

    def _layout(self, ref: EnvironmentRef) -> Layout:
        return Layout.of(self._settings.state_dir, ref)

    @staticmethod
    def _ids(user: User) -> tuple[int, int]:
        """Return uid and gid of a user's environments; a gateway that is not root can own files only as itself."""
        return (user.uid, user.uid) if os.geteuid() == 0 else (os.getuid(), os.getgid())


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


@contextmanager
def _undo_on_error() -> Iterator[ExitStack]:
    """Run the callbacks in reverse when the block fails, also by Ctrl-C; a failure to undo never hides the cause."""
    with ExitStack() as undo:
        try:
            yield undo
        except (Exception, KeyboardInterrupt, SystemExit) as cause:
            try:
                undo.close()
            except DevgwError as exc:
                cause.add_note(f"while undoing: {exc.message}")
            raise
        undo.pop_all()
