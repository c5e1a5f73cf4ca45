"""What an administrator does on the host: decide, act, journal, in this order and nowhere else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gateway.audit.event import Event
from gateway.auth.passwords import hash_password
from gateway.engines.interface import Engine, Progress, ignore_progress
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import ConflictError, DevgwError, NotFoundError, QueuedError
from gateway.gate import Gate, Recorder
from gateway.gpus.lease_extension import LeaseExtension
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.requests import parse_gpu_request
from gateway.gpus.waiting import Waiting
from gateway.model import (
    Actor,
    Egress,
    Environment,
    EnvironmentRef,
    EnvironmentState,
    Limits,
    PublicKey,
    User,
    UserName,
)
from gateway.store.environments import EnvironmentTable
from gateway.store.sessions import LiveSessionTable, OwnedSession
from gateway.store.users import Users
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
    keys: Sequence[PublicKey] = field(default_factory=tuple)
    bcrypt_hash: Callable[[], str] = field(kw_only=True)
    """Gives the notebook password's hash, which is being made."""


class Administration:
    """The administrator's acts. Every one is journaled under the OS user who ran it, also when it fails."""

    def __init__(  # noqa: PLR0913 - named parts, put together in one place
        self,
        *,
        users: Users,
        table: EnvironmentTable,
        live_sessions: LiveSessionTable,
        environments: EnvironmentLifecycle,
        engine: Callable[[], Engine],
        gate: Gate,
        recorder: Recorder,
        actor: Actor,
        uid_start: int,
        waiting: Waiting,
        reap: Callable[[EnvironmentRef], bool],
        quarantines: Quarantines,
        extension: LeaseExtension,
    ) -> None:
        self._users = users
        self._table = table
        self._live_sessions = live_sessions
        self._environments = environments
        self._engine = engine
        self._gate = gate
        self._recorder = recorder
        self._actor = actor
        self._uid_start = uid_start
        self._waiting = waiting
        self._reap = reap
        self._quarantines = quarantines
        self._extension = extension

    def create(self, order: CreateOrder, progress: Progress = ignore_progress, *, wait: bool = False) -> Environment:
        """Make an environment for a user, who is made known when new; with `wait` in the queue for its GPU.

        Raises:
            ConflictError, NotFoundError, DeniedError, LeaseError, EngineError, StoreError: nothing half-made is left.
        """
        existing = self._table.get(order.ref)
        if existing is not None and existing.state not in {EnvironmentState.CREATING, EnvironmentState.DELETING}:
            raise ConflictError("environment.exists", f"{order.ref} exists already", f"'devgw show {order.ref}'")
        self._engine().image(order.image)
        self._gate.require(self._create_request(order), self._actor, str(order.ref))
        detail = {"image": order.image, "gpus": order.gpu_request, "datasets": ",".join(order.datasets)}
        with self._recorded("environment.created", str(order.ref), **detail):
            known = self._users.get(order.ref.user) is not None
            self._users.ensure(order.ref.user, uid_start=self._uid_start)
            try:
                made = self._served(
                    order.ref,
                    order.gpu_request,
                    lambda: self._environments.create(self._row(order), order.bcrypt_hash(), progress),
                    progress if wait else None,
                )
            except (Exception, KeyboardInterrupt, SystemExit):
                if not known:
                    self._users.forget(order.ref.user)
                raise
        if not known:
            self._note("user.created", user=order.ref.user)
        for key in order.keys:
            self._add_key_if_new(order.ref.user, key)
        return made

    def start(self, ref: EnvironmentRef, progress: Progress = ignore_progress, *, wait: bool = False) -> Environment:
        """Start a stopped environment; with `wait` in the queue for its GPU."""
        asked = self._table.require(ref).gpu_request
        with self._recorded("environment.started", str(ref)):
            return self._served(ref, asked, lambda: self._environments.start(ref, progress), progress if wait else None)

    def stop(self, ref: EnvironmentRef) -> None:
        """Stop an environment; its files stay, its GPUs are free."""
        self._table.require(ref)
        with self._recorded("environment.stopped", str(ref)):
            self._environments.stop(ref)

    def delete(self, ref: EnvironmentRef, *, force: bool = False, purge: bool = False) -> None:
        """Remove an environment, with `purge` also what its user wrote."""
        self._table.require(ref)
        with self._recorded("environment.deleted", str(ref), purged=purge):
            self._environments.delete(ref, force=force, purge=purge)

    def extend(self, ref: EnvironmentRef, seconds: int) -> datetime:
        """Move the end of an environment's lease and return it. Raises: NotFoundError, ConflictError, DeniedError."""
        self._table.require(ref)
        with self._recorded("lease.extended", str(ref), by=f"{seconds}s"):
            return self._extension.extend(ref, seconds)

    def reap(self, ref: EnvironmentRef) -> bool:
        """Remove what the engine has and the store does not know; False where that is no longer so."""
        with self._recorded("environment.reaped", str(ref)):
            return self._reap(ref)

    def quarantine(self, uuid: str, reason: str) -> None:
        """Take a GPU out of use; whoever has it keeps it until they stop. Raises: LeaseError `gpu.unknown`."""
        with self._recorded("gpu.quarantined", gpu=uuid, reason=reason):
            self._quarantines.add(uuid, reason)

    def lift(self, uuid: str) -> None:
        """Put a GPU back into use. Raises: ConflictError `gpu.not-quarantined`."""
        with self._recorded("gpu.restored", gpu=uuid):
            self._quarantines.lift(uuid)

    def set_password(self, ref: EnvironmentRef, password: str) -> None:
        """Give the notebook another password."""
        bcrypt_hash = hash_password(password)
        self._table.require(ref)
        with self._recorded("password.changed", str(ref)):
            self._environments.set_password(ref, bcrypt_hash)

    def add_key(self, name: UserName, key: PublicKey) -> None:
        """Let a key in. Raises: NotFoundError, ConflictError."""
        self._users.require(name)
        with self._recorded(
            "key.added", user=name, fingerprint=key.fingerprint, algorithm=key.algorithm, bits=str(key.bits)
        ):
            self._users.add_key(name, key)

    def remove_key(self, name: UserName, fingerprint: str) -> None:
        """Shut a key out; its live sessions end. Raises: NotFoundError."""
        self._users.require(name)
        if fingerprint not in {key.fingerprint for key in self._users.keys(name)}:
            raise NotFoundError("key.not-found", f"{name} has no key {fingerprint}", f"'devgw key list {name}'")
        with self._recorded("key.removed", user=name, fingerprint=fingerprint):
            self._users.remove_key(name, fingerprint)

    def set_disabled(self, name: UserName, *, disabled: bool) -> User:
        """Shut a user out, or let them in again; live sessions of a disabled user end. Raises: NotFoundError."""
        self._users.require(name)
        with self._recorded("user.disabled" if disabled else "user.enabled", user=name):
            self._users.set_disabled(name, disabled=disabled)
        return self._users.require(name)

    def kill(self, sessions: Sequence[OwnedSession], reason: str = "") -> None:
        """Have connections ended by the gateway, which shows their users the reason. Raises: StoreError."""
        shown = f"ended by an administrator{': ' if reason else ''}{reason}"
        with ExitStack() as acts:
            for session in (one.session for one in sessions):
                detail = {"user": session.user, "connection": session.id, "reason": reason}
                acts.enter_context(self._recorded("session.killed", session.environment, **detail))
            self._live_sessions.ask_to_end(sessions, shown)

    def _served(
        self, ref: EnvironmentRef, gpu_request: str, attempt: Callable[[], Environment], progress: Progress | None
    ) -> Environment:
        """Attempt at once, then in the queue where the caller wants to see its progress."""
        try:
            return attempt()
        except QueuedError as exc:
            if progress is None:
                raise
            self._note("lease.queued", str(ref), gpus=gpu_request, reason=exc.message)
        return self._waiting.until_served(ref, gpu_request, attempt, progress)

    def _add_key_if_new(self, name: UserName, key: PublicKey) -> None:
        if key.fingerprint not in {known.fingerprint for known in self._users.keys(name)}:
            self.add_key(name, key)

    def _create_request(self, order: CreateOrder) -> CreateRequest:
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
        )

    @contextmanager
    def _recorded(self, code: str, environment: str = "", **detail: str | bool) -> Iterator[None]:
        """Journal the act once it is done, or `<noun>.failed` with the reason when it is not."""
        try:
            yield
        except DevgwError as exc:
            failed = f"{code.partition('.')[0]}.failed"
            reason = f"{code}: {exc.message}"
            self._recorder.submit(Event(failed, self._actor, environment, reason=reason, detail=dict(detail))).result()
            raise
        self._note(code, environment, **detail)

    def _note(self, code: str, environment: str = "", **detail: str | bool) -> None:
        self._recorder.submit(Event(code, self._actor, environment, detail=dict(detail))).result()
