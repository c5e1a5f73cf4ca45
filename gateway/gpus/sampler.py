"""Measures leased GPUs again and again and adds what it saw to the account. `app` calls it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from gateway.gpus.sensors import Measurement, Measuring
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.usage import Sample


class Held(Protocol):
    """A lease: which GPU, and whose."""

    @property
    def gpu(self) -> GpuUuid: ...

    @property
    def ref(self) -> EnvironmentRef: ...


class Account(Protocol):
    """Where samples are added up."""

    def add(self, samples: Sequence[Sample]) -> None:
        """Add to what is known of the same GPU, environment and hour."""


class Sampler:
    """One look at a time.

    A look stands for the time since the one before it, but for no more than two intervals: what happened while nobody
    looked, as when the gateway was down, stays unobserved.
    """

    def __init__(
        self,
        sensors: Measuring,
        holders: Callable[[], Mapping[GpuUuid, EnvironmentRef]],
        account: Account,
        interval_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sensors = sensors
        self._holders = holders
        self._account = account
        self._interval_seconds = interval_seconds
        self._now = now
        self._looked_at: datetime | None = None

    def look(self) -> None:
        """Measure every leased GPU and add it to the account; the first look only starts the clock."""
        now, before = self._now(), self._looked_at
        self._looked_at = now
        if before is None:
            return
        seconds = min((now - before).total_seconds(), 2 * self._interval_seconds)
        holders = self._holders()
        if holders and seconds > 0:
            self._account.add(list(_samples(self._sensors.read().devices, holders, now, seconds)))


def holders_of(leases: Sequence[Held]) -> dict[GpuUuid, EnvironmentRef]:
    """Return who holds which GPU."""
    return {lease.gpu: lease.ref for lease in leases}


def _samples(
    devices: Sequence[Measurement], holders: Mapping[GpuUuid, EnvironmentRef], now: datetime, seconds: float
) -> Iterator[Sample]:
    for device in devices:
        if device.uuid not in holders:
            continue
        load = device.utilisation_percent
        yield Sample(
            gpu=device.uuid,
            ref=holders[device.uuid],
            hour=now.replace(minute=0, second=0, microsecond=0),
            observed_seconds=0.0 if load is None else seconds,
            busy_seconds=0.0 if load is None else seconds * load / 100,
            memory_peak_bytes=device.memory_used_bytes or 0,
        )
