"""The account: hours leased and used, cut to a period, by user, environment or GPU."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.gpus.usage import Grouping, Period, Span, account
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.usage import Sample

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALICE, PROJECT, BOB = (EnvironmentRef.parse(handle) for handle in ("alice", "alice+proj", "bob"))
ONE, TWO = GpuUuid("GPU-1"), GpuUuid("GPU-2")


def hours(*, since: float, until: float, now: float = 48) -> Period:
    """Return a period in hours from noon."""
    return Period(NOON + since * HOUR, NOON + until * HOUR, NOON + now * HOUR)


def span(ref: EnvironmentRef, begin: float, end: float | None, gpu: GpuUuid = ONE) -> Span:
    return Span(gpu, ref, NOON + begin * HOUR, None if end is None else NOON + end * HOUR)


def sample(ref: EnvironmentRef, hour: float, busy: float, observed: float = 3600, gpu: GpuUuid = ONE) -> Sample:
    return Sample(gpu, ref, NOON + hour * HOUR, observed, busy, 7)


@pytest.mark.parametrize(
    ("begin", "end", "period", "leased"),
    [
        # within, around, over either edge, outside, at the edge
        (1, 3, hours(since=0, until=10), 2),
        (-5, 20, hours(since=0, until=10), 10),
        (-2, 3, hours(since=0, until=10), 3),
        (8, 12, hours(since=0, until=10), 2),
        (-4, -1, hours(since=0, until=10), None),
        (10, 12, hours(since=0, until=10), None),
        # still held: up to the period's end, and never beyond now
        (4, None, hours(since=0, until=10), 6),
        (4, None, hours(since=0, until=10, now=7), 3),
    ],
)
def test_a_lease_counts_for_what_lies_within_the_period(
    begin: float, end: float | None, period: Period, leased: float | None
) -> None:
    lines = account([span(ALICE, begin, end)], [], period, "user")
    assert [line.leased_seconds / 3600 for line in lines] == ([] if leased is None else [leased])


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("user", [("alice", 5.0, 3), ("bob", 1.0, 1)]),
        ("environment", [("alice", 4.0, 2), ("alice+proj", 1.0, 1), ("bob", 1.0, 1)]),
        ("gpu", [("GPU-1", 4.0, 3), ("GPU-2", 2.0, 1)]),
    ],
)
def test_lines_stand_for_users_environments_or_gpus(by: Grouping, keys: list[tuple[str, float, int]]) -> None:
    """Most leased first. Two GPUs for an hour are two GPU-hours."""
    spans = [span(ALICE, 0, 2), span(ALICE, 0, 2, TWO), span(PROJECT, 2, 3), span(BOB, 3, 4)]
    lines = account(spans, [], hours(since=0, until=24), by)
    assert [(line.key, line.leased_seconds / 3600, line.leases) for line in lines] == keys


def test_used_is_what_was_observed_and_unknown_where_nothing_was() -> None:
    """A slice has memory and no load: nothing was observed, so nothing is known to be used."""
    samples = [sample(ALICE, 0, 1800), sample(ALICE, 1, 900), sample(BOB, 0, 0, observed=0, gpu=TWO)]
    alice, bob = account([span(ALICE, 0, 2), span(BOB, 0, 2, TWO)], samples, hours(since=0, until=24), "user")
    assert (alice.used_seconds, alice.observed_seconds, alice.memory_peak_bytes) == (2700, 7200, 7)
    assert (bob.used_seconds, bob.observed_seconds, bob.memory_peak_bytes) == (None, 0, 7)


@pytest.mark.parametrize(
    ("period", "used"),
    [
        (hours(since=0, until=24), 1800),
        (hours(since=0.5, until=24), 900),
        (hours(since=0, until=0.25), 450),
        (hours(since=1, until=24), None),
        # the hour is not over: what was measured is all that there is
        (hours(since=0, until=0.5, now=0.5), 1800),
        (hours(since=0.25, until=0.5, now=0.5), 900),
    ],
)
def test_an_hour_that_the_period_cuts_counts_by_its_share(period: Period, used: float | None) -> None:
    lines = account([span(ALICE, -1, None)], [sample(ALICE, 0, 1800)], period, "user")
    assert lines[0].used_seconds == (None if used is None else pytest.approx(used))
