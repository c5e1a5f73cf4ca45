"""Environments as rows: what is meant to exist. What does exist, the engine's labels tell."""

from datetime import UTC, datetime

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.errors import ConflictError, NotFoundError
from gateway.model import (
    Egress,
    Environment,
    EnvironmentName,
    EnvironmentRef,
    EnvironmentState,
    GpuUuid,
    Limits,
    NodeName,
    UserName,
)
from gateway.store.database import Database
from gateway.store.leases import end_leases
from gateway.store.schema import ENVIRONMENTS, LEASES


class EnvironmentTable:
    """Rows of environments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, ref: EnvironmentRef) -> Environment | None:
        """Return the environment, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(ENVIRONMENTS).where(_is(ref))).one_or_none()
            return None if row is None else _environment(row, _leases(connection, ref))

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

    def refs(self) -> list[EnvironmentRef]:
        """Return the names of all environments, by user and name."""
        columns = ENVIRONMENTS.c
        with self._database.reading() as connection:
            rows = connection.execute(select(columns.user, columns.name).order_by(columns.user, columns.name)).all()
        return [EnvironmentRef(UserName(user), EnvironmentName(name)) for user, name in rows]

    def counts(self) -> tuple[dict[str, int], int]:
        """Return how many environments there are in each state, and on how many the gateway last failed."""
        columns = ENVIRONMENTS.c
        with self._database.reading() as connection:
            states = connection.execute(select(columns.state, func.count()).group_by(columns.state)).all()
            troubled = connection.execute(select(func.count()).where(columns.trouble != "")).scalar_one()
        return {str(state): int(count) for state, count in states}, int(troubled)

    def add(self, environment: Environment) -> None:
        """Claim the name. Raises: ConflictError `environment.exists`."""
        try:
            with self._database.transaction(changes_access=True) as connection:
                connection.execute(insert(ENVIRONMENTS).values(**row_of(environment)))
        except IntegrityError as exc:
            raise ConflictError(
                "environment.exists", f"{environment.ref} exists already", f"'devgw show {environment.ref}'"
            ) from exc

    def set_state(
        self, ref: EnvironmentRef, state: EnvironmentState, *, should_run: bool | None = None, detail: str = ""
    ) -> None:
        """Move an environment to another state; out of a deletion none leads."""
        values: dict[str, object] = {"state": state, "detail": detail}
        if should_run is not None:
            values["should_run"] = should_run
        with self._database.transaction() as connection:
            may_move = _is(ref) & (ENVIRONMENTS.c.state != EnvironmentState.DELETING)
            connection.execute(update(ENVIRONMENTS).where(may_move).values(**values))

    def begin_delete(self, ref: EnvironmentRef, *, purge: bool) -> None:
        """Store that an environment goes, and with `purge` its files; neither is ever taken back."""
        values: dict[str, object] = {"state": EnvironmentState.DELETING, "should_run": False}
        if purge:
            values["purges"] = True
        with self._database.transaction(changes_access=True) as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(**values))

    def set_trouble(self, ref: EnvironmentRef, trouble: str) -> None:
        """Remember what care for an environment failed at, or that it failed no more."""
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(trouble=trouble))

    def set_node_request(self, ref: EnvironmentRef, node: NodeName) -> None:
        """Change the only node an environment may be on; empty for any."""
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(node_request=node))

    def set_image(self, ref: EnvironmentRef, digest: str) -> None:
        """Remember what an environment is started from; a restart that was asked for is thereby done."""
        with self._database.transaction() as connection:
            values = {"image_digest": digest, "restart_at": None}
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(**values))

    def set_restart(self, ref: EnvironmentRef, at: datetime | None) -> None:
        """Ask for a restart at this time, or for none."""
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(restart_at=at))

    def set_disk(self, ref: EnvironmentRef, disk_bytes: int) -> None:
        """Store the size of an environment's disk."""
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(disk_bytes=disk_bytes))

    def touch(self, ref: EnvironmentRef) -> None:
        """Remember that somebody used it just now."""
        with self._database.transaction() as connection:
            connection.execute(update(ENVIRONMENTS).where(_is(ref)).values(last_active_at=datetime.now(UTC)))

    def remove(self, ref: EnvironmentRef) -> None:
        """Forget an environment; its leases end with it."""
        with self._database.transaction(changes_access=True) as connection:
            end_leases(connection, ref, datetime.now(UTC))
            connection.execute(delete(ENVIRONMENTS).where(_is(ref)))


def row_of(environment: Environment) -> dict[str, object]:
    """Return what the table has of an environment that was never started."""
    return {
        "user": environment.ref.user, "name": environment.ref.name, "state": environment.state,
        "engine": environment.engine, "image": environment.image,
        "memory_bytes": environment.limits.memory_bytes, "cpus": environment.limits.cpus,
        "pids": environment.limits.pids, "shm_bytes": environment.limits.shm_bytes,
        "gpu_request": environment.gpu_request, "datasets": list(environment.datasets),
        "egress": environment.egress, "should_run": environment.should_run,
        "created_at": environment.created_at, "detail": environment.detail,
        "node_request": environment.node_request, "disk_bytes": environment.limits.disk_bytes,
    }  # fmt: skip


def _is(ref: EnvironmentRef):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's expression types say nothing here
    return (ENVIRONMENTS.c.user == ref.user) & (ENVIRONMENTS.c.name == ref.name)


def _ref(row: Row[tuple[object, ...]]) -> EnvironmentRef:
    return EnvironmentRef(UserName(row.user), EnvironmentName(row.name))


def _leases(connection: Connection, ref: EnvironmentRef | None = None) -> dict[EnvironmentRef, list[GpuUuid]]:
    query = select(LEASES.c.user, LEASES.c.name, LEASES.c.gpu_uuid)
    if ref is not None:
        query = query.where((LEASES.c.user == ref.user) & (LEASES.c.name == ref.name))
    held: dict[EnvironmentRef, list[GpuUuid]] = {}
    for user, name, uuid in connection.execute(query):
        held.setdefault(EnvironmentRef(UserName(user), EnvironmentName(name)), []).append(GpuUuid(uuid))
    return held


def _environment(row: Row[tuple[object, ...]], leases: dict[EnvironmentRef, list[GpuUuid]]) -> Environment:
    ref = _ref(row)
    return Environment(
        ref=ref,
        state=EnvironmentState(row.state),
        engine=row.engine,
        image=row.image,
        limits=Limits(row.memory_bytes, row.cpus, row.pids, row.shm_bytes, row.disk_bytes),
        gpu_request=row.gpu_request,
        gpus=tuple(sorted(leases.get(ref, []))),
        datasets=tuple(row.datasets),
        egress=Egress(row.egress),
        created_at=row.created_at,
        should_run=row.should_run,
        detail=row.detail,
        last_active_at=row.last_active_at,
        purges=row.purges,
        trouble=row.trouble,
        node_request=NodeName(row.node_request),
        image_digest=row.image_digest,
        restart_at=row.restart_at,
    )
