"""What is measured of GPUs, and who holds them: gauges of one moment."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime

from gateway.gpus.reading import Reading
from gateway.gpus.sensors import Measurement, Sensors
from gateway.metrics import families
from gateway.metrics.families import AnyFamily
from gateway.model import GpuUuid
from gateway.store.leases import Lease
from gateway.store.queue import Waiter


class GpuNames:
    """The labels of each GPU and slice: its GPU's UUID, as dcgm-exporter has it, and the slice's own or nothing."""

    def __init__(self, sensors: Sensors) -> None:
        self._parents = {device.uuid: device.parent for device in sensors.devices}

    def labels(self, uuid: str) -> tuple[str, str]:
        """Return (UUID, slice). A slice whose GPU nobody names stands for itself."""
        parent = self._parents.get(GpuUuid(uuid))
        return (uuid, "") if parent is None else (parent, uuid)


def measured(sensors: Sensors, names: GpuNames) -> Iterator[AnyFamily]:
    """Yield load, memory, power and temperature; what the driver does not tell has no sample."""
    info = families.GPU.new()
    made = {one.name: one.new() for one in (
        families.UTILIZATION, families.MEMORY_USED, families.MEMORY_SIZE, families.POWER, families.TEMPERATURE,
    )}  # fmt: skip
    for device in sensors.devices:
        labels = names.labels(device.uuid)
        info.add_metric([*labels, device.index, device.name], 1)
        for name, value in _values(device).items():
            if value is not None:
                made[name].add_metric(labels, value)
    yield from (info, *made.values())


def _values(device: Measurement) -> Mapping[str, float | None]:
    load = device.utilisation_percent
    return {
        families.UTILIZATION.name: None if load is None else load / 100,
        families.MEMORY_USED.name: device.memory_used_bytes,
        families.MEMORY_SIZE.name: device.memory_total_bytes,
        families.POWER.name: device.power_watts,
        families.TEMPERATURE.name: device.temperature_celsius,
    }


def leased(
    reading: Reading, held: Iterable[Lease], quarantined: Collection[GpuUuid], names: GpuNames
) -> Iterator[AnyFamily]:
    """Yield who holds what since when, and how many GPUs are free, leased and out of use."""
    info, start, end = families.LEASE.new(), families.LEASE_START.new(), families.LEASE_END.new()
    taken: set[GpuUuid] = set()
    for lease in held:
        labels = names.labels(lease.gpu)
        taken.add(lease.gpu)
        info.add_metric([*labels, lease.ref.user, str(lease.ref)], 1)
        start.add_metric(labels, lease.leased_at.timestamp())
        if lease.ends_at is not None:
            end.add_metric(labels, lease.ends_at.timestamp())
    there = {gpu.uuid for gpu in reading.gpus}
    states = families.GPUS.new()
    states.add_metric(["leased"], len(taken))
    states.add_metric(["quarantined"], len(set(quarantined) - taken))
    states.add_metric(["free"], len(there - taken - set(quarantined)))
    yield from (info, start, end, states)


def queue(waiting: Collection[Waiter], now: datetime) -> Iterator[AnyFamily]:
    """Yield how many wait, and for how long the first of them has."""
    oldest = max(((now - waiter.asked_at).total_seconds() for waiter in waiting), default=0.0)
    yield families.QUEUE_LENGTH.of(len(waiting))
    yield families.QUEUE_OLDEST.of(max(0.0, oldest))
