"""Samples of use as rows, one for each GPU, environment and hour. Counting them is `gpus.usage`'s."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update

from gateway.model import EnvironmentName, EnvironmentRef, GpuUuid, UserName
from gateway.store.database import Database
from gateway.store.schema import USAGE_SAMPLES

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured of one GPU in one environment's hand, summed over one hour.

    `observed_seconds` are those for which the driver told a utilisation, `busy_seconds` their share of computing.
    """

    gpu: GpuUuid
    ref: EnvironmentRef
    hour: datetime
    observed_seconds: float
    busy_seconds: float
    memory_peak_bytes: int


class UsageTable:
    """Rows of samples. They outlive the environments and users they tell of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, samples: Sequence[Sample]) -> None:
        """Add to the rows of the same GPU, environment and hour, or begin them."""
        columns = USAGE_SAMPLES.c
        with self._database.transaction() as connection:
            for sample in samples:
                key = {
                    "gpu_uuid": sample.gpu, "user": sample.ref.user, "name": sample.ref.name, "hour": sample.hour,
                }  # fmt: skip
                mine = [columns[name] == value for name, value in key.items()]
                peak = connection.execute(select(columns.memory_peak_bytes).where(*mine)).scalar_one_or_none()
                if peak is None:
                    first = {"observed_seconds": sample.observed_seconds, "busy_seconds": sample.busy_seconds}
                    connection.execute(
                        insert(USAGE_SAMPLES).values(**key, **first, memory_peak_bytes=sample.memory_peak_bytes)
                    )
                    continue
                connection.execute(
                    update(USAGE_SAMPLES)
                    .where(*mine)
                    .values(
                        observed_seconds=columns.observed_seconds + sample.observed_seconds,
                        busy_seconds=columns.busy_seconds + sample.busy_seconds,
                        memory_peak_bytes=max(peak, sample.memory_peak_bytes),
                    )
                )

    def between(self, since: datetime, until: datetime, user: str | None = None) -> list[Sample]:
        """Return the rows whose hour touches the time between two moments, of all or of one user."""
        query = (
            select(USAGE_SAMPLES)
            .where(USAGE_SAMPLES.c.hour > since - HOUR, USAGE_SAMPLES.c.hour < until)
            .order_by(USAGE_SAMPLES.c.hour)
        )
        if user is not None:
            query = query.where(USAGE_SAMPLES.c.user == user)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            Sample(
                GpuUuid(row.gpu_uuid),
                EnvironmentRef(UserName(row.user), EnvironmentName(row.name)),
                row.hour,
                row.observed_seconds,
                row.busy_seconds,
                row.memory_peak_bytes,
            )
            for row in rows
        ]

    def forget(self, before: datetime) -> None:
        """Remove the rows of hours before a moment."""
        with self._database.transaction() as connection:
            connection.execute(delete(USAGE_SAMPLES).where(USAGE_SAMPLES.c.hour < before))
