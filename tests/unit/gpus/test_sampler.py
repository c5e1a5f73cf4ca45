"""The sampler: each look stands for the time since the last, and never for time nobody looked."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from gateway.gpus.sampler import Sampler
from gateway.gpus.sensors import Measurement, Sensors
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.database import Database
from gateway.store.usage import Sample, UsageTable

START = datetime(2026, 11, 1, 12, 59, 30, tzinfo=UTC)
NOON = START.replace(minute=0, second=0)
ALICE = EnvironmentRef.parse("alice")
GPU, SLICE, FREE = (GpuUuid(name) for name in ("GPU-1", "MIG-1", "GPU-2"))


class Bench:
    """A sampler with a clock in hand, a card at 50 %, a slice, and a card that nobody holds."""

    def __init__(self) -> None:
        self.now = START
        self.holders = {GPU: ALICE, SLICE: ALICE}
        self.samples: list[Sample] = []
        self.sampler = Sampler(self, lambda: self.holders, self, 15, now=lambda: self.now)

    def read(self) -> Sensors:
        card = Measurement(GPU, "H200", "0", utilisation_percent=50, memory_used_bytes=100)
        piece = Measurement(SLICE, "H200", "1:0", parent=GpuUuid("GPU-9"), memory_used_bytes=10)
        return Sensors("570", "12.8", (card, piece, Measurement(FREE, "H200", "2", utilisation_percent=99)))

    def add(self, samples: Sequence[Sample]) -> None:
        self.samples += samples

    def look_after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.sampler.look()


def test_a_look_stands_for_the_time_since_the_one_before() -> None:
    """The first one only starts the clock; only what is leased is measured."""
    bench = Bench()
    bench.look_after(0)
    assert bench.samples == []
    bench.look_after(15)
    assert bench.samples == [Sample(GPU, ALICE, NOON, 15, 7.5, 100), Sample(SLICE, ALICE, NOON, 0, 0, 10)]


def test_a_look_after_the_hour_counts_to_the_next() -> None:
    bench = Bench()
    bench.look_after(0)
    bench.look_after(31)
    assert {sample.hour for sample in bench.samples} == {NOON + timedelta(hours=1)}


@pytest.mark.parametrize(("gap", "observed"), [(29, 29), (3600, 30), (-5, None)])
def test_time_nobody_looked_stays_unobserved(gap: float, observed: float | None) -> None:
    """A suspended host, a gateway that was busy, a clock that was set back."""
    bench = Bench()
    bench.look_after(0)
    bench.look_after(gap)
    assert [sample.observed_seconds for sample in bench.samples[:1]] == ([] if observed is None else [observed])


def test_nothing_leased_asks_nothing() -> None:
    bench = Bench()
    bench.holders = {}
    bench.look_after(0)
    bench.look_after(15)
    assert bench.samples == []


def test_samples_of_an_hour_add_up_in_the_store_and_old_ones_are_forgotten(database_url: str) -> None:
    """One row for each GPU, environment and hour, however often it is measured."""
    database = Database(database_url)
    table = UsageTable(database)
    later = NOON + timedelta(hours=1)
    table.add([Sample(GPU, ALICE, NOON, 15, 7.5, 100), Sample(GPU, ALICE, later, 15, 15, 1)])
    table.add([Sample(GPU, ALICE, NOON, 15, 3, 40)])
    assert table.between(NOON, later) == [Sample(GPU, ALICE, NOON, 30, 10.5, 100)]
    assert len(table.between(NOON, later + timedelta(seconds=1))) == 2
    assert table.between(later + timedelta(hours=1), later + timedelta(hours=2)) == []
    table.forget(later)
    assert [sample.hour for sample in table.between(NOON, later + timedelta(hours=1))] == [later]
    database.close()
