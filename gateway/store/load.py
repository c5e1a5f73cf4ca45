"""Processor time and memory as rows, one for each environment and hour; see `environments.load_sampler`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, case, delete, insert, select, update

from gateway.model import EnvironmentName, EnvironmentRef, UserName
from gateway.store.database import Database
from gateway.store.schema import ENVIRONMENTS, LOAD_SAMPLES
from gateway.store.usage import HOUR


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What one environment used in one hour. `cpu_seconds` were used within `observed_seconds`."""

    ref: EnvironmentRef
    hour: datetime
    observed_seconds: float
    cpu_seconds: float
    memory_peak_bytes: int


class LoadTable:
    """Rows of samples. They go with their environment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, samples: Sequence[LoadSample]) -> None:
        """Add to the rows of the same environment and hour, or begin them; of one that was deleted there are none."""
        column = LOAD_SAMPLES.c
        with self._database.transaction() as connection:
            for sample in samples:
                mine = {"user": sample.ref.user, "name": sample.ref.name, "hour": sample.hour}
                more = sample.memory_peak_bytes
                grown = connection.execute(
                    update(LOAD_SAMPLES)
                    .where(*(column[name] == value for name, value in mine.items()))
                    .values(
                        observed_seconds=column.observed_seconds + sample.observed_seconds,
                        cpu_seconds=column.cpu_seconds + sample.cpu_seconds,
                        memory_peak_bytes=case((column.memory_peak_bytes < more, more), else_=column.memory_peak_bytes),
                    )
                )
                if grown.rowcount == 0 and connection.execute(_known(sample.ref)).first() is not None:
                    first = {"observed_seconds": sample.observed_seconds, "cpu_seconds": sample.cpu_seconds}
                    connection.execute(insert(LOAD_SAMPLES).values(**mine, **first, memory_peak_bytes=more))

    def between(self, since: datetime, until: datetime, user: str) -> list[LoadSample]:
        """Return a user's rows whose hour touches the time between two moments, oldest first."""
        query = (
            select(LOAD_SAMPLES)
            .where(LOAD_SAMPLES.c.user == user, LOAD_SAMPLES.c.hour > since - HOUR, LOAD_SAMPLES.c.hour < until)
            .order_by(LOAD_SAMPLES.c.hour)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            LoadSample(
                EnvironmentRef(UserName(row.user), EnvironmentName(row.name)),
                row.hour,
                row.observed_seconds,
                row.cpu_seconds,
                row.memory_peak_bytes,
            )
            for row in rows
        ]

    def forget(self, before: datetime) -> None:
        """Remove the rows of hours before a moment."""
        with self._database.transaction() as connection:
            connection.execute(delete(LOAD_SAMPLES).where(LOAD_SAMPLES.c.hour < before))


def _known(ref: EnvironmentRef) -> Select[tuple[str]]:
    return select(ENVIRONMENTS.c.name).where(ENVIRONMENTS.c.user == ref.user, ENVIRONMENTS.c.name == ref.name)
