"""Environments and their GPU leases as rows: what is meant to exist. What does exist, the engine's labels tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.errors import ConflictError, LeaseError, NotFoundError
from gateway.model import (
    Egress,
    Environment,
    EnvironmentName,
    EnvironmentRef,
    EnvironmentState,
    GpuUuid,
    Limits,
    UserName,
)
from gateway.store.database import Database
from gateway.store.schema import ENVIRONMENTS, LEASES


@dataclass(frozen=True, slots=True)
class Lease:
    """A GPU in an environment's hand."""

    gpu: GpuUuid
    ref: EnvironmentRef
    leased_at: datetime


class EnvironmentTable:
    """Rows of environments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, ref: EnvironmentRef) -> Environment | None:
        """Return the environment, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(ENVIRONMENTS).where(_is(ref))).one_or_none()
            return None if row is None else _environment(row, _leases(connection))

    def require(self, ref: EnvironmentRef) -> Environment:
        """Return the environment. Raises: NotFoundError `environment.not-found`."""
        found = self.get(ref)
        if found is None:
            raise NotFoundError("environment.not-found", f"no environment {ref}", f"'devgw create {ref}' makes one")
        return found

    def all(self, user: str | None = None) -> list[Environment]:
        """Return all environments, or one user's, by user and name."""
        query = select(ENVIRONMENTS).order_by(ENVIRONMENTS.c.user, ENVIRONMENTS.c.name)
        if user is not None:
            query = query.where(ENVIRONMENTS.c.user == user)
        with self._database.reading() as connection:
            leases = _leases(connection)
            return [_environment(row, leases) for row in connection.execute(query)]

    def add(self, environment: Environment) -> None:
        """Claim the name. Raises: ConflictError `environment.exists`."""
        row = {
            "user": environment.ref.user, "name": environment.ref.name, "state": environment.state,
            "engine": environment.engine, "image": environment.image,
            "memory_bytes": environment.limits.memory_bytes, "cpus": environment.limits.cpus,
            "pids": environment.limits.pids, "shm_bytes": environment.limits.shm_bytes,
            "gpu_request": environment.gpu_request, "datasets": list(environment.datasets),
            "egress": environment.egress, "should_run": environment.should_run,
            "created_at": environment.created_at, "detail": environment.detail,
        }  # fmt: skip
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(ENVIRONMENTS).values(**row))
        except IntegrityError as exc:
            raise ConflictError(
                "environment.exists", f"{environment.ref} exists already", f"'devgw show {environment.ref}'"
            ) from exc

    def set_state(
        self, ref: EnvironmentRef, state: EnvironmentState, *, should_run: bool | None = None, detail: str = ""
    ) -> None:
        """Move an environment to another state."""
        values: dict[str, object] = {"state": state, "detail": detail}
        if should_run is not None:
            values["should_run"] = should_run
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(**values))

    def touch(self, ref: EnvironmentRef) -> None:
        """Remember that somebody used it just now."""
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(last_active_at=datetime.now(UTC)))

    def remove(self, ref: EnvironmentRef) -> None:
        """Forget an environment; its leases go with it."""
        with self._database.transaction(changes_access=True) as connection:
            connection.execute(delete(ENVIRONMENTS).where(_is(ref)))


class LeaseTable:
    """Rows of leases; one GPU has at most one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def held(self) -> list[Lease]:
        """Return every lease."""
        with self._database.reading() as connection:
            rows = connection.execute(select(LEASES).order_by(LEASES.c.leased_at)).all()
        return [Lease(GpuUuid(row.gpu_uuid), _ref(row), row.leased_at) for row in rows]

    def take(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> None:
        """Lease all of them or none. Raises: LeaseError `gpu.taken`, NotFoundError."""
        self._require_environment(ref)
        rows = [
            {"gpu_uuid": uuid, "user": ref.user, "name": ref.name, "leased_at": at.astimezone(UTC)} for uuid in uuids
        ]
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(LEASES), rows)
        except IntegrityError as exc:
            raise LeaseError(
                "gpu.taken", f"one of {', '.join(uuids)} is leased already", "'devgw gpus' shows who holds them"
            ) from exc

    def _require_environment(self, ref: EnvironmentRef) -> None:
        with self._database.reading() as connection:
            known = connection.execute(select(ENVIRONMENTS.c.user).where(_is(ref))).one_or_none()
        if known is None:
            raise NotFoundError("environment.not-found", f"no environment {ref}", f"'devgw create {ref}' makes one")

    def release(self, ref: EnvironmentRef) -> None:
        """Give back whatever the environment holds."""
        with self._database.transaction() as connection:
            connection.execute(delete(LEASES).where((LEASES.c.user == ref.user) & (LEASES.c.name == ref.name)))


def _is(ref: EnvironmentRef):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's expression types say nothing here
    return (ENVIRONMENTS.c.user == ref.user) & (ENVIRONMENTS.c.name == ref.name)


def _ref(row: Row[tuple[object, ...]]) -> EnvironmentRef:
    return EnvironmentRef(UserName(row.user), EnvironmentName(row.name))


def _leases(connection: Connection) -> dict[EnvironmentRef, list[GpuUuid]]:
    held: dict[EnvironmentRef, list[GpuUuid]] = {}
    for row in connection.execute(select(LEASES)):
        held.setdefault(_ref(row), []).append(GpuUuid(row.gpu_uuid))
    return held


def _environment(row: Row[tuple[object, ...]], leases: dict[EnvironmentRef, list[GpuUuid]]) -> Environment:
    ref = _ref(row)
    return Environment(
        ref=ref,
        state=EnvironmentState(row.state),
        engine=row.engine,
        image=row.image,
        limits=Limits(row.memory_bytes, row.cpus, row.pids, row.shm_bytes),
        gpu_request=row.gpu_request,
        gpus=tuple(sorted(leases.get(ref, []))),
        datasets=tuple(row.datasets),
        egress=Egress(row.egress),
        created_at=row.created_at,
        should_run=row.should_run,
        detail=row.detail,
        last_active_at=row.last_active_at,
    )
