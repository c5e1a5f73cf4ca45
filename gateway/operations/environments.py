"""Environments: create, start, stop, delete, give another password, remove what the engine alone knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from gateway.audit.events import start_of
from gateway.auth.passwords import hash_password
from gateway.engines.interface import Engine, Image, Progress, ignore_progress
from gateway.engines.nodes import find_node
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import ConflictError, QueuedError
from gateway.gate import Gate
from gateway.gpu_requests import parse_gpu_request
from gateway.gpus.waiting import Waiting
from gateway.model import (
    NOWHERE,
    Egress,
    Environment,
    EnvironmentRef,
    EnvironmentState,
    Limits,
    NodeName,
    PublicKey,
)
from gateway.operations.keys import KeyOperations
from gateway.operations.recorded import Recorded
from gateway.store.environments import EnvironmentTable
from gateway.store.users import Users
from policies.quantities import show_size
from policies.requests import CreateRequest, Subject


@dataclass(frozen=True, slots=True)
class CreateOrder:
    """What `devgw create` asks for, defaults filled in."""

    ref: EnvironmentRef
    image: str
    limits: Limits
    gpu_request: str = "0"
    datasets: tuple[str, ...] = ()
    egress: Egress = Egress.NONE
    lifetime_seconds: int | None = None
    node: NodeName = NOWHERE
    """The only node it may be on, where one is named."""
    keys: Sequence[PublicKey] = field(default_factory=tuple)
    bcrypt_hash: Callable[[], str] = field(kw_only=True)
    """Gives the notebook password's hash, which is being made."""


class ImageChoice(Protocol):
    """Which image a reference leads to; see `images.channels`."""

    def choose(self, text: str) -> Image: ...
    def canonical(self, text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class EnvironmentParts:
    """What the operations on environments stand on."""

    users: Users
    table: EnvironmentTable
    lifecycle: EnvironmentLifecycle
    engine: Callable[[], Engine]
    waiting: Waiting
    reap: Callable[[EnvironmentRef], bool]
    uid_start: int
    images: ImageChoice


class EnvironmentOperations:
    """An administrator's acts on environments: decide, act, journal, in this order."""

    def __init__(self, parts: EnvironmentParts, gate: Gate, keys: KeyOperations, recorded: Recorded) -> None:
        self._users = parts.users
        self._table = parts.table
        self._environments = parts.lifecycle
        self._engine = parts.engine
        self._waiting = parts.waiting
        self._reap = parts.reap
        self._uid_start = parts.uid_start
        self._images = parts.images
        self._gate = gate
        self._keys = keys
        self._recorded = recorded

    def create(self, order: CreateOrder, progress: Progress = ignore_progress, *, wait: bool = False) -> Environment:
        """Make an environment for a user, who is made known when new; with `wait` in the queue for its GPU.

        Raises:
            ConflictError, NotFoundError, DeniedError, LeaseError, EngineError, StoreError: nothing half-made is left.
        """
        if self._users.get(order.ref.user) is not None:
            self._users.require_settled(order.ref.user)
        existing = self._table.get(order.ref)
        if existing is not None and existing.state not in {EnvironmentState.CREATING, EnvironmentState.DELETING}:
            raise ConflictError("environment.exists", f"{order.ref} exists already", f"'devgw show {order.ref}'")
        order = replace(order, image=self._images.canonical(order.image))
        if order.node != NOWHERE:
            find_node(self._engine().nodes(), order.node)
        digest = self._images.choose(order.image).digest
        self._gate.require(self._create_request(order, digest), self._recorded.actor, str(order.ref))
        detail = {"image": order.image, "gpus": order.gpu_request, "datasets": ",".join(order.datasets)}
        if order.limits.disk_bytes:
            detail["disk"] = show_size(order.limits.disk_bytes)
        if order.node != NOWHERE:
            detail["node"] = order.node
        with self._recorded.failing("environment.created", str(order.ref), **detail):
            known = self._users.get(order.ref.user) is not None
            self._users.ensure(order.ref.user, uid_start=self._uid_start)
            try:
                made = self._served(
                    order.ref,
                    order.gpu_request,
                    lambda: self._environments.create(
                        self._row(order), order.bcrypt_hash(), progress, self._recorded.actor
                    ),
                    progress if wait else None,
                )
            except (Exception, KeyboardInterrupt, SystemExit):
                if not known:
                    self._users.forget(order.ref.user)
                raise
        self._recorded.note("environment.created", str(order.ref), **detail, digest=made.image_digest)
        if not known:
            self._recorded.note("user.created", user=order.ref.user)
        for key in order.keys:
            self._keys.add_if_new(order.ref.user, key)
        return made

    def start(self, ref: EnvironmentRef, progress: Progress = ignore_progress, *, wait: bool = False) -> Environment:
        """Start a stopped environment; with `wait` in the queue for its GPU."""
        asked = self._table.require(ref).gpu_request
        with self._recorded.failing("environment.started", str(ref)):
            actor = self._recorded.actor
            attempt = lambda: self._environments.start(ref, progress, actor)  # noqa: E731
            started = self._served(ref, asked, attempt, progress if wait else None)
        self._recorded.note("environment.started", str(ref), **start_of(started))
        return started

    def remake(self, ref: EnvironmentRef, why: str, progress: Progress = ignore_progress) -> Environment:
        """Make a running environment anew, from its image as that is now; GPUs and files stay."""
        with self._recorded.failing("environment.started", str(ref), why=why):
            remade = self._environments.recreate(ref, progress, self._recorded.actor)
        self._recorded.note("environment.started", str(ref), **start_of(remade), why=why)
        return remade

    def stop(self, ref: EnvironmentRef) -> None:
        """Stop an environment; its files stay, its GPUs are free."""
        self._table.require(ref)
        with self._recorded.act("environment.stopped", str(ref)):
            self._environments.stop(ref, self._recorded.actor)

    def grow_disk(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Make an environment's disk larger, also while it runs, within what the policy permits.

        Raises:
            NotFoundError, DeniedError; ConflictError and StoreError as `EnvironmentLifecycle.grow_disk`.
        """
        environment = self._table.require(ref)
        self._users.require_settled(ref.user)
        order = CreateOrder(
            ref,
            environment.image,
            replace(environment.limits, disk_bytes=size_bytes),
            environment.gpu_request,
            environment.datasets,
            environment.egress,
            bcrypt_hash=str,
        )
        digest = self._images.choose(order.image).digest
        self._gate.require(self._create_request(order, digest), self._recorded.actor, str(ref))
        with self._recorded.act("environment.resized", str(ref), disk=show_size(size_bytes)):
            self._environments.grow_disk(ref, size_bytes)

    def delete(self, ref: EnvironmentRef, *, force: bool = False, purge: bool = False) -> None:
        """Remove an environment, with `purge` also what its user wrote."""
        self._table.require(ref)
        self._users.require_settled(ref.user)
        with self._recorded.act("environment.deleted", str(ref), purged=purge):
            self._environments.delete(ref, force=force, purge=purge, actor=self._recorded.actor)

    def reap(self, ref: EnvironmentRef) -> bool:
        """Remove what the engine has and the store does not know; False where that is no longer so."""
        with self._recorded.act("environment.reaped", str(ref)):
            return self._reap(ref)

    def set_password(self, ref: EnvironmentRef, password: str) -> None:
        """Give the notebook another password."""
        bcrypt_hash = hash_password(password)
        self._table.require(ref)
        self._users.require_settled(ref.user)
        with self._recorded.act("password.changed", str(ref)):
            self._environments.files.set_password(ref, bcrypt_hash)

    def _served(
        self, ref: EnvironmentRef, gpu_request: str, attempt: Callable[[], Environment], progress: Progress | None
    ) -> Environment:
        """Attempt at once, then in the queue where the caller wants to see its progress.

        An engine with a queue of its own has waited within the attempt.
        """
        if self._environments.leases.deciders.engine_queues:
            return attempt()
        try:
            return attempt()
        except QueuedError as exc:
            if progress is None:
                raise
            self._recorded.note("lease.queued", str(ref), gpus=gpu_request, reason=exc.message)
        return self._waiting.until_served(ref, gpu_request, attempt, progress)

    def _create_request(self, order: CreateOrder, digest: str) -> CreateRequest:
        others = [one for one in self._table.all(order.ref.user) if one.ref != order.ref]
        asked = parse_gpu_request(order.gpu_request)
        return CreateRequest(
            subject=Subject(user=order.ref.user),
            at=datetime.now(UTC),
            image=order.image,
            memory_bytes=order.limits.memory_bytes,
            cpus=order.limits.cpus,
            gpus=asked.count,
            gpu_profiles=asked.profiles,
            environments=len(others),
            gpus_held=sum(len(one.gpus) for one in others),
            datasets=order.datasets,
            egress=order.egress,
            lifetime_seconds=order.lifetime_seconds,
            image_digest=digest,
            disk_bytes=order.limits.disk_bytes,
        )

    def _row(self, order: CreateOrder) -> Environment:
        return Environment(
            ref=order.ref,
            state=EnvironmentState.CREATING,
            engine=self._engine().name,
            image=order.image,
            limits=order.limits,
            gpu_request=order.gpu_request,
            gpus=(),
            datasets=order.datasets,
            egress=order.egress,
            created_at=datetime.now(UTC),
            should_run=True,
            node_request=order.node,
        )
