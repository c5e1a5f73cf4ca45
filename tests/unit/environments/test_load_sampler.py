"""Load over hours: each look counts for the time since the one before, and what is kept is one row an hour."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.engines.interface import Load
from gateway.environments.load_sampler import LoadSampler
from gateway.errors import EngineError
from gateway.model import EnvironmentRef
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.load import LoadSample, LoadTable
from gateway.store.users import Users
from tests.support.started_environment import started

START = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
HOUR = START.replace(minute=0)
ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")


class Bench:
    """A sampler with a clock in hand, and what the engine says of each environment."""

    def __init__(self, directory: Path) -> None:
        self.now = START
        self.loads: dict[EnvironmentRef, Load | EngineError | None] = {ALICE: Load(100.0, 5)}
        database = Database(f"sqlite:///{directory / 'devgw.db'}")
        self.environments, self.table = EnvironmentTable(database), LoadTable(database)
        for ref in (ALICE, BOB):
            Users(database).ensure(ref.user, uid_start=200_000)
            self.environments.add(started(ref))
        self.sampler = LoadSampler(lambda: list(self.loads), self.ask, self.table, 60, now=lambda: self.now)

    def ask(self, ref: EnvironmentRef) -> Load | None:
        found = self.loads[ref]
        if isinstance(found, EngineError):
            raise found
        return found

    def look_after(self, seconds: float, cpu_seconds: float, memory_bytes: int = 5) -> None:
        self.now += timedelta(seconds=seconds)
        self.loads[ALICE] = Load(cpu_seconds, memory_bytes)
        self.sampler.look()

    def rows(self, ref: EnvironmentRef = ALICE) -> list[LoadSample]:
        return self.table.between(START - timedelta(hours=2), self.now + timedelta(hours=1), ref.user)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_looks_of_one_hour_are_one_row(bench: Bench) -> None:
    """Seconds are added up, and of memory the peak is kept; the first look only starts the clock."""
    bench.look_after(0, 100.0, 7)
    bench.look_after(60, 130.0, 9)
    bench.look_after(60, 140.0, 8)
    assert bench.rows() == [LoadSample(ALICE, HOUR, 120.0, 40.0, 9)]


def test_another_hour_is_another_row_and_another_user_sees_neither(bench: Bench) -> None:
    bench.look_after(0, 100.0)
    bench.look_after(31 * 60 - 60, 100.0)
    bench.look_after(60, 106.0)
    assert [(row.hour, row.cpu_seconds) for row in bench.rows()] == [(HOUR, 0.0), (HOUR + timedelta(hours=1), 6.0)]
    assert bench.rows(BOB) == []


def test_an_environment_that_started_anew_counts_from_its_start(bench: Bench) -> None:
    bench.look_after(0, 100.0)
    bench.look_after(60, 3.0)
    assert bench.rows()[0].cpu_seconds == 3.0


@pytest.mark.parametrize(("gap", "observed"), [(119, 119.0), (121, 0.0), (-5, 0.0)])
def test_time_that_nobody_looked_stays_unobserved(bench: Bench, gap: float, observed: float) -> None:
    """A gateway that was down, a host that slept, a clock that was set back."""
    bench.look_after(0, 100.0)
    bench.look_after(gap, 110.0)
    assert sum(row.observed_seconds for row in bench.rows()) == observed
    assert sum(row.cpu_seconds for row in bench.rows()) == (10.0 if observed else 0.0)


def test_one_that_cannot_be_asked_costs_no_other_its_count(bench: Bench) -> None:
    """It is left out; with an engine that is away nothing is asked any further."""
    bench.loads = {BOB: EngineError("engine.failed", "no"), ALICE: Load(1.0, 5)}
    bench.sampler.look()
    assert [row.ref for row in bench.rows()] == [ALICE]
    bench.loads = {BOB: EngineError("engine.unreachable", "away"), ALICE: Load(1.0, 5)}
    with pytest.raises(EngineError, match="away"):
        bench.sampler.look()


def test_rows_go_with_their_environment_and_come_with_none(bench: Bench) -> None:
    """Whoever has the name next sees nothing of the one before; one that is deleted while it is asked costs nobody."""
    bench.look_after(0, 100.0)
    bench.environments.remove(ALICE)
    assert bench.rows() == []
    bench.loads[BOB] = Load(1.0, 5)
    bench.look_after(60, 110.0)
    assert (bench.rows(), [row.ref for row in bench.rows(BOB)]) == ([], [BOB])


def test_what_is_old_is_forgotten(bench: Bench) -> None:
    bench.look_after(0, 100.0)
    bench.look_after(3600, 100.0)
    bench.table.forget(HOUR + timedelta(hours=1))
    assert [row.hour for row in bench.rows()] == [HOUR + timedelta(hours=1)]
