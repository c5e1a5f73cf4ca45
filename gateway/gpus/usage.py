"""GPU-hours leased and used, counted from leases and samples. Pure: rows come in, sums go out.

A lease counts from the moment it is taken to the moment it is given back, whatever runs. Used are those of its seconds
in which the GPU computed, by the driver's own measure; a slice has none (NVML), so what it used stays unknown.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.usage import HOUR, Sample

Grouping = Literal["user", "environment", "gpu"]


@dataclass(frozen=True, slots=True)
class Span:
    """One GPU in one environment's hand; `until` is None while it is."""

    gpu: GpuUuid
    ref: EnvironmentRef
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """One line of the account. What was used is known for `observed_seconds` only; None where nothing was observed."""

    key: str
    leases: int
    leased_seconds: float
    observed_seconds: float
    used_seconds: float | None
    memory_peak_bytes: int | None


@dataclass(slots=True)
class _Sum:
    leases: int = 0
    leased_seconds: float = 0.0
    observed_seconds: float = 0.0
    busy_seconds: float = 0.0
    memory_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """The time that is counted, and the moment at which it is counted: an hour that is not over is as long as it is."""

    since: datetime
    until: datetime
    now: datetime

    def seconds_of(self, begin: datetime, end: datetime | None) -> float:
        """Return how much of a time lies within the period."""
        last = min(end or self.now, self.until, self.now)
        return max(0.0, (last - max(begin, self.since)).total_seconds())

    def share_of(self, hour: datetime) -> float:
        """Return the part of an hour, as far as it has passed, that lies within the period."""
        passed = (min(hour + HOUR, self.now) - hour).total_seconds()
        return self.seconds_of(hour, hour + HOUR) / passed if passed > 0 else 0.0


def account(spans: Iterable[Span], samples: Iterable[Sample], period: Period, by: Grouping) -> list[Usage]:
    """Add up what lies within a period, most leased first. An hour that the period cuts counts by its share."""
    sums: defaultdict[str, _Sum] = defaultdict(_Sum)
    for span in spans:
        seconds = period.seconds_of(span.since, span.until)
        if seconds > 0:
            total = sums[_key(span.gpu, span.ref, by)]
            total.leases += 1
            total.leased_seconds += seconds
    for sample in samples:
        share = period.share_of(sample.hour)
        if share > 0:
            total = sums[_key(sample.gpu, sample.ref, by)]
            total.observed_seconds += share * sample.observed_seconds
            total.busy_seconds += share * sample.busy_seconds
            total.memory_peak_bytes = max(total.memory_peak_bytes or 0, sample.memory_peak_bytes)
    lines = [_usage(key, total) for key, total in sums.items()]
    return sorted(lines, key=lambda line: (-line.leased_seconds, line.key))


def _usage(key: str, total: _Sum) -> Usage:
    used = total.busy_seconds if total.observed_seconds else None
    return Usage(key, total.leases, total.leased_seconds, total.observed_seconds, used, total.memory_peak_bytes)


def _key(gpu: GpuUuid, ref: EnvironmentRef, by: Grouping) -> str:
    keys: dict[Grouping, str] = {"user": ref.user, "environment": str(ref), "gpu": gpu}
    return keys[by]
