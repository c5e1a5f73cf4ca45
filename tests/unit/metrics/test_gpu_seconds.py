"""GPU seconds grow with time and use, and never shrink."""

from datetime import timedelta

from gateway.metrics.gpu_seconds import GpuSeconds
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.leases import Lease, PastLease
from gateway.store.usage import Sample
from tests.unit.metrics.records import NOON

ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob+work")
ONE, TWO = GpuUuid("GPU-1"), GpuUuid("GPU-2")
MINUTE = timedelta(minutes=1)


def sums(seconds: GpuSeconds) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix("devgw_gpu_").removesuffix("_seconds_total"), sample.labels["user"]): sample.value
        for family in seconds.families()
        for sample in family.samples
    }


def test_a_lease_counts_from_the_beginning_of_the_count_and_an_ended_one_to_its_end() -> None:
    ended = [PastLease(TWO, BOB, NOON + MINUTE, NOON + 3 * MINUTE)]
    seconds = GpuSeconds(lambda since: [one for one in ended if one.ended_at >= since], lambda *_: [], NOON)
    held = [Lease(ONE, ALICE, NOON - 60 * MINUTE)]
    for minute in (2, 4, 6):
        seconds.look(held, NOON + minute * MINUTE)
    assert sums(seconds)["leased", "alice"] == 360
    assert sums(seconds)["leased", "bob"] == 120 - 0  # between two looks, and counted all the same


def test_used_seconds_are_what_was_added_to_the_samples_since() -> None:
    rows = {NOON: 100.0}
    seconds = GpuSeconds(lambda _since: [], lambda _s, _u: [Sample(ONE, ALICE, h, 60, b, 0) for h, b in rows.items()],
                         NOON)  # fmt: skip
    rows[NOON] = 130.0
    seconds.look([], NOON + MINUTE)
    rows[NOON + 60 * MINUTE] = 5.0
    seconds.look([], NOON + 61 * MINUTE)
    assert sums(seconds)["used", "alice"] == 35


def test_a_clock_set_back_counts_nothing_twice() -> None:
    seconds = GpuSeconds(lambda _since: [], lambda *_: [], NOON)
    held = [Lease(ONE, ALICE, NOON - MINUTE)]
    for minute in (5, 2, 6):
        seconds.look(held, NOON + minute * MINUTE)
    assert sums(seconds)["leased", "alice"] == 360
