"""What is counted of the journal's records."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.core import CounterMetricFamily

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.metrics.event_counts import EventCounts
from gateway.model import Actor
from tests.support.ssh_clients import poll
from tests.unit.metrics.records import NOON, record

ALICE = Actor("user", "alice", "SHA256:" + "a" * 43, "192.0.2.7")


@pytest.fixture
def counts() -> EventCounts:
    return EventCounts(NOON)


def samples(counts: EventCounts) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in counts.collect(lambda uuid: (uuid, ""))
        for sample in family.samples
    }


def test_decisions_and_logins_are_counted_by_outcome(counts: EventCounts) -> None:
    for code in ("login.allowed", "login.allowed", "login.denied", "login.refused", "forward.denied"):
        counts.count(record(code))
    found = samples(counts)
    assert [found["devgw_logins_total", result] for result in ("allowed", "denied", "refused")] == [2, 1, 1]
    assert found["devgw_decisions_total", "forward", "denied"] == 1
    assert found["devgw_decisions_total", "create", "denied"] == 0  # there from the beginning: rate() needs its 0


def test_a_record_of_many_refusals_counts_for_as_many(counts: EventCounts) -> None:
    """The event budget writes one record for what it counted."""
    counts.count(record("login.refused", count=412))
    assert samples(counts)["devgw_logins_total", "refused"] == 412


def test_an_unknown_code_has_no_series_of_its_own(counts: EventCounts) -> None:
    """A journal of a newer gateway costs one series, however many codes it has."""
    for number in range(100):
        counts.count(record(f"new.thing{number}"))
    found = samples(counts)
    assert found["devgw_journal_events_total", "other"] == 100
    assert not [key for key in found if any("thing" in part for part in key)]


def test_bytes_flow_into_the_sum_while_a_connection_lives_and_are_counted_once(counts: EventCounts) -> None:
    counts.saw_connections([("c1", 100, 10)])
    counts.saw_connections([("c1", 150, 10)])
    counts.count(record("connection.closed", connection="c1", sent_bytes=170, received_bytes=11))
    counts.saw_connections([("c1", 150, 10)])  # its row outlasts it by a moment
    found = samples(counts)
    assert (found["devgw_connection_bytes_total", "sent"], found["devgw_connection_bytes_total", "received"]) == (
        170,
        11,
    )


def test_a_killed_workers_connections_are_forgotten_and_a_slow_record_still_counts_once(counts: EventCounts) -> None:
    counts.saw_connections([("c1", 100, 0), ("c2", 5, 0)])
    counts.forget_lost({"c2"})
    counts.count(record("connection.closed", connection="c1", sent_bytes=100, received_bytes=0))
    assert samples(counts)["devgw_connection_bytes_total", "sent"] == 105
    counts.saw_connections([("c3", 1, 0)])
    for _look in range(2):
        counts.forget_lost(set())
    assert not counts._seen


def test_channels_are_counted_by_kind_when_they_end(counts: EventCounts) -> None:
    counts.count(record("session.closed", kind="exec", sent_bytes=7, received_bytes=3))
    counts.count(record("forward.closed", kind="forward", sent_bytes=1, received_bytes=2))
    found = samples(counts)
    assert found["devgw_channel_bytes_total", "exec", "sent"] == 7
    assert found["devgw_channel_bytes_total", "forward", "received"] == 2


def test_histograms_count_each_bucket_with_those_below(counts: EventCounts) -> None:
    for seconds in (0.05, 0.7, 400.0):
        counts.count(record("environment.woken", seconds=seconds))
    found = samples(counts)
    buckets = [found["devgw_environment_wake_seconds_bucket", edge] for edge in ("0.1", "0.5", "1.0", "120.0", "+Inf")]
    assert buckets == [1, 1, 2, 2, 3]
    assert found["devgw_environment_wake_seconds_sum",] == 400.75


def test_the_wait_in_the_queue_ends_with_the_lease(counts: EventCounts) -> None:
    counts.count(record("lease.queued"))
    counts.count(record("lease.queued", at=NOON + timedelta(minutes=1)))  # asked again: it waits since the first time
    counts.count(record("lease.granted", at=NOON + timedelta(minutes=5)))
    counts.count(record("lease.granted", at=NOON + timedelta(minutes=6), environment="bob"))  # never waited
    found = samples(counts)
    assert found["devgw_gpu_queue_wait_seconds_count",] == 1
    assert found["devgw_gpu_queue_wait_seconds_sum",] == 300


def test_counters_are_counters(counts: EventCounts) -> None:
    kinds = {family.name: type(family) for family in counts.collect(lambda uuid: (uuid, ""))}
    assert kinds["devgw_logins"] is CounterMetricFamily


def test_records_of_any_process_are_counted_as_they_are_written(counts: EventCounts, tmp_path: Path) -> None:
    """Two journals, as two workers have; what stood there before is not counted."""
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.append(Event("login.allowed", ALICE))
    stop, looked = threading.Event(), threading.Event()

    def wait() -> bool:
        looked.set()
        return not stop.wait(0.02)

    thread = threading.Thread(target=counts.follow, args=(tmp_path, wait))
    thread.start()
    assert looked.wait(10)
    for journal in (first, second):
        journal.append(Event("login.allowed", ALICE))
    poll(lambda: samples(counts)["devgw_logins_total", "allowed"] == 2, "two logins counted")
    stop.set()
    thread.join(10)
    for journal in (first, second):
        journal.close()
