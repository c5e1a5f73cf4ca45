"""Leases as rows: one per GPU while it is held, one for each that ended, and what they add up to for each user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.errors import LeaseError, NotFoundError
from gateway.model import EnvironmentName, EnvironmentRef, GpuUuid, UserName
from gateway.store.database import Database
from gateway.store.schema import ENVIRONMENTS, LEASES, PAST_LEASES, QUARANTINE, SHARES
from gateway.store.shares import NOTHING, added, log_hours


@dataclass(frozen=True, slots=True)
class Lease:
    """A GPU in an environment's hand, with an end where the policy sets one."""

    gpu: GpuUuid
    ref: EnvironmentRef
    leased_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PastLease:
    """A GPU that was given back."""

    gpu: GpuUuid
    ref: EnvironmentRef
    leased_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A GPU taken out of use until somebody lifts it."""

    gpu: GpuUuid
    reason: str
    since: datetime


class LeaseTable:
    """Rows of leases; one GPU has at most one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def held(self) -> list[Lease]:
        """Return every lease."""
        columns = (LEASES.c.gpu_uuid, LEASES.c.user, LEASES.c.name, LEASES.c.leased_at, LEASES.c.ends_at)
        with self._database.reading() as connection:
            rows = connection.execute(select(*columns).order_by(LEASES.c.leased_at)).all()
        return [
            Lease(GpuUuid(uuid), EnvironmentRef(UserName(user), EnvironmentName(name)), begin, end)
            for uuid, user, name, begin, end in rows
        ]

    def holders(self) -> dict[GpuUuid, EnvironmentRef]:
        """Return who holds which GPU, quickly: this is asked at each decision."""
        with self._database.reading() as connection:
            rows = connection.execute(select(LEASES.c.gpu_uuid, LEASES.c.user, LEASES.c.name)).all()
        refs = {(user, name): EnvironmentRef(user, name) for user, name in {(row[1], row[2]) for row in rows}}
        return {uuid: refs[user, name] for uuid, user, name in rows}

    def take(
        self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime, ends_at: datetime | None = None
    ) -> None:
        """Lease all of them or none. Raises: LeaseError `gpu.taken`, NotFoundError."""
        self._require_environment(ref)
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(LEASES), _rows(ref, uuids, at, ends_at))
        except IntegrityError as exc:
            raise LeaseError(
                "gpu.taken", f"one of {', '.join(uuids)} is leased already", "'devgw gpus' shows who holds them"
            ) from exc

    def release(self, ref: EnvironmentRef, at: datetime | None = None) -> None:
        """Give back whatever the environment holds."""
        with self._database.transaction() as connection:
            end_leases(connection, ref, at or datetime.now(UTC))

    def adopt(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> list[EnvironmentRef]:
        """Make the rows say what the engine's labels say; return the environments that lost a row by it."""
        with self._database.transaction() as connection:
            mine = (LEASES.c.user == ref.user) & (LEASES.c.name == ref.name)
            rows = connection.execute(select(LEASES).where(mine | LEASES.c.gpu_uuid.in_(uuids)))
            held = {GpuUuid(row.gpu_uuid): _ref(row) for row in rows}
            if {uuid for uuid, holder in held.items() if holder == ref} == set(uuids):
                return []
            losers = {held[uuid] for uuid in uuids if uuid in held} - {ref}
            for each in (ref, *sorted(losers)):
                end_leases(connection, each, at)
            if uuids:
                connection.execute(insert(LEASES), _rows(ref, uuids, at))
        return sorted(losers)

    def set_end(self, ref: EnvironmentRef, ends_at: datetime | None) -> bool:
        """Move the end of what an environment holds; say whether it holds anything."""
        mine = (LEASES.c.user == ref.user) & (LEASES.c.name == ref.name)
        with self._database.transaction() as connection:
            return bool(connection.execute(update(LEASES).where(mine).values(ends_at=ends_at)).rowcount)

    def past(self, since: datetime) -> list[PastLease]:
        """Return the leases that ended at or after a moment, oldest first."""
        query = select(PAST_LEASES).where(PAST_LEASES.c.ended_at >= since).order_by(PAST_LEASES.c.ended_at)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [PastLease(GpuUuid(row.gpu_uuid), _ref(row), row.leased_at, row.ended_at) for row in rows]

    def shares(self) -> dict[UserName, float]:
        """Return each user's share, as `shares` defines it."""
        with self._database.reading() as connection:
            return {UserName(row.user): row.log_hours for row in connection.execute(select(SHARES))}

    def count_shares(self, at: datetime) -> None:
        """Count what is held now into its users' shares, so that the queue's order knows it too."""
        with self._database.transaction() as connection:
            sums: dict[str, float] = {}
            for user, since in connection.execute(select(LEASES.c.user, LEASES.c.counted_until)).all():
                sums[user] = added(sums.get(user, NOTHING), log_hours(since, at))
            for user, share in sums.items():
                _add_share(connection, user, share)
            connection.execute(update(LEASES).where(LEASES.c.counted_until < at).values(counted_until=at))

    def quarantined(self) -> list[Quarantine]:
        """Return the GPUs out of use."""
        with self._database.reading() as connection:
            rows = connection.execute(select(QUARANTINE).order_by(QUARANTINE.c.since)).all()
        return [Quarantine(GpuUuid(row.gpu_uuid), row.reason, row.since) for row in rows]

    def quarantine(self, uuid: GpuUuid, reason: str, at: datetime) -> bool:
        """Take a GPU out of use; say whether it was in use before."""
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(QUARANTINE).values(gpu_uuid=uuid, reason=reason, since=at))
        except IntegrityError:
            return False
        return True

    def lift(self, uuid: GpuUuid) -> bool:
        """Put a GPU back into use; say whether it was out of it."""
        with self._database.transaction() as connection:
            return bool(connection.execute(delete(QUARANTINE).where(QUARANTINE.c.gpu_uuid == uuid)).rowcount)

    def _require_environment(self, ref: EnvironmentRef) -> None:
        query = select(ENVIRONMENTS.c.user).where((ENVIRONMENTS.c.user == ref.user) & (ENVIRONMENTS.c.name == ref.name))
        with self._database.reading() as connection:
            known = connection.execute(query).one_or_none()
        if known is None:
            raise NotFoundError("environment.not-found", f"no environment {ref}", f"'devgw create {ref}' makes one")


def end_leases(connection: Connection, ref: EnvironmentRef, at: datetime) -> None:
    """Give back what an environment holds: each lease becomes a past one and counts into its user's share."""
    mine = (LEASES.c.user == ref.user) & (LEASES.c.name == ref.name)
    for row in connection.execute(select(LEASES).where(mine)).all():
        connection.execute(
            insert(PAST_LEASES).values(
                gpu_uuid=row.gpu_uuid, user=row.user, name=row.name, leased_at=row.leased_at, ended_at=at
            )
        )
        _add_share(connection, row.user, log_hours(row.counted_until, at))
    connection.execute(delete(LEASES).where(mine))


def _add_share(connection: Connection, user: str, share: float) -> None:
    if share == NOTHING:
        return
    mine = SHARES.c.user == user
    old = connection.execute(select(SHARES.c.log_hours).where(mine)).scalar()
    if old is None:
        connection.execute(insert(SHARES).values(user=user, log_hours=share))
    else:
        connection.execute(update(SHARES).where(mine).values(log_hours=added(old, share)))


def _rows(
    ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime, ends_at: datetime | None = None
) -> list[dict[str, object]]:
    row = {"user": ref.user, "name": ref.name, "leased_at": at, "counted_until": at, "ends_at": ends_at}
    return [{"gpu_uuid": uuid, **row} for uuid in uuids]


def _ref(row: Row[tuple[object, ...]]) -> EnvironmentRef:
    return EnvironmentRef(UserName(row.user), EnvironmentName(row.name))
