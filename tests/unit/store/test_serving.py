"""Several gateways on one database: each is heard, none sweeps what is another's, and a silent one serves no more."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.errors import ConflictError
from gateway.model import UserName
from gateway.process.ownership import SILENT_SECONDS, Liveness, this_process
from gateway.store.database import Database
from gateway.store.serving import ServingTable
from gateway.store.sessions import LiveSession, LiveSessionTable, Owner

ALICE = LiveSession("a1", "alice", "SHA256:x", "192.0.2.7", "alice", (), 1, 2, datetime.now(UTC))
ELSEWHERE = Owner(4711, 99, "another-boot")
"""A process of another host: whether it runs cannot be looked up here."""


class Clocked(ServingTable):
    """Rows that are older than they are."""

    aged_seconds = 0.0

    def all(self):
        return [replace(one, silent_seconds=one.silent_seconds + self._age(one.owner)) for one in super().all()]

    def _age(self, owner: Owner) -> float:
        return self.aged_seconds if owner == ELSEWHERE else 0.0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def table_of(database: Database, liveness: Liveness) -> LiveSessionTable:
    return LiveSessionTable(database, liveness.is_alive, liveness.is_forgotten)


def test_sessions_of_another_gateway_are_seen_counted_and_left_alone(database: Database) -> None:
    """Of one that serves on another host, until it has been silent; even then its rows are its own to sweep."""
    serving = Clocked(database)
    here = Liveness("here", serving)
    table = table_of(database, here)
    here.begin()
    serving.beat(ELSEWHERE, "there")
    table.publish(ELSEWHERE, [ALICE], (), ())
    assert table.count_of_others(this_process(), UserName("alice")) == 1
    table.ask_to_end(table.all(), "out")
    assert table.to_end(ELSEWHERE) == {"a1": "out"}
    table.sweep()
    assert [one.owner for one in table.all()] == [ELSEWHERE]
    serving.aged_seconds = SILENT_SECONDS + 1
    table.sweep()
    assert table.all() == []
    serving.aged_seconds = 0.0
    assert [one.owner for one in table.all()] == [ELSEWHERE], "it was only cut off, and its rows are there"
    serving.aged_seconds = 2 * 86400.0
    table.sweep()
    serving.aged_seconds = 0.0
    assert table.all() == []


def test_a_gateway_that_was_not_heard_is_known_again_and_told_that_it_was_forgotten(database: Database) -> None:
    """So that it publishes anew what others swept."""
    serving = ServingTable(database)
    assert [serving.beat(ELSEWHERE, "there") for _ in range(2)] == [False, True]
    serving.forget(ELSEWHERE)
    assert serving.beat(ELSEWHERE, "there") is False


def test_a_name_that_another_host_serves_under_is_refused(database: Database) -> None:
    """Until that one is silent; the same name on this host is another worker's."""
    serving = Clocked(database)
    serving.beat(ELSEWHERE, "lab")
    with pytest.raises(ConflictError) as refused:
        Liveness("lab", serving).begin()
    assert refused.value.code == "site.instance-taken"
    serving.aged_seconds = SILENT_SECONDS + 1
    Liveness("lab", serving).begin()
    Liveness("lab", serving).begin()


def test_a_process_of_this_gateway_that_was_killed_is_dead_at_once(database: Database) -> None:
    """No silence is waited for where the process can be looked at."""
    serving = ServingTable(database)
    here = Liveness("here", serving)
    killed = this_process()._replace(started=1)
    serving.beat(killed, "here")
    assert not here.is_alive(killed)
    assert here.is_forgotten(killed)
    here.begin()
    assert [one.owner for one in serving.all()] == [this_process()]
